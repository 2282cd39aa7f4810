"""The rules by which what is drawn at random becomes one draw, and a mask of it dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from parity_tests.pairing.graph import Operand, Origin
from parity_tests.pairing.rules.form import Attributes, Graph, Rule, produced_by
from parity_tests.pairing.vocabulary import emit_dropout, real


def _again(graph: Graph, x: Operand, shape: Sequence[int], **changed: Any) -> Operand:
    """What is drawn already, scaled or shifted otherwise, or in another shape."""
    before, draw = graph.producer(x), graph.drawn(x)
    assert before is not None
    assert draw is not None
    graph.merge(before)
    return graph.draw(replace(draw, **changed), shape, next(iter(before.inputs), None))


def of_draw(kind: str) -> Rule:
    """A draw that is scaled or shifted by a number is a draw of another distribution."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        draw = graph.drawn(inputs[0]) if "scalar" in attributes else None
        if draw is None:
            return None
        number, scale, shift = float(attributes["scalar"]), draw.scale, draw.shift
        scaled = {
            "mul": (scale * number, shift * number),
            "add": (scale, shift + number),
            "rsub": (-scale, number - shift),
        }[kind]
        return _again(graph, inputs[0], shape, scale=scaled[0], shift=scaled[1])

    return rule


def reshaped_draw(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """Numbers are drawn in their order, whatever the shape."""
    before = graph.producer(inputs[0])
    if before is None or before.inputs or graph.drawn(inputs[0]) is None:
        return None
    return _again(graph, inputs[0], shape)


def cast_draw(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """A drawn mask is compared by its values, whatever its dtype is, as all whole numbers are."""
    draw = graph.drawn(inputs[0])
    is_mask = draw is not None and (draw.kind, draw.scale, draw.shift) == ("bernoulli", 1.0, 0.0)
    return inputs[0] if is_mask else None


def compared_draw(below: bool) -> Rule:
    """Whether a uniform number lies below, or above, a number is a Bernoulli number."""

    def rule(
        graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
    ) -> Operand | None:
        draw = graph.drawn(inputs[0])
        if draw is None or draw.kind != "uniform" or draw.scale <= 0:
            return None
        share = (float(attributes["scalar"]) - draw.shift) / draw.scale
        share = min(max(share, 0.0), 1.0)
        return _bernoulli(graph, inputs[0], share if below else 1.0 - share, shape)

    return rule


def floor_of_draw(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """⌊p + u⌋ of a uniform u is 1 with probability p, and else 0."""
    draw = graph.drawn(inputs[0])
    if draw is None or (draw.kind, draw.scale) != ("uniform", 1.0) or not 0 <= draw.shift <= 1:
        return None
    return _bernoulli(graph, inputs[0], draw.shift, shape)


def _bernoulli(graph: Graph, x: Operand, p: float, shape: Sequence[int]) -> Operand:
    changed = {"kind": "bernoulli", "scale": 1.0, "shift": 0.0, "parameters": {"p": p}}
    return _again(graph, x, shape, **changed)


def masked(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """x times a mask that is drawn for this alone is dropout of x, along the mask's axes of one.

    Dropout divides what it keeps by the share of that: what a net does not divide so comes behind
    it as a factor.
    """
    for x, mask in (inputs, inputs[::-1]) if len(inputs) == 2 else ():
        made, draw = graph.producer(mask), graph.drawn(mask)
        if made is None or draw is None or draw.kind != "bernoulli" or made.inputs:
            continue
        held = x.value.origin is Origin.PARAMETER
        if held or x.shape != shape or not graph.is_read_once(made):
            continue
        kept, scale, shift = float(draw.parameters["p"] or 0.0), draw.scale, draw.shift
        if shift and not math.isclose(shift, -scale, rel_tol=1e-6):
            return None
        if shift:  # 1 − m
            kept, scale = 1.0 - kept, shift
        sizes = (1,) * (len(shape) - len(mask.shape)) + mask.shape
        axes = [along for along, size in enumerate(sizes) if size == 1]
        graph.expect(made)
        graph.merge(made)
        factor = kept * scale
        before = produced_by(graph, x, "mul")
        if before is not None and _is_one(factor * float(before.attributes.get("scalar", 0.0))):
            graph.merge(before)
            x, factor = before.inputs[0], 1.0
        out = emit_dropout(graph, x, 1.0 - kept, axes, shape)
        return out if _is_one(factor) else graph("mul", [("input", out)], shape, scalar=factor)
    return None


def rescaled_dropout(
    graph: Graph, inputs: Sequence[Operand], shape: tuple[int, ...], attributes: Attributes
) -> Operand | None:
    """What is divided behind dropout by the share that is kept, which the mask did not do."""
    inner = produced_by(graph, inputs[0], "mul") if "scalar" in attributes else None
    if inner is None or not inner.inputs or "scalar" not in inner.attributes:
        return None
    if produced_by(graph, inner.inputs[0], "dropout") is None:
        return None
    factor = float(inner.attributes["scalar"]) * float(attributes["scalar"])
    graph.merge(inner)
    if _is_one(factor):
        return inner.inputs[0]
    return graph("mul", [("input", inner.inputs[0])], shape, scalar=real(factor))


def _is_one(factor: float) -> bool:
    """Whether a factor is 1, but for what float32 rounds of the numbers it is made of."""
    return math.isclose(factor, 1.0, rel_tol=1e-6)
