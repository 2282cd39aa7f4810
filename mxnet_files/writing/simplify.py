"""What exporting has left in a graph and a person would not write: steps that change nothing.

Nothing here changes a value. The graph that is proven against MXNet keeps its nodes; only the one
that `model.py` is written from has fewer.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.functions import mx_math, mx_shape
from mxnet_files.writing import parts
from mxnet_files.writing.ops import arguments

LIKE: dict[Any, int] = {
    mx_shape.slice_like: 1,
    torch.zeros_like: 0,
    torch.ones_like: 0,
}  # which argument
SCALED = {operator.mul, operator.add, operator.sub, operator.truediv}
RESHAPES = {mx_shape.reshape, torch.reshape}
COMPARISONS = {operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne}
CLIPS = {mx_math.clip, torch.clamp}


def simplify(module: fx.GraphModule) -> fx.Graph:
    """A graph of the same module that has no such steps; its nodes keep their `meta`."""
    graph = fx.Graph(module)
    graph.output(graph.graph_copy(module.graph, {}))
    for node in graph.nodes:
        for rule in RULES:
            rule(node)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return graph


def _calls(node: Any, targets: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def _size_alone(node: fx.Node) -> None:
    """slice_like(x, y * 0, axes) reads no more than y's size."""
    if not _calls(node, LIKE):
        return
    place = LIKE[node.target]
    like = arguments(node)[place]
    while _calls(like, SCALED | LIKE.keys() - {mx_shape.slice_like}):
        arrays = [value for value in like.args if isinstance(value, fx.Node)]
        if len(arrays) != 1 or any(
            arrays[0].meta.get(key) != like.meta.get(key) for key in ("shape", "dtype")
        ):
            return
        (like,) = arrays
        node.update_arg(place, like)


def _reshaped_again(node: fx.Node) -> None:
    """Sizes that are all said need not come from the step before."""
    if _calls(node, RESHAPES):
        before, sizes = arguments(node)[:2]
        if _calls(before, RESHAPES) and all(size > 0 or size == -1 for size in sizes):
            node.update_arg(0, arguments(before)[0])


def _flat_already(node: fx.Node) -> None:
    """x.flatten(1) of two axes."""
    flattens = _calls(node, {torch.flatten}) and tuple(node.args[1:]) == (1,)
    flattens = flattens or (_calls(node, RESHAPES) and tuple(arguments(node)[1]) == (0, -1))
    if flattens:
        before = arguments(node)[0]
        if len(before.meta.get("shape") or ()) == 2:
            node.replace_all_uses_with(before)


def _filled(node: fx.Node) -> None:
    """ones_like(x) * 3 is full_like(x, 3)."""
    if not _calls(node, {operator.mul}):
        return
    array, number = arguments(node)
    kind = array.meta.get("dtype") if isinstance(array, fx.Node) else None
    exact = isinstance(number, float) and kind is not None and kind.is_floating_point
    if exact and _calls(array, {torch.ones_like}) and len(array.args) == 1:
        node.target = torch.full_like
        node.args = (arguments(array)[0], number)


def _hard_sigmoid(node: fx.Node) -> None:
    """clip(x + 3, 0, 6) / 6."""
    if not _calls(node, {operator.truediv}) or node.args[1] != 6:
        return
    limits = node.args[0]
    if not _calls(limits, CLIPS) or tuple(limits.args[1:]) != (0, 6):  # type: ignore[union-attr]
        return
    shifted = limits.args[0]  # type: ignore[union-attr]
    kind = node.meta.get("dtype")
    if _calls(shifted, {operator.add}) and shifted.args[1] == 3 and kind == torch.float32:  # type: ignore[union-attr]
        node.target = parts.hard_sigmoid
        node.args = (shifted.args[0],)  # type: ignore[union-attr]


def _chosen(node: fx.Node) -> None:
    """where(numbers of x > 0, …) is torch.where(x > 0, …)."""
    if not _calls(node, {mx_shape.where}):
        return
    condition, x, _ = arguments(node)
    if condition.op != "call_method" or condition.target != "type_as":
        return
    mask = condition.args[0]
    axes = {len(value.meta.get("shape") or ()) for value in (mask, x)}
    if _calls(mask, COMPARISONS) and len(axes) == 1:
        node.target = torch.where
        node.update_arg(0, mask)


def _unbound(node: fx.Node) -> None:
    """split(x) along an axis to parts of size 1, each without the axis, is x.unbind(axis)."""
    if not _calls(node, {mx_shape.split_even}):
        return
    x, count, axis = arguments(node)
    flat = [user for part in node.users for user in part.users]
    size = (x.meta.get("shape") or {axis: None})[axis]
    if (
        size == count
        and all(_calls(part, {operator.getitem}) for part in node.users)
        and all(_calls(each, {torch.squeeze}) and each.args[1:] == (axis,) for each in flat)
    ):
        node.target, node.args = torch.unbind, (x, axis)
        for each in flat:
            part = arguments(each)[0]
            part.meta["shape"] = each.meta.get("shape")
            each.replace_all_uses_with(part)


def _gated(node: fx.Node) -> None:
    """One half times the sigmoid of the other is F.glu."""
    if not _calls(node, {operator.mul}):
        return
    for first, gate in (node.args, node.args[::-1]):
        if not _calls(gate, {torch.sigmoid}) or not _calls(first, {operator.getitem}):
            continue
        whole, place = arguments(first)  # type: ignore[arg-type]
        second = arguments(gate)[0]  # type: ignore[arg-type]
        halves = _calls(whole, {mx_shape.split_even}) and arguments(whole)[1] == 2
        once = all(len(each.users) == 1 for each in (first, gate, second))  # type: ignore[union-attr]
        if halves and once and place == 0 and second.args == (whole, 1):
            x, _, axis = arguments(whole)
            node.target, node.args = F.glu, (x, axis)
            return


RULES = (
    *(_size_alone, _reshaped_again, _flat_already, _filled),
    *(_hard_sigmoid, _chosen, _unbound, _gated),
)
