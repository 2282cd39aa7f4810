"""Faults of the checker itself: a piece of it is replaced by what a lesser checker has there.

Each must make the self-test fail, which passes without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import Any
from unittest import mock

import numpy as np

from parity_tests import api
from parity_tests.backends import losses, runs
from parity_tests.backends.runs import Objective
from parity_tests.faults.base import Detection, Fault
from parity_tests.faults.self_test import compare, named, self_test
from parity_tests.levels import backward, local, referee, weights
from parity_tests.levels.referee import Subject
from parity_tests.numerics.compare import Verdict
from parity_tests.pairing.matching import Matching
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level, Status

_values, _compare = compare._values, compare.compare

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Patch = tuple[Any, str, Any]


def _judging(change: Change) -> Patch:
    """Other numbers are judged than those that are given."""
    return compare, "_values", lambda a, e, *bound: _values(*change(a, e), *bound)


def _bounded(change: Callable[[np.ndarray, float], tuple[np.ndarray, float]]) -> Patch:
    """Another bound is applied."""
    return (
        compare,
        "_values",
        lambda a, e, size, factor, unit: _values(a, e, *change(size, factor), unit),
    )


def _before(change: Change) -> Patch:
    """The arrays are made to fit before they are compared."""
    return compare, "compare", lambda a, e, **options: _compare(*change(a, e), **options)


def _means(a: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full_like(a, a.mean()), np.full_like(e, e.mean())


def _sorted(a: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.sort(a, axis=None).reshape(a.shape), np.sort(e, axis=None).reshape(e.shape)


def _truncated(a: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shortest = min(a.size, e.size)
    return a.ravel()[:shortest], e.ravel()[:shortest]


def _zip(actual: np.ndarray, expected: np.ndarray, **options: Any) -> Verdict:
    if actual.shape == expected.shape:
        return _compare(actual, expected, **options)
    return _compare(*_truncated(actual, expected), **{**options, "scale": 1.0})


def _broadcast(actual: np.ndarray, expected: np.ndarray, **options: Any) -> Verdict:
    try:
        a, e = np.broadcast_arrays(actual, expected)
    except ValueError:
        return _compare(actual, expected, **options)
    return _compare(a.copy(), e.copy(), **{**options, "content": "any"})


def _nan_is_equal(a: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != e.shape or a.size == 0:
        return a, e
    both = ~np.isfinite(a) & ~np.isfinite(e)
    return np.where(both, a.dtype.type(1), a), np.where(both, e.dtype.type(1), e)


def _empty_passes(actual: np.ndarray, expected: np.ndarray, **options: Any) -> Verdict:
    if actual.size == 0 == expected.size:
        return Verdict("", "")
    return _compare(actual, expected, **options)


def _cast(a: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return a.astype(e.dtype), e


def _scale_of_the_largest(size: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    return np.full(np.shape(size), np.max(size)), factor


def _first_difference(
    actual: np.ndarray, expected: np.ndarray, size: Any, factor: float, unit: str
) -> Verdict:
    verdict = _values(actual, expected, size, factor, unit)
    apart = np.argwhere(actual != expected)
    # the last one that a loop over all values has overwritten
    return replace(verdict, position=tuple(int(i) for i in apart[-1])) if len(apart) else verdict


def _zipped_operations(matching: Any) -> None:
    for a, b in zip(matching.left.operations, matching.right.operations):  # noqa: B905  (the fault)
        matching._pair(a.index, b.index)


_local_rows = local.local_rows


def _reads_forward(level: Level, *args: Any, **options: Any) -> list[Any]:
    rows = _local_rows(Level.FORWARD, *args, **options)
    return [replace(row, level=level, quantity="input gradient") for row in rows]


_check_parity = api.check_parity


def _always_transfers(*args: Any, **options: Any) -> Report:
    return _check_parity(*args, **{**options, "transfer": True})


_weight_rows = weights._values


def _skips_missing(*args: Any) -> Iterator[Any]:
    return (row for row in _weight_rows(*args) if row.status != Status.NOT_COMPARED)


def _ones(outputs: Any) -> Objective:
    return Objective(upstream=tuple(np.ones_like(y) for y in outputs))


_failures: Any = Report.failures
_TORCH_ONLY = (("torch", "float32"),)


@cache
def _require_sound() -> None:
    wrong = self_test()
    if wrong:
        raise AssertionError(f"the self-test fails without a fault: {wrong}")


def _tested(*patches: Patch) -> Callable[[], Detection]:
    def run() -> Detection:
        _require_sound()
        with ExitStack() as stack:
            for target, name, value in patches:
                stack.enter_context(mock.patch.object(target, name, value))
            wrong = self_test()
        if not wrong:
            return Detection()
        first = next(iter(wrong))
        message = f"self-test: {first} gives {wrong[first]!r}; {len(wrong)} of its cases fail"
        return Detection(Level.SELF_TEST, first, named(wrong), message)

    return run


def _fault(
    name: str, path: str, diagnosis: str, imitates: str, source: str, *patches: Patch
) -> Fault:
    where = ", ".join(f"{getattr(t, '__name__', t)}.{n}" for t, n, _ in patches)
    run = _tested(*patches)
    return Fault(
        name, where, run, Level.SELF_TEST, path, diagnosis, imitates, source, group="checker"
    )


CHECKER: tuple[Fault, ...] = (
    _fault("means are compared", "rows exchanged", "compares means", "a.mean() beside b.mean()",
           "model ports that print both means and look at them", _judging(_means)),
    _fault("sorted values are compared", "rows exchanged", "compares sorted values",
           "histograms, percentiles or sorted values side by side",
           "quantization tools that compare distributions", _judging(_sorted)),
    _fault("abs forgotten", "less everywhere", "forgets abs", "(a − b).max() < tolerance",
           "the commonest assertion of hand-written ports",
           _judging(lambda a, e: (np.maximum(a, e), e))),
    _fault("absolute values compared", "signs lost", "compares absolute values",
           "abs(a) beside abs(b)", "comparisons of norms and magnitudes",
           _judging(lambda a, e: (np.abs(a), np.abs(e)))),
    _fault("the longer list cut off", "one row missing", "truncates", "zip over two flat lists",
           "zip without strict=True, ruff's B905", (compare, "compare", _zip)),
    _fault("shapes broadcast", "one row missing", "broadcasts", "np.allclose of two shapes",
           "numpy/numpy issue 9988; pytorch/executorch pull request 7589",
           (compare, "compare", _broadcast)),
    _fault("NaN equal to NaN", "NaN beside NaN", "takes NaN for equal",
           "assert_allclose, whose equal_nan is True",
           "numpy.testing.assert_allclose's documentation", _before(_nan_is_equal)),
    _fault("nothing equals nothing", "nothing beside nothing", "passes on nothing",
           "all() of an empty list is True", "np.allclose([], []) is True",
           (compare, "compare", _empty_passes)),
    _fault("content not looked at", "zeros beside zeros", "passes on zeros",
           "two nets that both give zeros", "dead ReLUs; gradients that never ran",
           (compare, "_empty_of_content", lambda array, content: None)),
    _fault("types cast", "another type", "casts before it compares",
           "float64 beside float32, or labels beside logits", "torch.allclose after .float()",
           _before(_cast)),
    _fault("one scale for all values", "large beside small", "bounds by the largest value",
           "max|a − b| / max|b|", "relative errors of a whole tensor",
           _bounded(_scale_of_the_largest)),
    _fault("a bound a thousand times as wide", "beyond the bound", "has too wide a bound",
           "a tolerance raised until the test passes", "rtol=1e-2 in model ports",
           _bounded(lambda size, factor: (size, factor * 1000))),
    _fault("float32's unit for float64", "float64 in its own units", "has one unit for all types",
           "1e-5 whatever the type is", "np.allclose's default rtol",
           (compare, "UNIT", dict.fromkeys(compare.UNIT, 2.0**-24))),
    _fault("a tolerance where none is due", "exact operations", "tolerates in exact operations",
           "1e-8 for a ReLU or a copy", "np.allclose's default atol",
           _bounded(lambda size, factor: (np.asarray(size) + 1e-8 / 2.0**-24, factor))),
    _fault("any bound accepted", "a bound without end", "accepts a bound without end",
           "a tolerance computed from NaN or 1/0", "x <= nan is False, and x > nan too",
           (compare, "_require_finite", lambda size, factor: None)),
    _fault("values for bits", "minus zero in a transfer", "takes −0 for 0",
           "== where bits are meant", "IEEE 754: −0 == 0",
           (compare, "bits_equal", lambda a, e: _compare(a, e, content="any"))),
    _fault("another place named", "the worst place", "names another place",
           "the last difference in a loop instead of the largest",
           "debug prints in a loop", (compare, "_values", _first_difference)),
    _fault("a report of nothing is ok", "a report of nothing", "is content with nothing",
           "no failures, so it passed",
           "pytest exits 5 where no test ran, and CI scripts ignore it",
           (Report, "ok", property(lambda self: not self.failures))),
    _fault("constant inputs accepted", "constant inputs", "accepts constant inputs",
           "torch.ones as a test input", "torch.ones(1, 3, 224, 224) in conversion scripts",
           (api, "_refused_inputs", lambda given: "")),
    _fault("backward reads forward", "a clean pair", "reads forward for backward",
           "a hook on the wrong pass", "register_forward_hook for register_full_backward_hook",
           (backward, "local_rows", _reads_forward),
           (runs.NetRun, "named_gradients", runs.NetRun.named_outputs)),
    _fault("one framework compared with itself", "the first of two",
           "compares one side with itself", "both results from the same net",
           "two variables of one name in a notebook", (local, "JUDGED", _TORCH_ONLY),
           (backward, "JUDGED", _TORCH_ONLY), (referee, "JUDGED", _TORCH_ONLY)),
    _fault("training mode never run", "wrong in training", "never runs training mode",
           "eval() on both sides", "conversion scripts check inference alone",
           (Subject, "has_modes", property(lambda self: False))),
    _fault("layers zipped", "wrong backward", "pairs layers by position",
           "zip(ours.modules(), theirs.modules())", "the commonest converter",
           (Matching, "solve", _zipped_operations)),
    _fault("the last failure named first", "the first of two", "names the last failure first",
           "the loudest or the last difference reported as the cause",
           "reports sorted by error", (Report, "failures", property(
               lambda self: _failures.fget(self)[::-1]))),
    _fault("weights copied before they are compared", "weights that were never copied",
           "copies before it compares", "load_state_dict in front of the check",
           "conversion scripts that check their own output", (api, "check_parity",
                                                              _always_transfers)),
    _fault("missing parameters skipped", "a net without a bias", "skips what is missing",
           "for name in ours if name in theirs", "strict=False",
           (weights, "_values", _skips_missing)),
    _fault("backward from ones", "what backward starts from", "starts backward from ones",
           "y.sum().backward(), which BatchNorm and softmax turn into zeros",
           "gradient checks of normalised outputs", (losses, "fixed_gradients", _ones)),
)  # fmt: skip
