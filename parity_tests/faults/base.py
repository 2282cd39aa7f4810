"""What a fault is, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import LEVELS, Level

__all__ = ["GROUPS", "MATRIX_LEVELS", "Fault", "Found", "Outcome", "found_in"]

GROUPS = (
    "weights", "structure", "arithmetic", "batchnorm", "loss", "optimizer", "data", "artefacts",
    "checker",
)  # fmt: skip
MATRIX_LEVELS = (*LEVELS, Level.SELF_TEST)


@dataclass(frozen=True)
class Found:
    """Where the checker saw a fault first, and what it called it; empty where it saw nothing."""

    level: Level = Level.NONE
    path: str = ""
    diagnosis: str = ""  # the name alone, as `missing activation`
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to be wrong, planted on purpose into something that is right.

    `where` says where it is injected, `imitates` what happens so in practice and `source` where
    that was met. `level` and `path` are where it must be caught first, `diagnosis` the name that it
    must be given there, empty where no hypothesis covers it. `run` plants it afresh and checks.
    """

    name: str
    group: str
    where: str
    imitates: str
    source: str
    level: Level
    path: str
    run: Callable[[], Found]
    diagnosis: str = ""

    def outcome(self) -> Outcome:
        """Plant it and see."""
        started = time.perf_counter()
        found = self.run()
        return Outcome(
            fault=self.name,
            group=self.group,
            where=self.where,
            imitates=self.imitates,
            source=self.source,
            level=self.level,
            path=self.path,
            caught_level=found.level,
            caught_path=found.path,
            diagnosis=found.diagnosis,
            expected_diagnosis=self.diagnosis,
            message=found.message,
            seconds=time.perf_counter() - started,
        )


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


def found_in(report: Report) -> Found:
    """What a report says first."""
    first = report.first_divergence
    if first is None:
        return Found()
    name, colon, _ = first.diagnosis.partition(":")
    return Found(first.level, first.path, name if colon else first.diagnosis, first.message)
