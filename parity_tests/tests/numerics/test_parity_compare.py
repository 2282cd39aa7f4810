"""The one comparison, broken in every way in which checkers are known to be."""

import math

import numpy as np
import pytest

from parity_tests.numerics.compare import UNIT, Mismatch, bits_equal, compare, values_equal
from parity_tests.numerics.operators.table import TOLERANCES, tolerance

GOOD = np.array([[1.0, -2.0], [3.0, 4.5]], np.float32)


def _with(position: tuple[int, int], value: float) -> np.ndarray:
    changed = GOOD.copy()
    changed[position] = value
    return changed


def test_equal_values_pass_and_count() -> None:
    verdict = compare(GOOD, GOOD.copy())
    assert verdict.ok
    assert (verdict.error, verdict.compared) == (0.0, 4)
    assert verdict.require() is verdict


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), "nothing compared"),
        (GOOD, GOOD[:1], "shape"),
        (GOOD, GOOD.reshape(-1), "shape"),
        (GOOD.astype(np.float64), GOOD, "dtype"),
        (_with((0, 1), math.nan), GOOD, "not finite"),
        (_with((0, 1), math.nan), _with((0, 1), math.nan), "not finite"),
        (_with((1, 0), math.inf), _with((1, 0), math.inf), "not finite"),
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32), "dead"),
        (np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), "constant"),
        (GOOD[::-1].copy(), GOOD, "values"),  # the same mean, and the same sorted values
        (-GOOD, GOOD, "values"),  # the same absolute values
        (GOOD - 1, GOOD, "values"),  # a negative difference: max(a − b) passes it
    ],
)
def test_what_lesser_checkers_pass(actual: np.ndarray, expected: np.ndarray, reason: str) -> None:
    verdict = compare(actual, expected, scale=np.abs(expected) if expected.any() else 1.0)
    assert verdict.reason == reason
    with pytest.raises(Mismatch, match="layer"):
        verdict.require("layer")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bound_is_met_on_both_sides(dtype: str) -> None:
    expected = np.array([1.0, 2.0], dtype)
    scale = np.array([1.0, 2.0])
    step = 2 * UNIT[dtype]  # one ulp above 1 is two u
    for ulps, ok in ((8, True), (9, False)):
        actual = expected.copy()
        actual[0] += ulps * step
        verdict = compare(actual, expected, scale=scale)
        assert verdict.ok is ok
        assert verdict.error == pytest.approx(2 * ulps)
        assert verdict.position == (0,)


def test_the_message_names_error_place_and_bound() -> None:
    verdict = compare(_with((1, 0), 3.00001), GOOD, scale=np.abs(GOOD))
    assert str(verdict) == "56 u at (1,0), bound 16 u"


def test_an_operation_that_rounds_nothing_must_be_equal() -> None:
    assert not compare(_with((0, 0), np.nextafter(np.float32(1), np.float32(2))), GOOD).ok


def test_a_scale_that_would_pass_anything_is_refused() -> None:
    for scale in (math.inf, math.nan, -1.0):
        with pytest.raises(ValueError, match="scale"):
            compare(GOOD, GOOD, scale=scale)
    with pytest.raises(ValueError, match="factor"):
        compare(GOOD, GOOD, scale=1.0, factor=math.inf)


def test_bits_tell_what_values_do_not() -> None:
    zero, minus = np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32)
    assert compare(zero, minus).ok
    assert not bits_equal(zero, minus).ok
    assert bits_equal(zero, zero.copy()).ok


def test_an_infinity_of_a_mask_is_equal_to_itself_alone() -> None:
    mask = _with((1, 0), -math.inf)
    assert values_equal(mask, mask.copy()).ok
    for other in (GOOD, _with((1, 0), math.inf), _with((1, 0), math.nan)):
        assert not values_equal(mask, other).ok
    changed = mask.copy()
    changed[0, 0] = -0.0
    assert not values_equal(changed, _with((1, 0), -math.inf)).ok
    assert not values_equal(_with((0, 0), math.nan), _with((0, 0), math.nan)).ok


def test_every_tolerance_has_a_reason_and_none_is_loose() -> None:
    for key, entry in TOLERANCES.items():
        assert len(entry.reason) > 40, key
    assert tolerance("conv2d", "inference", "gluon", "float32").factor(10_000) == 16
    # BatchNorm's own sums in training: the only bound that grows, and only on MXNet's side
    assert tolerance("batchnorm", "train", "torch", "float32").factor(16_384) == 16
