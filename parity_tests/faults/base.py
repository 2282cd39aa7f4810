"""What a fault is, and where a report sees one first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from parity_tests.reporting.kill_matrix import Outcome
from parity_tests.reporting.results import Results
from parity_tests.reporting.verdicts import Level

GROUPS = (
    "weights", "structure", "arithmetic", "batchnorm", "loss", "optimizer", "data", "artefacts",
    "checker",
)  # fmt: skip


@dataclass(frozen=True)
class Detection:
    """Where the checker saw a fault first, and what it called it; empty where it saw nothing."""

    level: Level = Level.NONE
    path: str = ""
    diagnosis: str = ""  # the name alone, as `missing activation`
    message: str = ""


@dataclass(frozen=True)
class Fault:
    """One way to be wrong, planted on purpose into something that is right.

    The fields are in the order in which the catalogue's tables have them.

    `where` says where it is injected, `imitates` what happens so in practice and `source` where
    that was met. `level` and `path` are where it must be caught first, `diagnosis` the name that it
    must be given there, empty where no hypothesis covers it. `run` plants it anew and checks.
    """

    name: str
    where: str
    run: Callable[[], Detection]
    level: Level
    path: str
    diagnosis: str
    imitates: str
    source: str
    group: str = field(kw_only=True)

    def outcome(self) -> Outcome:
        """Plant it and see."""
        started = time.perf_counter()
        detection = self.run()
        return Outcome(
            fault=self.name, group=self.group, where=self.where, imitates=self.imitates,
            source=self.source, level=self.level, path=self.path,
            caught_level=detection.level, caught_path=detection.path,
            diagnosis=detection.diagnosis, expected_diagnosis=self.diagnosis,
            message=detection.message, seconds=time.perf_counter() - started,
        )  # fmt: skip


def first_detection(report: Results) -> Detection:
    """What a report says first."""
    first = report.first_divergence
    if first is None:
        return Detection()
    name, colon, _ = first.diagnosis.partition(":")
    return Detection(first.level, first.path, name if colon else first.diagnosis, first.message)
