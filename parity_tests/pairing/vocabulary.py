"""The common vocabulary of operations: what both frameworks' operators are read into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from parity_tests.pairing.graph import Operand, Operation

__all__ = [
    "COMMUTATIVE",
    "ELEMENTWISE",
    "POINTWISE",
    "REVERSED",
    "Arguments",
    "Emit",
    "axes",
    "axis",
    "broadcast",
    "emit_assignment",
    "emit_concat",
    "emit_pool",
    "emit_reduction",
    "emit_slices",
    "emit_stack",
    "per_axis",
    "real",
]

# a ∘ b = b ∘ a
COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum"})
# Operators on two arrays of broadcast shapes, or on one array and a scalar
REVERSED = {"sub": "rsub", "div": "rdiv", "pow": "rpow"}
ELEMENTWISE = COMMUTATIVE | {*REVERSED, *REVERSED.values()}

# Functions of one value each, whatever the array's shape
POINTWISE = frozenset(
    {"relu", "sigmoid", "tanh", "exp", "log", "abs", "erf", "sin", "cos", "softsign", "selu",
     "mish", "log1p", "expm1", "floor", "ceil", "round", "sign", "log_sigmoid", "silu",
     "hard_swish", "hard_sigmoid", "elu", "celu", "softplus", "leaky_relu", "gelu", "clip"}
)  # fmt: skip


class Emit(Protocol):
    """Adds a normalised operation (or finds that it is nothing new) and returns its output."""

    train: bool

    def __call__(
        self,
        kind: str,
        inputs: Sequence[tuple[str, Operand | None]],
        shape: Sequence[int],
        /,
        **attributes: object,
    ) -> Operand: ...

    def output(self, first: Operand, position: int, shape: Sequence[int]) -> Operand:
        """Another output of the operation that produced `first`."""
        ...

    def is_zero(self, value: Operand) -> bool:
        """Whether a value is an array of zeros, whatever the input."""
        ...


@dataclass
class Arguments:
    """What an executed operation was called with, arrays and the rest by argument name."""

    operation: Operation
    arrays: Mapping[str, Operand]

    def __getitem__(self, role: str) -> Operand:
        return self.arrays[role]

    def get(self, role: str) -> Operand | None:
        return self.arrays.get(role)

    @property
    def first(self) -> Operand:
        return next(iter(self.arrays.values()))

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.operation.attributes.get(name, default)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.operation.shapes[0]


def real(value: Any) -> float:
    """A number as both sides write it: that which float32 holds, by its shortest name."""
    number = float(value)
    with np.errstate(over="ignore"):
        single = np.float32(number)
    return float(str(single)) if np.isfinite(single) else number


def per_axis(value: Any, count: int) -> tuple[int, ...]:
    """`3`, `(3,)` and `(3, 3)` as one number for each of `count` axes."""
    if isinstance(value, int):
        return (value,) * count
    numbers = tuple(int(v) for v in value)
    return numbers * count if len(numbers) == 1 else numbers


def axis(value: int, dimensions: int) -> int:
    return int(value) % max(dimensions, 1)


def axes(value: Any, dimensions: int) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers; None and () are all of them."""
    if value is None or value == ():
        return tuple(range(dimensions))
    numbers = (value,) if isinstance(value, int) else value
    return tuple(sorted(axis(v, dimensions) for v in numbers))


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True))


def emit_reduction(
    emit: Emit, kind: str, x: Operand, over: tuple[int, ...], shape: Sequence[int], **more: object
) -> Operand:
    """A reduction that keeps its axes, then the reshape that drops them."""
    kept = tuple(1 if i in over else size for i, size in enumerate(x.shape))
    out = emit(kind, [("input", x)], kept, axes=over, **more)
    return emit("reshape", [("input", out)], shape)


def emit_pool(emit: Emit, kind: str, x: Operand, shape: Sequence[int], **window: Any) -> Operand:
    """A max or average pool; one over the whole map is global, one over single values nothing."""
    spatial = x.shape[2:]
    whole = window["kernel"] == spatial and not any(window["padding"])
    if whole and all(size == 1 for size in shape[2:]):
        return emit(f"global_{kind}", [("input", x)], shape)
    return emit(kind, [("input", x)], shape, **window)


def emit_concat(emit: Emit, parts: Iterable[Operand], along: int, shape: Sequence[int]) -> Operand:
    """The parts side by side."""
    inputs = [(f"input.{i}", x) for i, x in enumerate(parts)]
    return emit("concat", inputs, shape, axis=along)


def emit_stack(emit: Emit, parts: Iterable[Operand], along: int, shape: Sequence[int]) -> Operand:
    """The parts side by side along an axis of their own."""
    grown = [
        emit("reshape", [("input", x)], (*x.shape[:along], 1, *x.shape[along:])) for x in parts
    ]
    return emit_concat(emit, grown, along, shape)


def emit_assignment(
    emit: Emit, x: Operand, value: Operand | None, number: Any, key: Any, shape: Sequence[int]
) -> Operand:
    """`x[key] = value`, an array or a number: the array itself where it is given to all of x."""
    all_of_it = [[0, length, 1] for length in shape]
    if value is not None and key == all_of_it and tuple(value.shape) == tuple(shape):
        return value
    number = None if number is None else real(number)
    return emit("setitem", [("input", x), ("value", value)], shape, key=str(key), number=number)


def emit_slices(
    emit: Emit, x: Operand, along: int, shapes: Sequence[Sequence[int]], squeeze: bool = False
) -> list[Operand]:
    """The parts of a split, each as a slice; `squeeze` drops the split axis of length one."""
    start, parts = 0, []
    for shape in shapes:
        length = 1 if squeeze else shape[along]
        kept = (*x.shape[:along], length, *x.shape[along + 1 :])
        part = emit("slice", [("input", x)], kept, axis=along, begin=start, step=1)
        parts.append(emit("reshape", [("input", part)], shape))
        start += length
    return parts
