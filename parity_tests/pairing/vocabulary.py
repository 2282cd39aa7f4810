"""The common vocabulary of operations: what both frameworks' operators are read into."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from parity_tests.numerics.draws import Draw
from parity_tests.numerics.perturb import holds_integers
from parity_tests.pairing.graph import Operand, Operation, Origin, Value

# a ∘ b = b ∘ a
COMMUTATIVE = frozenset({"add", "mul", "maximum", "minimum"})
# Operators on two arrays of broadcast shapes, or on one array and a scalar
REVERSED = {"sub": "rsub", "div": "rdiv", "pow": "rpow", "mod": "rmod"}
ELEMENTWISE = COMMUTATIVE | {*REVERSED, *REVERSED.values()}

# What has a scale and a shift of its own, or none
NORMS = frozenset({"layer_norm", "group_norm", "instance_norm", "batch_norm"})

# Functions of one value each, whatever the array's shape
POINTWISE = frozenset(
    {"relu", "sigmoid", "tanh", "exp", "log", "abs", "erf", "sin", "cos", "softsign", "selu",
     "mish", "log1p", "expm1", "floor", "ceil", "round", "trunc", "sign", "log_sigmoid", "silu",
     "hard_swish", "hard_sigmoid", "elu", "celu", "softplus", "leaky_relu", "gelu", "clip"}
)  # fmt: skip


# How constants begin that can be told from others
NUMBERS = "the constant "


class Emit(Protocol):
    """Adds a normalised operation (or finds that it is nothing new) and returns its output."""

    train: bool

    @property
    def apart(self) -> bool:
        """Whether a recurrent layer that is read now is read as the layers it consists of."""
        ...

    def __call__(
        self,
        kind: str,
        inputs: Sequence[tuple[str, Operand | None]],
        shape: Sequence[int],
        /,
        **attributes: object,
    ) -> Operand: ...

    def draw(self, draw: Draw, shape: Sequence[int], p: Operand | None = None) -> Operand:
        """Numbers that are drawn at random; `p` are the probabilities that an array has."""
        ...

    def drawn(self, operand: Operand) -> Draw | None:
        """What an operand is, if it is drawn."""
        ...

    def output(self, first: Operand, position: int, shape: Sequence[int]) -> Operand:
        """Another output of the operation that produced `first`."""
        ...

    def producer(self, operand: Operand) -> Operation | None:
        """The normalised operation whose first output an operand is."""
        ...

    def is_zero(self, value: Operand) -> bool:
        """Whether a value is an array of zeros, whatever the input."""
        ...

    def number_of(self, value: Operand) -> float | None:
        """The number that is in all places of an array, whatever the input; None of any other."""
        ...


def as_numpy(array: Any) -> np.ndarray:
    """An array of either framework, or of numpy, as one of numpy."""
    if hasattr(array, "asnumpy"):
        return np.asarray(array.asnumpy())
    if hasattr(array, "detach"):
        array = array.detach().cpu().resolve_conj().resolve_neg()
    return np.asarray(array)


@dataclass
class Arguments:
    """What an executed operation was called with, arrays and the rest by argument name."""

    operation: Operation
    arrays: Mapping[str, Operand]
    constants: Mapping[str, Any] = field(default_factory=dict)

    def known(self, role: str) -> np.ndarray | None:
        """The numbers of an array that neither an input nor a parameter decides."""
        held = self.constants.get(role)
        return None if held is None else as_numpy(held)

    def index(self, role: str) -> Operand | np.ndarray:
        """An array of indices: its numbers where they are known."""
        known = self.known(role)
        return self.arrays[role] if known is None else known

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


def emit_sorted(
    emit: Emit, x: Operand, along: int | None, shape: Sequence[int], **order: Any
) -> list[Operand]:
    """The values in their order along an axis, or of all axes as one, and their places.

    Of `order`, `descending` says which comes first, and `count` how many there are.
    """
    if along is None:
        x = emit("reshape", [("input", x)], (math.prod(x.shape),))
    along = axis(-1 if along is None else along, len(x.shape))
    if order["count"] == x.shape[along]:
        del order["count"]  # all of them
    kinds = ("sort", "argsort")
    return [emit(kind, [("input", x)], shape, axis=along, **order) for kind in kinds]


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


def emit_joined(emit: Emit, parts: Iterable[Operand], along: int, shape: Sequence[int]) -> Operand:
    """Side by side along an axis that vectors and matrices may lack: a vector is a row, a matrix a
    map of one value. Vectors beside each other are one vector."""
    grown = []
    for x in parts:
        size = x.shape if len(x.shape) > 1 or along == 1 else (1, *x.shape)
        size = (*size, 1) if along == 2 and len(size) == 2 else size
        grown.append(emit("reshape", [("input", x)], size))
    return emit_concat(emit, grown, min(along, len(shape) - 1), shape)


def emit_moved(emit: Emit, x: Operand, source: Any, destination: Any) -> Operand:
    """An array some axes of which have other places; the others keep their order."""
    rank = len(x.shape)
    ends = [
        [axis(a, rank) for a in ((of,) if isinstance(of, int) else of)]
        for of in (source, destination)
    ]
    order = [i for i in range(rank) if i not in ends[0]]
    for to, start in sorted(zip(*ends[::-1], strict=True)):
        order.insert(to, start)
    moved = [x.shape[i] for i in order]
    return emit("transpose", [("input", x)], moved, order=tuple(order))


def emit_copies(
    emit: Emit, x: Operand, counts: Sequence[int], shape: Sequence[int], *, each: bool = False
) -> Operand:
    """An array so many times along each of its last axes, or `each` of its values there."""
    rank = max(len(counts), len(x.shape))
    small: list[int] = []
    large: list[int] = []
    for size, count in zip(
        (*(1,) * (rank - len(x.shape)), *x.shape), (*(1,) * (rank - len(counts)), *counts),
        strict=True,
    ):  # fmt: skip
        lengths = [(1, count), (size, size)]
        for before, after in lengths[::-1] if each else lengths:
            if after != 1:
                small.append(before)
                large.append(after)
    x = emit("reshape", [("input", x)], small)
    return emit("reshape", [("input", emit("expand", [("input", x)], large))], shape)


def emit_each(
    emit: Emit, x: Operand, count: int, along: int | None, shape: Sequence[int]
) -> Operand:
    """Each value so many times along an axis, or along that of all values."""
    if along is None:
        x, along = emit("reshape", [("input", x)], (math.prod(x.shape),)), 0
    counts = [1] * len(x.shape)
    counts[along] = count
    return emit_copies(emit, x, counts, shape, each=True)


def emit_recurrent(
    emit: Emit,
    kind: str,
    inputs: Sequence[tuple[str, Operand | None]],
    shapes: Sequence[Sequence[int]],
    **attributes: Any,
) -> list[Operand]:
    """What a recurrent layer gives, its states last; or the layers that it consists of.

    Of two ways over sequences of several lengths each turns around its own: it stays one layer.
    """
    held = {role: x for role, x in inputs if x is not None}
    turns = ("", "_reverse")[: 1 + attributes["bidirectional"]]
    if not emit.apart or (len(turns) > 1 and "lengths" in held):
        out = emit(kind, inputs, shapes[0], **attributes)
        return [out, *(emit.output(out, i, shape) for i, shape in enumerate(shapes) if i)]
    x = held.pop("input.0")
    over = (int(attributes["batch_first"] and len(x.shape) > 2),)
    width, rate = shapes[0][-1] // len(turns), attributes["dropout"]
    one = {**attributes, "layers": 1, "bidirectional": False, "dropout": 0.0}
    last: list[list[Operand]] = []
    for layer in range(attributes["layers"]):
        if layer and rate:
            x = emit("dropout", [("input", x)], x.shape, p=rate, axes=())
        made = []
        for turn in turns:
            given = emit("flip", [("input", x)], x.shape, axes=over) if turn else x
            own: list[tuple[str, Operand | None]] = [("input.0", given)]
            for role, y in held.items():
                if role.startswith("input."):
                    size = (1, *y.shape[1:])
                    y = emit("slice", [("input", y)], size, axis=0, begin=len(last), step=1)
                elif role != "lengths" and not role.endswith(f"_l{layer}{turn}"):
                    continue
                own.append((role.replace(f"_l{layer}{turn}", "_l0"), y))
            out = emit(kind, own, (*x.shape[:-1], width), **one)
            last.append([emit.output(out, i, (1, *s[1:])) for i, s in enumerate(shapes) if i])
            made.append(emit("flip", [("input", out)], out.shape, axes=over) if turn else out)
        x = emit_concat(emit, made, len(x.shape) - 1, (*x.shape[:-1], shapes[0][-1]))
    states = zip(zip(*last, strict=True), shapes[1:], strict=True)
    return [x, *(emit_concat(emit, of_all, 0, shape) for of_all, shape in states)]


def emit_assignment(
    emit: Emit, x: Operand, value: Operand | None, number: Any, key: Any, shape: Sequence[int]
) -> Operand:
    """`x[key] = value`, an array or a number: the array itself where it is given to all of x."""
    all_of_it = [[0, length, 1] for length in shape]
    if value is not None and key == all_of_it and tuple(value.shape) == tuple(shape):
        return value
    number = None if number is None else real(number)
    return emit("setitem", [("input", x), ("value", value)], shape, key=str(key), number=number)


def emit_where(
    emit: Emit, condition: Operand, choices: Sequence[Operand | float], shape: Sequence[int]
) -> Operand:
    """The first of two choices where the condition holds, else the second; see `number_of`."""
    inputs: list[tuple[str, Operand | None]] = [("condition", condition)]
    numbers: dict[str, object] = {}
    for role, x in zip(("input", "other"), choices, strict=True):
        number = emit.number_of(x) if isinstance(x, Operand) else real(x)
        if number is not None:
            numbers[role] = number
        elif isinstance(x, Operand):
            inputs.append((role, x))
    return emit("where", inputs, shape, **numbers)


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


def emit_regrouped(
    emit: Emit, x: Operand, apart: Sequence[int], order: Sequence[int], shape: Sequence[int]
) -> Operand:
    """An array whose axes are split as `apart` says, then put in another order, then joined."""
    x = emit("reshape", [("input", x)], apart)
    x = emit("transpose", [("input", x)], [apart[i] for i in order], order=tuple(order))
    return emit("reshape", [("input", x)], shape)


def emit_rolled(emit: Emit, x: Operand, shifts: Any, over: Any) -> Operand:
    """An array moved along axes, or along that of all values; what leaves at an end comes in at
    the other."""
    if over is None:
        flat = emit("reshape", [("input", x)], (math.prod(x.shape),))
        return emit("reshape", [("input", emit_rolled(emit, flat, shifts, 0))], x.shape)
    over = [over] if isinstance(over, int) else list(over)
    for along, shift in zip(over, per_axis(shifts, len(over)), strict=True):
        along = axis(along, len(x.shape))
        if kept := -shift % max(x.shape[along], 1):
            sizes = (kept, x.shape[along] - kept)
            shapes = [(*x.shape[:along], size, *x.shape[along + 1 :]) for size in sizes]
            x = emit_concat(emit, emit_slices(emit, x, along, shapes)[::-1], along, x.shape)
    return x


def emit_einsum(
    emit: Emit, equation: str, arrays: Sequence[Operand], shape: Sequence[int]
) -> Operand | None:
    """A sum of products, by Einstein's convention, as matrix products of arrays in order.

    None where an axis repeats in one array, or has a length of one beside another.
    """
    terms, arrow, kept = equation.replace(" ", "").partition("->")
    labels = [
        _axes_of(term, len(x.shape)) for term, x in zip(terms.split(","), arrays, strict=True)
    ]
    if not arrow:  # the ellipsis, then what occurs once
        once = sorted(n for n in set(terms) if n.isalpha() and terms.count(n) == 1)
        kept = "..." * ("..." in terms) + "".join(once)
    final = _axes_of(kept, len(shape))
    sizes: dict[str, int] = {}
    for of, x in zip(labels, arrays, strict=True):
        both = zip(of, x.shape, strict=True)
        if len(set(of)) < len(of) or any(sizes.setdefault(n, size) != size for n, size in both):
            return None
    parts = list(zip(labels, arrays, strict=True))
    while True:
        first, *rest = parts
        later = {*final, *(label for of, _ in rest[1:] for label in of)}
        if not rest:
            return _arranged(emit, _summed_up(emit, first, later), final, shape, sizes)
        one, two = (
            _summed_up(emit, part, later | set(other[0]))
            for part, other in ((first, rest[0]), (rest[0], first))
        )
        parts = [_product(emit, one, two, later, sizes), *rest[1:]]


_Labelled = tuple[str, Operand]  # a name for each axis


def _axes_of(term: str, rank: int) -> str:
    """The names of an array's axes; those of an ellipsis are numbered from the last."""
    before, dots, after = term.partition("...")
    count = rank - len(before) - len(after) if dots else 0
    return before + "".join(chr(0x2080 + i) for i in reversed(range(count))) + after


