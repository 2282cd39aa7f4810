"""The pytest plugin in a repository of a user's own."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

NETS = """
import mxnet_compat
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

def apart_net():
    return torch_net(eps=1e-2)
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
APART = "    apart = mynets:gluon_net | mynets:apart_net | 2,2,6,6\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "mynets.py").write_text(NETS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "test_mine.py").write_text("def test_mine():\n    pass\n")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(Path(__file__).parents[3]), str(folder)])
    return {**os.environ, "PYTHONPATH": paths, "PYTEST_ADDOPTS": ""}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-p", "pytest_parity", *options]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )


SESSIONS = """
import contextlib, json, pathlib, sys, pytest

for number, (source, options) in enumerate(json.loads(sys.argv[1])):
    pathlib.Path("mynets.py").write_text(source)
    for name in ("mynets", "conftest", "test_mine"):
        sys.modules.pop(name, None)
    with open(f"{number}.txt", "w") as out, contextlib.redirect_stdout(out):
        code = pytest.main(["-p", "pytest_parity", *options])
    print(int(code))
"""


def sessions(folder: Path, *each: tuple[str, list[str]]) -> list[tuple[int, str]]:
    """Sessions one after another in one process, which imports the frameworks once, each with its
    own `mynets.py`: exit code and output."""
    command = [sys.executable, "-W", "ignore", "-c", SESSIONS, json.dumps(each)]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=True
    )
    return [
        (int(code), (folder / f"{number}.txt").read_text())
        for number, code in enumerate(done.stdout.split())
    ]


def test_own_pairs_are_recorded_held_and_laid_to_the_side_that_moved(repository: Path) -> None:
    # Both nets draw other weights the second time: they start from those that the baseline kept.
    # torch's eps is another version's. One pair never agreed.
    (repository / "pytest.ini").write_text(INI + APART)
    moved_nets = NETS.replace("eps=1e-5", "eps=1e-3")
    held = ["--parity-baseline", "baseline"]
    known = ["-o", "parity_apart=apart = another eps"]
    (code, recorded), (moved_code, moved) = sessions(
        repository,
        (NETS, [*held, "--parity-update", "--parity-transfer", *known]),
        (moved_nets, [*held, "--parity-report", "out"]),
    )
    assert code == 0, recorded
    assert (repository / "baseline" / "cnn.json").exists()
    assert (repository / "baseline" / "mine.json").exists()
    assert "3 passed, 1 xfailed" in recorded
    assert "mine: recorded; in agreement" in recorded
    assert "apart: recorded; not in agreement: 1 " in recorded
    assert "baseline: baseline" in recorded

    assert moved_code == 1, moved
    assert "torch moved at cnn 1 (batchnorm) forward" in moved
    assert "torch moved at mine 1 (batchnorm) forward" in moved
    assert "MXNet unchanged" in moved
    assert "mine: moved: semantics; not in agreement, and was when the baseline was" in moved
    assert "apart: unchanged; not in agreement, and was not when the baseline was" in moved
    assert f"report: {Path('out', 'gate.html')}" in moved
    suite = ElementTree.parse(repository / "out" / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("4", "3")
    page = (repository / "out" / "gate.html").read_text()
    assert "torch moved at cnn 1 (batchnorm) forward" in page
    assert (repository / "out" / "gate.json").exists()


@pytest.mark.slow
def test_unchanged_pairs_pass(repository: Path) -> None:
    update = ["--parity-update", "--parity-transfer"]
    assert run(repository, "--parity-baseline", "b", *update).returncode == 0
    again = run(repository, "--parity-baseline", "b")
    assert again.returncode == 0, again.stdout
    assert '"verdict": "unchanged"' in (repository / "parity-report" / "gate.json").read_text()


@pytest.mark.slow
def test_pairs_of_set_np_are_recorded_and_held(repository: Path) -> None:
    nets = NETS.replace("def gluon_net():", "mx.npx.set_np()\n\ndef gluon_net():")
    held = ["--parity-baseline", "b"]
    sides = (nets, [*held, "--parity-update", "--parity-transfer"]), (nets, held)
    (code, recorded), (again, unchanged) = sessions(repository, *sides)
    assert code == 0, recorded
    assert "mine: recorded; in agreement" in recorded
    assert again == 0, unchanged
    assert "cnn: unchanged; in agreement" in unchanged


@pytest.mark.slow
def test_a_session_that_is_broken_off_records_nothing(repository: Path) -> None:
    update = ["--parity-baseline", "b", "--parity-update"]
    assert run(repository, *update, "--parity-transfer").returncode == 0
    before = {path.name: path.read_bytes() for path in (repository / "b").iterdir()}
    broken = CONFTEST.replace("    x =", "    raise KeyboardInterrupt\n    x =")
    (repository / "conftest.py").write_text(broken)
    done = run(repository, *update)
    assert done.returncode == 2, done.stdout
    assert "cnn: recorded" in done.stdout
    assert "baseline: none, since the session was broken off" in done.stdout
    assert before == {path.name: path.read_bytes() for path in (repository / "b").iterdir()}


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
        (["--parity-baseline", "b", "--parity-report", "test_plain.py/x"], "Not a directory"),
    ],
)
def test_bad_use_is_said_in_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text("def test_plain():\n    pass\n")
    done = run(tmp_path, *options)
    assert done.returncode == 4
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
