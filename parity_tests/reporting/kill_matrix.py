"""The kill matrix: what became of each planted fault, by the level that caught it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parity_tests.reporting.verdicts import LEVELS, Level

MATRIX_LEVELS = (*LEVELS, Level.SELF_TEST)
JUDGED = ("caught", "right_level", "right_path", "diagnosed", "misdiagnosed")  # of an outcome


@dataclass(frozen=True)
class Outcome:
    """What the checker made of one fault: plain data, a row of the kill matrix.

    `level`, `path` and `expected_diagnosis` are what was expected, `caught_level`, `caught_path`
    and `diagnosis` what was found; all three are empty where it escaped.
    """

    fault: str
    group: str
    where: str
    imitates: str
    source: str
    level: Level
    path: str
    caught_level: Level
    caught_path: str
    diagnosis: str
    expected_diagnosis: str
    message: str
    seconds: float

    @property
    def caught(self) -> bool:
        return bool(self.caught_level)

    @property
    def right_level(self) -> bool:
        return self.caught and self.caught_level == self.level

    @property
    def right_path(self) -> bool:
        return self.right_level and self.caught_path == self.path

    @property
    def diagnosed(self) -> bool:
        """By the right name."""
        return bool(self.diagnosis) and self.diagnosis == self.expected_diagnosis

    @property
    def misdiagnosed(self) -> bool:
        """A name that is not the right one, or one where there is none to give."""
        return bool(self.diagnosis) and not self.diagnosed


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

    levels: tuple[Level, ...]
    rows: tuple[tuple[Outcome, tuple[Cell, ...], str], ...]
    score: dict[str, int]
    groups: dict[str, dict[str, int]]


def score(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many faults there were, and how many were caught, where, and called by their name."""
    sums = {name: sum(getattr(o, name) for o in outcomes) for name in JUDGED}
    return {"total": len(outcomes), **sums}


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