def _summed_up(emit: Emit, part: _Labelled, wanted: Container[str]) -> _Labelled:
    """The array without the axes that nobody else has."""
    of, x = part
    over = tuple(i for i, label in enumerate(of) if label not in wanted)
    if over:
        left = [size for i, size in enumerate(x.shape) if i not in over]
        x = emit_reduction(emit, "sum", x, over, left)
    return "".join(label for label in of if label in wanted), x


def _arranged(
    emit: Emit, part: _Labelled, wanted: str, shape: Sequence[int], sizes: Mapping[str, int]
) -> Operand:
    """The array with its axes in the wanted order, then in a shape."""
    of, x = part
    order = tuple(of.index(label) for label in wanted)
    if order != tuple(range(len(order))):
        x = emit("transpose", [("input", x)], [sizes[label] for label in wanted], order=order)
    return emit("reshape", [("input", x)], shape)


def _product(
    emit: Emit, one: _Labelled, two: _Labelled, later: Container[str], sizes: Mapping[str, int]
) -> _Labelled:
    both = [label for label in one[0] if label in two[0]]
    batch = "".join(label for label in both if label in later)
    summed = "".join(label for label in both if label not in later)
    rows, columns = ("".join(n for n in of if n not in both) for of, _ in (one, two))
    lengths = {names: [sizes[n] for n in names] for names in (batch, summed, rows, columns)}
    whole = (*lengths[batch], *lengths[rows], *lengths[columns])
    m, n, k = (math.prod(lengths[names]) for names in (rows, columns, summed))
    if summed:
        # beside a matrix rows may have many axes, as those of a linear layer
        leading = lengths[rows] if rows and not batch else (*lengths[batch], m)
        left = _arranged(emit, one, batch + rows + summed, (*leading, k), sizes)
        right = _arranged(emit, two, batch + summed + columns, (*lengths[batch], k, n), sizes)
        kind, made = "matmul", (*leading, n)
    else:
        ends = [1] * len(columns), [1] * len(rows)
        left = _arranged(
            emit, one, batch + rows, (*lengths[batch], *lengths[rows], *ends[0]), sizes
        )
        right = _arranged(
            emit, two, batch + columns, (*lengths[batch], *ends[1], *lengths[columns]), sizes
        )
        kind, made = "mul", whole
    out = emit(kind, [("input", left), ("other", right)], made)
    return batch + rows + columns, emit("reshape", [("input", out)], whole)


