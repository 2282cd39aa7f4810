"""The pytest plugin in a repository of a user's own."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

NETS = """
import mxnet as mx
from mxnet.gluon import nn as gnn
from torch import nn

def gluon_net():
    net = gnn.HybridSequential()
    net.add(gnn.Conv2D(3, 3, in_channels=2), gnn.BatchNorm(in_channels=3), gnn.Flatten(),
            gnn.Dense(4, in_units=48))
    net.initialize()
    return net

def torch_net(eps=1e-5):
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, eps=eps), nn.Flatten(),
                         nn.Linear(48, 4))
"""
CONFTEST = """
import numpy as np
import pytest
import mynets

@pytest.fixture
def parity_pairs():
    x = np.random.RandomState(0).standard_normal((2, 2, 6, 6)).astype("float32")
    return {"mine": (mynets.gluon_net(), mynets.torch_net(), x, np.array([1, 3]))}
"""
INI = "[pytest]\nparity_pairs =\n    cnn = mynets:gluon_net | mynets:torch_net | 2,2,6,6\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "mynets.py").write_text(NETS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    return tmp_path


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-p", "pytest_parity", *options]
    paths = os.pathsep.join([root, str(folder)])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_own_pairs_are_recorded_held_and_laid_to_the_side_that_moved(repository: Path) -> None:
    recorded = run(repository, "--parity-baseline", "baseline", "--parity-update")
    assert recorded.returncode == 0, recorded.stdout + recorded.stderr
    assert (repository / "baseline" / "cnn.json").exists()
    assert (repository / "baseline" / "mine.json").exists()
    assert "3 passed" in recorded.stdout

    # Both nets draw other weights now: they start from those that the baseline kept. torch's eps is
    # another version's.
    nets = repository / "mynets.py"
    nets.write_text(NETS.replace("eps=1e-5", "eps=1e-3"))
    moved = run(repository, "--parity-baseline", "baseline", "--parity-report", "out")
    assert moved.returncode == 1, moved.stdout + moved.stderr
    assert "torch moved at cnn 1 (batchnorm) forward" in moved.stdout
    assert "torch moved at mine 1 (batchnorm) forward" in moved.stdout
    assert "MXNet unchanged" in moved.stdout
    suite = ElementTree.parse(repository / "out" / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    page = (repository / "out" / "gate.html").read_text()
    assert "torch moved at cnn 1 (batchnorm) forward" in page
    assert (repository / "out" / "gate.json").exists()


@pytest.mark.slow
def test_unchanged_pairs_pass(repository: Path) -> None:
    assert run(repository, "--parity-baseline", "b", "--parity-update").returncode == 0
    again = run(repository, "--parity-baseline", "b")
    assert again.returncode == 0, again.stdout
    assert '"verdict": "unchanged"' in (repository / "parity-report" / "gate.json").read_text()


def test_an_ordinary_run_imports_neither_framework(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n\ndef test_plain():\n"
        "    assert not {'mxnet', 'torch', 'numpy', 'parity_tests'} & set(sys.modules)\n"
    )
    done = run(tmp_path, "-p", "no:xdist", "-p", "no:hypothesispytest")
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "parity-report").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--parity-baseline", "nowhere"], "nowhere does not exist"),
        (["--parity-baseline", "b", "--parity-update", "-n", "2"], "add -n 0"),
    ],
)
def test_bad_use_is_said_in_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("def test_plain():\n    pass\n")
    done = run(tmp_path, *options)
    assert done.returncode == 4
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
