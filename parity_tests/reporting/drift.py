"""Is this difference normal? Each side's distance from float64, their ratio, and who moved.

Two frameworks that add the same numbers in another order differ, and the difference grows from
layer to layer. Normal is what stays inside the envelope, which is measured: what rounding alone
does to this net on this input (`parity_tests.levels.envelope`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side


@dataclass(frozen=True)
class Distance:
    """How far one side is from the float64 referee at one value, at the worst of its elements.

    `relative` is that distance by the largest value of the referee there, `share` the same as a
    part of the bound. Both are None where it cannot be measured: non-finite, or of another shape.
    """

    relative: float | None
    share: float | None
    ok: bool

    def as_dict(self) -> dict[str, Any]:
        return {"distance": self.relative, "share_of_bound": self.share, "inside": self.ok}


@dataclass(frozen=True)
class Drift:
    """What the two float32 streams have gathered at one value.

    `bound` is what the envelope allows, relative to the largest value. `outside` is who has left
    it: nobody (empty), "gluon", "torch" or "both", or "function" where Gluon in float64 has left
    torch in float64 already: then the two compute different functions, and which of them is the
    right one no comparison can say.
    """

    level: Level
    mode: Mode
    path: str
    quantity: str
    gluon: Distance
    torch: Distance
    bound: float | None
    outside: str

    @property
    def normal(self) -> bool:
        return not self.outside

    @property
    def ratio(self) -> float | None:
        """Gluon's distance by PyTorch's; None where PyTorch's is 0, or one is not measured."""
        if self.gluon.relative is None or not self.torch.relative:
            return None
        return self.gluon.relative / self.torch.relative

    @property
    def share(self) -> float:
        """The larger of the two sides' parts of the bound."""
        shares = [side.share for side in (self.gluon, self.torch)]
        return max(math.inf if share is None else share for share in shares)

    @property
    def place(self) -> str:
        """`features.3`, for its output; `features.3 weight gradient` for anything else."""
        return self.path if self.quantity == "output" else f"{self.path} {self.quantity}"

    @property
    def sentence(self) -> str:
        """The answer for this value, in words."""
        if self.outside == "function":
            return (
                f"Gluon and PyTorch differ at {self.place} in float64 already: they compute "
                "different functions, which rounding does not explain: not normal"
            )
        if self.outside == "both":
            return (
                f"Gluon and PyTorch both moved at {self.place}: {_far(self.gluon)} and "
                f"{_far(self.torch)}, while they agree in float64: not normal"
            )
        if self.outside:
            side, other = (
                (self.gluon, self.torch) if self.outside == "gluon" else (self.torch, self.gluon)
            )
            name, beside = _SIDES if self.outside == "gluon" else reversed(_SIDES)
            return (
                f"{name} moved at {self.place}: {_far(side)}, {beside} {_share(other)}: not normal"
            )
        return f"{_compared(self)}; both are inside the envelope: normal"

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "mode": self.mode,
            "path": self.path,
            "quantity": self.quantity,
            "gluon": self.gluon.as_dict(),
            "torch": self.torch.as_dict(),
            "ratio": self.ratio,
            "bound": self.bound,
            "normal": self.normal,
            "moved": self.outside,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Answer:
    """Whether the inherited error of a level is normal, and the place that says so best.

    That is the first value outside the envelope, in the order of computation, or else the one with
    the largest part of it.
    """

    level: Level
    normal: bool
    at: Drift
    compared: int

    @property
    def sentence(self) -> str:
        if not self.normal:
            return self.at.sentence
        values = "value" if self.compared == 1 else "values"
        most = f"{self.at.share:.2g} of the bound, the most of {self.compared} {values}"
        return f"{self.at.sentence} ({most})" if self.at.share else self.at.sentence

    def as_dict(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "normal": self.normal,
            "compared": self.compared,
            "path": self.at.path,
            "quantity": self.at.quantity,
            "sentence": self.sentence,
        }


_SIDES = ("Gluon", "PyTorch")


@dataclass
class _Group:
    rows: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    def worst(self, side: Side, dtype: str) -> Row | None:
        return max(self.rows.get((side, dtype), ()), key=_rank, default=None)


def _rank(row: Row) -> tuple[bool, float]:
    share = row.fraction
    return row.status.failed, math.inf if share is None else share


def drifts(rows: Iterable[Row]) -> list[Drift]:
    """One for every value that has inherited rows of both sides, in their order.

    Of a leaf that is called several times the worst call counts.
    """
    groups: dict[tuple[Level, Mode, str, str], _Group] = {}
    for row in rows:
        if row.check == Check.INHERITED and row.compared and not row.allowance:
            key = (row.level, row.mode, row.path, row.quantity)
            group = groups.setdefault(key, _Group())
            group.rows.setdefault((row.side, row.dtype), []).append(row)
    measured = []
    for key, group in groups.items():
        gluon, torch = group.worst(Side.GLUON, "float32"), group.worst(Side.TORCH, "float32")
        if gluon is None or torch is None:
            continue
        bounds = [row.allowed for row in (gluon, torch) if row.allowed is not None]
        outside = _outside(gluon, torch, group.worst(Side.GLUON, "float64"))
        bound = max(bounds, default=None)
        measured.append(Drift(*key, _distance(gluon), _distance(torch), bound, outside))
    return measured


def _distance(row: Row) -> Distance:
    return Distance(row.distance, row.fraction, not row.status.failed)


def _outside(gluon: Row, torch: Row, witness: Row | None) -> str:
    if witness is not None and witness.status.failed:
        return "function"
    if gluon.status.failed and torch.status.failed:
        return "both"
    return "gluon" if gluon.status.failed else "torch" if torch.status.failed else ""


def answers(measured: Sequence[Drift]) -> list[Answer]:
    """One a level."""
    by_level = []
    for level in dict.fromkeys(drift.level for drift in measured):
        of_level = [drift for drift in measured if drift.level == level]
        wrong = [drift for drift in of_level if not drift.normal]
        if wrong:  # a gradient comes from the net's end
            at = wrong[-1] if level == Level.BACKWARD else wrong[0]
        else:
            at = max(of_level, key=lambda drift: drift.share)
        by_level.append(Answer(level, not wrong, at, len(of_level)))
    return by_level


def _compared(drift: Drift) -> str:
    gluon, torch = drift.gluon.relative or 0.0, drift.torch.relative or 0.0
    if not gluon and not torch:
        return f"Gluon and PyTorch equal float64 at {drift.place}"
    if not gluon or not torch:
        name, other = reversed(_SIDES) if not gluon else _SIDES
        size = max(gluon, torch)
        return f"{other} equals float64 at {drift.place}, {name} is off by {size:.1e}"
    sizes = (
        f"at {drift.place} ({max(gluon, torch):.1e} beside {min(gluon, torch):.1e} of the largest "
        "value)"
    )
    if max(gluon, torch) < 1.1 * min(gluon, torch):
        return f"Gluon and PyTorch are equally far from float64 {sizes}"
    if gluon > torch:
        return f"Gluon is {_times(gluon / torch)} farther from float64 than PyTorch {sizes}"
    return f"PyTorch is {_times(torch / gluon)} farther from float64 than Gluon {sizes}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 9.95 else f"{ratio:.0f} times"


def _far(side: Distance) -> str:
    if side.share is None:
        return "its values cannot be measured"
    if math.isinf(side.share):
        return "it has left a value that nothing rounds"
    return f"{_times(side.share)} its bound from float64"


def _share(side: Distance) -> str:
    return "equals it" if not side.share else f"is at {side.share:.2g} of the bound"