@dataclass(frozen=True)
class Mask:
    """An array of booleans in a key, whose values an input decides."""

    array: Operand


def emit_index(
    emit: Emit, x: Operand, key: Sequence[Any], shape: Sequence[int], *, numbers_first: bool = False
) -> Operand | None:
    """`x[key]`, an array of the key as an operand, or its numbers where they are known.

    Single numbers take part as arrays do, which decides where the axes of these come, or are
    looked up before them (`numbers_first`). None for a key that the vocabulary has no words for.
    """
    parts: list[Any] = []
    for k in key:
        known_mask = isinstance(k, np.ndarray) and k.dtype.kind == "b"
        parts += np.nonzero(k) if known_mask else [k]
    if isinstance(parts[0], Mask) and all(k in (slice(None), ...) for k in parts[1:]):
        return emit("mask", [("input", x), ("mask", parts[0].array)], shape)
    arrays = [k for k in parts if isinstance(k, (np.ndarray, Operand))]
    if any(isinstance(k, Mask) or (k is None and arrays) for k in parts):
        return None
    free = len(x.shape) - sum(k is not None and k is not ... for k in parts)
    along, placed = 0, {}
    for k in parts:
        if k is ...:
            along += free
        elif k is not None:
            if isinstance(k, slice):
                x = _ranged(emit, x, along, k)
            else:
                placed[along] = k
            along += 1
    together = max(placed, default=0) - min(placed, default=0) < max(len(placed), 1)
    for along, k in sorted(placed.items(), reverse=True):
        if not isinstance(k, int):
            continue
        if arrays and not together and not numbers_first:
            placed[along] = np.array(k)
            continue
        x = _ranged(emit, x, along, slice(k, k + 1 or None))
        if arrays:
            x = emit("reshape", [("input", x)], (*x.shape[:along], *x.shape[along + 1 :]))
            del placed[along]
            placed = {a - (a > along): array for a, array in placed.items()}
    if not arrays:
        return emit("reshape", [("input", x)], shape)
    if len(placed) == 1:
        ((along, index),) = placed.items()
        return emit_take(emit, x, index, along, shape)
    return _emit_places(emit, x, placed, shape)


