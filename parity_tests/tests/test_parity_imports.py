"""Who may import whom: the arrows of the design, walked in the source."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "gluon_cnn_parity", "cnn_data", "cnn_harness", "gluon_cnn", "mxnet_files", "torch_ref",
    "parity_tests", "benchmarks",
)  # fmt: skip
FOLDERS = {"cnn_data": "data/cnn_data"}  # where a room does not lie under its own name
# Modules beside the rooms: each with the rooms that it may import.
BESIDE = {"mxnet_compat": set(), "pytest_parity": {"gluon_cnn_parity", "parity_tests"}}
FRAMEWORKS = {"mxnet": "gluon_cnn", "torch": "torch_ref"}
SHARED = {"gluon_cnn_parity"}  # version and command lines, for all rooms
# What each room may import of the others; parity_tests and benchmarks may import everything but
# each other, and nobody imports them.
ALLOWED = {
    "gluon_cnn_parity": set(),
    "cnn_data": set(),
    "cnn_harness": {"cnn_data"},
    "gluon_cnn": {"cnn_data", "cnn_harness", "mxnet_files"},
    "mxnet_files": set(),
    "torch_ref": {"cnn_data", "cnn_harness", "mxnet_files"},
    "parity_tests": {"cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files"},
    "benchmarks": {"cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files"},
}


# What may touch it: the settings; what binds a graph, since MXNet reads how to there alone; and
# what starts processes that export nets by others
OF_THE_ENVIRONMENT = {
    ROOT / "gluon_cnn/runtime/settings.py",
    ROOT / "mxnet_files/checking/oracle.py",
    ROOT / "torch_ref/training/workers.py",
    ROOT / "mxnet_files/checking/third_party.py",
}
MOST_MODULES = 15  # in a folder, without __init__.py


@cache
def imported(source: str) -> list[str]:
    """Every dotted name that a file imports, wherever it does so."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide their room"
            assert node.module is not None
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def files(*rooms: str) -> list[Path]:
    found = [
        path
        for room in rooms
        for path in sorted((ROOT / FOLDERS.get(room, room)).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts
    ]
    return [path for path in found if not path.name.startswith(("test_", "conftest"))]


def dotted(path: Path) -> str:
    """The name under which a file of a room is imported."""
    room = next(room for room in ROOMS if path.is_relative_to(ROOT / FOLDERS.get(room, room)))
    inside = path.relative_to(ROOT / FOLDERS.get(room, room)).with_suffix("").parts
    return ".".join((room, *(part for part in inside if part != "__init__")))


def arrows(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each one imports, of those in `sources`; in functions and for mypy too."""
    found = {}
    for module, source in sources.items():
        used = set()
        for name in imported(source):
            while name and name not in sources:
                name = name.rpartition(".")[0]
            used.add(name)
        found[module] = used - {module, ""}
    return found


def circles(sources: Mapping[str, str]) -> list[set[str]]:
    """Modules that import each other, directly or by others: each module with all it can reach."""
    direct = arrows(sources)
    reached: dict[str, set[str]] = {}
    for module in direct:
        seen: set[str] = set()
        waiting = list(direct[module])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += direct[name]
        reached[module] = seen
    found: list[set[str]] = []
    for module, others in reached.items():
        circle = {module} | {other for other in others if module in reached[other]}
        if module in others and circle not in found:
            found.append(circle)
    return found


def wrong_rooms(module: str, source: str) -> set[str]:
    room = module.partition(".")[0]
    used = {name.partition(".")[0] for name in imported(source)} & set(ROOMS)
    return used - {room} - ALLOWED[room] - SHARED


def wrong_packages(source: str, forbidden: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in imported(source)} & forbidden


SOURCES = files(*(room for room in ROOMS if (ROOT / FOLDERS.get(room, room)).is_dir()))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms_import_along_the_arrows(path: Path) -> None:
    room = next(room for room in ROOMS if path.is_relative_to(ROOT / FOLDERS.get(room, room)))
    source = path.read_text(encoding="utf-8")
    assert not wrong_rooms(dotted(path), source)
    assert not wrong_packages(source, {"tensorflow", "pickle", "dill", "joblib"})
    if room in ("cnn_data", "cnn_harness"):
        assert not wrong_packages(source, set(FRAMEWORKS))
    if room == "gluon_cnn":
        assert not wrong_packages(source, {"torch"})


def test_no_module_imports_itself_by_others() -> None:
    sources = {dotted(path): path.read_text(encoding="utf-8") for path in SOURCES}
    assert {module.partition(".")[0] for module in sources} == set(ROOMS)
    sources |= {name: (ROOT / f"{name}.py").read_text(encoding="utf-8") for name in BESIDE}
    assert sum(map(len, arrows(sources).values())) > len(sources)
    assert circles(sources) == []


@pytest.mark.parametrize(
    "back",
    [
        "from room.first import f",
        "import room.first",
        "from room import first",
        "def f():\n    import room.first",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from room.first import T",
        "try:\n    from room.first import f\nexcept ImportError:\n    pass",
    ],
)
def test_a_planted_circle_is_seen(back: str) -> None:
    sources = {"room.first": "from room.second import g", "room.second": "", "room.third": back}
    assert circles({**sources, "room": ""}) == []
    sources["room.second"] = "import room.third"
    assert circles({**sources, "room": ""}) == [{"room.first", "room.second", "room.third"}]
    assert circles({"room.third": back, "room.first": "from room import third"}) == [
        {"room.first", "room.third"}
    ]


def test_folders_can_be_overlooked() -> None:
    counts = Counter(path.parent for path in SOURCES if path.name != "__init__.py")
    crowded = {str(f.relative_to(ROOT)): n for f, n in counts.items() if n > MOST_MODULES}
    assert crowded == {}


PAIR = """
import sys

import mxnet_compat
import mxnet as mx
import numpy as np
import torch

from parity_tests import check_parity

net = mx.gluon.nn.Dense(3, in_units=4)
net.initialize()
inputs = np.eye(2, 4, dtype=np.float32)
report = check_parity(net, torch.nn.Linear(4, 3), inputs, np.array([0, 2]), transfer=True)
assert report.ok, report.first_divergence
assert not {"cnn_data", "cnn_harness", "torch_ref"} & sys.modules.keys()
"""


def test_a_users_own_pair_needs_no_data_and_no_harness() -> None:
    done = subprocess.run([sys.executable, "-c", PAIR], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", BESIDE)
def test_modules_beside_the_rooms_stand_below_them(name: str) -> None:
    source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
    used = {imported_name.partition(".")[0] for imported_name in imported(source)}
    assert used & set(ROOMS) <= BESIDE[name]


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
        if path in OF_THE_ENVIRONMENT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "putenv", "setenv"):
                raise AssertionError(f"{path}:{node.lineno} touches os.{node.attr}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gluon_cnn", "import torch_ref.transfer"),
        ("torch_ref", "def f():\n    from gluon_cnn.models import get_model"),
        ("cnn_data", "from cnn_harness.cli import run"),
        ("cnn_harness", "import parity_tests"),
        ("benchmarks", "from parity_tests.numerics.compare import compare"),
        ("mxnet_files.load", "from cnn_harness.cli import run"),
    ],
)
def test_an_arrow_that_points_back_is_seen(module: str, source: str) -> None:
    assert wrong_rooms(module, source)


def test_forbidden_packages_are_seen() -> None:
    assert wrong_packages(
        "try:\n    import tensorflow as tf\nexcept ImportError: pass", {"tensorflow"}
    )
