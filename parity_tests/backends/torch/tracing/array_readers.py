"""Readers of executed torch calls that combine, move, slice or reduce arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from parity_tests.backends.files.tape import spans
from parity_tests.backends.torch.tracing.reading import Reader, dim, unknown
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


def divide(rounding: str | None = None, kind: str = "div") -> Reader:
    """A quotient, and what it is rounded to: by `rounding_mode` where the call has one."""
    quotient = binary(kind)

    def read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
        out = quotient(args, emit)
        mode = args.attribute("rounding_mode", rounding)
        if mode is None or not isinstance(out, Operand):
            return out
        return emit(mode, [("input", out)], args.shape)

    return read


def where(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    """`torch.where`, and `masked_fill`, whose value is the choice where its mask holds."""
    masked = args.operation.kind.startswith("masked_fill")
    names = ("mask", "value", "input") if masked else ("condition", "input", "other")
    condition, *choices = (args.get(name) or args.attribute(name) for name in names)
    if None in choices:  # `torch.where(x)`: places
        return unknown("where", args, emit)
    return emit_where(emit, condition, choices, args.shape)


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
    moved = [args.first.shape[i] for i in order]
    out = emit("transpose", [("input", args.first)], moved, order=tuple(order))
    return emit("reshape", [("input", out)], args.shape)  # see `parts.with_turned`


def roll(args: Arguments, emit: Emit) -> Operand:
    return emit_rolled(emit, args.first, args.attribute("shifts"), args.attribute("dims") or None)


def move_axes(args: Arguments, emit: Emit) -> Operand:
    ends = args.attribute("source"), args.attribute("destination")
    return emit_moved(emit, args.first, *ends)


def join(along: int) -> Reader:
    """`hstack`, `vstack` and `dstack`: side by side, arrays of few axes given more."""

    def read(args: Arguments, emit: Emit) -> Operand:
        return emit_joined(emit, args.arrays.values(), along, args.shape)

    return read


def split_along(place: int) -> Reader:
    """`hsplit`, `vsplit` and `dsplit`; a vector has one axis."""

    def read(args: Arguments, emit: Emit) -> list[Operand]:
        along = min(place, len(args.first.shape) - 1)
        return emit_slices(emit, args.first, along, args.operation.shapes)

    return read


def einsum(equation: str = "") -> Reader:
    """`einsum`, and `mv`, `dot` and `outer` of vectors, whose equation their name says."""

    def read(args: Arguments, emit: Emit) -> Operand | list[Operand]:
        written = equation or args.attribute("equation", "")
        arrays = list(args.arrays.values())
        known = emit_einsum(emit, written, arrays, args.shape) if written else None
        return unknown(args.operation.kind, args, emit) if known is None else known

    return read


def plus_product(kind: str) -> Reader:
    """`addcmul` and `addcdiv`: an array, and a multiple of two others' product or quotient."""

    def read(args: Arguments, emit: Emit) -> Operand:
        x, first, second = args.arrays.values()
        out = emit(kind, [("input", first), ("other", second)], args.shape)
        out = emit("mul", [("input", out)], args.shape, scalar=real(args.attribute("value", 1)))
        return emit("add", [("input", x), ("other", out)], args.shape)

    return read


def glu(args: Arguments, emit: Emit) -> Operand:
    """The first half times the sigmoid of the second."""
    along = axis(dim(args, -1), len(args.shape))
    value, gate = emit_slices(emit, args.first, along, [args.shape] * 2)
    gate = emit("sigmoid", [("input", gate)], args.shape)
    return emit("mul", [("input", value), ("other", gate)], args.shape)


