"""The rules by which equal computations get one form.

A rule sees an operation that is about to be added and returns the value that stands for it, or
None where it does not apply. Rules may emit other operations instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from parity_tests.numerics.compare import holds_whole_numbers
from parity_tests.pairing.graph import Operand, Operation, Origin, Parameter, Value
from parity_tests.pairing.rules.activations import gate_of_itself, hard_gate, rectifier
from parity_tests.pairing.rules.draws import (
    cast_draw,
    compared_draw,
    floor_of_draw,
    masked,
    of_draw,
    rescaled_dropout,
    reshaped_draw,
)
from parity_tests.pairing.rules.form import Attributes, Graph, Rule, produced_by
from parity_tests.pairing.vocabulary import (
    ELEMENTWISE,
    POINTWISE,
    broadcast,
    constant,
    emit_concat,
    emit_pool,
    emit_take,
    real,
)


def _same_shape(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
) -> Operand | None:
    return inputs[0] if inputs[0].shape == shape else None


def _all_of_it(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A slice of all there is, in its order or backwards."""
    x, along = inputs[0], attributes["axis"]
    if x.shape != shape:
        return None
    return x if attributes["step"] > 0 else graph("flip", [("input", x)], shape, axes=(along,))


def _flip_of_flip(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """Axes of one value are turned around once; twice is not at all."""
    x, over = inputs[0], tuple(a for a in attributes["axes"] if shape[a] != 1)
    before = produced_by(graph, x, "flip")
    if before is not None and before.inputs:
        x = before.inputs[0]
        over = tuple(sorted({*over} ^ {*before.attributes["axes"]}))
        graph.merge(before)
    elif over == attributes["axes"]:
        return None
    return graph("flip", [("input", x)], shape, axes=over) if over else x


def _gather_of_rows(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """Places that are the same wherever one is on the other axes are places along the axis."""
    x, *indices = inputs
    along = attributes["axis"]
    others = [a for a in range(len(shape)) if a != along]
    if not indices or any(x.shape[a] != shape[a] for a in others):
        return None
    grown = _grown(graph, indices[0])
    index = grown[1] if grown is not None else indices[0]
    if len(index.shape) != len(shape) or any(index.shape[a] != 1 for a in others):
        return None
    return emit_take(graph, x, index, along, shape)


def _through_reshape(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
) -> Operand | None:
    x = inputs[0]
    if x.value.origin is Origin.PARAMETER:
        return Operand("", x.value, shape)
    before = produced_by(graph, x, "reshape")
    if before is None or not before.inputs:
        return None
    graph.merge(before)
    return graph("reshape", [("input", before.inputs[0])], shape)


def _grown(graph: Graph, x: Operand) -> tuple[Operation, Operand] | None:
    """What expands a value, and what it expands."""
    grown = produced_by(graph, x, "expand")
    if grown is None:
        return None
    if grown.inputs:
        return grown, grown.inputs[0]
    (parameter,) = grown.parameters.values()
    return grown, replace(_held(parameter), shape=grown.attributes["of"])


def _expand_at_once(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """What is expanded is expanded once; of a parameter it says the shape that it is read in.

    Without leading ones, which change nothing.
    """
    x = inputs[0]
    known = _grown(graph, x)
    if known is not None:
        graph.merge(known[0])
        return graph("expand", [("input", known[1])], shape)
    if math.prod(x.shape) == math.prod(shape) != 0:
        return graph("reshape", [("input", x)], shape)
    if x.value.origin is not Origin.PARAMETER or attributes:
        return None
    read = tuple(itertools.dropwhile(lambda n: n == 1, x.shape))
    return graph("expand", [("input", x)], shape, of=read)


def _reshape_of_expand(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
) -> Operand | None:
    """Axes of one value come and go before the others are expanded."""
    known = _grown(graph, inputs[0])
    if known is None:
        return None
    grown, small = known
    before = (*(1,) * (len(grown.shape) - len(small.shape)), *small.shape)
    long = [(n, size) for n, size in zip(grown.shape, before, strict=True) if n != 1]
    if [n for n, _ in long] != [n for n in shape if n != 1]:
        return None
    sizes = iter(size for _, size in long)
    kept = tuple(1 if n == 1 else next(sizes) for n in shape)
    graph.merge(grown)
    x = graph("reshape", [("input", small)], kept)
    return graph("expand", [("input", x)], shape)


def _through_transpose(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    x = inputs[0]
    order: tuple[int, ...] = attributes["order"]
    moved = [axis for axis in order if x.shape[axis] != 1]
    if moved == sorted(moved):
        return graph("reshape", [("input", x)], shape)
    before = produced_by(graph, x, "transpose")
    if before is None:
        return None
    first: tuple[int, ...] = before.attributes["order"]
    graph.merge(before)
    combined = tuple(first[axis] for axis in order)
    return graph("transpose", [("input", _taken(before))], shape, order=combined)


def _there_and_back(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """What is put in an order, and then back from it."""
    before = produced_by(graph, inputs[0], "take")
    if before is None or not before.inputs or before.attributes["axis"] != attributes["axis"]:
        return None
    x, *first = before.inputs
    if x.shape != shape:
        return None
    if first and len(inputs) > 1:
        undone = _undoes(graph, inputs[1], first[0])
    else:
        forth, back = before.attributes.get("index"), attributes.get("index")
        if not isinstance(forth, tuple) or not isinstance(back, tuple):
            return None
        undone = [forth[i] for i in back] == list(range(len(back)))
    return x if undone else None


def _undoes(graph: Graph, back: Operand, forth: Operand) -> bool:
    """Whether an index is made of a permutation as `scatter_(0, forth, arange)` makes its inverse,
    or `argsort`."""
    made = graph.producer(back)
    if made is None:
        return False
    read = {x.role: x for x in made.inputs}
    if made.kind == "argsort":
        return read["input"].value == forth.value and not made.attributes.get("descending")
    if made.kind != "scatter" or "src" not in read or read["index"].value != forth.value:
        return False
    counted, _ = constant(np.arange(math.prod(forth.shape)))
    return read["src"].value == counted


def _same_type(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """So do whole numbers that the net holds (indices, a mask), which are compared by value."""
    x, dtypes = inputs[0], (graph.dtype_of(inputs[0]), attributes["dtype"])
    held = x.value.origin is Origin.PARAMETER and dtypes[1] != "bool"
    whole = held and any(map(holds_whole_numbers, dtypes))
    return x if whole or dtypes[0] == dtypes[1] else None


def _flat_concat(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    first, along = inputs[0], attributes["axis"]
    if len(inputs) == 1:
        return first
    alike = all((x.value, x.shape) == (first.value, first.shape) for x in inputs)
    if alike and first.shape[along] == 1:
        return graph("expand", [("input", first)], shape)
    flat: list[Operand] = []
    for x in inputs:
        inner = produced_by(graph, x, "concat")
        same = inner is not None and inner.attributes == attributes and not inner.parameters
        flat += inner.inputs if inner is not None and same else [x]
    if len(flat) == len(inputs):
        return None
    renamed = [(f"input.{i}", x) for i, x in enumerate(flat)]
    return graph("concat", renamed, shape, **attributes)


def _slice_of_concat(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """Of parts joined along the axis of a slice, those that it takes of."""
    along, begin = attributes["axis"], attributes["begin"]
    inner = produced_by(graph, inputs[0], "concat")
    if inner is None or inner.attributes["axis"] != along or attributes["step"] != 1:
        return None
    taken: list[tuple[str, Operand]] = []
    end = begin + shape[along]
    offset = 0
    for part in _joined(inner):
        first, last = max(begin - offset, 0), min(end - offset, part.shape[along])
        offset += part.shape[along]
        if first < last:
            kept = (*shape[:along], last - first, *shape[along + 1 :])
            x = graph("slice", [("input", part)], kept, axis=along, begin=first, step=1)
            taken.append((f"input.{len(taken)}", x))
    return graph("concat", taken, shape, axis=along) if taken else None


def _joined(concat: Operation) -> list[Operand]:
    """What is joined, parameters among it, in its order."""
    parts = {x.role: x for x in concat.inputs}
    for role, parameter in concat.parameters.items():
        parts[role] = Operand(role, Value(Origin.PARAMETER, parameter.name), parameter.shape)
    return [parts[f"input.{i}"] for i in range(len(parts))]


def _slice_of_convolution(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A convolution whose first or last results are cut off pads less there.

    A transposed one pads more: it has its padding cut off. Not if something else reads them all.
    """
    made, along = graph.producer(inputs[0]), int(attributes["axis"])
    if made is None or made.shape != inputs[0].shape or along < 2 or attributes["step"] != 1:
        return None
    if made.kind not in ("conv", "conv_transpose") or not graph.is_read_once(made):
        return None
    front, axis = int(attributes["begin"]), along - 2
    back = made.shape[along] - front - shape[along]
    window = dict(made.attributes)
    operands = {y.role: y for y in made.inputs}
    if "input" not in operands:  # a parameter is convolved
        return None
    before = window["padding"][axis]
    if made.kind == "conv_transpose":
        more = window["output_padding"][axis] + front - back
        if not 0 <= more < max(window["stride"][axis], window["dilation"][axis]):
            return None
        window["padding"] = _put(window["padding"], axis, before + front)
        window["output_padding"] = _put(window["output_padding"], axis, more)
    else:
        step = window["stride"][axis]
        ends = (before - front * step, before - back * step)
        if min(ends) < 0:
            return None
        window["padding"] = _put(window["padding"], axis, min(ends) if front == back else 0)
        if front != back:
            x = operands["input"]
            widths = _put(((0, 0),) * len(shape), along, ends)
            grown = _put(x.shape, along, x.shape[along] + sum(ends))
            operands["input"] = graph(
                "pad", [("input", x)], grown, widths=widths, mode="constant", value=0.0
            )
    graph.merge(made)
    held = ((role, _held(parameter)) for role, parameter in made.parameters.items())
    return graph(made.kind, [*operands.items(), *held], shape, **window)


def _put(values: Sequence[Any], index: int, value: object) -> tuple[Any, ...]:
    """The same with another value at one place."""
    return (*values[:index], value, *values[index + 1 :])


def _slice_of_moved_concat(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """One of the parts of what was joined, and then reshaped and transposed, is that part moved."""
    moves = _moves(graph, inputs[0])
    inner = produced_by(graph, _taken(moves[-1]) if moves else inputs[0], "concat")
    if not moves or inner is None or attributes["step"] != 1 or 0 in inner.shape:
        return None
    along, before = int(inner.attributes["axis"]), inner.shape
    lengths = [part.shape[along] for part in _joined(inner)]
    moved: list[tuple[Operation, int, list[int]]] = []
    for move in reversed(moves):
        if move.kind == "transpose":
            along = move.attributes["order"].index(along)
        else:
            found = _along(before, move.shape, along, lengths)
            if found is None:
                return None
            along, lengths = found
        before = move.shape
        moved.append((move, along, lengths))
    starts = list(itertools.accumulate(lengths, initial=0))
    begin = attributes["begin"]
    if along != attributes["axis"] or begin not in starts[:-1]:
        return None
    number = starts.index(begin)
    if lengths[number] != shape[along]:
        return None
    part = _joined(inner)[number]
    for move, axis, sizes in moved:
        kept = (*move.shape[:axis], sizes[number], *move.shape[axis + 1 :])
        part = graph(move.kind, [("input", part)], kept, **move.attributes)
    return part


def _along(
    before: Sequence[int], after: Sequence[int], along: int, lengths: Sequence[int]
) -> tuple[int, list[int]] | None:
    """The axis along which parts still lie side by side once they are reshaped together, and their
    lengths."""
    outer, inner = math.prod(before[:along]), math.prod(before[along + 1 :])
    for axis in range(len(after)):
        step = math.prod(after[axis + 1 :])
        if math.prod(after[:axis]) == outer and not any(n * inner % step for n in lengths):
            return axis, [n * inner // step for n in lengths]
    return None


def _of_joined(kind: str, along: int) -> Rule:
    """A layer whose weight is joined of several is as many layers, whose results are joined."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        x, *held = inputs
        joins = [_joined_rows(graph, array) for array in held]
        known = [join for join in joins if join is not None]
        if not known or len(known) < len(joins) or attributes.get("groups", 1) != 1:
            return None
        turns, counts = known[0][0], [part.shape[0] for part in known[0][1]]
        if any((n, [p.shape[0] for p in parts]) != (turns, counts) for n, parts in known):
            return None
        axis = along % len(shape)
        before, behind = shape[:axis], shape[axis + 1 :]
        made = []
        for count, *parts in zip(counts, *(parts for _, parts in known), strict=True):
            operands = [("input", x)]
            operands += [(array.role, part) for array, part in zip(held, parts, strict=True)]
            made.append(graph(kind, operands, (*before, count, *behind), **attributes))
        if turns == 1:
            return emit_concat(graph, made, axis, shape)
        for number, (out, count) in enumerate(zip(made, counts, strict=True)):
            apart = (*before, turns, count // turns, *behind)
            made[number] = graph("reshape", [("input", out)], apart)
        joined = (*before, turns, shape[axis] // turns, *behind)
        return graph("reshape", [("input", emit_concat(graph, made, axis + 1, joined))], shape)

    return rule


def _joined_rows(graph: Graph, array: Operand) -> tuple[int, list[Operand]] | None:
    """How often the parts of a joined parameter take turns in its rows, and they, as rows.

    Once where they are one behind the other, once a head where each has a query, key and value.
    """
    moves = _moves(graph, array)
    if any(move.kind != "reshape" for move in moves):
        return None
    join = produced_by(graph, _taken(moves[-1]) if moves else array, "concat")
    if join is None or join.inputs:
        return None
    turns, tail = math.prod(join.shape[: join.attributes["axis"]]), array.shape[1:]
    sizes = [math.prod(part.shape) for part in _joined(join)]
    if any(size % (turns * math.prod(tail)) for size in sizes):
        return None
    rows = [size // math.prod(tail) for size in sizes]
    parts = zip(_joined(join), rows, strict=True)
    return turns, [graph("reshape", [("input", x)], (n, *tail)) for x, n in parts]


# Layers that add a parameter, and norms, by the axis along which it lies
_NORMED = {"layer_norm": -1, "group_norm": 1, "instance_norm": 1, "batch_norm": 1}
_BIASED = {"linear": -1, "conv": 1, "conv_transpose": 1, **_NORMED}


def _of_its_own(role: str, layers: Mapping[str, int]) -> Rule:
    """A parameter that is added to what a layer without a bias gives, moved or not, is its bias.

    So is one that is multiplied with what a norm without a scale gives its scale.
    """

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
    ) -> Operand | None:
        sides = [_is_held(graph, x) for x in inputs]
        if len(sides) != 2 or all(sides) or not any(sides):
            return None
        x, own = inputs if sides[1] else inputs[::-1]
        made = _lies(graph, x, own) if x.shape == shape else None
        layer = graph.producer(made[0]) if made is not None else None
        if made is None or layer is None or layer.kind not in layers:
            return None
        axis, count = layers[layer.kind] % len(layer.shape), math.prod(own.shape)
        along = [(math.prod(layer.shape[axis + 1 :]), count)] if count > 1 else []
        held = {name: p for name, p in layer.parameters.items() if not p.neutral}
        given = {y.role for y in layer.inputs} | set(held)
        has = given & ({role} if role == "bias" else {"weight", "bias"})
        if made[1] != along or layer.shape[axis] != count or has:
            return None
        if layer.kind not in _NORMED and "weight" not in layer.parameters:
            return None
        if layer.attributes.get("axis", axis) != axis:  # a norm over several axes
            return None
        moves = _moves(graph, x)
        operands = [(y.role, y) for y in layer.inputs]
        operands += [(name, _held(parameter)) for name, parameter in held.items()]
        operands.append((role, graph("reshape", [("input", own)], (count,))))
        graph.merge(layer, *moves)
        out = graph(layer.kind, operands, layer.shape, **layer.attributes)
        for move in reversed(moves):
            out = graph(move.kind, [("input", out)], move.shape, **move.attributes)
        return out

    return rule


def _taken(move: Operation) -> Operand:
    """What a reshape or transpose takes, a parameter in the shape in which it is read."""
    if move.inputs:
        return move.inputs[0]
    (parameter,) = move.parameters.values()
    order = move.attributes["order"]
    shape = tuple(move.shape[order.index(axis)] for axis in range(len(order)))
    return replace(_held(parameter), shape=shape)


def _moves(graph: Graph, x: Operand) -> list[Operation]:
    """The reshapes and transposes behind which a value is, the last one first."""
    moves = []
    while (move := graph.producer(x)) is not None and move.kind in ("reshape", "transpose"):
        moves.append(move)
        x = _taken(move)
    return moves


def _concat_of_zeros(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """Zeros in front of and behind other values are padding."""
    parts = list(inputs)
    along = int(attributes["axis"])
    widths = [(0, 0)] * len(shape)
    front = back = 0
    while len(parts) > 1 and graph.is_zero(parts[0]):
        front += parts.pop(0).shape[along]
    while len(parts) > 1 and graph.is_zero(parts[-1]):
        back += parts.pop().shape[along]
    if len(parts) == len(inputs):
        return None
    widths[along] = (front, back)
    inner = (*shape[:along], shape[along] - front - back, *shape[along + 1 :])
    x = graph("concat", [(f"input.{i}", part) for i, part in enumerate(parts)], inner, axis=along)
    return graph("pad", [("input", x)], shape, widths=tuple(widths), mode="constant", value=0.0)


_NEUTRAL = {"add": 0.0, "sub": 0.0, "mul": 1.0, "div": 1.0, "pow": 1.0}


def _scalar(kind: str) -> Rule:
    """Neutral scalars vanish, and a quotient or difference by a scalar gets its other form."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        if "scalar" not in attributes:
            return None
        scalar = float(attributes["scalar"])
        x = inputs[0]
        if kind in _NEUTRAL and scalar == _NEUTRAL[kind]:
            return x
        filled = produced_by(graph, x, "constant")
        if filled is not None and kind in ("add", "mul"):
            number = float(filled.attributes["value"])
            graph.merge(filled)
            value = real(number + scalar if kind == "add" else number * scalar)
            return graph("constant", [], shape, value=value)
        if kind == "sub":
            return graph("add", [("input", x)], shape, scalar=-scalar)
        if kind == "div" and scalar:
            return graph("mul", [("input", x)], shape, scalar=real(1 / scalar))
        if kind == "maximum":
            return graph("clip", [("input", x)], shape, min=scalar, max=math.inf)
        if kind == "minimum":
            return graph("clip", [("input", x)], shape, min=-math.inf, max=scalar)
        if kind == "pow" and scalar == 2.0:
            return graph("mul", [("input", x), ("other", x)], shape)
        return None

    return rule


def _without_expand(kind: str) -> Rule:
    """`x * s.expand_as(x)` is `x * s`: operators broadcast by themselves."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        for i, x in enumerate(inputs):
            known = _grown(graph, x)
            if known is None:
                continue
            grown, small = known
            others = [*inputs[:i], *inputs[i + 1 :]]
            if others and broadcast(small.shape, *(y.shape for y in others)) == shape:
                graph.merge(grown)
                operands = [(y.role, y) for y in inputs]
                operands[i] = (x.role, small)
                return graph(kind, operands, shape, **attributes)
        return None

    return rule


def _expand_behind(kind: str) -> Rule:
    """A function of single values comes before the expansion that it follows."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        known = _grown(graph, inputs[0]) if len(inputs) == 1 else None
        if known is None:
            return None
        grown, small = known
        graph.merge(grown)
        out = graph(kind, [(inputs[0].role, small)], small.shape, **attributes)
        return graph("expand", [("input", out)], shape)

    return rule


def _mean_over_map(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A mean over all axes behind the channels is a global average pool."""
    x = inputs[0]
    rank = len(x.shape)
    if rank < 3 or tuple(attributes["axes"]) != tuple(range(2, rank)):
        return None
    flattened = produced_by(graph, x, "reshape")
    if flattened is not None and flattened.inputs:
        source = flattened.inputs[0]
        if len(source.shape) > rank and source.shape[:2] == x.shape[:2]:
            ones = (*x.shape[:2], *(1 for _ in source.shape[2:]))
            graph.merge(flattened)
            pooled = graph("global_avg_pool", [("input", source)], ones)
            return graph("reshape", [("input", pooled)], shape)
    return graph("global_avg_pool", [("input", x)], shape)


def _reshape_behind(kind: str) -> Rule:
    """A function of single values comes before the reshape that it follows."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        reshapes = [produced_by(graph, x, "reshape") for x in inputs]
        sources = [r.inputs[0] for r in reshapes if r is not None and r.inputs]
        if attributes.get("axes"):
            return None  # dropout of whole maps
        before = {source.shape for source in sources}
        alike = len(before) == 1 and {x.shape for x in inputs} == {shape}
        if len(sources) != len(inputs) or not alike:
            return None
        operands = [(x.role, source) for x, source in zip(inputs, sources, strict=True)]
        out = graph(kind, operands, before.pop(), **attributes)
        return graph("reshape", [("input", out)], shape)

    return rule


def _looked_up_as_made(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
) -> Operand | None:
    """Rows are looked up at places as they are made, and then reshaped as these are."""
    places, table = inputs
    before = produced_by(graph, places, "reshape")
    if before is None or not before.inputs:
        return None
    graph.merge(before)
    made = before.inputs[0]
    rows = graph("embedding", [("input", made), ("weight", table)], (*made.shape, shape[-1]))
    return graph("reshape", [("input", rows)], shape)


def _convolution_of_one_pixel(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A 1×1 convolution over a map of one pixel is a linear layer."""
    x, weight, *bias = inputs
    pixel = {*x.shape[2:], *weight.shape[2:]} == {1} and not any(attributes["padding"])
    if not pixel or attributes["groups"] != 1 or weight.value.origin is not Origin.PARAMETER:
        return None
    flat = graph("reshape", [("input", x)], x.shape[:2])
    matrix = Operand("", weight.value, weight.shape[:2])
    operands = [("input", flat), ("weight", matrix), *(("bias", b) for b in bias)]
    return graph("reshape", [("input", graph("linear", operands, shape[:2]))], shape)


def _norm_between_transposes(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A layer norm whose axis is moved to the end, and back behind it, is one over that axis."""
    norm = produced_by(graph, inputs[0], "layer_norm")
    before = produced_by(graph, norm.inputs[0], "transpose") if norm and norm.inputs else None
    if norm is None or before is None or not before.inputs:
        return None
    order = before.attributes["order"]
    back = [order[i] for i in attributes["order"]] == list(range(len(order)))
    if not back or norm.attributes["axis"] != len(order) - 1:
        return None
    graph.merge(before, norm)
    held = ((role, _held(parameter)) for role, parameter in norm.parameters.items())
    moved = {**norm.attributes, "axis": order[-1]}
    return graph("layer_norm", [("input", before.inputs[0]), *held], shape, **moved)


def _held(parameter: Parameter) -> Operand:
    return Operand("", Value(Origin.PARAMETER, parameter.name), parameter.shape)


def _product_with_rows(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """`x @ weight.t()` is a linear layer without a bias."""
    x, matrix = inputs
    flat = produced_by(graph, matrix, "reshape")
    held = flat.inputs[0] if flat is not None and flat.inputs else matrix
    turned = produced_by(graph, held, "transpose")
    rank = len(matrix.shape), len(x.shape)
    if turned is None or turned.inputs or x.value.origin is Origin.PARAMETER:
        return None
    # a weight of more axes (heads, width, in) is a matrix too, where its last ones come first
    order = turned.attributes["order"]
    behind = len(order) - order[0]
    as_rows = order == (*range(order[0], len(order)), *range(order[0]))
    if rank[0] != 2 or rank[1] < 2 or not as_rows:
        return None
    if math.prod(turned.shape[:behind]) != matrix.shape[0]:
        return None
    (weight,) = turned.parameters.values()
    graph.merge(turned)
    return graph("linear", [("input", x), ("weight", _held(weight))], shape)


def _adaptive(kind: str) -> Rule:
    """An adaptive pool is global, or nothing, or an ordinary pool where the sizes divide."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
    ) -> Operand | None:
        x = inputs[0]
        sizes = list(zip(x.shape[2:], shape[2:], strict=True))
        if any(after and before % after for before, after in sizes):
            return None
        kernel = tuple(before // after for before, after in sizes)
        window: dict[str, object] = {
            "kernel": kernel,
            "stride": kernel,
            "padding": (0,) * len(kernel),
            "ceil": False,
        }
        if kind == "avg_pool":
            window |= {"include_pad": True, "divisor": None}
        else:
            window["dilation"] = (1,) * len(kernel)
        return emit_pool(graph, kind, x, shape, **window)

    return rule


def _single_window(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    if set(attributes["kernel"]) == {1} and inputs[0].shape == shape:
        return inputs[0]
    return None


def _of_turned(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A linear layer of a transposed matrix is a product with it."""
    x, *held = inputs
    turned = produced_by(graph, held[0], "transpose") if held else None
    if turned is None or turned.inputs:
        return None
    graph.merge(turned)
    out = graph("matmul", [("input", x), ("other", _taken(turned))], shape)
    return graph("add", [("input", out), ("other", held[1])], shape) if held[1:] else out


RULES: dict[str, tuple[Rule, ...]] = {
    "reshape": (_same_shape, reshaped_draw, _through_reshape, _reshape_of_expand),
    "expand": (_same_shape, _expand_at_once),
    "transpose": (
        _norm_between_transposes,
        _through_transpose,
    ),
    "slice": (_all_of_it, _slice_of_concat, _slice_of_moved_concat, _slice_of_convolution),
    "flip": (_flip_of_flip,),
    "gather": (_gather_of_rows,),
    "take": (_there_and_back,),
    "pad": (_same_shape,),
    "cast": (_same_type, cast_draw),
    "concat": (_flat_concat, _concat_of_zeros),
    "add": (_scalar("add"), of_draw("add"), _of_its_own("bias", _BIASED)),
    "sub": (_scalar("sub"),),
    "mul": (
        _scalar("mul"),
        of_draw("mul"),
        rescaled_dropout,
        masked,
        gate_of_itself,
        hard_gate,
        _of_its_own("weight", _NORMED),
    ),
    "rsub": (of_draw("rsub"),),
    "less": (compared_draw(below=True),),
    "greater": (compared_draw(below=False),),
    "floor": (floor_of_draw,),
    "div": (_scalar("div"),),
    "pow": (_scalar("pow"),),
    "maximum": (_scalar("maximum"),),
    "minimum": (_scalar("minimum"),),
    "clip": (rectifier,),
    "conv": (_of_joined("conv", 1), _convolution_of_one_pixel),
    "linear": (_of_turned, _of_joined("linear", -1)),
    "embedding": (_looked_up_as_made,),
    "matmul": (_product_with_rows,),
    "mean": (_mean_over_map,),
    "adaptive_avg_pool": (_adaptive("avg_pool"),),
    "adaptive_max_pool": (_adaptive("max_pool"),),
    "avg_pool": (_single_window,),
    "max_pool": (_single_window,),
    "global_avg_pool": (_same_shape,),
    "global_max_pool": (_same_shape,),
}
for _kind in ELEMENTWISE | {"where"}:
    RULES[_kind] = (_without_expand(_kind), *RULES.get(_kind, ()))
for _kind in POINTWISE | ELEMENTWISE:
    RULES[_kind] = (*RULES.get(_kind, ()), _expand_behind(_kind))
for _kind in POINTWISE | ELEMENTWISE | {"dropout"}:
    RULES[_kind] = (*RULES.get(_kind, ()), _reshape_behind(_kind))

# The axes of what was moved: the step of each in what it was made of, and its length
_Axes = list[tuple[int, int]]


def _whole(x: Operand) -> _Axes:
    return [(1, math.prod(x.shape))]


def _grouped(axes: _Axes, shape: Sequence[int]) -> list[_Axes] | None:
    """Axes cut so that they end where those of a shape do, by these; None where one does not."""
    rest = [axis for axis in axes if axis[1] != 1]
    if math.prod(length for _, length in rest) != math.prod(shape):
        return None
    groups: list[_Axes] = []
    for size in reversed(shape):
        group: _Axes = []
        while size > 1:
            step, length = rest.pop()
            taken = min(size, length)
            if size % taken or length % taken:
                return None
            group.insert(0, (step, taken))
            size //= taken
            if length > taken:
                rest.append((step * taken, length // taken))
        groups.insert(0, group)
    return groups


def _side_by_side(groups: Iterable[_Axes]) -> _Axes:
    """All axes, with one in place of those that lie side by side before and after."""
    axes: _Axes = []
    for step, length in itertools.chain.from_iterable(groups):
        if axes and axes[-1][0] == step * length:
            length *= axes.pop()[1]
        axes.append((step, length))
    return axes


def _moved(graph: Graph, x: Operand) -> tuple[Operand, _Axes]:
    """What a value is made of by reshapes and transposes, and its axes in that."""
    moves = _moves(graph, x)
    source = _taken(moves[-1]) if moves else x
    axes = _whole(source)
    for move in reversed(moves):
        if move.kind == "transpose":
            source, axes = _turned(_taken(move), source, axes, move.attributes["order"])
    return source, axes


def _turned(
    x: Operand, source: Operand, axes: _Axes, order: Sequence[int]
) -> tuple[Operand, _Axes]:
    """The same behind one more transpose, or what that makes of its own input alone."""
    groups = _grouped(axes, x.shape)
    if groups is None:
        source, groups = x, _grouped(_whole(x), x.shape) or []
    return source, _side_by_side(groups[i] for i in order)


def _lies(graph: Graph, x: Operand, own: Operand) -> tuple[Operand, _Axes] | None:
    """What a value is made of as in `_moved`, and the axes in that along which another one lies.

    None where the other one does not lie along whole axes of the value.
    """
    shape = (*(1,) * (len(x.shape) - len(own.shape)), *own.shape)
    if 0 in shape or any(n not in (1, size) for n, size in zip(shape, x.shape, strict=True)):
        return None
    source, axes = _moved(graph, x)
    groups = _grouped(axes, x.shape)
    if groups is None:
        return None
    return source, _side_by_side(g for g, n in zip(groups, shape, strict=True) if n > 1)


def _turn(graph: Graph, x: Operand, before: _Axes, after: _Axes) -> Operand:
    """A transpose of as few axes as can be."""
    lengths = [length for _, length in before]
    groups = _grouped(_whole(x), lengths) or []
    axes = _side_by_side(groups[before.index(axis)] for axis in after)
    ordered = sorted(axes, reverse=True)
    x = graph("reshape", [("input", x)], [length for _, length in ordered])
    order = tuple(map(ordered.index, axes))
    return graph("transpose", [("input", x)], [length for _, length in axes], order=order)


def _emit_moved(graph: Graph, source: Operand, axes: _Axes, shape: Sequence[int]) -> Operand:
    """What leaves the last axis in its place, then what moves it: as before a matrix product."""
    last = sorted(axes, key=lambda axis: axis[0] == 1)
    x = _turn(graph, source, sorted(axes, reverse=True), last)
    return graph("reshape", [("input", _turn(graph, x, last, axes))], shape)


def _at_once(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """Reshapes and transposes one behind the other have one form, whatever they are cut into."""
    x, order = inputs[0], attributes["order"]
    if list(order) == sorted(order):
        return x
    if 0 in shape:
        return None
    source, before = _moved(graph, x)
    groups = _grouped(before, x.shape)
    if groups is None:
        source, before = x, _whole(x)
        groups = _grouped(before, x.shape) or []
    *others, last = sorted(order)
    alone = len(_turned(x, x, _whole(x), order)[1]) == len(order)
    moves_last = [axis for axis in order if axis != last] == others
    step, length = (before or _whole(x))[-1]
    if alone and moves_last and step == 1 and length % x.shape[-1] == 0:
        return None
    if alone and len(before) == 1 and order[-1] == last:
        return None
    axes = list(itertools.chain.from_iterable(groups[i] for i in order))
    return _emit_moved(graph, source, axes, shape)


def _rows_in_order(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A linear layer, which computes each row alone, takes them in the order they were made in.

    What changes their order comes behind it.
    """
    x, *held = inputs
    if 0 in (*x.shape, *shape):
        return None
    source, axes = _moved(graph, x)
    groups = _grouped(axes, (math.prod(x.shape[:-1]), x.shape[-1]))
    rows, inner = groups or ([], [])
    ordered = sorted(rows, reverse=True)
    if rows == ordered:
        return None
    lengths = [length for _, length in ordered]
    y = _emit_moved(graph, source, _side_by_side([ordered, inner]), (*lengths, x.shape[-1]))
    operands = [("input", y), *((array.role, array) for array in held)]
    out = graph("linear", operands, (*lengths, shape[-1]), **attributes)
    *made, last = _grouped(_whole(out), out.shape) or []
    back = [*(made[ordered.index(row)] for row in rows), last]
    return _emit_moved(graph, out, _side_by_side(back), shape)


def _before_moves(kind: str) -> Rule:
    """A parameter is added, or multiplied, before what is computed is reshaped and transposed."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        if len(inputs) != 2 or 0 in shape:
            return None
        sides = [_is_held(graph, x) for x in inputs]
        x, own = inputs if sides[1] else inputs[::-1]
        full = (*(1,) * (len(shape) - len(own.shape)), *own.shape)
        source, axes = _moved(graph, x)
        groups = _grouped(axes, x.shape)
        if all(sides) or not any(sides) or x.shape != shape or groups is None or source == x:
            return None
        moved = list(itertools.chain.from_iterable(groups))
        pieces = sorted(moved, reverse=True)
        along = list(
            itertools.chain.from_iterable(g for g, n in zip(groups, full, strict=True) if n > 1)
        )
        before = [length for _, length in pieces]
        small = [length if (step, length) in along else 1 for step, length in pieces]
        whole = _before_reshape(small, before, source.shape)
        if whole is not None:  # else it lies along parts of axes
            before, small = list(source.shape), whole
        elif moved == pieces:
            return None
        ordered = sorted(along, reverse=True)
        own = graph("reshape", [("input", own)], [length for _, length in along])
        lengths = [length for _, length in ordered]
        order = tuple(map(along.index, ordered))
        own = graph("transpose", [("input", own)], lengths, order=order)
        own = graph("reshape", [("input", own)], small)
        pair = (graph("reshape", [("input", source)], before), own)
        operands = zip(("input", "other"), pair if sides[1] else pair[::-1], strict=True)
        out = graph(kind, list(operands), before, **attributes)
        return _emit_moved(graph, out, moved, shape)

    return rule


def _is_held(graph: Graph, x: Operand) -> bool:
    """Whether a value is a parameter, moved or not."""
    moves = _moves(graph, x)
    return (_taken(moves[-1]) if moves else x).value.origin is Origin.PARAMETER


def _before_reshape(
    small: Sequence[int], shape: Sequence[int], before: Sequence[int]
) -> list[int] | None:
    """The shape of what broadcasts to one shape as it broadcasts to that before a reshape."""
    whole = [(1, math.prod(shape))]
    groups, axes = _grouped(whole, shape), _grouped(whole, before)
    if groups is None or axes is None:
        return None
    along = _side_by_side(g for g, n in zip(groups, small, strict=True) if n > 1)
    sizes: list[int] = []
    for step, length in itertools.chain.from_iterable(axis or [(1, 1)] for axis in axes):
        inside = any(s <= step and step * length <= s * n for s, n in along)
        beside = all(step * length <= s or s * n <= step for s, n in along)
        if not inside and not beside:
            return None
        sizes.append(length if inside else 1)
    return sizes if math.prod(sizes) == math.prod(small) else None


# The same, and one form of what is transposed before and behind a linear layer
ORDERED: dict[str, tuple[Rule, ...]] = {
    **RULES,
    "transpose": (_at_once,),
    "linear": (*RULES["linear"], _rows_in_order),
}
for _kind in ("add", "sub", "mul", "div"):
    ORDERED[_kind] = (_before_moves(_kind), *RULES[_kind])
