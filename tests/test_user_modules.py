"""In a folder with a user's own `data`, `harness` and `benchmarks`, every command works.

So does `check_parity`, and the user's modules stay importable: from an editable and from an
ordinary install.
"""

import json
import shlex
import subprocess
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trees import clean_environment, copy_tree, install

TRAP = "raise RuntimeError('a command imported the user\\'s own module')\n"
LAYOUTS: dict[str, dict[str, str]] = {
    "modules": {
        **{f"{name}.py": TRAP for name in ("data", "models", "runtime", "train")},
        "harness.py": "MINE = 1\n",
        "benchmarks.py": "MINE = 2\n",
    },
    "package": {
        "data/__init__.py": "",
        "data/loader.py": "MINE = 3\n",
        "harness.py": "MINE = 1\n",
        "benchmarks.py": "MINE = 2\n",
    },
}
NETS = """
from mxnet.gluon import nn as gnn
from torch import nn

def ours():
    net = gnn.HybridSequential()
    net.add(gnn.Conv2D(4, 3, in_channels=3), gnn.Activation("relu"), gnn.Flatten(),
            gnn.Dense(5, in_units=144))
    return net

def theirs():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
"""
CHECK = """
from pathlib import Path
from parity_tests import check_parity
import benchmarks, harness
assert (harness.MINE, benchmarks.MINE) == (1, 2)
if Path("data").is_dir():
    import data.loader
    assert data.loader.MINE == 3 and data.__file__ == str(Path("data/__init__.py").resolve())
import numpy as np
import own_nets
net = own_nets.ours()
net.initialize()
x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype("float32")
net(__import__("mxnet").nd.array(x))
report = check_parity(net, own_nets.theirs(), x, transfer=True)
assert report.ok, report.first_divergence
"""
MODEL = "out/lenet-symbol.json out/lenet-0000.params"
FEW = (
    "python -m gluon_cnn.train --epochs 1 --out run",
    "gluon-cnn evaluate run",
    "gluon-parity check --gluon own_nets:ours --torch own_nets:theirs --input 2,3,8,8 --transfer",
    "python check.py",
)
ALL = (
    "python -m gluon_cnn.train --epochs 1 --out run",
    "python -m gluon_cnn.evaluate run",
    "python -m gluon_cnn.predict run digit.png",
    "python -m gluon_cnn.export run --out out",
    "python -m gluon_cnn.summary lenet",
    "python -m gluon_cnn.runtime",
    "python -m gluon_cnn.launch -n 2 -s 1 -- python -m gluon_cnn.train --epochs 1",
    "python -m parity_tests --model lenet",
    "python -m torch_ref.train --epochs 1 --out torch-run",
    "python -m torch_ref.transfer run/best.params best.safetensors",
    f"python -m mxnet_files {MODEL} --input-shape 1,1,28,28",
    "python -m cnn_data.prepare --help",
    "gluon-cnn train --epochs 1 --out run-2",
    "gluon-cnn evaluate run-2",
    "gluon-cnn predict run-2 digit.png",
    "gluon-cnn export run-2 --out out-2",
    "gluon-cnn summary lenet",
    "gluon-cnn models",
    "gluon-cnn runtime",
    "gluon-cnn launch -n 2 -s 1 -- gluon-cnn train --epochs 1",
    "gluon-cnn prepare mnist5k --data-dir prepared",
    "gluon-parity check --gluon own_nets:ours --torch own_nets:theirs --input 2,3,8,8 --transfer",
    "gluon-parity clean 2",
    "gluon-parity snapshot before --model lenet",
    "gluon-parity compare before --model lenet --report gate",
    "python check.py",
)
Run = Callable[[str], subprocess.CompletedProcess[str]]


KINDS = ("ordinary", "editable")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the commands of an installation, by its kind."""

    @cache
    def installed(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        return install(copy_tree(folder / "tree"), folder / "env", editable=kind == "editable")

    return installed


@pytest.fixture
def run(request: pytest.FixtureRequest, installed: Callable[[str], Path], tmp_path: Path) -> Run:
    """Runs a command line in a folder with a user's own modules, where it must succeed."""
    kind, layout = request.param
    commands = installed(kind)
    for name, text in {**LAYOUTS[layout], "own_nets.py": NETS, "check.py": CHECK}.items():
        path = tmp_path / "user" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "user" / "digit.png")
    environment = clean_environment()
    environment["PATH"] = f"{commands}:{environment['PATH']}"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            shlex.split(line), cwd=tmp_path / "user", env=environment,
            capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_the_project_is_imported_from_its_installation(
    kind: str, installed: Callable[[str], Path], tmp_path: Path
) -> None:
    """Nothing of the tree that this test runs in is in reach, nor any common name."""
    commands = installed(kind)
    code = (
        "import importlib.util as u, json, sys, gluon_cnn_parity, cnn_data\n"
        "names = ('data', 'harness', 'benchmarks', 'tests')\n"
        "print(json.dumps([[n for n in names if u.find_spec(n)], cnn_data.__file__]))"
    )
    done = subprocess.run(
        [commands / "python", "-c", code], cwd=tmp_path, env=clean_environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    importable, home = json.loads(done.stdout)
    assert importable == []
    assert Path(home).is_relative_to(commands.parents[1])


@pytest.mark.parametrize(
    "run", [("ordinary", "package"), ("editable", "modules")], indirect=True, ids="-".join
)
def test_commands_run_beside_a_users_modules(run: Run) -> None:
    for line in FEW:
        run(line)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("run", list(product(KINDS, LAYOUTS)), indirect=True, ids="-".join)
def test_every_command_runs_beside_a_users_modules(run: Run) -> None:
    for line in ALL:
        run(line)