def pixel_shuffle(args: Arguments, emit: Emit) -> Operand:
    """Blocks of r × r channels as r × r pixels."""
    *batch, channels, height, width = args.first.shape
    r, n = int(args.attribute("upscale_factor")), len(batch)
    apart = (*batch, channels // r**2, r, r, height, width)
    order = (*range(n), *(n + i for i in (0, 3, 1, 4, 2)))
    return emit_regrouped(emit, args.first, apart, order, args.shape)


def pixel_unshuffle(args: Arguments, emit: Emit) -> Operand:
    """Blocks of r × r pixels as r × r channels."""
    *batch, channels, height, width = args.first.shape
    r, n = int(args.attribute("downscale_factor")), len(batch)
    apart = (*batch, channels, height // r, r, width // r, r)
    order = (*range(n), *(n + i for i in (0, 2, 4, 1, 3)))
    return emit_regrouped(emit, args.first, apart, order, args.shape)


def channel_shuffle(args: Arguments, emit: Emit) -> Operand:
    batch, channels, *rest = args.first.shape
    groups = int(args.attribute("groups"))
    apart = (batch, groups, channels // groups, *rest)
    order = (0, 2, 1, *range(3, len(apart)))
    return emit_regrouped(emit, args.first, apart, order, args.shape)


def concat(args: Arguments, emit: Emit) -> Operand:
    along = axis(dim(args, 0), len(args.shape))
    return emit_concat(emit, args.arrays.values(), along, args.shape)


def stack(args: Arguments, emit: Emit) -> Operand:
    along = axis(dim(args, 0), len(args.shape))
    return emit_stack(emit, args.arrays.values(), along, args.shape)


def copies(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    """`repeat`, `tile`, and `repeat_interleave` of one count."""
    counts = args.attribute("repeats", args.attribute("dims"))
    if args.operation.kind != "repeat_interleave":
        counts = (counts,) if isinstance(counts, int) else counts
        return emit_copies(emit, args.first, counts, args.shape)
    if not isinstance(counts, int):  # an array
        return unknown("repeat_interleave", args, emit)
    return emit_each(emit, args.first, counts, dim(args, None), args.shape)


def broadcast_all(args: Arguments, emit: Emit) -> list[Operand]:
    return [emit("expand", [("input", x)], args.shape) for x in args.arrays.values()]


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
    arrays = iter([role for role in args.arrays if role.startswith("arg.1.")])
    keys = [_part(k, args, arrays) for k in (key if isinstance(key, tuple) else (key,))]
    known = emit_index(emit, args.first, keys, args.shape, numbers_first=True)
    return unknown("index", args, emit) if known is None else known


def _part(k: Any, args: Arguments, arrays: Iterator[str]) -> Any:
    """What stands in a key, an array's numbers where they are known."""
    if isinstance(k, str):
        index = args.index(next(arrays))
        return Mask(index) if k == "mask" and isinstance(index, Operand) else index
    return np.asarray(k) if isinstance(k, (list, tuple, range)) else k


def flip(args: Arguments, emit: Emit) -> Operand:
    over = {"fliplr": 1, "flipud": 0}.get(args.operation.kind, args.attribute("dims"))
    over = axes(over, len(args.shape))
    return emit("flip", [("input", args.first)], args.shape, axes=over)


def gather(args: Arguments, emit: Emit) -> Operand:
    """`gather`, and `take_along_dim`, which broadcasts, and names the index otherwise."""
    x, along = args["input"], dim(args, None)
    role = "index" if "index" in args.arrays else "indices"
    index = args.index(role)
    if along is None:
        x, along = emit("reshape", [("input", x)], (math.prod(x.shape),)), 0
        return emit_take(emit, x, index, along, args.shape)
    return emit_gather(emit, x, index, axis(along, len(x.shape)), args.shape)


def masked_select(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    mask = args.index("mask")
    if mask.shape != args["input"].shape:
        return unknown("masked_select", args, emit)
    key = [Mask(mask) if isinstance(mask, Operand) else mask]
    return emit_index(emit, args["input"], key, args.shape) or unknown("mask", args, emit)


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


def cumsum(args: Arguments, emit: Emit) -> Operand:
    along = axis(dim(args, None), len(args.first.shape))
    return emit("cumsum", [("input", args.first)], args.shape, axis=along)


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


def sort(args: Arguments, emit: Emit) -> list[Operand]:
    """`sort` and `topk`, which give values and places, and `argsort`."""
    kind, x = args.operation.kind, args.first
    along = axis(dim(args, -1), len(x.shape))
    largest = args.attribute("largest", True) if kind == "topk" else args.attribute("descending")
    count = args.shape[along] if args.shape else 1
    made = emit_sorted(emit, x, along, args.shape, descending=bool(largest), count=count)
    return made[kind == "argsort" :]


def take(args: Arguments, emit: Emit) -> Operand:
    """`index_select`, and `take`, which counts along all axes."""
    x = args["input"]
    if args.operation.kind == "take":
        x = emit("reshape", [("input", x)], (math.prod(x.shape),))
    return emit_take(emit, x, args.index("index"), axis(dim(args, 0), len(x.shape)), args.shape)


def constant(value: float | None = None) -> Reader:
    def read(args: Arguments, emit: Emit) -> Operand:
        number = args.attribute("fill_value", 0.0) if value is None else value
        return emit("constant", [], args.shape, value=real(number))

    return read


def matmul(args: Arguments, emit: Emit) -> Operand:
    first, second = list(args.arrays.values())[:2]
    return emit("matmul", [("input", first), ("other", second)], args.shape)


def matmul_and_add(args: Arguments, emit: Emit) -> Operand:
    """`addmm` and `baddbmm`: beta times the first array and alpha times a product."""
    added, first, second = args.arrays.values()
    out = emit("matmul", [("input", first), ("other", second)], args.shape)
    out = emit("mul", [("input", out)], args.shape, scalar=real(args.attribute("alpha", 1)))
    beta = real(args.attribute("beta", 1))
    if not beta:  # not read, whatever it holds
        return out
    added = emit("mul", [("input", added)], added.shape, scalar=beta)
    return emit("add", [("input", out), ("other", added)], args.shape)


def cast(args: Arguments, emit: Emit) -> Operand:
    return emit("cast", [("input", args.first)], args.shape, dtype=args.operation.dtypes[0])


def assign(args: Arguments, emit: Emit) -> Operand | list[Operand]:
    if not set(args.arrays) <= {"arg.0", "arg.2"}:  # indices that are arrays
        return unknown("setitem", args, emit)
    number, key = args.attribute("arg.2"), spans(args.attribute("arg.1"), args.shape)
    return emit_assignment(emit, args["arg.0"], args.get("arg.2"), number, key, args.shape)
