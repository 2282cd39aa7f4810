"""The table of operators, how a leaf is looked up in it, and the lists that are derived from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from parity_tests.numerics.operators import (
    activations,
    classification,
    executed,
    linear,
    normalisation,
    pooling,
    structural,
)
from parity_tests.numerics.operators.formulas import MEASURED, measured
from parity_tests.numerics.operators.record import Operator, Reader, Tolerance, constant
from parity_tests.reporting.verdicts import Side


def registered(*families: Iterable[Operator]) -> dict[str, Operator]:
    """The records by their kind. Raises ValueError for a kind that is registered twice."""
    table: dict[str, Operator] = {}
    for operator in (record for family in families for record in family):
        if operator.kind in table:
            raise ValueError(f"the kind {operator.kind} is registered twice; name one of them else")
        table[operator.kind] = operator
    return table


OPERATORS = registered(
    linear.OPERATORS,
    pooling.OPERATORS,
    normalisation.OPERATORS,
    activations.OPERATORS,
    classification.OPERATORS,
    structural.OPERATORS,
    executed.OPERATORS,
)
# Every class that no record reads
CUSTOM = Operator(kind="custom", scale=measured, tolerances=MEASURED, by_mode=True)
# What several operations make together on one side at least
COMPOSED = ("custom", "single", "single_gradients", "steps", "written_norm")

_PACKAGES = {Side.GLUON: "mxnet.gluon", Side.TORCH: "torch.nn"}


def _readers(side: Side) -> dict[str, list[tuple[str, Reader]]]:
    readers: dict[str, list[tuple[str, Reader]]] = {}
    for operator in OPERATORS.values():
        for reader in operator.gluon if side == Side.GLUON else operator.torch:
            readers.setdefault(reader.name, []).append((operator.kind, reader))
    return readers


_READERS = {side: _readers(side) for side in _PACKAGES}
_OWN = {o.own.name: (o.kind, o.own) for o in OPERATORS.values() if o.own is not None}


def _read(module: Any, side: Side) -> tuple[str, Reader] | None:
    name = type(module).__name__
    for cls in type(module).__mro__:
        readers = _READERS[side].get(cls.__name__)
        if readers is None or not cls.__module__.startswith(_PACKAGES[side]):
            continue
        known = ((kind, reader) for kind, reader in readers if reader.when(module))
        return next(known, (f"custom:{name}", Reader(name)))
    if name in _OWN and _OWN[name][1].when(module):
        return _OWN[name]
    return None


def describe(module: Any, side: Side) -> tuple[str, dict[str, object]] | None:
    """Kind and hyper-parameters of a leaf; None for a class of which no record knows anything.

    Classes are known by their name and package, so that no framework is imported here. A known
    class in a form that has no kind is "custom:ClassName", without hyper-parameters.
    """
    read = _read(module, side)
    return None if read is None else (read[0], read[1].hyper(module))


_SINGLE = {name: o.single for o in OPERATORS.values() for name in o.torch_names}


def single_arguments(function: str) -> tuple[str, ...]:
    """The arguments of a torch function that MXNet holds in float32 even in a float64 net."""
    return _SINGLE.get(function, ())


def single_attributes(module: Any) -> tuple[str, ...]:
    """The attributes of a torch module that MXNet holds in float32 even in a float64 net."""
    own = _OWN.get(type(module).__name__)
    if own is not None and own[1].when(module):
        return OPERATORS[own[0]].single
    classes = (c for c in type(module).__mro__ if c.__module__.startswith(_PACKAGES[Side.TORCH]))
    return next((_SINGLE[c.__name__] for c in classes if c.__name__ in _SINGLE), ())


def as_mxnet_holds(name: str, number: float) -> float:
    """One of these numbers, rounded to float32; a momentum as the part that is kept."""
    if name == "momentum":
        return 1.0 - float(np.float32(1.0 - number))
    return float(np.float32(number))


def operator_of(family: str) -> Operator:
    """The record of a leaf's family, which is its kind or "custom"."""
    return OPERATORS.get(family, CUSTOM)


_SYMBOLS = {name: o.kind for o in OPERATORS.values() for name in o.symbols}


def kind_of_symbol(name: str) -> str:
    """The kind of one of MXNet's graph operators; empty for one that no record names."""
    return _SYMBOLS.get(name, "")


# (kind, mode, side, dtype), "*" for any; the most specific entry wins. Buffers have the mode
# "statistics".
TOLERANCES: dict[tuple[str, str, str, str], Tolerance] = {
    ("*", "*", "*", "*"): Tolerance(
        constant(16.0),
        "7 is the most that was seen on VGG16's convolutions in either framework, whatever the "
        "length of the sum: both add in blocks. 16 leaves a factor of two for other hardware",
    ),
    **{("loss", *key): entry for key, entry in classification.LOG_SOFTMAX.items()},
    **{
        (operator.kind, *key): entry
        for operator in (*OPERATORS.values(), CUSTOM)
        for key, entry in operator.tolerances.items()
    },
}


def tolerance(kind: str, mode: str, side: str, dtype: str) -> Tolerance:
    """The table's entry for an operator in a mode, a side and a dtype."""
    for key in (
        (kind, mode, side, dtype), (kind, "*", side, dtype), (kind, "*", side, "*"),
        (kind, "*", "*", "*"),
    ):  # fmt: skip
        if key in TOLERANCES:
            return TOLERANCES[key]
    return TOLERANCES["*", "*", "*", "*"]
