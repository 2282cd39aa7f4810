"""The suite catches what it says it catches, where it is, and calls it by its name or by none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parity_tests.__main__ import main
from parity_tests.faults.base import GROUPS, Detection, Fault
from parity_tests.faults.catalogue import FAULTS
from parity_tests.faults.self_test import self_test
from parity_tests.reporting.kill_matrix import MATRIX_LEVELS, score
from parity_tests.reporting.verdicts import Level

# Those that every run of the tests plants; `-m slow` plants the others.
OFTEN = FAULTS[::4]


def _cases() -> Iterator[Any]:
    for fault in FAULTS:
        marks = () if fault in OFTEN else pytest.mark.slow
        yield pytest.param(fault, id=f"{fault.group}:{fault.name.replace(' ', '-')}", marks=marks)


@pytest.mark.parametrize("fault", list(_cases()))
def test_a_fault_is_caught_at_its_level_and_never_misnamed(fault: Fault) -> None:
    outcome = fault.outcome()
    assert outcome.caught, "it escaped"
    assert (outcome.caught_level, outcome.caught_path) == (fault.level, fault.path), outcome.message
    assert not outcome.misdiagnosed, f"{outcome.diagnosis}: {outcome.message}"


@pytest.mark.slow
def test_the_kill_rate_of_the_catalogue() -> None:
    whole = score([fault.outcome() for fault in FAULTS])
    assert whole["caught"] == whole["right_level"] == whole["total"]
    assert whole["right_path"] == whole["total"]
    assert whole["diagnosed"] >= 0.80 * whole["total"]
    assert whole["misdiagnosed"] == 0


def test_the_catalogue_is_whole() -> None:
    assert len(FAULTS) == 165
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.group for fault in OFTEN} == {fault.group for fault in FAULTS} == set(GROUPS)
    assert {fault.level for fault in FAULTS} <= set(MATRIX_LEVELS)
    for fault in FAULTS:
        assert all((fault.where, fault.imitates, fault.source, fault.path)), fault.name


def test_the_checker_passes_its_own_test() -> None:
    assert self_test() == {}
    assert sum(fault.level == Level.SELF_TEST for fault in FAULTS) >= 20


def test_the_command_prints_the_matrix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = tuple(f for f in FAULTS if f.name in ("bias dropped", "means are compared"))
    monkeypatch.setattr("parity_tests.faults.catalogue.FAULTS", few)
    assert main(["--faults", "--report", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [o["fault"] for o in written["faults"]["outcomes"]] == [f.name for f in few]
    assert "bias dropped" in (tmp_path / "report.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "bias dropped" in printed
    assert "●" in printed
    assert main(["--faults", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score"] == {
        "total": 2, "caught": 2, "right_level": 2, "right_path": 2, "diagnosed": 2,
        "misdiagnosed": 0,
    }  # fmt: skip


def test_the_command_fails_where_a_fault_escapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: Any
) -> None:
    escaped = replace(FAULTS[0], run=Detection)
    monkeypatch.setattr("parity_tests.faults.catalogue.FAULTS", (escaped,))
    refused(main, ["--faults"], 1, "ESCAPED")
    assert main(["faults", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_the_commands_refuse_what_they_cannot_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "--model", "lenet"]) == 2
    assert main(["--faults", "--clean", "3"]) == 2
    assert main(["--clean", "0"]) == 2
    assert main(["--clean", "2"]) == 0
    assert main(["clean", "0"]) == 2
    assert main(["clean", "2", "--json"]) == 0
    assert "2 random clean pairs" in capsys.readouterr().out
