"""What a parity run found: rows, coverage, the first divergence; as an object and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from parity_tests.numerics.compare import Verdict
from parity_tests.reporting.drift import Answer, Drift, answers, drifts
from parity_tests.reporting.verdicts import LEVELS, Check, Level, Mode, Side, Status
from parity_tests.reporting.window import Around

__all__ = ["SCHEMA", "Coverage", "Divergence", "Report", "Row"]

SCHEMA = 2  # of report.json, described in report.schema.json


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    `check` says which kind ("local", "inherited", "value", "round trip", …), `side` whose values
    were judged, `mode` is "inference" or "train". `status` is "ok", "diverged", "not compared", or
    "note": a difference that is expected, and said. Errors and bounds are in `unit`s.
    """

    level: Level
    path: str
    quantity: str
    status: Status
    check: Check = Check.NONE
    side: Side = Side.NONE
    dtype: str = ""
    mode: Mode = Mode.NONE
    error: float | None = None
    bound: float | None = None
    unit: str = "u"
    position: tuple[int, ...] | None = None
    values: tuple[float, float] | None = None
    compared: int = 0
    detail: str = ""
    diagnosis: str = ""
    distance: float | None = None  # from the referee, relative to its largest value
    allowed: float | None = None  # the bound of that distance
    around: Around | None = None  # the values at a divergence

    @classmethod
    def judged(
        cls,
        verdict: Verdict,
        *,
        level: Level,
        path: str,
        quantity: str,
        check: Check = Check.NONE,
        side: Side = Side.NONE,
        dtype: str = "",
        mode: Mode = Mode.NONE,
        unit: str = "u",
        diagnosis: str = "",
        distance: float | None = None,
    ) -> Row:
        """The row of a comparison that was made."""
        return cls(
            level=level,
            path=path,
            quantity=quantity,
            check=check,
            side=side,
            dtype=dtype,
            mode=mode,
            unit=unit,
            diagnosis=diagnosis,
            distance=distance,
            **_outcome(verdict),
        )

    def with_verdict(self, verdict: Verdict) -> Row:
        """The same row with a comparison's outcome."""
        return replace(self, **_outcome(verdict))

    @property
    def window(self) -> Around | None:
        """`around`, saying whose values they are."""
        if self.around is None:
            return None
        return replace(self.around, names=(*self._sides(), *self.around.names[2:]))

    def _sides(self) -> tuple[str, str]:
        """Whose values were compared: the one that was judged, and what it was judged by."""
        side = "PyTorch" if self.side == Side.TORCH else "Gluon"
        if self.check in (Check.TRANSFER, Check.ROUND_TRIP):
            return "arrived", "sent"
        if self.level == Level.ARTEFACTS:
            return self.check, "imperative"
        if self.check == Check.SCHEDULE:
            return "this project", side
        if self.check == Check.EQUAL_BITS:
            return "PyTorch", "Gluon"
        if self.check == Check.IN_TURN:
            return "several devices", "one device"
        two = (
            self.check == Check.LOCAL and self.dtype == "float64" and self.level != Level.OPTIMIZER
        )
        if not self.side or two or Check.FREE_RUNNING in self.check:
            return "Gluon", "PyTorch"
        witness = self.check == Check.INHERITED and self.dtype == "float64"
        return f"{side} {self.dtype}".strip(), "PyTorch float64" if witness else "float64"

    @property
    def fraction(self) -> float | None:
        """Error as a fraction of the bound; None where nothing was measured."""
        if self.error is None or self.bound is None:
            return None
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound else math.inf

    @property
    def message(self) -> str:
        """`features.3 forward local: 41 u at (0,5,1,1), bound 16 u (output, float32, gluon)`."""
        head = " ".join(part for part in (self.path, self.level, self.check) if part)
        aside = ", ".join(
            part for part in (self.quantity, self.dtype, self.side, self.mode) if part
        )
        because = f"; {self.diagnosis}" if self.diagnosis else ""
        return f"{head}: {self.detail or self.status} ({aside}){because}"


def _outcome(verdict: Verdict) -> dict[str, Any]:
    """What a comparison's verdict sets in its row."""
    values = (verdict.actual, verdict.expected)
    return {
        "status": Status.OK if verdict.ok else Status.DIVERGED,
        "error": verdict.error,
        "bound": verdict.bound,
        "position": verdict.position,
        "values": None if None in values else values,
        "compared": verdict.compared,
        "detail": "" if verdict.ok else str(verdict),
        "around": verdict.around,
    }


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
    around: Around | None = None

    def __str__(self) -> str:
        return self.message


