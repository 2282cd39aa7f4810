"""What the checker is asked about itself: questions whose answers are known.

Existing checkers pass on wrong nets: they compare means, forget `abs`, cut the longer list off,
take NaN for equal, or recurse into the wrong pass. Each case here has one answer, and a checker
with that fault gives another. Several cases together have a pattern that names the fault.

Framework specific (mxnet, torch): its cases are nets built of both frameworks' layers.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import api
from parity_tests.backends import losses
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level

# By its name: the package has the function by that name
compare: Any = import_module("parity_tests.numerics.compare")

_GOOD = np.array([[1.0, -2.0], [3.0, 4.5]], np.float32)
_OPPOSITE = np.array([[1, -1], [1, -1]], np.float32)
_NAN = np.array([[1.0, np.nan], [3.0, 4.5]], np.float32)
_INF = np.array([[1.0, np.inf], [3.0, 4.5]], np.float32)
_WIDE = np.linspace(-3, 5, 24, dtype=np.float32).reshape(4, 6)

_LAST = (np.arange(24).reshape(4, 6) == 23).astype(np.float32)


def _float32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _reason(actual: np.ndarray, expected: np.ndarray, **options: Any) -> str:
    options.setdefault("scale", np.abs(expected.astype(np.float64)) if expected.size else 1.0)
    verdict = compare.compare(actual, expected, **options)
    if verdict.ok:
        return "equal"
    return verdict.reason


def _changed(position: tuple[int, int], value: float) -> np.ndarray:
    changed = _GOOD.copy()
    changed[position] = value
    return changed


def _place() -> str:
    actual = _WIDE.copy()
    actual[2, 3] += 0.5
    actual[3, 1] += 0.25
    verdict = compare.compare(actual, _WIDE, scale=1.0)
    return f"{verdict.position}"


def _refused() -> str:
    try:
        compare.compare(_GOOD, _GOOD + 1, scale=np.inf)
    except ValueError:
        return "refused"
    return "passed"


def _bits() -> str:
    zero, minus = np.array([0.0, 1.0], np.float32), np.array([-0.0, 1.0], np.float32)
    return "equal" if compare.bits_equal(zero, minus).ok else "values"


class _WrongBackward(nn.Tanh):
    """Sends one and a half times its gradient back."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        return y + 0.5 * (y - y.detach())


class _WrongInTraining(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * (1.5 if self.training else 1.0)


def _pair(*theirs: nn.Module, extra: bool = False) -> tuple[Any, nn.Module, np.ndarray]:
    ours = gluon_nn.HybridSequential(prefix="self_")
    ours.add(
        gluon_nn.Conv2D(3, 2, in_channels=2), gluon_nn.BatchNorm(in_channels=3),
        gluon_nn.Activation("tanh"), gluon_nn.Flatten(), gluon_nn.Dense(4, in_units=27),
    )  # fmt: skip
    ours.initialize()
    generator = np.random.default_rng(2)
    for name, parameter in ours._collect_params_with_prefix().items():
        values = generator.uniform(0.2, 1.0, parameter.shape)
        parameter.set_data((values if name.startswith("1.") else values - 0.6).astype(np.float32))
    net = nn.Sequential(*(theirs or _layers()), *([nn.Tanh()] if extra else []))
    return ours, net, generator.standard_normal((3, 2, 4, 4)).astype(np.float32)


def _layers(**changed: nn.Module) -> list[nn.Module]:
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(2, 3, 2), "norm": nn.BatchNorm2d(3), "tanh": nn.Tanh(),
        "flatten": nn.Flatten(), "dense": nn.Linear(27, 4),
    }  # fmt: skip
    return list({**layers, **changed}.values())


def _verdict(levels: tuple[str, ...], net: Any = None, *, transfer: bool = True) -> str:
    """`ok`, or the level and path of the first divergence, of a small pair."""
    ours, theirs, inputs = net or _pair()
    report = api.check_parity(ours, theirs, inputs, None, levels, transfer=transfer)
    first = report.first_divergence
    return "ok" if first is None else f"{first.level} {first.path}"


