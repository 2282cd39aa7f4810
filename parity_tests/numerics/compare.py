"""The one comparison of the suite.

Errors are measured in u·s: u is the unit roundoff of the dtype (2⁻²⁴ in float32, 2⁻⁵³ in float64)
and s, computed in float64 by `parity_tests.numerics.scales`, is the size of the sum that was
rounded. An operation that rounds nothing has s = 0, and its values must be equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from parity_tests.reporting.window import ValueWindow, window_at

__all__ = [
    "ENVELOPE_FACTOR", "EXACT", "SMALLEST", "UNIT", "Measured", "Mismatch", "Verdict", "as_numbers",
    "bits_equal", "compare", "holds_whole_numbers", "values_equal",
]  # fmt: skip

UNIT = {"float32": 2.0**-24, "float64": 2.0**-53}
# Below the smallest normal number a float has no full precision left, and oneDNN flushes to zero.
SMALLEST = {"float32": 2.0**-126, "float64": 2.0**-1022}

EXACT = 0.0
ENVELOPE_FACTOR = 4.0


class Mismatch(AssertionError):
    """A comparison that failed, raised by `Verdict.require`."""


class Measured:
    """What has an error and a bound; both are None where nothing was measured."""

    error: float | None
    bound: float | None

    @property
    def fraction(self) -> float | None:
        """Error as a fraction of the bound: 0 for equal values, above 1 for a divergence."""
        if self.error is None or self.bound is None:
            return None
        if self.error == 0:
            return 0.0
        return self.error / self.bound if self.bound else math.inf


@dataclass(frozen=True)
class Verdict(Measured):
    """What one comparison found.

    `reason` is empty when it passed, else the first check that failed: "nothing compared", "shape",
    "dtype", "not finite", "constant", "dead" or "values". `error` and `bound` are in `unit`s.
    `window` has the values near `position` of what failed.
    """

    reason: str
    detail: str
    error: float | None = None
    bound: float | None = None
    position: tuple[int, ...] | None = None
    actual: float | None = None
    expected: float | None = None
    compared: int = 0
    unit: str = "u"
    window: ValueWindow | None = None

    @property
    def ok(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        if self.reason and self.reason != "values":
            return f"{self.reason}: {self.detail}"
        if not self.error and self.ok:
            return f"equal, {self.compared} values"
        at = "(" + ",".join(map(str, self.position or ())) + ")"
        if self.error == math.inf:
            return f"{self.actual!r} at {at}, expected {self.expected!r} exactly"
        unit = f" {self.unit}" if self.unit else ""
        return f"{_figure(self.error)}{unit} at {at}, bound {_figure(self.bound)}{unit}"

    def require(self, where: str = "") -> Verdict:
        """Return the verdict if it passed; raise Mismatch with its message otherwise."""
        if not self.ok:
            values = f" ({self.actual!r} beside {self.expected!r})" if self.position else ""
            raise Mismatch(f"{where}: {self}{values}" if where else f"{self}{values}")
        return self


def _figure(number: float | None) -> str:
    if number is None or not math.isfinite(number):
        return "∞"
    if number < 1e6:
        return f"{number:.3g}" if number < 1000 else f"{number:.0f}"
    return f"{number:.1e}".replace("e+", "e")


def compare(
    actual: np.ndarray,
    expected: np.ndarray,
    *,
    scale: np.ndarray | float = EXACT,
    factor: float = 16.0,
    allowance: np.ndarray | float = 0.0,
    dtype: str | None = None,
    unit: str | None = None,
    content: str = "varied",
) -> Verdict:
    """Compare in one order: something was compared, shape, dtype, finite, content, values.

    Args:
        actual: the values that are judged, of any shape.
        expected: the values that they are judged by, of the same shape.
        scale: s, an array like `expected` or one number; 0 asks for equal values (±0 are equal).
        factor: how many u·s the values may be apart.
        allowance: an absolute error allowed on top of factor·u·s.
        dtype: what `actual` must have; by default what `expected` has.
        unit: the dtype whose unit roundoff u counts; by default that of `actual`.
        content: what `expected` must hold for the comparison to mean anything: "varied" values,
            "nonzero" ones (a gradient may be constant), or "any" (so may a new bias be zero).

    Returns:
        The verdict, with the worst error in u·s and where it is. `require()` raises it.

    Raises:
        ValueError: a scale or factor that is not finite: such a bound would pass anything.

    Examples:
        >>> expected = np.array([1.0, 2.0], np.float32)
        >>> print(compare(expected + np.float32(2**-20), expected, scale=1.0))
        16 u at (0), bound 16 u
        >>> compare(expected + np.float32(2**-19), expected, scale=1.0).ok
        False
        >>> print(compare(np.zeros(2), np.zeros(2)))
        dead: every one of 2 values is 0
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.size == 0 or expected.size == 0:
        return Verdict("nothing compared", f"shapes {actual.shape} and {expected.shape}")
    if actual.shape != expected.shape:
        return Verdict("shape", f"{actual.shape} beside {expected.shape}")
    kind = _name(actual.dtype)
    wanted = dtype or _name(expected.dtype)
    if kind != wanted:
        return Verdict("dtype", f"{actual.dtype}, expected {wanted}")
    actual, expected = _without_overflow(actual, expected, wanted)
    same = bool((actual == expected).all())  # as most are; NaN equals nothing
    refused = (None if same else _not_finite(actual)) or _not_finite(expected)
    refused = refused or _empty_of_content(expected, content)
    if refused:
        return replace(_pictured(refused, actual, expected), compared=actual.size)
    size = np.asarray(scale, dtype=np.float64)
    unit = unit or kind
    if not isinstance(allowance, float) or allowance:
        size = size + np.asarray(allowance) / (factor * UNIT[unit])
    _require_finite(size, factor)
    if same:
        return _verdict(actual, expected, (0,) * actual.ndim, 0.0, size, factor)
    verdict = _values(actual, expected, size, factor, unit)
    return verdict if verdict.ok else _pictured(verdict, actual, expected)