@dataclass
class Coverage:
    """How much of what there is was compared, by group: leaves, parameters, buffers, gradients.

    Parameters and buffers are counted in values, leaves and gradients in items.
    """

    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    compared: dict[str, set[str]] = field(default_factory=dict)

    def expect(self, group: str, key: str, size: int = 1) -> None:
        self.expected.setdefault(group, {})[key] = size

    def done(self, group: str, key: str) -> None:
        self.compared.setdefault(group, set()).add(key)

    def counts(self) -> dict[str, tuple[int, int]]:
        """(compared, expected) by group."""
        return {
            group: (
                sum(n for key, n in keys.items() if key in self.compared.get(group, ())),
                sum(keys.values()),
            )
            for group, keys in self.expected.items()
        }

    def percent(self) -> dict[str, float]:
        return {g: 100.0 * done / total for g, (done, total) in self.counts().items() if total}

    def missing(self) -> list[str]:
        """What was expected and not compared, as `group key`."""
        return [
            f"{group} {key}"
            for group, keys in self.expected.items()
            for key in keys
            if key not in self.compared.get(group, ())
        ]

    def merge(self, other: Coverage) -> None:
        for group, keys in other.expected.items():
            self.expected.setdefault(group, {}).update(keys)
        for group, done in other.compared.items():
            self.compared.setdefault(group, set()).update(done)


@dataclass
class Report:
    """The outcome of one pair's parity run; `ok` is False too when nothing was compared."""

    name: str
    levels: tuple[Level, ...]
    rows: list[Row] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, rows: Iterable[Row], coverage: Coverage | None = None) -> None:
        self.rows.extend(rows)
        if coverage is not None:
            self.coverage.merge(coverage)

    @property
    def ok(self) -> bool:
        failed = any(row.status in (Status.DIVERGED, Status.NOT_COMPARED) for row in self.rows)
        every_level = all(self.compared(level) for level in self.levels)
        return bool(self.levels) and every_level and not failed and not self.coverage.missing()

    def compared(self, level: str) -> int:
        """How many values were compared at a level."""
        return sum(row.compared for row in self.rows if row.level == level)

    @property
    def failures(self) -> list[Row]:
        """What failed, causes first: by level, and within a level in the order of computation."""
        order = {level: i for i, level in enumerate(LEVELS)}
        failed = [row for row in self.rows if row.status in (Status.DIVERGED, Status.NOT_COMPARED)]
        return sorted(failed, key=lambda row: (order[row.level], row.status != Status.DIVERGED))

    @property
    def first_divergence(self) -> Divergence | None:
        """None exactly when `ok`."""
        for row in self.failures:
            return Divergence(
                row.level,
                row.path,
                row.quantity,
                row.error,
                row.bound,
                row.diagnosis,
                row.message,
                row.window,
            )
        if self.ok:
            return None
        missing = self.coverage.missing()
        empty = [level for level in self.levels if not self.compared(level)]
        level = empty[0] if empty else self.levels[0] if self.levels else Level.NONE
        detail = f"not compared: {', '.join(missing[:5])}" if missing else "nothing was compared"
        return Divergence(level, "", "coverage", None, None, "", f"{level}: {detail}")

    @property
    def notes(self) -> list[Row]:
        """Differences that are expected, and said."""
        return [row for row in self.rows if row.status == Status.NOTE]

    @property
    def drifts(self) -> list[Drift]:
        """Inherited error: each side's distance from float64, value by value, and who moved."""
        return drifts(self.rows)

    @property
    def answers(self) -> list[Answer]:
        """Whether that is normal: one a level that has it."""
        return answers(self.drifts)

    def worst(self, level: str) -> Row | None:
        """The row of a level whose error is the largest part of its bound."""
        judged = [row for row in self.rows if row.level == level and row.status != Status.NOTE]
        rows = [row for row in judged if row.fraction is not None]
        return max(rows, key=lambda row: row.fraction or 0.0, default=None)

    def as_dict(self) -> dict[str, Any]:
        first = self.first_divergence
        return {
            "schema": SCHEMA,
            "name": self.name,
            "ok": self.ok,
            "levels": list(self.levels),
            "seconds": round(self.seconds, 3),
            "first_divergence": None if first is None else _plain(vars(first)),
            "answers": [_plain(answer.as_dict()) for answer in self.answers],
            "inherited": [_plain(drift.as_dict()) for drift in self.drifts],
            "coverage": {
                group: {"compared": done, "expected": total}
                for group, (done, total) in self.coverage.counts().items()
            },
            "not_compared": self.coverage.missing(),
            "environment": self.environment,
            "rows": [
                _plain({**vars(row), "around": row.window, "fraction": row.fraction})
                for row in self.rows
            ],
        }

    def to_json(self) -> str:
        """The whole report as one JSON object; an infinite error is the string "inf"."""
        return json.dumps(self.as_dict(), allow_nan=False)

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page."""
        from parity_tests.reporting.html import page

        Path(path).write_text(page([self]), encoding="utf-8")

    def __str__(self) -> str:
        if self.ok:
            total = sum(row.compared for row in self.rows)
            return f"{self.name}: parity at {', '.join(self.levels)}; {total} values compared"
        return f"{self.name}: {self.first_divergence}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) for key, value in values.items()}


def _number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [_number(part) for part in value]
    if isinstance(value, dict):
        return _plain(value)
    return _plain(value.as_dict()) if isinstance(value, Around) else value
