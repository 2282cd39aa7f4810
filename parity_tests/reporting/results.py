"""What a parity run found: rows, coverage, the first divergence; as an object and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from parity_tests.backends.runs import NET
from parity_tests.reporting.causes import consequences, in_order_of_backward
from parity_tests.reporting.drift import Answer, Drift, answers, drifts
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import LEVELS, Check, Level, Status
from parity_tests.reporting.window import ValueWindow

__all__ = ["SCHEMA", "Divergence", "Results"]

SCHEMA = 2  # of report.json, described in report.schema.json


@dataclass(frozen=True)
class Divergence:
    """The first row, in causal order, that failed."""

    level: Level
    path: str
    quantity: str
    error: float | None
    bound: float | None
    diagnosis: str
    message: str
    window: ValueWindow | None = None

    def __str__(self) -> str:
        return self.message


@dataclass
class Results:
    """What a pair's parity run compared, and what follows from it.

    `ok` is False too when nothing was compared.
    """

    name: str
    levels: tuple[Level, ...]
    rows: list[Row] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)  # how it was compared
    quick: bool = False  # operations alone, in float32 and inference
    # By their ids the rows that were put in order last, and what `_once` found in them
    _ordered: tuple[dict[int, Row], dict[int, Row], list[Row]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def merge(self, other: Results, batch: int) -> None:
        """Take in another batch: of each comparison what failed first, or else the worst."""
        self.coverage.merge(other.coverage)
        if batch == 1:
            self.rows.extend(other.rows)
            return
        places = {row.place: i for i, row in enumerate(self.rows)}
        for row in other.rows:
            if row.status.failed:
                row = replace(row, detail=f"batch {batch}: {row.detail or row.status}")
            at = places.get(row.place)
            if at is None:
                self.rows.append(row)
                continue
            mine = self.rows[at]
            worst = mine if mine.severity >= row.severity else row
            self.rows[at] = replace(worst, compared=mine.compared + row.compared)

    def add(self, rows: Iterable[Row], coverage: Coverage | None = None) -> None:
        self.rows.extend(rows)
        if coverage is not None:
            self.coverage.merge(coverage)

    @property
    def ok(self) -> bool:
        failed = any(row.status.failed for row in self.rows)
        every_level = all(map(self._is_done, self.levels))
        return bool(self.levels) and every_level and not failed and not self.coverage.missing()

    def compared(self, level: str) -> int:
        """How many values were compared at a level."""
        return sum(row.compared for row in self.rows if row.level == level)

    def _is_done(self, level: Level) -> bool:
        """Whether values were compared there, or elsewhere, and the net has none there."""
        if self.compared(level):
            return True
        return bool(self._absence(level)) and any(map(self.compared, self.levels))

    def _absence(self, level: Level) -> str:
        """Why a net has nothing that a level could compare; empty where it has."""
        said = (row for row in self.rows if row.level == level and row.left_out)
        return next((row.detail for row in said if row.path == NET and not row.quantity), "")

    @property
    def failures(self) -> list[Row]:
        """What failed, causes first: by level, and within a level in the order of computation.

        Gradients are computed from the output to the input.
        """
        return self._once()[1].copy()

    @property
    def consequences(self) -> dict[int, Row]:
        """The cause of each row that diverged only in what reached it, by the row's `id`."""
        return self._once()[0]

    def _once(self) -> tuple[dict[int, Row], list[Row]]:
        """Consequences and failures, computed anew where the rows are others."""
        rows = {id(row): row for row in self.rows}
        if self._ordered is None or [*self._ordered[0]] != [*rows]:
            follows = consequences(self.rows)
            self._ordered = rows, follows, self._in_order(follows)
        return self._ordered[1:]

    def _in_order(self, follows: Mapping[int, Row]) -> list[Row]:
        order = {level: i for i, level in enumerate(LEVELS)}
        backward = in_order_of_backward(self.rows)

        def key(row: Row) -> tuple[bool, int, bool, bool, bool, float]:
            number = id(row)
            kind = number in follows, order[row.level], row.status != Status.DIVERGED
            own_stream = row.check == Check.INHERITED
            return (*kind, own_stream, number in backward, backward.get(number, 0.0))

        return sorted((row for row in self.rows if row.status.failed), key=key)

    @property
    def first_divergence(self) -> Divergence | None:
        """None exactly when `ok`."""
        for row in self.failures:
            return Divergence(
                row.level, row.path, row.quantity, row.error, row.bound, row.diagnosis,
                row.message, row.named_window,
            )  # fmt: skip
        if self.ok:
            return None
        missing = self.coverage.missing()
        empty = [level for level in self.levels if not self._is_done(level)]
        level = empty[0] if empty else self.levels[0] if self.levels else Level.NONE
        detail = self._absence(level) or "nothing was compared"
        if missing:
            detail = f"not compared: {', '.join(missing[:5])}"
        return Divergence(level, "", "coverage", None, None, "", f"{level}: {detail}")

    @property
    def notes(self) -> list[Row]:
        """Differences that are expected, and said."""
        return [row for row in self.rows if row.status == Status.NOTE]

    @property
    def allowed(self) -> list[Row]:
        """What failed, and the user allows."""
        return [row for row in self.notes if row.allowance]

    @property
    def outcome(self) -> str:
        """ "parity", "diverged", "differs in structure", or "not compared"."""
        if self.ok:
            return "parity"
        diverged = {row.level for row in self.failures if row.status == Status.DIVERGED}
        if not diverged:
            return "not compared"
        return "differs in structure" if diverged == {Level.STRUCTURE} else "diverged"

    @property
    def drifts(self) -> list[Drift]:
        """Inherited error: each side's distance from float64, value by value, and who moved."""
        return drifts(self.rows)

    @property
    def answers(self) -> list[Answer]:
        """Whether that is normal: one a level that has it."""
        return answers(self.drifts)

    def finding(self, level: Level) -> str:
        """What a level is called that is not in parity; empty for one that is."""
        failed = {row.status for row in self.rows if row.level == level and row.status.failed}
        if Status.DIVERGED in failed:
            return "differs" if level == Level.STRUCTURE else "diverged"
        if failed:
            return "not compared"
        return "" if self._is_done(level) else "nothing compared"

    def worst(self, level: str) -> Row | None:
        """The row of a level whose error is the largest part of its bound."""
        judged = [row for row in self.rows if row.level == level and row.status != Status.NOTE]
        rows = [row for row in judged if row.fraction is not None]
        return max(rows, key=lambda row: row.fraction or 0.0, default=None)

    def as_dict(self) -> dict[str, Any]:
        first = self.first_divergence
        follows = {number: cause.path for number, cause in self.consequences.items()}
        return {
            "schema": SCHEMA,
            "name": self.name,
            "ok": self.ok,
            "levels": list(self.levels),
            "seconds": round(self.seconds, 3),
            "first_divergence": None if first is None else _plain(_described(first)),
            "answers": [_plain(answer.as_dict()) for answer in self.answers],
            "inherited": [_plain(drift.as_dict()) for drift in self.drifts],
            "coverage": {
                group: {"compared": done, "expected": total}
                for group, (done, total) in self.coverage.counts().items()
            },
            "not_compared": self.coverage.missing(),
            "environment": self.environment,
            "remarks": self.remarks,
            "quick": self.quick,
            "rows": [
                _plain(
                    {
                        **_described(row),
                        "around": row.named_window,
                        "fraction": row.fraction,
                        "follows": follows.get(id(row)),
                    }
                )
                for row in self.rows
            ],
        }

    def to_json(self) -> str:
        """The whole report as one JSON object; an infinite error is the string "inf"."""
        return json.dumps(self.as_dict(), allow_nan=False)

    def __str__(self) -> str:
        if self.ok:
            total = sum(row.compared for row in self.rows)
            return f"{self.name}: parity at {', '.join(self.levels)}; {total} values compared"
        return f"{self.name}: {self.first_divergence}"


def _described(item: Row | Divergence) -> dict[str, Any]:
    """Its fields under the names of `report.json`, where the window is called `around`."""
    return {"around" if name == "window" else name: value for name, value in vars(item).items()}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) for key, value in values.items()}


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_number(part) for part in value]
    if isinstance(value, dict):
        return _plain(value)
    return _plain(value.as_dict()) if isinstance(value, ValueWindow) else value