def _without_overflow(
    actual: np.ndarray, expected: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Both with 0 where the first is ∞ rightly: the other one is beyond the first one's dtype."""
    if kind not in UNIT or not np.isinf(actual).any():
        return actual, expected
    beyond = np.isinf(actual) & (np.sign(actual) == np.sign(expected))
    beyond &= np.isfinite(expected) & (np.abs(expected) > float(np.finfo(kind).max))
    return np.where(beyond, 0, actual), np.where(beyond, 0, expected)


def _pictured(verdict: Verdict, actual: np.ndarray, expected: np.ndarray) -> Verdict:
    """The verdict with the values around its position, where it has one."""
    if verdict.position is None:
        return verdict
    window = window_at(verdict.position, {"actual": actual, "expected": expected})
    return replace(verdict, window=window)


@cache
def _name(dtype: np.dtype) -> str:
    return str(dtype)


def _not_finite(array: np.ndarray) -> Verdict | None:
    finite = np.isfinite(array)
    if finite.all():
        return None
    position = tuple(int(i) for i in np.argwhere(~finite)[0])
    detail = f"{array[position]} at ({','.join(map(str, position))}), {(~finite).sum()} in all"
    return Verdict("not finite", detail, position=position)


def _empty_of_content(array: np.ndarray, content: str) -> Verdict | None:
    if content == "any":
        return None
    low, high = array.min(), array.max()
    if low == high == 0:
        return Verdict("dead", f"every one of {array.size} values is 0")
    if low == high and array.size > 1 and content == "varied":
        return Verdict("constant", f"every one of {array.size} values is {low}")
    return None


def _require_finite(size: np.ndarray, factor: float) -> None:
    if not (size.min() >= 0 and math.isfinite(size.max())):  # NaN is neither
        raise ValueError("the scale of a comparison must be finite and not negative")
    if not math.isfinite(factor):
        raise ValueError(f"the factor of a comparison is {factor}, expected a finite number")


def _values(
    actual: np.ndarray, expected: np.ndarray, size: np.ndarray, factor: float, unit: str
) -> Verdict:
    if np.issubdtype(actual.dtype, np.floating):
        distance = np.asarray(np.abs(actual.astype(np.float64) - expected.astype(np.float64)))
    else:  # integers and booleans: exact in their own type
        distance = np.asarray(actual != expected, np.float64)
    roundoff = UNIT.get(unit, UNIT["float64"]) * size
    if unit in SMALLEST:
        roundoff = np.where(size > 0, roundoff + SMALLEST[unit], 0.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if size.ndim == 0 and size > 0:  # the largest distance is the largest error
            errors = np.divide(distance, roundoff, out=distance)
        else:
            errors = np.where(distance == 0, 0.0, distance / roundoff)
    errors = np.broadcast_to(errors, actual.shape)
    position = tuple(int(i) for i in np.unravel_index(int(np.argmax(errors)), errors.shape))
    return _verdict(actual, expected, position, float(errors[position]), size, factor)


def _verdict(
    actual: np.ndarray,
    expected: np.ndarray,
    position: tuple[int, ...],
    error: float,
    size: np.ndarray,
    factor: float,
) -> Verdict:
    bound = factor if size.any() else 0.0
    return Verdict(
        "" if error <= bound else "values",
        "",
        error=error,
        bound=bound,
        position=position,
        actual=actual[position].item(),
        expected=expected[position].item(),
        compared=actual.size,
    )


def bits_equal(actual: np.ndarray, expected: np.ndarray) -> Verdict:
    """Compare bit patterns: what a transfer must keep, the sign of zero included.

    Args:
        actual: the values that arrived, of any shape and dtype.
        expected: the values that were sent, of the same shape and dtype.

    Returns:
        The verdict, at the first value whose bits differ.

    Examples:
        >>> bits_equal(np.array([0.0, 1.0]), np.array([-0.0, 1.0])).ok
        False
    """
    verdict = compare(actual, expected, content="any")
    if verdict.reason or actual.dtype.itemsize not in (1, 2, 4, 8):
        return verdict
    pattern = f"u{actual.dtype.itemsize}"
    same = np.ascontiguousarray(actual).view(pattern) == np.ascontiguousarray(expected).view(
        pattern
    )
    return _at_the_first(verdict, same, actual, expected)


def holds_whole_numbers(dtype: np.dtype | str) -> bool:
    """Whether a dtype has integers or booleans alone: indices, masks, counts."""
    return str(dtype).startswith(("int", "uint", "bool"))  # numpy has no bfloat16


def as_numbers(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64 where one of them holds whole numbers, so that these count by value."""
    if not any(holds_whole_numbers(x.dtype) for x in (actual, expected)):
        return actual, expected
    return actual.astype(np.float64), expected.astype(np.float64)


def values_equal(actual: np.ndarray, expected: np.ndarray) -> Verdict:
    """`bits_equal`; where one side holds whole numbers in another dtype, their values are compared.

    One framework keeps indices or a mask as floats, the other as integers or booleans: each must
    be able to hold what the other has, to the last unit. An infinity that both hold is a mask's.

    Examples:
        >>> index = np.array([0, 3])
        >>> values_equal(index.astype(np.float32), index).ok
        True
        >>> print(values_equal(np.array([0.0, 3.5], np.float32), index))
        3.5 at (1), expected 3 exactly
        >>> values_equal(np.array([2.0**24], np.float32), np.array([2**24 + 1])).ok
        False
    """
    dtypes = actual.dtype, expected.dtype
    if dtypes[0] == dtypes[1] or not any(map(holds_whole_numbers, dtypes)):
        return bits_equal(*_without_masks(actual, expected))
    with np.errstate(invalid="ignore", over="ignore"):  # of floats that no integer holds
        wanted = expected.astype(actual.dtype)
        back = wanted.astype(expected.dtype)
    verdict = compare(actual, wanted, content="any")
    if verdict.reason not in ("", "values"):
        return verdict
    return _at_the_first(verdict, (actual == wanted) & (back == expected), actual, expected)


def _without_masks(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with 0 where both hold the same infinity."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return actual, expected
    masked = np.isinf(actual) & (actual == expected)
    if not masked.any():
        return actual, expected
    zero = actual.dtype.type(0)
    return np.where(masked, zero, actual), np.where(masked, zero, expected)


def _at_the_first(
    verdict: Verdict, same: np.ndarray, actual: np.ndarray, expected: np.ndarray
) -> Verdict:
    """The verdict, or that of the first value that is not the same."""
    if same.all():
        return verdict
    position = tuple(int(i) for i in np.argwhere(~same)[0])
    different = replace(
        verdict,
        reason="values",
        error=math.inf,
        bound=0.0,
        position=position,
        actual=actual[position].item(),
        expected=expected[position].item(),
    )
    return _pictured(different, actual, expected)