def _ranged(emit: Emit, x: Operand, along: int, taken: slice) -> Operand:
    begin, end, step = taken.indices(x.shape[along])
    shape = (*x.shape[:along], len(range(begin, end, step)), *x.shape[along + 1 :])
    return emit("slice", [("input", x)], shape, axis=along, begin=begin, step=step)


def emit_take(
    emit: Emit, x: Operand, index: Operand | np.ndarray, along: int, shape: Sequence[int]
) -> Operand:
    """What lies at these places along one axis; their axes are in its place."""
    before, after = x.shape[:along], x.shape[along + 1 :]
    count = math.prod(index.shape)
    if isinstance(index, Operand):
        if x.value.origin is Origin.PARAMETER and not along and len(x.shape) == 2:
            rows = (*index.shape, *after)
            out = emit("embedding", [("input", index), ("weight", x)], rows)
            return emit("reshape", [("input", out)], shape)
        flat = emit("reshape", [("input", index)], (count,))
        inputs = [("input", x), ("index", flat)]
        out = emit("take", inputs, (*before, count, *after), axis=along)
        return emit("reshape", [("input", out)], shape)
    once = narrowed(index)
    if once.shape != index.shape:  # the same places again and again
        out = emit_take(emit, x, once, along, (*before, *once.shape, *after))
        out = emit("expand", [("input", out)], (*before, *index.shape, *after))
        return emit("reshape", [("input", out)], shape)
    places = index.reshape(-1).astype(int) % max(x.shape[along], 1)
    first = int(places[0]) if count else 0
    if count and np.array_equal(places, np.arange(first, first + count)):  # as `x[first:end]`
        out = _ranged(emit, x, along, slice(first, first + count))
    else:
        inputs, kept = [("input", x)], (*before, count, *after)
        out = emit("take", inputs, kept, axis=along, index=_numbers(places))
    return emit("reshape", [("input", out)], shape)


