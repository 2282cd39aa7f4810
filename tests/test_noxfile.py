"""`nox -s pythons`: a combination that is not bit-equal to the first ends with an error."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BASE, OTHER = "python-3.11-numpy-1.23.5", "python-3.13-numpy-2.5.5"


class Ended(Exception):
    """What nox raises for `session.error`."""


class Session:
    """A session that runs nothing: the comparison printed `said`."""

    def __init__(self, said: str) -> None:
        self._said = said

    def run(self, *_: str, **__: Any) -> str:
        return self._said

    def log(self, *_: str) -> None:
        pass

    def error(self, text: str) -> None:
        raise Ended(text)


def decorator(*args: Any, **_: Any) -> Any:
    return args[0] if args and callable(args[0]) else lambda function: function


@pytest.fixture
def noxfile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The file beside a stand-in for nox, which few who run the tests have, and empty folders."""
    options = types.SimpleNamespace()
    nox = types.SimpleNamespace(options=options, session=decorator, parametrize=decorator)
    monkeypatch.setitem(sys.modules, "nox", nox)
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "COMBINATIONS", tmp_path)
    return module


def take(folder: Path, name: str, weights: bytes = b"weights") -> None:
    (folder / name).mkdir()
    (folder / f"{name}-run").mkdir()
    (folder / f"{name}-run" / "best.params").write_bytes(weights)


def test_a_combination_that_is_bit_equal_passes(noxfile: Any, tmp_path: Path) -> None:
    take(tmp_path, BASE)
    take(tmp_path, OTHER)
    noxfile._hold_against(Session("unchanged: old -> new\n"), BASE, OTHER)


@pytest.mark.parametrize(
    ("said", "weights", "word"),
    [
        ("moved within rounding: old -> new\n", b"weights", "not bit-equal"),
        ("unchanged: old -> new\n", b"other", "best.params"),
    ],
)
def test_one_bit_that_moved_ends_it(
    noxfile: Any, tmp_path: Path, said: str, weights: bytes, word: str
) -> None:
    take(tmp_path, BASE)
    take(tmp_path, OTHER, weights)
    with pytest.raises(Ended, match=word):
        noxfile._hold_against(Session(said), BASE, OTHER)


def test_nothing_to_compare_with_is_no_pass(noxfile: Any, tmp_path: Path) -> None:
    take(tmp_path, OTHER)
    with pytest.raises(Ended, match="take that session first"):
        noxfile._hold_against(Session("unchanged: old -> new\n"), BASE, OTHER)
    noxfile._hold_against(Session(""), BASE, BASE)  # the first itself


def test_requirements_leave_numpy_and_mxnet_to_the_session(
    noxfile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    names = [line.split(">")[0].split("=")[0] for line in noxfile._requirements("cpu", "test")]
    assert {"torch", "onnx", "pytest", "requests"} <= set(names)
    assert not {"numpy", "mxnet"} & set(names)
