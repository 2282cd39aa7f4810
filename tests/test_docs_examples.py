"""Examples in docstrings run, and what the reference shows has the sections a reader looks for."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import gluon_cnn  # noqa: F401  (settles MXNet's threads before it loads)

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "cnn_data": "data/cnn_data",
    **{
        name: name
        for name in ("cnn_harness", "gluon_cnn", "mxnet_files", "parity_tests", "torch_ref")
    },
}
DOCUMENTED = re.findall(
    r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE
)
# Whose arguments are files, which an example would have to bring along
_WITHOUT_EXAMPLE = {
    "mxnet_files.load.load_symbol": "docs/leaving-mxnet.md has one, on an exported net",
    "mxnet_files.optimisation.optimise": "needs an imported module: docs/speed.md",
    "mxnet_files.optimisation.freeze": "needs an imported module: docs/speed.md",
    "mxnet_files.reading.params_file.write_params": "the example of read_params writes one",
    "torch_ref.transfer.transfer_file": "docs/leaving-mxnet.md has its command",
    "cnn_data.readers.images.read_image": "docs/train.md has the command that reads one",
}


def modules_with_examples() -> list[str]:
    """The modules whose source has an example, by dotted name."""
    files = {path.stem: path for path in ROOT.glob("*.py") if path.stem != "noxfile"}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if "tests" not in parts:
                files[".".join((package, *parts)).removesuffix(".__init__")] = path
    return [name for name, path in files.items() if ">>> " in path.read_text(encoding="utf-8")]


def resolve(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("dotted", [d for d in DOCUMENTED if inspect.isfunction(resolve(d))])
def test_a_function_of_the_reference_says_what_it_takes_gives_and_raises(dotted: str) -> None:
    function = resolve(dotted)
    text = inspect.getdoc(function) or ""
    parameters = set(inspect.signature(function).parameters) - {"options"}
    assert {name for name in parameters if f"    {name}: " not in text} == set()
    assert ("Returns:" in text) != (inspect.signature(function).return_annotation == "None")
    assert ("Examples:\n    >>> " in text) != (dotted in _WITHOUT_EXAMPLE)


@pytest.mark.parametrize("dotted", DOCUMENTED)
def test_the_reference_shows_what_exists(dotted: str) -> None:
    assert inspect.getdoc(resolve(dotted))


def test_an_example_that_fails_is_seen() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1