def narrowed(array: np.ndarray) -> np.ndarray:
    """An array once along each axis on which it holds the same all over again."""
    for along, length in enumerate(array.shape):
        first = array.take([0], axis=along) if length > 1 else array
        array = first if (array == first).all() else array
    return array


def constant(array: np.ndarray) -> tuple[Value, float | None]:
    """The value that stands for what no input decides, and the number in all its places.

    Whole numbers (indices, a mask) are told from others, along the axes on which they differ.
    Others are not, which two frameworks may round differently: their values tell.
    """
    numbers = narrowed(array.astype(np.float64))
    if numbers.size == 1:
        number = real(numbers.item())
        return Value(Origin.CONSTANT, f"{NUMBERS}{number}"), number
    if not holds_integers(numbers):
        return Value(Origin.CONSTANT, f"constants {array.shape}"), None
    whole = numbers.clip(-(2.0**62), 2.0**62)  # an infinite one too
    return Value(Origin.CONSTANT, f"{NUMBERS}{_numbers(whole)}"), None


def _numbers(places: np.ndarray) -> object:
    """Indices as an attribute that can be told from others: many of them by their digest."""
    flat = places.reshape(-1).astype(np.int64)
    if flat.size <= 32:
        return tuple(flat.tolist())
    return f"{flat.size} numbers with the digest {hashlib.sha256(flat.tobytes()).hexdigest()[:8]}"


