"""How one quantity of one side moved between two snapshots."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from parity_tests.gate.record.operations import OperationChanges, operation_changes
from parity_tests.gate.record.quantities import CHECKS, Failure, QuantityRecord, SideRecord
from parity_tests.reporting.verdicts import Check, Level


class Change(StrEnum):
    """What two snapshots say of a side, or of one quantity of it."""

    UNCHANGED = "unchanged"
    ROUNDING = "moved within rounding"
    SEMANTICS = "moved: semantics"
    NOT_COMPARED = "not compared"
    NOTHING_COMPARED = "nothing compared"  # of neither side
    RECORDED = "recorded"  # a pair that had no baseline


@dataclass(frozen=True)
class ChangedQuantity:
    """One quantity that is not bit-equal any more.

    `error` is the largest move as a part of its bound, `dtype` where that was seen, and `hint` what
    kind of move it is, where that can be told. `source` is the line of code that runs the
    operation, and `code` how that line, or the net around it, is another one now.
    """

    subject: str
    side: str
    level: Level
    check: Check
    path: str
    kind: str
    name: str
    verdict: Change
    dtype: str
    error: float
    detail: str
    hint: str = ""
    source: str = ""
    code: str = ""

    @property
    def place(self) -> str:
        """`lenet features.3 (conv2d) forward: output`, and the line of code where it is known."""
        kind = "" if self.kind in ("net", self.path) else f" ({self.kind})"
        line = f" ({self.source})" if self.source else ""
        return f"{self.subject} {self.path}{kind}{line} {self.level}: {self.name}"

    @property
    def order(self) -> tuple[bool, int]:
        """Causes first: semantics, then by level."""
        return self.verdict != Change.SEMANTICS, CHECKS.index((self.level, self.check))


def changed_quantities(
    subject: str, side: str, old: SideRecord, new: SideRecord
) -> list[ChangedQuantity]:
    """What moved between two snapshots of one side, in the order of causes.

    Operations that one of the two has alone count where semantics moved: then they are causes.
    """
    executed = operation_changes(old.operations, new.operations)
    changed = list(_changed(subject, side, old, new, executed))
    if any(quantity.verdict == Change.SEMANTICS for quantity in changed):
        local = [quantity for quantity in changed if quantity.check == Check.LOCAL]
        told = {quantity.path for quantity in local if quantity.verdict == Change.SEMANTICS}
        changed = [
            *local,
            *(
                ChangedQuantity(
                    subject, side, Level.FORWARD, Check.LOCAL, name, change.step.kind, "operation",
                    Change.SEMANTICS, "", math.inf, change.detail, "", change.step.source,
                    change.detail,
                )
                for name, change in executed.changes.items()
                if name not in told
            ),
            *(quantity for quantity in changed if quantity.check != Check.LOCAL),
        ]  # fmt: skip
    return changed


def _changed(
    subject: str, side: str, old: SideRecord, new: SideRecord, executed: OperationChanges
) -> Iterator[ChangedQuantity]:
    before, after = old.by_key(), new.by_key()
    added = unrecorded(old, new)
    for key in dict.fromkeys((*before, *after)):
        of_modules = key[0] in (Level.TRAINING, Level.ARTEFACTS)
        if key[:2] in added or (not of_modules and key[2] in executed.alone):
            continue
        a, b = before.get(key), after.get(key)
        known = b or a
        assert known is not None  # the key is one of the two's
        verdict, dtype, error, detail, hint = _judged(a, b)
        if verdict != Change.UNCHANGED:
            change = None if of_modules else executed.changes.get(known.path)
            yield ChangedQuantity(
                subject, side, known.level, known.check, known.path, known.kind, known.name,
                verdict, dtype, error, detail, hint,
                "" if of_modules else executed.source(known.path), change.detail if change else "",
            )  # fmt: skip


def unrecorded(old: SideRecord, new: SideRecord) -> list[tuple[Level, Check]]:
    """The checks that the new one has and the old one none of: an earlier version did not yet."""
    before, after = ({key[:2] for key in record.by_key()} for record in (old, new))
    return [check for check in CHECKS if check in after - before]


_Judged = tuple[Change, str, float, str, str]


def _judged(a: QuantityRecord | Failure | None, b: QuantityRecord | Failure | None) -> _Judged:
    if isinstance(b, Failure):
        if isinstance(a, Failure):
            return Change.UNCHANGED, "", 0.0, "", ""
        return _semantics(f"does not run any more: {b.reason}")
    if a is None or isinstance(a, Failure):
        return _semantics("is new: it was not computed before")
    if b is None:
        return _semantics("is not computed any more")
    return _moved(a, b)


def _semantics(detail: str, hint: str = "") -> _Judged:
    return Change.SEMANTICS, "", math.inf, detail, hint


def _moved(a: QuantityRecord, b: QuantityRecord) -> _Judged:
    if (a.digest32, a.digest64) == (b.digest32, b.digest64):
        return Change.UNCHANGED, "", 0.0, "", ""
    if a.shape != b.shape:
        return _semantics(f"has shape {b.shape}, had {a.shape}", "another shape")
    if b.nonfinite > a.nonfinite:
        return _semantics(f"has {b.nonfinite} values that are not finite", "not finite")
    double = _double(a, b)
    if double > 1:
        return Change.SEMANTICS, "float64", double, _detail("float64", double), _hint(a, b)
    # Each float32 value is held against the same net's float64, all of them and not a sample alone.
    # What was farther off when it was recorded may stay as far.
    bound = max(a.limit, a.distance)
    single = _part(b.distance, bound)
    if single > 1:
        hint = "float64 has not moved: another precision of float32's arithmetic"
        return Change.SEMANTICS, "float32", single, _detail("float32", single), hint
    worst = max(double, single)
    dtype = "float64" if a.digest64 != b.digest64 else "float32"
    if _zeros_alone(a, b):
        return Change.ROUNDING, dtype, 0.0, "the signs of zeros moved, and no value", ""
    return Change.ROUNDING, dtype, worst, _detail(dtype, worst), ""


def _zeros_alone(a: QuantityRecord, b: QuantityRecord) -> bool:
    """Whether the bits differ and no value does, as far as sample and sums tell."""
    pairs = ((a.single, b.single), (a.double, b.double), (a.sums, b.sums))
    return a.distance == b.distance and all(np.array_equal(x, y) for x, y in pairs)


def _double(a: QuantityRecord, b: QuantityRecord) -> float:
    """The largest move in float64, by the sample and by the sums, as a part of its bound."""
    bound = a.limit * a.fraction
    if a.digest64 == b.digest64:
        return 0.0
    worst = _part(_most(a.double, b.double), bound)
    if a.sums.size and a.sums.shape == b.sums.shape:
        # n values that each move by no more than the bound, with random signs: four deviations
        worst = max(worst, _part(_most(a.sums, b.sums), 4 * math.sqrt(a.size) * bound))
    return worst


def _most(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return math.inf
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.abs(a[both] - b[both]).max(initial=0.0))


def _part(move: float, bound: float) -> float:
    if move == 0:
        return 0.0
    return move / bound if bound else math.inf


def _detail(dtype: str, error: float) -> str:
    if math.isinf(error):
        return f"{dtype} moved, and the operation rounds nothing"
    figure = f"{error:.2g}" if error < 1000 else f"{error:.1e}"
    return f"{dtype} moved by {figure} of its bound"


def _hint(a: QuantityRecord, b: QuantityRecord) -> str:
    """What kind of move it is, by the sampled values."""
    old, new = a.double, b.double
    usable = np.isfinite(old) & np.isfinite(new)
    old, new = old[usable], new[usable]
    if old.size < 2:
        return ""
    moved = ~np.isclose(old, new, rtol=1e-9, atol=1e-9 * float(np.abs(old).max()))
    some = f"{moved.mean():.0%} of its values moved"
    if not moved.any():
        return "every value moved by less than 1e-9 of the largest"
    x, y = old[moved], new[moved]
    scale = float(np.abs(old).max()) or 1.0
    strong = np.abs(x) > 1e-3 * scale
    if strong.sum() > 1:
        ratio = y[strong] / x[strong]
        if np.ptp(ratio) <= 1e-6 * abs(ratio.mean()):
            return f"{some}, to {ratio.mean():.6g} of what they were"
    if np.ptp(y - x) <= 1e-6 * scale and x.size > 1:
        return f"{some}, by {np.mean(y - x):.6g} each"
    if np.allclose(np.sort(old), np.sort(new), rtol=1e-9):
        return "the same values in another order"
    if not y.any():
        return f"{some}, to 0"
    return some