def _nothing_compared() -> str:
    return "ok" if Report("empty", (Level.FORWARD,)).ok else "refused"


def _constant_inputs() -> str:
    ours, theirs, inputs = _pair()
    report = api.check_parity(ours, theirs, np.ones_like(inputs), None, ("forward",), transfer=True)
    return "ok" if report.ok else "refused"


def _first_of_two() -> str:
    """Two leaves are wrong: the first is to be named."""
    net = _pair(*_layers(tanh=nn.Sigmoid(), norm=nn.BatchNorm2d(3, eps=0.1)))
    return _verdict(("structure",), net)


def _fixed() -> str:
    gradients = losses.fixed_gradients((_WIDE,)).upstream[0]
    return "varied" if gradients.size > 1 and np.ptp(gradients) > 0 else "constant"


# Each case: its name, how it is asked, what is right. The last ones run pairs of small nets.
_DIRECT: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("equal values", lambda: _reason(_GOOD, _GOOD.copy()), "equal"),
    ("within the bound", lambda: _reason(_changed((0, 0), 1 + 8 * 2.0**-23), _GOOD), "equal"),
    ("rows exchanged", lambda: _reason(_GOOD[::-1].copy(), _GOOD), "values"),
    ("opposite changes", lambda: _reason(_GOOD + _OPPOSITE, _GOOD), "values"),
    ("less everywhere", lambda: _reason(_GOOD - 1, _GOOD), "values"),
    ("signs lost", lambda: _reason(np.abs(_GOOD), _GOOD), "values"),
    ("all signs turned", lambda: _reason(-_GOOD, _GOOD), "values"),
    ("large beside small", lambda: _reason(_float32(1000, 1.5e-3), _float32(1000, 1e-3)),
     "values"),
    ("exact operations", lambda: _reason(
        _changed((0, 0), float(np.nextafter(np.float32(1), np.float32(2)))), _GOOD, scale=0.0),
     "values"),
    ("beyond the bound", lambda: _reason(_changed((0, 0), 1 + 9 * 2.0**-23), _GOOD), "values"),
    ("last of many", lambda: _reason(_WIDE + _LAST, _WIDE),
     "values"),
    ("one row missing", lambda: _reason(_GOOD[:1], _GOOD), "shape"),
    ("a row for a matrix", lambda: _reason(np.ones((1, 2), np.float32),
                                           np.ones((2, 2), np.float32)), "shape"),
    ("flattened", lambda: _reason(_GOOD.reshape(-1), _GOOD), "shape"),
    ("another type", lambda: _reason(_GOOD.astype(np.float64), _GOOD), "dtype"),
    ("NaN beside NaN", lambda: _reason(_NAN, _NAN.copy(), scale=1.0), "not finite"),
    ("infinity beside infinity", lambda: _reason(_INF, _INF.copy(), scale=1.0), "not finite"),
    ("nothing beside nothing", lambda: _reason(np.zeros((0, 2), np.float32),
                                               np.zeros((0, 2), np.float32)), "nothing compared"),
    ("zeros beside zeros", lambda: _reason(np.zeros((2, 2), np.float32),
                                           np.zeros((2, 2), np.float32), scale=1.0), "dead"),
    ("a constant beside itself", lambda: _reason(np.ones((2, 2), np.float32),
                                                 np.ones((2, 2), np.float32)), "constant"),
    ("float64 in its own units", lambda: _reason(_WIDE.astype(np.float64) * (1 + 1e-9),
                                                 _WIDE.astype(np.float64)), "values"),
    ("the worst place", _place, "(2, 3)"),
    ("a bound without end", _refused, "refused"),
    ("minus zero in a transfer", _bits, "values"),
    ("a report of nothing", _nothing_compared, "refused"),
    ("what backward starts from", _fixed, "varied"),
)  # fmt: skip