def emit_gather(
    emit: Emit, x: Operand, index: Operand | np.ndarray, along: int, shape: Sequence[int]
) -> Operand:
    """What lies along one axis at places of their own for each place on the other axes."""
    if isinstance(index, Operand):
        return emit("gather", [("input", x), ("index", index)], shape, axis=along)
    places = np.broadcast_to(index.astype(int) % max(x.shape[along], 1), shape)
    rows = np.moveaxis(places, along, -1).reshape(-1, shape[along])
    others = [[n for a, n in enumerate(sizes) if a != along] for sizes in (x.shape, shape)]
    if others[0] == others[1] and (rows == rows[:1]).all():
        return emit_take(emit, x, rows[0], along, shape)
    return emit("gather", [("input", x)], shape, axis=along, index=_numbers(places))


def _emit_places(
    emit: Emit, x: Operand, placed: Mapping[int, Operand | np.ndarray], shape: Sequence[int]
) -> Operand:
    """What lies at places that several arrays give together, one for each of some axes."""
    (_, first), *rest = sorted(placed.items())
    rows = isinstance(first, np.ndarray) and np.array_equal(first, np.arange(x.shape[0]))
    if rows and list(placed) == list(range(len(x.shape))) and len(placed) == 2:
        ((_, second),) = rest
        if second.shape == first.shape:  # one of each row
            column = (x.shape[0], 1)
            index: Operand | np.ndarray
            if isinstance(second, Operand):
                index = emit("reshape", [("input", second)], column)
            else:
                index = second.reshape(column)
            out = emit_gather(emit, x, index, 1, column)
            return emit("reshape", [("input", out)], shape)
    known = {a: k for a, k in placed.items() if isinstance(k, np.ndarray)}
    if len(known) == len(placed):  # two ways of writing one set of places
        known = dict(zip(known, np.broadcast_arrays(*known.values()), strict=True))
    inputs = [("input", x)]
    inputs += [(f"index.{a}", k) for a, k in sorted(placed.items()) if isinstance(k, Operand)]
    numbers: dict[str, object] = {}
    for a, k in known.items():
        places = _numbers(k % max(x.shape[a], 1))
        numbers[f"index of axis {a}"] = places if k.ndim == 1 else (k.shape, places)
    return emit("index", inputs, shape, axes=tuple(sorted(placed)), **numbers)


def emit_dropout(
    emit: Emit, x: Operand, rate: float, axes: Sequence[int], shape: Sequence[int]
) -> Operand:
    """Dropout, with one number for all that lies along some axes; of a constant it is a mask."""
    over = tuple(a for a in axes if shape[a] != 1)
    number = emit.number_of(x)
    if number is not None:
        small = tuple(1 if a in over else size for a, size in enumerate(shape))
        draw = Draw("bernoulli", number / (1.0 - rate), 0.0, {"p": 1.0 - rate})
        return emit("expand", [("input", emit.draw(draw, small))], shape)
    return emit("dropout", [("input", x)], shape, p=real(f"{rate:.6g}"), axes=over)
