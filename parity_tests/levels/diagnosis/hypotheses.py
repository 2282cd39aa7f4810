"""What may have become of an array: named hypotheses, each tried on the values themselves.

A hypothesis makes one side's array of the other's; it explains a divergence where what it makes is
there. A wrong name is worse than none, so two names that both fit are no explanation, unless one
says more than the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from parity_tests.numerics.compare import as_numbers
from parity_tests.numerics.rounding import mantissa

SLACK = {"float64": 2.0**-40, "float32": 2.0**-20}  # of the largest value: a few roundings
_GENERAL = ("permuted rows",)  # says less than any name that fits as well


@dataclass(frozen=True)
class Explanation:
    """A hypothesis that fits: its name, and what it says of these values."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


def only_explanation(explanations: Iterator[Explanation]) -> str:
    """The explanation in words, if there is one and only one."""
    by_name: dict[str, Explanation] = {}
    for explanation in explanations:
        by_name.setdefault(explanation.name, explanation)
    names = [name for name in by_name if name not in _GENERAL] or list(by_name)
    if set(names) == {"float16 rounding", "TF32 rounding"}:
        return "float16 or TF32 rounding: every value has a mantissa of 10 bits"
    return str(by_name[names[0]]) if len(names) == 1 else ""


def close(a: np.ndarray, b: np.ndarray, slack: float = 0.0) -> bool:
    """Equal but for `slack` times the largest value."""
    if a.shape != b.shape or not a.size:
        return False
    if slack == 0.0:
        return bool(np.array_equal(a, b))
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    largest = max(float(np.abs(a).max()), float(np.abs(b).max()))
    return float(np.abs(a.astype(np.float64) - b).max()) <= slack * largest


def explained(
    ours: np.ndarray,
    theirs: np.ndarray,
    *,
    role: str = "",
    kind: str = "",
    slack: float = 0.0,
    batch: int = 0,
    others: Mapping[str, np.ndarray] | None = None,
) -> str:
    """What turns Gluon's array into torch's, or the other way round; empty where nothing does.

    `role` is the tensor's ("weight", "image", "output", "gradient", …), `kind` the leaf's.
    `others` are Gluon's other tensors by name, which torch's may hold instead. `batch` is the
    number of samples that a gradient is summed over.
    """
    if ours.shape != theirs.shape:
        return ""
    numbers = as_numbers(ours, theirs)  # there is no difference of booleans
    name = ""
    if ours.size > 1:
        name = only_explanation(_all(*numbers, role, kind, slack, batch, others or {}))
    if not name and numbers[0] is not ours:
        different = int((ours != theirs).sum())
        return f"other whole numbers: {different} of {ours.size} differ (indices, a mask)"
    return name


def _all(
    ours: np.ndarray, theirs: np.ndarray, role: str, kind: str, slack: float, batch: int,
    others: Mapping[str, np.ndarray],
) -> Iterator[Explanation]:  # fmt: skip
    for name, other in others.items():
        if other.shape == theirs.shape and np.array_equal(other, theirs):
            yield Explanation("swapped tensors", f"torch holds what Gluon has as {name}")
    special = list(_constants(ours, theirs, role, kind))
    if special:
        yield from special
        return
    for name, changed in rearranged(ours, role):
        if close(changed, theirs, slack):
            yield Explanation(name, "Gluon's values so changed are torch's")
    for name, changed in rearranged(theirs, role):
        if close(changed, ours, slack):
            yield Explanation(name, "torch's values so changed are Gluon's")
    if ours.ndim > 1 and role not in ("image", "output", "gradient"):
        yield from _permuted(ours, theirs)
    if close(-ours, theirs, slack):
        yield Explanation("negated", "each is the other's negative")
        return
    if ours.dtype == np.float32:
        yield from _roundings(ours, theirs)
    yield from single_value(ours, theirs)
    yield from factor_of(ours, theirs, role, slack, batch)


def _constants(ours: np.ndarray, theirs: np.ndarray, role: str, kind: str) -> Iterator[Explanation]:
    if kind == "batchnorm" and role.startswith("running"):
        initial = float(role == "running_var")
        for side, values in (("Gluon", ours), ("torch", theirs)):
            if (values == initial).all():
                yield Explanation(
                    "fresh statistics", f"{side}'s are all {initial:g}, never trained"
                )
        return
    for side, values in (("Gluon", ours), ("torch", theirs)):
        if not values.any():
            name = "stopped gradient" if role == "gradient" else "zeroed tensor"
            yield Explanation(name, f"{side}'s are all 0")
        elif kind == "batchnorm" and role == "weight" and (values == 1).all():
            yield Explanation("gamma ≡ 1", f"{side}'s are all 1")