_OF_PAIRS: tuple[tuple[str, Callable[[], str], str], ...] = (
    ("constant inputs", _constant_inputs, "refused"),
    ("a clean pair", lambda: _verdict(("structure", "weights", "forward", "backward")), "ok"),
    ("the first of two", _first_of_two, "structure 1"),
    ("weights that were never copied", lambda: _verdict(("weights",), transfer=False), "weights 0"),
    ("a leaf too many", lambda: _verdict(("structure",), _pair(extra=True)), "structure 5"),
    ("wrong backward", lambda: _verdict(
        ("forward", "backward"), _pair(*_layers(tanh=_WrongBackward()))), "backward 2"),
    ("wrong in training", lambda: _verdict(
        ("forward",), _pair(*_layers(norm=_WrongInTraining(3)))), "forward 1"),
    ("a net without a bias", lambda: _verdict(
        ("weights",), _pair(*_layers(dense=nn.Linear(27, 4, bias=False)))), "weights 4"),
)  # fmt: skip

# The cases that a faulty checker answers wrongly, and what that says of it.
NAMES: dict[frozenset[str], str] = {
    frozenset(cases): name
    for name, cases in {
        "compares means": ("rows exchanged", "opposite changes", "exact operations",
                           "beyond the bound", "the worst place"),
        "compares sorted values": ("rows exchanged", "large beside small", "beyond the bound"),
        "forgets abs": ("less everywhere",),
        "compares absolute values": ("signs lost", "all signs turned"),
        "truncates": ("one row missing", "a row for a matrix", "flattened"),
        "broadcasts": ("one row missing", "a row for a matrix", "zeros beside zeros",
                       "a constant beside itself"),
        "takes NaN for equal": ("NaN beside NaN", "infinity beside infinity"),
        "passes on nothing": ("nothing beside nothing",),
        "passes on zeros": ("zeros beside zeros", "a constant beside itself"),
        "casts before it compares": ("another type",),
        "bounds by the largest value": ("large beside small", "beyond the bound"),
        "has too wide a bound": ("beyond the bound",),
        "has one unit for all types": ("float64 in its own units",),
        "tolerates in exact operations": ("exact operations", "beyond the bound"),
        "accepts a bound without end": ("a bound without end",),
        "takes −0 for 0": ("minus zero in a transfer",),
        "names another place": ("the worst place",),
        "is content with nothing": ("a report of nothing",),
        "starts backward from ones": ("what backward starts from",),
        "accepts constant inputs": ("constant inputs",),
        "reads forward for backward": ("a clean pair", "wrong backward"),
        "compares one side with itself": ("the first of two", "a leaf too many", "wrong backward",
                                          "wrong in training"),
        "never runs training mode": ("wrong in training",),
        "pairs layers by position": ("wrong backward", "wrong in training"),
        "names the last failure first": ("the first of two", "weights that were never copied",
                                         "a leaf too many", "wrong backward",
                                         "wrong in training"),
        "copies before it compares": ("weights that were never copied",),
        "skips what is missing": ("a net without a bias",),
    }.items()
}  # fmt: skip


def self_test() -> dict[str, str]:
    """The cases that were answered wrongly, with their answers; none for a checker that works.

    Pairs of nets are not asked about where single comparisons have failed already.
    """
    return _wrong(_DIRECT) or _wrong(_OF_PAIRS)


def _wrong(cases: tuple[tuple[str, Callable[[], str], str], ...]) -> dict[str, str]:
    wrong: dict[str, str] = {}
    for name, ask, right in cases:
        try:
            answer = ask()
        except Exception as error:  # a checker that breaks is no better than one that passes
            answer = f"{type(error).__name__}: {error}"
        if answer != right:
            wrong[name] = answer
    return wrong


def named(wrong: dict[str, str]) -> str:
    """What the pattern of wrong answers says of the checker; empty for a pattern not known."""
    return NAMES.get(frozenset(wrong), "")
