"""Hostile command lines of `python -m parity_tests`, `snapshot`, `compare` and the matrix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cnn_data.tests.command_lines import AMOUNTS, check_command_lines, lay_out
from cnn_harness.errors import CommandError
from parity_tests import check
from parity_tests.__main__ import main
from parity_tests.gate import matrix

FLAGS = [
    "--model", "--level", "--steps", "--full", "--gluon", "--torch", "--input", "--transfer",
    "--faults", "--clean", "--batch-size", "--seed", "--report", "lenet,lenet", "forward",
    "1,3,8,8", "os:getcwd", "sys:nothing", "no.such:net", "file:x", "builtins:print",
]  # fmt: skip
GATE = ["--model", "--full", "--side", "mxnet", "--seed", "--report"]
COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "parity": (main, FLAGS),
    "snapshot": (lambda argv: main(["snapshot", *argv]), GATE),
    "compare": (lambda argv: main(["compare", *argv]), GATE),
    "matrix": (matrix.main, []),
}


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    lay_out(folder)
    monkeypatch.chdir(folder)

    def not_here(*_: object, **__: object) -> None:
        raise CommandError("not here")

    # What takes minutes has tests of its own.
    for name in ("check_data", "check_optimizer", "check_multi_device", "check_training",
                 "project_case", "clean_command", "faults_command"):  # fmt: skip
        monkeypatch.setattr(check, name, not_here)
    monkeypatch.setattr("parity_tests.gate.snapshot.snapshot_now", not_here)
    monkeypatch.setattr("parity_tests.gate.compare.snapshot_now", not_here)
    return folder


@pytest.mark.parametrize("examples", AMOUNTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_lines(command: str, examples: int, hostile_folder: Path) -> None:
    check_command_lines(*COMMANDS[command], examples, hostile_folder)


def test_a_wrong_word_is_answered_with_plain_ones(
    hostile_folder: Path, capsys: pytest.CaptureFixture[str], refused: Any
) -> None:
    assert main(["snapshot", "new", "--side", "tensorflow"]) == 2
    assert "'tensorflow' (choose from" in (said := capsys.readouterr().err)
    assert "gluon" in said
    assert "<" not in said
    argv = ["check", "--gluon-recorded", ".", "--torch", "torch.nn:ReLU", "--transfer"]
    refused(main, argv, 2, "expected the folder that a recording script wrote")


@pytest.mark.parametrize("words", [["check", "--report"], ["faults", "--report"], ["snapshot"]])
def test_a_place_that_cannot_be_written_is_found_first(
    words: list[str], hostile_folder: Path, refused: Any
) -> None:
    Path("taken.md").write_text("mine")
    for place, why in (("taken.md", "is a file"), ("/proc/x", "/proc/x cannot be written")):
        refused(main, [*words, place], 2, why)
    assert Path("taken.md").read_text() == "mine"
