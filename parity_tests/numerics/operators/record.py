"""The record of an operator kind: all that the suite knows of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from parity_tests.numerics.operators.cases import ReferenceCase, ScaleCase, Scales
from parity_tests.reporting.verdicts import Side

Hyper = dict[str, object]
Shapes = Mapping[str, tuple[int, ...]]


class Rounds(Enum):
    """Which results of an operator are rounded; the others must be bit-equal."""

    NOTHING = "nothing"
    GRADIENTS = "gradients"
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Tolerance:
    """How many u·s an operator may be off, as a function of the length of its sum, and why.

    Raises ValueError for one without a reason.
    """

    factor: Callable[[int], float]
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError("a tolerance has no reason; say in words why the operator needs it")


def constant(factor: float) -> Callable[[int], float]:
    return lambda length: factor


def plus_root(length: int) -> float:
    return 16.0 + math.sqrt(length)


def plus_length(length: int) -> float:
    return 16.0 + length


@dataclass(frozen=True)
class Reader:
    """A class of a framework, and its hyper-parameters in the vocabulary of both.

    `name` is the class's name in the framework's package; subclasses count as the class they
    extend. `when` says whether an object of the class is of this kind, where one class has several.
    """

    name: str
    hyper: Callable[[Any], Hyper] = lambda module: {}
    when: Callable[[Any], bool] = lambda module: True


def attributes(**sources: str) -> Callable[[Any], Hyper]:
    """Reads each hyper-parameter from the attribute that a module has it in."""
    return lambda module: {name: getattr(module, source) for name, source in sources.items()}


def gluon_activation(act_type: str, **hyper: object) -> Reader:
    """Gluon's `Activation(act_type)`, which has one class for several kinds."""
    return Reader("Activation", lambda b: dict(hyper), lambda b: b._act_type == act_type)


def gluon_function(operator: str, **hyper: object) -> Reader:
    """Gluon's `HybridLambda(operator)`; a function of the user's own may have any name."""
    return Reader("HybridLambda", lambda b: dict(hyper), lambda b: _wrapped(b) == operator)


def _wrapped(block: Any) -> str:
    owner = next(cls for cls in type(block).__mro__ if cls.__name__ == "HybridLambda")
    return block._func_name if block._func.__module__ == owner.__module__ else ""


def _flat(hyper: Mapping[str, Any], shapes: Shapes) -> tuple[int, ...]:
    return (3, 6)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One kind of operation, in both frameworks.

    `gluon` and `torch` read it from a framework's classes, `own` from a class that is named so
    wherever it is defined. `roles` turns Gluon's parameter names into PyTorch's. `scale` is the
    size of what is rounded; `tolerances` are by (mode, side, dtype), "*" for any, and what they do
    not name has 16 u·s. `single_precision`: MXNet computes in float32 even in a float64 net.
    `single_gradients` are the frameworks whose derivative holds a number in float32 there.
    `single` are the numbers that it holds in float32 there, by the names that torch's function and
    module have for them, and `torch_names` are those of the function and the module.
    `by_mode`: training computes something else than inference. `absorbed`: it moves values and
    computes nothing, so a net may do without, or do it outside a module. `common`: a hypothesis may
    try it anywhere. `symbols` are the names
    that MXNet's graphs have for it, and `onnx_runtime_offset` is added to the scale there.
    `shape` gives the shape of an input to try a leaf on, from its hyper-parameters and the shapes
    of its tensors. `reference` is its value in float64, or with one of `faults`: (the variant that
    is computed, the name of the fault); two variants of one name are two ways of one fault.
    """

    kind: str
    scale: Callable[[ScaleCase], Scales]
    gluon: tuple[Reader, ...] = ()
    torch: tuple[Reader, ...] = ()
    own: Reader | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    rounds: Rounds = Rounds.EVERYTHING
    tolerances: Mapping[tuple[str, str, str], Tolerance] = field(default_factory=dict)
    linear: bool = False
    single_precision: bool = False
    single_gradients: tuple[Side, ...] = ()
    single: tuple[str, ...] = ()
    torch_names: tuple[str, ...] = ()
    by_mode: bool = False
    absorbed: bool = False
    activation: bool = False
    common: bool = False
    pool: str = ""
    symbols: tuple[str, ...] = ()
    onnx_runtime_offset: float = 0.0
    shape: Callable[[Mapping[str, Any], Shapes], tuple[int, ...]] = _flat
    reference: Callable[[ReferenceCase], Any] | None = None
    faults: tuple[tuple[str, str], ...] = ()
