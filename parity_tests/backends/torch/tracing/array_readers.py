"""Readers of executed torch calls that combine, move, slice or reduce arrays."""

from __future__ import annotations

from parity_tests.backends.files.tape import spans
from parity_tests.backends.torch.tracing.reading import Reader, dim, unknown
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
    "extreme",
    "getitem",
    "matmul",
    "narrow",
    "norm",
    "pad",
    "permute",
    "reduce",
    "split",
    "stack",
    "take",
    "transpose",
]


def binary(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        arrays = list(args.arrays.values())
        scale = args.attribute("alpha", 1)
        if len(arrays) == 2:
            second = arrays[1]
            if scale not in (1, None) and kind in ("add", "sub"):
                second = emit("mul", [("input", second)], second.shape, scalar=real(scale))
            return emit(kind, [("input", arrays[0]), ("other", second)], args.shape)
        reverse = "input" not in args.arrays
        name = "input" if reverse else "other"
        number = args.attribute(name, args.attribute("exponent", args.attribute("value", 0)))
        number = real(number) * (1 if kind not in ("add", "sub") else (scale or 1))
        form = REVERSED.get(kind, kind) if reverse else kind
        return emit(form, [("input", arrays[0])], args.shape, scalar=number)

    return read


def permute(args: Arguments, emit: Emit) -> Operand:
    rank = len(args.first.shape)
    order = tuple(axis(d, rank) for d in args.attribute("dims"))
    return emit("transpose", [("input", args.first)], args.shape, order=order)


def transpose(args: Arguments, emit: Emit) -> Operand:
    rank = len(args.first.shape)
    first, second = args.attribute("dim0", -1), args.attribute("dim1", -2)
    order = list(range(rank))
    first, second = axis(first, rank), axis(second, rank)
    order[first], order[second] = order[second], order[first]
    return emit("transpose", [("input", args.first)], args.shape, order=tuple(order))


def concat(args: Arguments, emit: Emit) -> Operand:
    along = axis(dim(args, 0), len(args.shape))
    return emit_concat(emit, args.arrays.values(), along, args.shape)


def stack(args: Arguments, emit: Emit) -> Operand:
    along = axis(dim(args, 0), len(args.shape))
    return emit_stack(emit, args.arrays.values(), along, args.shape)


def split(squeeze: bool = False) -> Reader:
    def read(args: Arguments, emit: Emit) -> list[Operand]:
        along = axis(dim(args, 0), len(args.first.shape))
        return emit_slices(emit, args.first, along, args.operation.shapes, squeeze)

    return read


def narrow(args: Arguments, emit: Emit) -> Operand:
    x = args.first
    along = axis(dim(args, 0), len(x.shape))
    begin = int(args.attribute("start", args.attribute("index", 0)))
    length = int(args.attribute("length", 1))
    kept = (*x.shape[:along], length, *x.shape[along + 1 :])
    begin %= x.shape[along]
    out = emit("slice", [("input", x)], kept, axis=along, begin=begin, step=1)
    return emit("reshape", [("input", out)], args.shape)


def getitem(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    key = args.attribute("arg.1")
    keys = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(k, (int, slice)) or k is None or k is Ellipsis for k in keys):
        return unknown("index", args, emit)
    x = args.first
    missing = len(x.shape) - sum(1 for k in keys if k is not None and k is not Ellipsis)
    along = 0
    for k in keys:
        if k is None:
            continue
        if k is Ellipsis:
            along += missing
            continue
        size = x.shape[along]
        if isinstance(k, slice):
            begin, end, step = k.indices(size)
        else:
            begin, end, step = k % size, k % size + 1, 1
        shape = list(x.shape)
        shape[along] = len(range(begin, end, step))
        x = emit("slice", [("input", x)], shape, axis=along, begin=begin, step=step)
        along += 1
    return emit("reshape", [("input", x)], args.shape)


def pad(args: Arguments, emit: Emit) -> Operand:
    flat = list(args.attribute("pad"))
    pairs = [(int(a), int(b)) for a, b in zip(flat[::2], flat[1::2], strict=True)][::-1]
    widths = (*((0, 0),) * (len(args.shape) - len(pairs)), *pairs)
    mode = args.attribute("mode", "constant")
    value = real(args.attribute("value") or 0) if mode == "constant" else 0.0
    mode = {"replicate": "edge"}.get(mode, mode)
    x = args.first
    return emit("pad", [("input", x)], args.shape, widths=widths, mode=mode, value=value)


def reduce(kind: str) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        over = axes(dim(args, None), len(args.first.shape))
        return emit_reduction(emit, kind, args.first, over, args.shape)

    return read


def norm(args: Arguments, emit: Emit) -> Operand:
    """`x.norm(p, dim)`, `linalg.vector_norm(x, ord, dim)`."""
    order = args.attribute("ord", args.attribute("p", 2))
    over = axes(dim(args, None), len(args.first.shape))
    number = 2.0 if order in (None, "fro") else real(order)
    return emit_reduction(emit, "norm", args.first, over, args.shape, ord=number)


def extreme(kind: str) -> Reader:
    """`x.max()`, `x.max(1)` with its positions, and `torch.max(x, y)`."""
    both = binary(f"{kind}imum")

    def read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
        x = args.first
        if len(args.arrays) == 2:
            return both(args, emit)
        over = axes(dim(args, None), len(x.shape))
        best = emit_reduction(emit, kind, x, over, args.shape)
        if len(args.operation.shapes) == 1:
            return best
        return [best, emit_reduction(emit, f"arg{kind}", x, over, args.shape)]

    return read


def take(args: Arguments, emit: Emit) -> Operand:
    x = args["input"]
    along = axis(dim(args, 0), len(x.shape))
    return emit("take", [("input", x), ("index", args["index"])], args.shape, axis=along)


def constant(value: float | None = None) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        number = args.attribute("fill_value", 0.0) if value is None else value
        return emit("constant", [], args.shape, value=real(number))

    return read


def matmul(args: Arguments, emit: Emit) -> Operand:
    first, second = list(args.arrays.values())[:2]
    return emit("matmul", [("input", first), ("other", second)], args.shape)


def cast(args: Arguments, emit: Emit) -> Operand:
    return emit("cast", [("input", args.first)], args.shape, dtype=args.operation.dtypes[0])


def assign(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    if not set(args.arrays) <= {"arg.0", "arg.2"}:  # indices that are arrays
        return unknown("setitem", args, emit)
    number, key = args.attribute("arg.2"), spans(args.attribute("arg.1"), args.shape)
    return emit_assignment(emit, args["arg.0"], args.get("arg.2"), number, key, args.shape)
