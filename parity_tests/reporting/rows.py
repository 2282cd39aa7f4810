"""What was compared: one row a comparison, and how much of what there is was reached."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from parity_tests.numerics.compare import Measured, Verdict
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status
from parity_tests.reporting.window import ValueWindow

ALLOWED = "allowed, "  # how the detail of a note begins that the user allows
LEFT_OUT = "not compared: "  # and of one that leaves something out, with its reason


@dataclass(frozen=True, kw_only=True)
class Row(Measured):
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
    window: ValueWindow | None = None  # the values at a divergence

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
        unit: str = "",
        diagnosis: str = "",
        distance: float | None = None,
    ) -> Row:
        """The row of a comparison that was made, in the verdict's unit unless told."""
        return cls(
            level=level,
            path=path,
            quantity=quantity,
            check=check,
            side=side,
            dtype=dtype,
            mode=mode,
            diagnosis=diagnosis,
            distance=distance,
            **{**_outcome(verdict), "unit": unit or verdict.unit},
        )

    def with_verdict(self, verdict: Verdict) -> Row:
        """The same row with a comparison's outcome."""
        return replace(self, **_outcome(verdict))

    @property
    def named_window(self) -> ValueWindow | None:
        """`window`, saying whose values it holds."""
        if self.window is None:
            return None
        return replace(self.window, names=(*self._sides(), *self.window.names[2:]))

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
    def allowance(self) -> str:
        """The user's reason why this may differ; empty for every other row."""
        return self.detail.removeprefix(ALLOWED) if self.detail.startswith(ALLOWED) else ""

    @property
    def left_out(self) -> bool:
        """Whether it says that something was not compared, and why."""
        return self.status == Status.NOTE and self.detail.startswith(LEFT_OUT)

    @property
    def place(self) -> tuple[str, ...]:
        """What was compared with what: the same in every batch."""
        where = (self.level, self.path, self.quantity, self.check, self.side, self.dtype, self.mode)
        return tuple(map(str, where))

    @property
    def severity(self) -> tuple[bool, bool, float]:
        """Failed before known, known before fine, then by the part of the bound."""
        fraction = self.fraction or 0.0
        return self.status.failed, self.status == Status.NOTE, fraction

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
        "unit": verdict.unit,
        "position": verdict.position,
        "values": None if None in values else values,
        "compared": verdict.compared,
        "detail": "" if verdict.ok else str(verdict),
        "window": verdict.window,
    }


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
