"""No file that a user may be given is executed: what could do so is nowhere called."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "compile", "save_states", "load_states"}
PROJECT = [
    path
    for room in ("data/cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files")
    for path in (ROOT / room).rglob("*.py")
    if "tests" not in path.parts
]


def executing(source: str) -> Iterator[str]:
    """What in the source could execute a file, as `line: what`."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in MODULES:
                yield f"{line}: import {name}"
        if not isinstance(node, ast.Call):
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        options = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if called in CALLS or method in CALLS & {"save_states", "load_states"}:
            yield f"{line}: {called or method}()"
        if options.get("allow_pickle"):
            yield f"{line}: allow_pickle"
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        torch_load = method == "load" and isinstance(owner, ast.Name) and owner.id == "torch"
        if torch_load and options.get("weights_only") is not True:
            yield f"{line}: torch.load without weights_only"


@pytest.mark.parametrize("path", PROJECT, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_executed(path: Path) -> None:
    assert not list(executing(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "def f():\n    import joblib",
        "eval(text)",
        "trainer.load_states(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_what_executes_is_seen(source: str) -> None:
    assert list(executing(source))
    assert not list(executing("torch.load(path, weights_only=True)\nre.compile('x')"))
