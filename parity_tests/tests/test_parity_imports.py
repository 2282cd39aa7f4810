"""Who may import whom: the arrows of the design, walked in the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "cnn_data", "cnn_harness", "gluon_cnn", "mxnet_files", "torch_ref",
    "parity_tests", "benchmarks",
)  # fmt: skip
FOLDERS = {"cnn_data": "data/cnn_data"}  # where a room does not lie under its own name
FRAMEWORKS = {"mxnet": "gluon_cnn", "torch": "torch_ref"}
# What each room may import of the others; parity_tests and benchmarks may import everything but
# each other, and nobody imports them.
ALLOWED = {
    "cnn_data": set(),
    "cnn_harness": {"cnn_data"},
    "gluon_cnn": {"cnn_data", "cnn_harness"},
    "mxnet_files": set(),
    "torch_ref": {"cnn_data", "cnn_harness", "mxnet_files"},
    "parity_tests": {"cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files"},
    "benchmarks": {"cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files"},
}


def imported(source: str) -> Iterator[str]:
    """Every dotted name that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide their room"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(*rooms: str) -> list[Path]:
    found = [
        path
        for room in rooms
        for path in sorted((ROOT / FOLDERS.get(room, room)).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts
    ]
    return [path for path in found if not path.name.startswith(("test_", "conftest"))]


def wrong_rooms(room: str, source: str) -> set[str]:
    used = {name.partition(".")[0] for name in imported(source)} & set(ROOMS)
    return used - {room} - ALLOWED[room]


def wrong_packages(source: str, forbidden: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in imported(source)} & forbidden


SOURCES = files(*(room for room in ROOMS if (ROOT / FOLDERS.get(room, room)).is_dir()))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_along_the_arrows(path: Path) -> None:
    room = next(room for room in ROOMS if path.is_relative_to(ROOT / FOLDERS.get(room, room)))
    source = path.read_text(encoding="utf-8")
    assert not wrong_rooms(room, source)
    assert not wrong_packages(source, {"tensorflow", "pickle", "dill", "joblib"})
    if room in ("cnn_data", "cnn_harness"):
        assert not wrong_packages(source, set(FRAMEWORKS))
    if room == "gluon_cnn":
        assert not wrong_packages(source, {"torch"})


@pytest.mark.parametrize("room", ["gluon_cnn", "torch_ref"])
def test_models_know_no_data_and_no_files(room: str) -> None:
    for path in files(f"{room}/models"):
        used = {name.partition(".")[0] for name in imported(path.read_text(encoding="utf-8"))}
        assert not used & {"cnn_data", "cnn_harness", "pathlib", "os", "io", "argparse"}, path


@pytest.mark.parametrize(
    "name",
    [
        "torch_ref/transfer.py",
        "mxnet_files/reading/params_file.py",
        "mxnet_files/reading/tensor_files.py",
        "mxnet_files/atomic.py",
    ],
)
def test_transfer_needs_numpy_only(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    tops = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    used = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in tops
        for alias in node.names
    }
    assert not {u.partition(".")[0] for u in used} & {"torch", "mxnet", "cnn_data", "gluon_cnn"}


def test_only_the_runtime_touches_the_environment() -> None:
    for path in files("cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files"):
        if path == ROOT / "gluon_cnn/runtime/settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "putenv", "setenv"):
                raise AssertionError(f"{path}:{node.lineno} touches os.{node.attr}")


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("gluon_cnn", "import torch_ref.transfer"),
        ("torch_ref", "def f():\n    from gluon_cnn.models import get_model"),
        ("cnn_data", "from cnn_harness.cli import run"),
        ("cnn_harness", "import parity_tests"),
        ("benchmarks", "from parity_tests.numerics.compare import compare"),
    ],
)
def test_an_arrow_that_points_back_is_seen(room: str, source: str) -> None:
    assert wrong_rooms(room, source)


def test_forbidden_packages_are_seen() -> None:
    assert wrong_packages(
        "try:\n    import tensorflow as tf\nexcept ImportError: pass", {"tensorflow"}
    )
