"""The importer needs torch and numpy, nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files.checking.zoo import export_model

ROOT = Path(__file__).parents[2]
S = mx.sym

# torch, and what it requires
TORCH = ("torch", "functorch", "torchgen", "typing_extensions", "sympy", "mpmath", "networkx",
         "jinja2", "markupsafe", "fsspec", "filelock", "setuptools", "pkg_resources",
         "_distutils_hack", "packaging")  # fmt: skip


def blocker(*allowed: str) -> str:
    """Code that refuses every import from outside the standard library but of torch and these."""
    return f"""
import sys
ALLOWED = {(*TORCH, *allowed)}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocker())
"""


# `gluon_cnn_parity` is this distribution's, and needs the standard library alone.
BLOCKER = blocker("mxnet_files", "gluon_cnn_parity", "numpy")
USE = """
import sys, torch
from mxnet_files import load_symbol
module = load_symbol(sys.argv[1], sys.argv[2])
x = torch.load(sys.argv[3], weights_only=True)
torch.testing.assert_close(module(x["data"]), x["expected"], rtol=1e-5, atol=1e-6)
assert not {"mxnet", "onnx", "safetensors", "cnn_harness", "cnn_data"} & sys.modules.keys()
print("same")
"""

LOAD = """
import sys, time
start = time.perf_counter()
from mxnet_files import load_symbol
imported = time.perf_counter()
module = load_symbol(sys.argv[1], sys.argv[2])
loaded = time.perf_counter()
import torch
with torch.no_grad():
    found = tuple(module.eval()(torch.zeros(1, 3, 299, 299)).shape)
print(sum(p.numel() for p in module.parameters()), found)
print(f"packages {imported - start:.2f} s, inceptionv3 {loaded - imported:.2f} s", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A symbol, its parameters, and MXNet's own answer."""
    folder = tmp_path_factory.mktemp("alone")
    x = S.Convolution(S.var("data"), num_filter=4, kernel=(3, 3), name="conv")
    x = S.LeakyReLU(S.BatchNorm(x, name="bn"), slope=0.1)
    symbol = S.softmax(S.FullyConnected(x, num_hidden=3, name="fc"))
    shapes, _, states = symbol.infer_shape(data=(2, 3, 6, 5))
    rng = np.random.default_rng(0)
    names = symbol.list_arguments() + symbol.list_auxiliary_states()
    arrays = {
        name: mx.nd.array(rng.uniform(0.1, 0.5, size))
        for name, size in zip(names, shapes + states, strict=True)
    }
    states = {name: arrays[name] for name in symbol.list_auxiliary_states()}
    args = {name: arrays[name] for name in symbol.list_arguments()}
    (y,) = symbol.bind(mx.cpu(), args, aux_states=states).forward()
    data = args.pop("data")
    symbol.save(str(folder / "x-symbol.json"))
    named = {f"arg:{name}": value for name, value in args.items()}
    named |= {f"aux:{name}": value for name, value in states.items()}
    mx.nd.save(str(folder / "x-0000.params"), named)
    pair = {"data": torch.tensor(data.asnumpy()), "expected": torch.tensor(y.asnumpy())}
    torch.save(pair, folder / "x.pt")
    return [str(folder / name) for name in ("x-symbol.json", "x-0000.params", "x.pt")]


def python(command: str, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        timeout=250,
        check=False,
    )


def test_runs_where_all_other_packages_are_blocked(files: list[str]) -> None:
    done = python(sys.executable, BLOCKER + USE, *files)
    assert done.stdout == "same\n", done.stderr


def test_the_blocker_blocks() -> None:
    for name in ("mxnet", "onnx", "safetensors", "PIL"):
        done = python(sys.executable, f"{BLOCKER}import {name}")
        assert done.returncode == 1
        assert f"{name} is blocked" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_runs_in_a_clean_environment(files: list[str], tmp_path: Path) -> None:
    """A new environment with torch and numpy alone: load, compare, write a program, and load
    Inception v3, whose time is printed (`pytest -s`)."""
    venv.create(tmp_path / "env", with_pip=True)
    command = str(tmp_path / "env" / "bin" / "python")
    install = [command, "-m", "pip", "install", "-q", "torch==2.13.0", "numpy"]
    subprocess.run(install, check=True, timeout=800)
    listed = subprocess.run(
        [command, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    installed = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert not {"mxnet", "onnx", "safetensors", "pillow"} & installed
    done = python(command, USE, *files)
    assert done.stdout == "same\n", done.stderr
    out = str(tmp_path / "x.pt2")
    run = "import sys; from mxnet_files.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = python(command, run, *files[:2], "--out", out, "--input-shape", "1,3,6,5")
    assert done.returncode == 0, done.stderr
    assert "batch×3×6×5" in done.stdout
    assert Path(out).exists()
    done = python(command, LOAD, *map(str, export_model("inceptionv3", tmp_path)))
    assert done.stdout == "23834568 (1, 1000)\n", done.stderr
    print(done.stderr)
