"""The rules by which equal computations get one form.

A rule sees an operation that is about to be added and returns the value that stands for it, or
None where it does not apply. Rules may emit other operations instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from parity_tests.pairing.graph import Operand, Operation, Origin
from parity_tests.pairing.vocabulary import Emit, broadcast, emit_pool, real

__all__ = ["RULES", "Graph"]


class Graph(Emit, Protocol):
    """The graph under construction."""

    def producer(self, operand: Operand) -> Operation | None: ...

    def merge(self, *operations: Operation) -> None: ...


Attributes = Mapping[str, Any]
Rule = Callable[[Graph, Sequence[Operand], tuple[int, ...], Attributes], "Operand | None"]


def _made_by(graph: Graph, operand: Operand, kind: str) -> Operation | None:
    producer = graph.producer(operand)
    return producer if producer is not None and producer.kind == kind else None


def _same_shape(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
) -> Operand | None:
    return inputs[0] if inputs[0].shape == shape else None


def _through_reshape(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], _: Attributes
) -> Operand | None:
    x = inputs[0]
    if x.value.origin is Origin.PARAMETER and _squeezed(x.shape) == _squeezed(shape):
        return Operand("", x.value, shape)  # a parameter of another rank broadcasts alike
    before = _made_by(graph, x, "reshape")
    if before is None or not before.inputs:
        return None
    graph.merge(before)
    return graph("reshape", [("input", before.inputs[0])], shape)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _through_transpose(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    x = inputs[0]
    order: tuple[int, ...] = attributes["order"]
    moved = [axis for axis in order if x.shape[axis] != 1]
    if moved == sorted(moved):
        return graph("reshape", [("input", x)], shape)
    before = _made_by(graph, x, "transpose")
    if before is None or not before.inputs:
        return None
    first: tuple[int, ...] = before.attributes["order"]
    graph.merge(before)
    combined = tuple(first[axis] for axis in order)
    return graph("transpose", [("input", before.inputs[0])], shape, order=combined)


def _same_type(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    producer = graph.producer(inputs[0])
    known = producer.dtypes[0] if producer is not None else None
    return inputs[0] if known == attributes["dtype"] else None


def _flat_concat(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    if len(inputs) == 1:
        return inputs[0]
    flat: list[Operand] = []
    for x in inputs:
        inner = _made_by(graph, x, "concat")
        alike = inner is not None and inner.attributes == attributes and not inner.parameters
        flat += inner.inputs if inner is not None and alike else [x]
    if len(flat) == len(inputs):
        return None
    renamed = [(f"input.{i}", x) for i, x in enumerate(flat)]
    return graph("concat", renamed, shape, **attributes)


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
        if len(inputs) != 2:
            return None
        for i, x in enumerate(inputs):
            grown = _made_by(graph, x, "expand")
            other = inputs[1 - i]
            if grown is None or not grown.inputs:
                continue
            small = grown.inputs[0]
            if broadcast(small.shape, other.shape) == shape:
                pair = [other, small] if i else [small, other]
                graph.merge(grown)
                return graph(kind, [("input", pair[0]), ("other", pair[1])], shape)
        return None

    return rule


def _gate(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """x · sigmoid(x) is silu(x), x · hard_sigmoid(x) is hard_swish(x), and so on."""
    if len(inputs) != 2:
        return None
    for x, gate in (inputs, inputs[::-1]):
        operation = graph.producer(gate)
        if operation is None or not operation.inputs:
            continue
        if operation.inputs[0].value == x.value:
            alpha = real(1 / 6)
            if operation.kind == "sigmoid":
                graph.merge(operation)
                return graph("silu", [("input", x)], shape)
            if operation.kind == "hard_sigmoid" and operation.attributes["alpha"] == alpha:
                graph.merge(operation)
                return graph("hard_swish", [("input", x)], shape)
        inner = _made_by(graph, operation.inputs[0], "softplus")
        if operation.kind == "tanh" and inner is not None and inner.inputs[0].value == x.value:
            graph.merge(inner, operation)
            return graph("mish", [("input", x)], shape)
    return None


def _sixth(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """relu6(x + 3) / 6 is hard_sigmoid(x), and x · relu6(x + 3) / 6 is hard_swish(x)."""
    if attributes.get("scalar") != real(1 / 6):
        return None
    clipped = _relu6_of_shifted(graph, inputs[0])
    if clipped is not None:
        x, operations = clipped
        graph.merge(*operations)
        return graph("hard_sigmoid", [("input", x)], shape, alpha=real(1 / 6), beta=0.5)
    product = _made_by(graph, inputs[0], "mul")
    if product is None or len(product.inputs) != 2:
        return None
    for x, gate in (product.inputs, product.inputs[::-1]):
        clipped = _relu6_of_shifted(graph, gate)
        if clipped is not None and clipped[0].value == x.value:
            graph.merge(*clipped[1], product)
            return graph("hard_swish", [("input", x)], shape)
    return None


def _relu6_of_shifted(graph: Graph, operand: Operand) -> tuple[Operand, list[Operation]] | None:
    clip = _made_by(graph, operand, "clip")
    if clip is None or dict(clip.attributes) != {"min": 0.0, "max": 6.0} or not clip.inputs:
        return None
    shift = _made_by(graph, clip.inputs[0], "add")
    if shift is None or shift.attributes.get("scalar") != 3.0 or not shift.inputs:
        return None
    return shift.inputs[0], [shift, clip]


def _rectifier(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    low, high = attributes["min"], attributes["max"]
    if (low, high) == (0.0, math.inf):
        return graph("relu", [("input", inputs[0])], shape)
    return None


def _mean_over_map(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A mean over all axes behind the channels is a global average pool."""
    x = inputs[0]
    rank = len(x.shape)
    if rank < 3 or tuple(attributes["axes"]) != tuple(range(2, rank)):
        return None
    flattened = _made_by(graph, x, "reshape")
    if flattened is not None and flattened.inputs:
        source = flattened.inputs[0]
        if len(source.shape) > rank and source.shape[:2] == x.shape[:2]:
            ones = (*x.shape[:2], *(1 for _ in source.shape[2:]))
            graph.merge(flattened)
            pooled = graph("global_avg_pool", [("input", source)], ones)
            return graph("reshape", [("input", pooled)], shape)
    return graph("global_avg_pool", [("input", x)], shape)


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


RULES: dict[str, tuple[Rule, ...]] = {
    "reshape": (_same_shape, _through_reshape),
    "expand": (_same_shape,),
    "transpose": (_through_transpose,),
    "slice": (_same_shape,),
    "pad": (_same_shape,),
    "cast": (_same_type,),
    "concat": (_flat_concat, _concat_of_zeros),
    "add": (_scalar("add"), _without_expand("add")),
    "sub": (_scalar("sub"), _without_expand("sub")),
    "mul": (_scalar("mul"), _without_expand("mul"), _gate, _sixth),
    "div": (_scalar("div"), _without_expand("div")),
    "pow": (_scalar("pow"),),
    "maximum": (_scalar("maximum"),),
    "minimum": (_scalar("minimum"),),
    "clip": (_rectifier,),
    "mean": (_mean_over_map,),
    "adaptive_avg_pool": (_adaptive("avg_pool"),),
    "adaptive_max_pool": (_adaptive("max_pool"),),
    "avg_pool": (_single_window,),
    "max_pool": (_single_window,),
    "global_avg_pool": (_same_shape,),
    "global_max_pool": (_same_shape,),
}
