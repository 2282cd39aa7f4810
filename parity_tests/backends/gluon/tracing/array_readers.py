"""Readers of executed MXNet operators that combine, move, slice or reduce arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from parity_tests.backends.gluon.tracing.reading import (
    Reader,
    attribute,
    flag,
    parse,
    unknown,
    within,
)
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import (
    REVERSED,
    Arguments,
    Emit,
    Mask,
    axes,
    axis,
    emit_assignment,
    emit_concat,
    emit_copies,
    emit_each,
    emit_einsum,
    emit_gather,
    emit_index,
    emit_joined,
    emit_moved,
    emit_reduction,
    emit_regrouped,
    emit_rolled,
    emit_slices,
    emit_sorted,
    emit_stack,
    emit_take,
    emit_where,
    real,
)


def binary(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        if len(args.arrays) == 1:  # the other is read as the number that it holds
            side = "rhs" if "lhs" in args.arrays else "lhs"
            form = kind if side == "rhs" else REVERSED.get(kind, kind)
            number = args.attribute(side)
            return emit(form, [("input", args.first)], args.shape, scalar=number)
        first, second = list(args.arrays.values())[:2]
        return emit(kind, [("input", first), ("other", second)], args.shape)

    return read


def scalar(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        number = real(attribute(args, "scalar", 0.0))
        return emit(kind, [("input", args.first)], args.shape, scalar=number)

    return read


def sum_of(args: Arguments, emit: Emit) -> Operand:
    first, *rest = args.arrays.values()
    for x in rest:
        first = emit("add", [("input", first), ("other", x)], args.shape)
    return first


def where(args: Arguments, emit: Emit) -> Operand:
    """`where` of arrays, and that of `mx.np` of numbers, which are its `scalar`, or `x` and `y`."""
    condition, *arrays = args.arrays.values()
    choices: list[Operand | float] = list(arrays)
    if args.operation.kind == "_npi_where_scalar2":
        choices = [float(attribute(args, name, 0.0)) for name in ("x", "y")]
    elif len(arrays) == 1:
        first = args.operation.kind == "_npi_where_lscalar"
        choices.insert(0 if first else 1, float(attribute(args, "scalar", 0.0)))
    return emit_where(emit, condition, choices, args.shape)


def transpose(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    rank = len(x.shape)
    order = tuple(axis(a, rank) for a in attribute(args, "axes", ())) or tuple(range(rank))[::-1]
    return emit("transpose", [("input", x)], args.shape, order=order)


def swap_axes(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    rank = len(x.shape)
    order = list(range(rank))
    first, second = (axis(attribute(args, name, 0), rank) for name in ("dim1", "dim2"))
    order[first], order[second] = order[second], order[first]
    return emit("transpose", [("input", x)], args.shape, order=tuple(order))


def roll(args: Arguments, emit: Emit) -> Operand:
    shifts, over = attribute(args, "shift", 0), attribute(args, "axis", None)
    return emit_rolled(emit, args.first, shifts, over)


def move_axes(args: Arguments, emit: Emit) -> Operand:
    ends = (attribute(args, name, 0) for name in ("source", "destination"))
    return emit_moved(emit, args.first, *ends)


def join(along: int) -> Reader:
    """`mx.np.hstack`, `vstack` and `dstack`."""
    return lambda args, emit: emit_joined(emit, args.arrays.values(), along, args.shape)


def einsum(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    equation, arrays = str(args.attribute("subscripts")), list(args.arrays.values())
    return emit_einsum(emit, equation, arrays, args.shape) or unknown(args, emit)


def depth_to_space(args: Arguments, emit: Emit) -> Operand:
    """Channels as blocks of pixels, the block's own axes first."""
    batch, channels, height, width = args.first.shape
    size = int(attribute(args, "block_size", 1))
    apart = (batch, size, size, channels // size**2, height, width)
    return emit_regrouped(emit, args.first, apart, (0, 3, 4, 1, 5, 2), args.shape)


def space_to_depth(args: Arguments, emit: Emit) -> Operand:
    batch, channels, height, width = args.first.shape
    size = int(attribute(args, "block_size", 1))
    apart = (batch, channels, height // size, size, width // size, size)
    return emit_regrouped(emit, args.first, apart, (0, 3, 5, 1, 2, 4), args.shape)


def div_sqrt_dim(args: Arguments, emit: Emit) -> Operand:
    """Queries by the root of their length."""
    root = real(math.sqrt(args.first.shape[-1]))
    return emit("div", [("input", args.first)], args.shape, scalar=root)


def cumsum(args: Arguments, emit: Emit) -> Operand:
    x, along = args.first, attribute(args, "axis", None)
    if along is None:
        x = emit("reshape", [("input", x)], (math.prod(x.shape),))
    return emit("cumsum", [("input", x)], args.shape, axis=axis(along or 0, len(x.shape)))


def concat(args: Arguments, emit: Emit) -> Operand:
    along = axis(attribute(args, "dim", 1), len(args.shape))
    return emit_concat(emit, args.arrays.values(), along, args.shape)


def stack(args: Arguments, emit: Emit) -> Operand:
    along = axis(attribute(args, "axis", 0), len(args.shape))
    return emit_stack(emit, args.arrays.values(), along, args.shape)


def tile(args: Arguments, emit: Emit) -> Operand:
    reps = attribute(args, "reps", ())
    counts = (reps,) if isinstance(reps, int) else reps
    return emit_copies(emit, args.first, counts, args.shape)


def repeat(args: Arguments, emit: Emit) -> Operand:
    count, along = attribute(args, "repeats", 1), attribute(args, "axis", None)
    return emit_each(emit, args.first, count, along, args.shape)


def split(args: Arguments, emit: Emit) -> list[Operand]:
    along = axis(attribute(args, "axis", 1), len(args.first.shape))
    squeeze = flag(args, "squeeze_axis")
    return emit_slices(emit, args.first, along, args.operation.shapes, squeeze)


def slice_axis(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    along = axis(attribute(args, "axis", 0), len(x.shape))
    begin = int(attribute(args, "begin", 0)) % max(x.shape[along], 1)
    return emit("slice", [("input", x)], args.shape, axis=along, begin=begin, step=1)


def slice_ranges(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    begins, ends = (parse(args.attribute(name)) or () for name in ("begin", "end"))
    steps = parse(args.attribute("step")) or (None,) * len(begins)
    for along, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=False)):
        first, last, by = slice(begin, end, step).indices(x.shape[along])
        shape = list(x.shape)
        shape[along] = len(range(first, last, by))
        x = emit("slice", [("input", x)], shape, axis=along, begin=first, step=by)
    return x


def last(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    """`SequenceLast`, which without lengths is the last step of all."""
    x = args.first
    if len(args.arrays) > 1:
        return unknown(args, emit)
    along = axis(attribute(args, "axis", 0), len(x.shape))
    kept, steps = (*x.shape[:along], 1, *x.shape[along + 1 :]), x.shape[along]
    out = emit("slice", [("input", x)], kept, axis=along, begin=steps - 1, step=1)
    return emit("reshape", [("input", out)], args.shape)


def slice_like(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    for along, size in enumerate(args.shape):
        shape = (*x.shape[:along], size, *x.shape[along + 1 :])
        x = emit("slice", [("input", x)], shape, axis=along, begin=0, step=1)
    return x


def rows(args: Arguments, emit: Emit) -> Operand:
    """`x[a:b]` and `x[i]`, which MXNet takes from memory without an operator."""
    x = args.first
    begin = args.attribute("args")[0]
    length = args.shape[0] if args.operation.kind == "_slice" else 1
    kept = (length, *x.shape[1:])
    begin = int(begin or 0) % x.shape[0]
    out = emit("slice", [("input", x)], kept, axis=0, begin=begin, step=1)
    return emit("reshape", [("input", out)], args.shape)


def pad(args: Arguments, emit: Emit) -> Operand:
    widths = attribute(args, "pad_width", ())
    if args.operation.kind == "Pad":
        widths = tuple(zip(widths[::2], widths[1::2], strict=True))
    mode = str(attribute(args, "mode", "constant"))
    value = real(attribute(args, "constant_value", 0.0)) if mode == "constant" else 0.0
    x = args.first
    return emit("pad", [("input", x)], args.shape, widths=widths, mode=mode, value=value)


def reduce(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        rank = len(args.first.shape)
        over = axes(attribute(args, "axis", None), rank)
        if flag(args, "exclude"):
            over = tuple(i for i in range(rank) if i not in over)
        order = {"ord": real(attribute(args, "ord", 2))} if kind == "norm" else {}
        return emit_reduction(emit, kind, args.first, over, args.shape, **order)

    return read


def sort(args: Arguments, emit: Emit) -> list[Operand]:
    """`sort`, `argsort`, and `topk`, which gives places, values or both."""
    kind, x = args.operation.kind.rpartition("_")[2], args.first
    given = {"sort": "value", "argsort": "indices", "topk": attribute(args, "ret_typ", "indices")}
    if given[kind] == "mask":
        return unknown(args, emit)
    along = parse(args.attribute("axis", -1))
    length = math.prod(x.shape) if along is None else x.shape[along]
    made = emit_sorted(
        emit,
        x,
        along,
        args.shape,
        descending=not flag(args, "is_ascend", kind != "topk"),
        count=(attribute(args, "k", 1) if kind == "topk" else 0) or length,
    )
    return {"value": made[:1], "indices": made[1:]}.get(given[kind], made)


def take(args: Arguments, emit: Emit) -> Operand:
    x, role = args.first, list(args.arrays)[1]
    along = axis(attribute(args, "axis", 0), len(x.shape))
    return emit_take(emit, x, within(args, role, x.shape[along]), along, args.shape)


def pick(args: Arguments, emit: Emit) -> Operand:
    """One number of each row, by an index without the row's axis, or with it as one place."""
    x, role = args.first, list(args.arrays)[1]
    along = axis(attribute(args, "axis", -1), len(x.shape))
    column = (*x.shape[:along], 1, *x.shape[along + 1 :])
    index = within(args, role, x.shape[along])
    if isinstance(index, Operand):
        index = emit("reshape", [("input", index)], column)
    else:
        index = index.reshape(column)
    out = emit_gather(emit, x, index, along, column)
    return emit("reshape", [("input", out)], args.shape)


def gather_nd(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    """The places that the first axis of the indices gives, one of each of the leading axes."""
    x, index = args.first, args.index("indices")
    if isinstance(index, np.ndarray):
        key: list[Any] = list(index.astype(int))
    else:
        parts = emit_slices(emit, index, 0, [index.shape[1:]] * index.shape[0], squeeze=True)
        key = list(parts)
    return emit_index(emit, x, key, args.shape) or unknown(args, emit)


def getitem(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    """`x[key]` with arrays or lists in the key."""
    known = emit_index(
        emit, args.first, [_part(k, args) for k in args.attribute("key")], args.shape
    )
    return unknown(args, emit) if known is None else known


def _part(written: Any, args: Arguments) -> Any:
    """What stands in a key, an array's numbers where they are known; see `tape.written_key`."""
    if not isinstance(written, dict):
        return ... if written == "..." else written
    ((what, value),) = written.items()
    if what == "slice":
        return slice(*value)
    if what == "values":
        return np.asarray(value)
    index = args.index(f"key.{value}")
    if isinstance(index, np.ndarray):
        return index if index.dtype.kind in "iub" else index.astype(int)
    return Mask(index) if what == "mask" else index


def boolean_mask(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    """The places along one axis where a mask is not 0."""
    mask = args.known("index")
    if mask is None:
        return unknown(args, emit)
    along = axis(attribute(args, "axis", 0), len(args.first.shape))
    return emit_take(emit, args.first, np.flatnonzero(mask), along, args.shape)


def flip(args: Arguments, emit: Emit) -> Operand:
    over = attribute(args, "axis", None)
    over = axes(over, len(args.shape))
    return emit("flip", [("input", args.first)], args.shape, axes=over)


def constant(value: float | None = None) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        number = real(attribute(args, "value", 0.0) if value is None else value)
        return emit("constant", [], args.shape, value=number)

    return read


def matmul(args: Arguments, emit: Emit) -> Operand:
    """`batch_dot` and `dot`, `linalg_gemm2`, which names its matrices otherwise, and `gemm`."""
    first, second, *added = args.arrays.values()
    if flag(args, "transpose_a"):
        first = swapped(emit, first)
    if flag(args, "transpose_b"):
        second = swapped(emit, second)
    out = emit("matmul", [("input", first), ("other", second)], args.shape)
    alpha, beta = (real(attribute(args, name, 1.0)) for name in ("alpha", "beta"))
    out = emit("mul", [("input", out)], args.shape, scalar=alpha)
    for x in added:
        x = emit("mul", [("input", x)], x.shape, scalar=beta)
        out = emit("add", [("input", out), ("other", x)], args.shape)
    return out


def swapped(emit: Emit, x: Operand) -> Operand:
    rank = len(x.shape)
    order = (*range(rank - 2), rank - 1, rank - 2)
    return emit("transpose", [("input", x)], [x.shape[i] for i in order], order=order)


def cast(args: Arguments, emit: Emit) -> Operand:
    return emit("cast", [("input", args.first)], args.shape, dtype=args.operation.dtypes[0])


def copy(args: Arguments, emit: Emit) -> Operand:
    """`x.copy()`, and `x.astype(dtype)` of another one."""
    same = args.attribute("source") == args.operation.dtypes[0]
    return args.first if same else cast(args, emit)


def assign(args: Arguments, emit: Emit) -> Operand:
    number, key = args.attribute("number"), args.attribute("key")
    return emit_assignment(emit, args["data"], args.get("value"), number, key, args.shape)