def rearranged(x: np.ndarray, role: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The array in other orders that have a name."""
    image = role in ("image", "output")
    if x.ndim == 2 and x.shape[0] == x.shape[1] and not image:
        yield "transposed weight", x.T
    if x.ndim == 4:
        if x.shape[0] == x.shape[1] > 1 and not image:
            yield "transposed weight", x.swapaxes(0, 1)
        if x.shape[2] == x.shape[3] > 1:
            yield "transposed" if image else "transposed kernel", x.swapaxes(2, 3)
        if x.shape[1] == 3:
            yield "BGR channels", x[:, ::-1]
        if image and x.shape[3] > 1:
            yield "mirrored", x[..., ::-1]
        if not image and x.shape[2] * x.shape[3] > 1:
            yield "flipped kernel", x[:, :, ::-1, ::-1]
    if x.ndim == 2 and not image:
        columns = x.shape[1]
        for channels in range(2, columns // 2 + 1):
            if columns % channels == 0:
                last = x.reshape(x.shape[0], channels, -1).swapaxes(1, 2)
                yield "NHWC flatten order", last.reshape(x.shape)
    if x.shape[0] > 2 and not (image and x.ndim > 2):
        yield "rolled rows", np.roll(x, 1, axis=0)


def _permuted(ours: np.ndarray, theirs: np.ndarray) -> Iterator[Explanation]:
    rows = [np.ascontiguousarray(x.reshape(len(x), -1)) for x in (ours, theirs)]
    first, second = (sorted(row.tobytes() for row in part) for part in rows)
    if first == second and len(set(first)) == len(first) > 1:
        yield Explanation("permuted rows", "both have the same rows in another order")


def _where_finite(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values (n,) that are finite on both sides; none where the others differ.

    Those are the infinities of a mask, with which nothing can be computed.
    """
    finite = np.isfinite(ours) & np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        finite = np.zeros_like(finite)
    return ours[finite], theirs[finite]


def _roundings(ours: np.ndarray, theirs: np.ndarray) -> Iterator[Explanation]:
    ours, theirs = _where_finite(ours, theirs)
    if not ours.size:
        return
    for side, fine, coarse in (("torch", ours, theirs), ("Gluon", theirs, ours)):
        with np.errstate(over="ignore"):
            half = fine.astype(np.float16).astype(np.float32)
        if np.array_equal(half, coarse):
            yield Explanation("float16 rounding", f"{side}'s values are the other's in float16")
        if any(np.array_equal(mantissa(fine, 10, away=away), coarse) for away in (True, False)):
            yield Explanation("TF32 rounding", f"{side}'s are the other's with 10 bits of mantissa")
        if np.array_equal(mantissa(fine, 7), coarse):
            yield Explanation("bfloat16 rounding", f"{side}'s are the other's in bfloat16")
        step = float(np.abs(fine).max()) / 127
        if step and close(np.round(fine / step) * step, coarse, 2.0**-22):
            yield Explanation("int8 rounding", f"{side}'s are multiples of the largest over 127")


def single_value(
    ours: np.ndarray, theirs: np.ndarray, apart: np.ndarray | None = None
) -> Iterator[Explanation]:
    """One value of many; `apart` says which differ by more than their bound."""
    apart = ours != theirs if apart is None else apart
    if apart.sum() == 1 and apart.size >= 8:
        at = ",".join(str(int(i)) for i in np.argwhere(apart)[0])
        yield Explanation("single value", f"all but one of {apart.size} agree, the one at ({at})")


def factor_of(
    ours: np.ndarray, theirs: np.ndarray, role: str, slack: float, batch: int
) -> Iterator[Explanation]:
    """One number times the other."""
    a, b = _where_finite(ours.astype(np.float64), theirs.astype(np.float64))
    with np.errstate(over="ignore"):
        square = float((a * a).sum())
    if not square or not np.isfinite(square):
        return
    ratio = float((a * b).sum()) / square
    slack = slack or 2.0**-22
    if ratio == 1 or not close(a * ratio, b, min(slack, abs(ratio - 1) / 8)):
        return
    larger = max(abs(ratio), abs(1 / ratio)) if ratio else 0.0
    near = 4 * max(slack, 2.0**-40)
    if batch > 2 and abs(larger / batch - 1) < near:
        yield Explanation("factor of B", f"torch's are {ratio:.6g} times Gluon's, B is {batch}")
        return
    count = larger / (larger - 1) if larger > 1 else 0.0
    if role == "running_var" and 2 <= count < 1e6 and abs(count - round(count)) < 0.05:
        detail = f"{round(count)}/{round(count) - 1} of one another: unbiased beside biased"
        yield Explanation("variance ratio n/(n−1)", detail)
        return
    yield Explanation("constant factor", f"torch's are {ratio:.9g} times Gluon's")
