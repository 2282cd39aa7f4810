"""The kill matrix for the page: fault × level that caught it, at the right place or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parity_tests.faults.base import MATRIX_LEVELS, Outcome
from parity_tests.reporting.verdicts import Level

__all__ = ["Cell", "KillMatrix", "kill_matrix", "score"]


@dataclass(frozen=True)
class Cell:
    """One fault at one level: a sign, its meaning in words, and whether that is good."""

    sign: str
    words: str
    kind: str  # "good", "near", "bad" or empty


NOTHING = Cell("", "", "")


@dataclass(frozen=True)
class KillMatrix:
    """`rows` are an outcome, a cell for each of `levels`, and the diagnosis in words."""

    levels: tuple[str, ...]
    rows: tuple[tuple[Outcome, tuple[Cell, ...], str], ...]
    score: dict[str, int]
    groups: dict[str, dict[str, int]]


def score(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many faults there were, and how many were caught, where, and called by their name."""
    return {
        "total": len(outcomes),
        "caught": sum(o.caught for o in outcomes),
        "right_level": sum(o.right_level for o in outcomes),
        "right_path": sum(o.right_path for o in outcomes),
        "diagnosed": sum(o.diagnosed for o in outcomes),
        "misdiagnosed": sum(o.misdiagnosed for o in outcomes),
    }


def kill_matrix(outcomes: Sequence[Outcome]) -> KillMatrix | None:
    """The table of what became of each fault; None where none was planted."""
    if not outcomes:
        return None
    used = {level for o in outcomes for level in (o.level, o.caught_level) if level}
    levels = [level for level in MATRIX_LEVELS if level in used]
    rows = tuple((o, tuple(_cell(o, level) for level in levels), _named(o)) for o in outcomes)
    groups = {
        group: score([o for o in outcomes if o.group == group])
        for group in dict.fromkeys(o.group for o in outcomes)
    }
    return KillMatrix(tuple(levels), rows, score(outcomes), groups)


def _cell(outcome: Outcome, level: Level) -> Cell:
    if level == outcome.caught_level:
        if outcome.right_path:
            return Cell("●", f"caught at {outcome.caught_path}", "good")
        if outcome.right_level:
            words = f"caught at {outcome.caught_path}, expected at {outcome.path}"
            return Cell("◐", words, "near")
        return Cell("✕", f"caught here, expected at {outcome.level}", "bad")
    if level == outcome.level:
        return Cell("○", "expected here, not caught here", "bad")
    return NOTHING


def _named(outcome: Outcome) -> str:
    if outcome.diagnosed:
        return outcome.diagnosis
    if outcome.misdiagnosed:
        return f"{outcome.diagnosis} (wrong: {outcome.expected_diagnosis or 'no name fits'})"
    return f"none (it is {outcome.expected_diagnosis})" if outcome.expected_diagnosis else "—"
