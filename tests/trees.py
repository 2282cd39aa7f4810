"""Copies of the tree, and virtual environments that the project is installed into, in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["FOLDERS", "MODULES", "ROOT", "clean_environment", "copy_tree", "install"]

ROOT = Path(__file__).resolve().parents[1]
# Folder of the tree → the name it is installed under; benchmarks is not installed
FOLDERS = {
    "data/cnn_data": "cnn_data",
    "cnn_harness": "cnn_harness",
    "gluon_cnn": "gluon_cnn",
    "gluon_cnn_parity": "gluon_cnn_parity",
    "mxnet_files": "mxnet_files",
    "parity_tests": "parity_tests",
    "torch_ref": "torch_ref",
}
MODULES = ("mxnet_compat.py", "pytest_parity.py")


def copy_tree(copy: Path) -> Path:
    """The tree without what is not in the repository: building leaves files beside setup.cfg."""
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", *MODULES):
        shutil.copy(ROOT / name, copy / name)
    ignored = shutil.ignore_patterns("__pycache__", "results", "*.egg-info", "runs")
    for folder in {*(Path(folder).parts[0] for folder in FOLDERS), "benchmarks", "tests"}:
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    return copy


def install(tree: Path, environment: Path, *, editable: bool) -> Path:
    """Install a tree into a new virtual environment; the folder of its commands.

    What the project requires is that of this process's own environment, in which an editable
    install of the project has no effect there.
    """
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "shared.pth").write_text("\n".join(shared) + "\n")
    command = [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps"]
    command += ["--no-build-isolation", "--ignore-installed", "--no-compile"]
    done = subprocess.run(
        [*command, *(["-e"] if editable else []), str(tree)],
        capture_output=True, text=True, check=False, env=clean_environment(), timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return environment / "bin"


def clean_environment() -> dict[str, str]:
    """This process's environment without what would add the tree to the path of another."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
