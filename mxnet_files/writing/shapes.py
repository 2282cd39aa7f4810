"""The shape of every value, its batch axis called N where the graph leaves it free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from mxnet_files.budget import Budget
from mxnet_files.running import refusals
from mxnet_files.save import batch_is_free, doubled

__all__ = ["record_shapes"]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.shapes[n] = tuple(result.shape) if isinstance(result, Tensor) else None
        n.meta["dtype"] = result.dtype if isinstance(result, Tensor) else None
        return result


def record_shapes(
    module: fx.GraphModule, inputs: Sequence[Tensor], budget: Budget | None = None
) -> bool:
    """Run the module and keep each node's `meta["shape"]`; True where its batch is free.

    A shape's numbers are ints, `N` or a multiple such as `4N` a string.
    """
    free = batch_is_free(module, inputs, budget)
    found = _shapes(module, inputs)
    other = _shapes(module, doubled(inputs)) if free else found
    for node, shape in found.items():
        node.meta["several"] = shape is None and node.op != "output"
        twice = other[node]
        if shape is None or twice is None:
            node.meta["shape"] = None
            continue
        batch = inputs[0].shape[0]
        node.meta["shape"] = tuple(
            size if size == double else _batch(size, batch)
            for size, double in zip(shape, twice, strict=True)
        )
    return free


def _batch(size: int, batch: int) -> str:
    times, rest = divmod(size, batch)
    return "?" if rest else "N" if times == 1 else f"{times}N"


def _shapes(
    module: fx.GraphModule, inputs: Sequence[Tensor]
) -> dict[fx.Node, tuple[int, ...] | None]:
    recorder = _Recorder(module)
    with refusals("the graph cannot run on the inputs"), torch.no_grad():
        recorder.run(*inputs)
    return recorder.shapes
