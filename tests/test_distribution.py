"""What the distribution says of itself: its version, its Python, and how it was started."""

import ast
import configparser
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gluon_cnn_parity
from gluon_cnn_parity import DISTRIBUTION, PYTHONS, Started, started

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("cnn_data", "gluon_cnn", "mxnet_files", "parity_tests", "torch_ref")


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_package_has_the_version_of_the_distribution(package: str) -> None:
    version = importlib.metadata.version(DISTRIBUTION)
    assert importlib.import_module(package).__version__ == version


def test_the_supported_pythons_are_those_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    required = setup["options"]["python_requires"]
    assert re.findall(r"3\.\d+", required)[0] == ".".join(map(str, PYTHONS[0]))
    assert sys.version_info[:2] in PYTHONS


@pytest.mark.parametrize(
    ("argv", "program", "package", "command"),
    [
        ("-m gluon_cnn.train --epochs 1", "python -m gluon_cnn.train", "gluon_cnn", "train"),
        ("-mgluon_cnn.train", "python -m gluon_cnn.train", "gluon_cnn", "train"),
        ("-X a -W b -um gluon_cnn.train", "python -m gluon_cnn.train", "gluon_cnn", "train"),
        ("-m gluon_cnn train", "python -m gluon_cnn train", "gluon_cnn", "train"),
        ("-m gluon_cnn --help", "python -m gluon_cnn", "gluon_cnn", ""),
        ("/v/bin/gluon-cnn train --ctx cpu", "gluon-cnn train", "gluon_cnn", "train"),
        ("/v/bin/gluon-cnn", "gluon-cnn", "gluon_cnn", ""),
        ("-m parity_tests clean 9", "python -m parity_tests clean", "parity_tests", "clean"),
        ("-m mxnet_files x-symbol.json", "python -m mxnet_files", "mxnet_files", ""),
    ],
)
def test_own_commands_are_recognised(argv: str, program: str, package: str, command: str) -> None:
    assert started(["python", *argv.split()]) == Started(program, package, command)


@pytest.mark.parametrize(
    "argv",
    ["script.py -m gluon_cnn.train", "script.py gluon-cnn train", "-c code -m gluon_cnn.train",
     "-m pytest -m gluon_cnn.train", "-m", ""],
)  # fmt: skip
def test_the_flags_of_another_program_are_not_read(argv: str) -> None:
    assert started(["python", *argv.split()]) is None


@pytest.mark.parametrize("own_command", [True, False])
def test_another_python_gets_one_clear_line(own_command: bool) -> None:
    argv = ["python", "-m", "gluon_cnn.train"] if own_command else ["python", "user.py"]
    code = f"import sys; sys.version_info = (3, 9, 7); sys.orig_argv = {argv!r}\n"
    code += "import gluon_cnn_parity"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    said = f"{DISTRIBUTION} runs on Python 3.11, 3.12, 3.13, this is 3.9.7 ({sys.executable})\n"
    assert done.returncode == (2 if own_command else 1)
    if own_command:
        assert done.stderr == f"python -m gluon_cnn.train: error: {said}"
    else:
        assert done.stderr.endswith(f"ImportError: {said}")


def test_a_python_without_its_command_line_gets_the_line_too(tmp_path: Path) -> None:
    old = "import sys; sys.version_info = (3, 9, 7); del sys.orig_argv"  # which came with 3.10
    (tmp_path / "sitecustomize.py").write_text(old)
    done = subprocess.run(
        [sys.executable, "-m", "gluon_cnn.train"], cwd=ROOT, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(r"python -m gluon_cnn\.train: error: .* this is 3\.9\.7 .*\n", done.stderr)


def test_old_pythons_can_read_the_refusal() -> None:
    folder = Path(gluon_cnn_parity.__file__).parent
    for name in ("__init__.py", "interrupts.py"):  # the second is all that the first imports
        ast.parse((folder / name).read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", sorted(Path(gluon_cnn_parity.__file__).parent.glob("*.py")))
def test_the_shared_package_needs_the_standard_library_alone(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported <= sys.stdlib_module_names | {"gluon_cnn_parity"}


def test_the_importer_takes_mxnet_from_one_place() -> None:
    """`import_mxnet` mends MXNet beside a current numpy; the export of nets by others is a process
    without the rest of the importer, and does it itself."""
    importing = set()
    for path in (ROOT / "mxnet_files").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            if "tests" not in path.parts and any(n.partition(".")[0] == "mxnet" for n in names):
                importing.add(path.name)
    assert importing == {"oracle.py", "third_party_export.py"}
