"""Readers of executed MXNet operators that combine, move, slice or reduce arrays."""

from __future__ import annotations

from parity_tests.backends.gluon.tracing.reading import Reader, attribute, flag, parse
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import (
    REVERSED,
    Arguments,
    Emit,
    axes,
    axis,
    emit_assignment,
    emit_concat,
    emit_reduction,
    emit_slices,
    emit_stack,
    real,
)

__all__ = [
    "assign",
    "binary",
    "cast",
    "concat",
    "constant",
    "copy",
    "matmul",
    "pad",
    "reduce",
    "rows",
    "scalar",
    "slice_axis",
    "slice_like",
    "slice_ranges",
    "split",
    "stack",
    "sum_of",
    "swap_axes",
    "swapped",
    "take",
    "transpose",
]


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


def concat(args: Arguments, emit: Emit) -> Operand:
    along = axis(attribute(args, "dim", 1), len(args.shape))
    return emit_concat(emit, args.arrays.values(), along, args.shape)


def stack(args: Arguments, emit: Emit) -> Operand:
    along = axis(attribute(args, "axis", 0), len(args.shape))
    return emit_stack(emit, args.arrays.values(), along, args.shape)


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
    flat = attribute(args, "pad_width", ())
    widths = tuple(zip(flat[::2], flat[1::2], strict=True))
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


def take(args: Arguments, emit: Emit) -> Operand:
    x, index = list(args.arrays.values())[:2]
    along = axis(attribute(args, "axis", 0), len(x.shape))
    return emit("take", [("input", x), ("index", index)], args.shape, axis=along)


def constant(value: float | None = None) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        number = real(attribute(args, "value", 0.0) if value is None else value)
        return emit("constant", [], args.shape, value=number)

    return read


def matmul(args: Arguments, emit: Emit) -> Operand:
    """`batch_dot` and `dot`, and `linalg_gemm2`, which names its matrices otherwise."""
    first, second = list(args.arrays.values())[:2]
    if flag(args, "transpose_a"):
        first = swapped(emit, first)
    if flag(args, "transpose_b"):
        second = swapped(emit, second)
    out = emit("matmul", [("input", first), ("other", second)], args.shape)
    alpha = real(attribute(args, "alpha", 1.0))
    return emit("mul", [("input", out)], args.shape, scalar=alpha)


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
