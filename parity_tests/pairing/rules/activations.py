"""The rules by which activations that are spelt out become the activations they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from parity_tests.pairing.graph import Operand, Operation
from parity_tests.pairing.rules.form import Attributes, Graph, produced_by
from parity_tests.pairing.vocabulary import real


def gate_of_itself(
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
        inner = produced_by(graph, operation.inputs[0], "softplus")
        if operation.kind == "tanh" and inner is not None and inner.inputs[0].value == x.value:
            graph.merge(inner, operation)
            return graph("mish", [("input", x)], shape)
    return None


def hard_gate(
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
    product = produced_by(graph, inputs[0], "mul")
    if product is None or len(product.inputs) != 2:
        return None
    for x, gate in (product.inputs, product.inputs[::-1]):
        clipped = _relu6_of_shifted(graph, gate)
        if clipped is not None and clipped[0].value == x.value:
            graph.merge(*clipped[1], product)
            return graph("hard_swish", [("input", x)], shape)
    return None


def _relu6_of_shifted(graph: Graph, operand: Operand) -> tuple[Operand, list[Operation]] | None:
    clip = produced_by(graph, operand, "clip")
    if clip is None or dict(clip.attributes) != {"min": 0.0, "max": 6.0} or not clip.inputs:
        return None
    shift = produced_by(graph, clip.inputs[0], "add")
    if shift is None or shift.attributes.get("scalar") != 3.0 or not shift.inputs:
        return None
    return shift.inputs[0], [shift, clip]


def rectifier(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A clip at 0 from below alone is relu."""
    low, high = attributes["min"], attributes["max"]
    if (low, high) == (0.0, math.inf):
        return graph("relu", [("input", inputs[0])], shape)
    return None
