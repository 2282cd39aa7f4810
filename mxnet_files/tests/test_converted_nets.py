"""Nets of real size by `convert --out` and `verify`: what it takes, and how long model.py is."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn, rnn

from mxnet_files.__main__ import main
from mxnet_files.checking.third_party import python
from mxnet_files.checking.zoo import export_model
from mxnet_files.proving.artefacts import run_model_file
from mxnet_files.reading.params_file import read_params, write_params
from mxnet_files.running import distance

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# the memory of a process counts that of its parent until it begins its own program: a small one
# starts it
MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(code)
"""


class LanguageModel(nn.HybridBlock):
    """Scores of the next word at each place; the states go in and out."""

    def __init__(self, words: int, size: int) -> None:
        super().__init__(prefix="language_")
        with self.name_scope():
            self.encoder = nn.Embedding(words, size)
            self.rnn = rnn.LSTM(size, 2, dropout=0.2, input_size=size)
            self.decoder = nn.Dense(words, flatten=False, in_units=size)

    def hybrid_forward(self, F: Any, x: Any, h: Any, c: Any) -> Any:
        y, (h, c) = self.rnn(self.encoder(x), [h, c])
        return self.decoder(y), h, c


def language_model(folder: Path) -> None:
    """The net, and words and states to try it on."""
    mx.random.seed(0)
    net = LanguageModel(10_000, 200)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    rng = np.random.default_rng(0)
    given = {
        "data0": rng.integers(0, 10_000, (35, 8)).astype(np.float32),
        "data1": rng.normal(size=(2, 8, 200)).astype(np.float32),
        "data2": rng.normal(size=(2, 8, 200)).astype(np.float32),
    }
    net(*map(mx.nd.array, given.values()))
    net.export(str(folder / "net"))
    np.savez(folder / "data.npz", **given)


def resnet(folder: Path) -> None:
    symbol, params = export_model("resnet50_v1", folder)
    symbol.rename(folder / "net-symbol.json")
    params.rename(folder / "net-0000.params")


def by_others(source: str, name: str, shape: str) -> Callable[[Path], None]:
    def export(folder: Path) -> None:
        if importlib.util.find_spec(source) is None:
            pytest.skip(f"{source} is not installed")
        module = "mxnet_files.checking.third_party_export"
        _, error = python(["-m", module, source, name, shape, str(folder)], 600)
        assert error == ""

    return export


def detector(folder: Path) -> None:
    """Its scores keep their order in float32; with random weights alone rounding decides it."""
    by_others("gluoncv", "ssd_300_vgg16_atrous_voc", "1,3,300,300")(folder)
    arrays = dict(read_params(folder / "net-0000.params"))
    for name in [name for name in arrays if "predictor" in name]:
        arrays[name] = arrays[name] * np.float32(0.1)
        if name.endswith("bias") and len(arrays[name]) % 21 == 0:
            arrays[name][::21] = 5  # background: a few of its boxes are none
    write_params(folder / "net-0000.params", arrays)


@dataclass(frozen=True)
class Converted:
    """How a net is written as net-symbol.json and net-0000.params, and its model.py at the most."""

    export: Callable[[Path], None]
    lines: int
    inputs: tuple[str, ...] = ()
    seconds: float = 600
    gigabytes: float = 8


NETS = {
    "resnet50_v1": Converted(resnet, 165, seconds=30, gigabytes=2),
    "mobilenetv3_large_w1": Converted(
        by_others("gluoncv2", "mobilenetv3_large_w1", "1,3,224,224"), 250
    ),
    "ssd_300_vgg16_atrous_voc": Converted(detector, 370, ("--input", "1,3,300,300")),
    "language_model": Converted(language_model, 50),
}


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_real_size(name: str, tmp_path: Path) -> None:
    net = NETS[name]
    net.export(tmp_path)
    files = [str(tmp_path / f"net-{end}") for end in ("symbol.json", "0000.params")]
    out = tmp_path / name
    data = ["--data", str(tmp_path / "data.npz")] if (tmp_path / "data.npz").exists() else []
    command = [sys.executable, "-m", "mxnet_files", "convert", *files, *net.inputs, *data]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command, "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seconds, busy, kib = map(float, done.stdout.splitlines()[-1].split())
    lines = len((out / "model.py").read_text().splitlines())
    told = f"{seconds:.1f} s ({busy:.1f} of processor), {kib * 1024 / 1e9:.2f} GB"
    print(f"{name}: {told}, model.py of {lines} lines")
    shared = os.getloadavg()[0] > 1 + (os.cpu_count() or 1)  # beside other work a clock says little
    assert (busy if shared else seconds) < net.seconds
    assert kib * 1024 < net.gigabytes * 1e9
    assert lines <= net.lines
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "100"]
    rules = ["--select", "E,F,I,B,UP,N8", "--ignore", "N812"]
    done = subprocess.run([*ruff, *rules, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert main(["verify", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["verified_against"].startswith("MXNet 1.9.1")
    assert (out / "model.onnx").exists()
    with np.load(out / "samples.npz") as samples:
        given = {row["name"]: samples[f"input {i}"] for i, row in enumerate(report["inputs"])}
    block = mx.gluon.SymbolBlock.imports(files[0], list(given), files[1])
    wanted = block(*map(mx.nd.array, given.values()))
    wanted = [y.asnumpy() for y in (wanted if isinstance(wanted, (list, tuple)) else [wanted])]
    assert all(y.min() < y.max() for y in wanted)
    errors = distance(run_model_file(out / "model.py", given), wanted)
    bounds = [row["bound"] for row in report["outputs"]]
    assert max(bounds) < 0.01
    assert all(error <= bound for error, bound in zip(errors, bounds, strict=True)), errors
