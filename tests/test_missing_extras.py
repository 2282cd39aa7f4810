"""A package that only an extra brings, and that is not there, is one line that names the extra."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Runs before anything else in a process: what HIDDEN names looks as if it were not installed.
HIDE = """
import os
from importlib.machinery import PathFinder

hidden = os.environ["HIDDEN"].split(",")
find_spec = PathFinder.find_spec


def without_hidden(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find_spec(name, path, target)


PathFinder.find_spec = classmethod(without_hidden)
"""


Run = Callable[[str, Sequence[str]], subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Run:
    """Runs Python in an empty folder, where some packages are not installed."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HIDE)
    folder = tmp_path / "user"
    folder.mkdir()

    def run(hidden: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HIDDEN": hidden,
            "PYTHONPATH": os.pathsep.join([str(hook), str(ROOT), str(ROOT / "data")]),
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=250,
        )  # fmt: skip

    return run


PARITY = "torch is not installed: pip install -e '.[cpu,parity]'"
TORCH = "torch is not installed: pip install -e '.[torch]'"
MXNET = "mxnet is not installed: pip install -e '.[cpu]'"


@pytest.mark.parametrize(
    ("hidden", "command", "said"),
    [
        ("torch,jinja2", "parity_tests", PARITY),
        ("torch,jinja2", "parity_tests check --model lenet", PARITY),
        ("torch,jinja2", "parity_tests faults", PARITY),
        ("torch,jinja2", "parity_tests clean 1", PARITY),
        ("jinja2", "parity_tests --model lenet --report r", PARITY.replace("torch", "jinja2", 1)),
        ("torch", "torch_ref.train", TORCH),
        ("mxnet", "gluon_cnn.train", MXNET),
        ("mxnet", "gluon_cnn train", MXNET),
        ("mxnet", "gluon_cnn.runtime", MXNET),
        ("mxnet", "gluon_cnn models", MXNET),
        ("mxnet", "parity_tests --model lenet", MXNET),
        ("mxnet,dmlc_tracker", "gluon_cnn launch -n 1 -- true", MXNET),
        ("torch", "mxnet_files convert x-symbol.json x.params", TORCH),
        ("torch", "mxnet_files zoo", TORCH),
        ("torch", "mxnet_files x-symbol.json x.params", TORCH),
    ],
)
def test_a_command_says_it_in_one_line(python: Run, hidden: str, command: str, said: str) -> None:
    words = command.split()
    done = python(hidden, ["-m", *words])
    assert done.returncode == 2, done.stderr
    started = " ".join(words[:2] if words[1:2] and words[1].isalpha() else words[:1])
    assert done.stderr == f"python -m {started}: error: {said}\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("hidden", "line", "said"),
    [
        ("mxnet", "import gluon_cnn", MXNET),
        ("torch", "from parity_tests import check_parity", PARITY),
        ("torch", "from mxnet_files import load_symbol", TORCH),
        ("jinja2", "import parity_tests.reporting.html", "jinja2 is not installed: pip install"),
    ],
)
def test_an_import_says_it_in_its_error(python: Run, hidden: str, line: str, said: str) -> None:
    done = python(hidden, ["-c", line])
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ModuleNotFoundError: {said}")


@pytest.mark.parametrize(
    ("hidden", "words"),
    [
        ("mxnet,torch,jinja2,onnx", "gluon_cnn --help"),
        ("mxnet,torch,jinja2,onnx", "parity_tests --help"),
        ("mxnet,torch,jinja2,onnx", "cnn_data.prepare --help"),
        ("mxnet,torch,jinja2,onnx", "torch_ref.transfer --help"),
        ("mxnet,torch,jinja2,onnx", "mxnet_files --help"),
        ("mxnet,torch,jinja2,onnx", "mxnet_files diff --help"),
        ("mxnet,jinja2,onnx", "mxnet_files convert --help"),
        ("torch,jinja2,onnx", "gluon_cnn train --help"),
        ("mxnet,jinja2,onnx", "torch_ref.train --help"),
        ("mxnet,onnx", "parity_tests snapshot --help"),
    ],
)
def test_what_needs_none_of_them_runs_without(python: Run, hidden: str, words: str) -> None:
    done = python(hidden, ["-m", *words.split()])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m ")


def test_hiding_hides(python: Run) -> None:
    done = python("torch", ["-c", "import torch"])
    assert "ModuleNotFoundError: No module named 'torch'" in done.stderr
