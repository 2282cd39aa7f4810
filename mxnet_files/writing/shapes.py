"""The shape of every value, its batch axis called N where the graph leaves it free."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from mxnet_files.budget import Budget
from mxnet_files.errors import SymbolError
from mxnet_files.layers import Control
from mxnet_files.running import refusals, run
from mxnet_files.save import batch_is_free, doubled

MOST_WRITTEN = 20_000  # operations of loops in model.py


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
        batch = inputs[0].shape[0] if free else 1
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


def unrolled(module: fx.GraphModule, inputs: Sequence[Tensor]) -> fx.GraphModule:
    """The module with its loops written out, as often as they run on inputs of these shapes."""
    loops = {path: x for path, x in module.named_modules() if isinstance(x, Control)}
    if not loops:
        return module
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def keep(path: str, _: Any, given: Sequence[Tensor]) -> None:
        shapes[path] = [tuple(x.shape) for x in given]

    hooks = [x.register_forward_pre_hook(partial(keep, path)) for path, x in loops.items()]
    run(module, inputs)
    for hook in hooks:
        hook.remove()
    graph = fx.Graph()
    given = [graph.node_copy(node) for node in module.graph.nodes if node.op == "placeholder"]
    graph.output(_written_out(module, graph, shapes, "", *given))
    flat = fx.GraphModule(module, graph, class_name="Symbol")
    flat.meta = dict(module.meta)
    return flat.eval()


def _written_out(
    module: fx.GraphModule,
    graph: fx.Graph,
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
    path: str,
    *given: fx.Node,
) -> Any:
    """What the module at `path`, which begins every name in it, gives as nodes of the graph."""
    values: dict[fx.Node, Any] = {}
    left = iter(given)

    def call(function: Callable[..., Any], *arguments: Any) -> fx.Node:
        return graph.call_function(function, arguments)

    for node in module.graph.nodes:
        if node.op == "placeholder":
            values[node] = next(left)
            continue
        arguments = fx.node.map_arg(node.args, values.__getitem__)
        if node.op == "output":
            return arguments[0]
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, Control):
            own = f"{path}{node.target}"
            bodies = [
                partial(_written_out, body, graph, shapes, f"{own}.{name}.")
                for name, body in layer.named_children()
                if isinstance(body, fx.GraphModule)
            ]
            values[node] = layer.steps(bodies, arguments, shapes[own], call)
        elif node.target is operator.getitem and isinstance(arguments[0], list):
            values[node] = arguments[0][arguments[1]]
        else:
            if len(graph.nodes) > MOST_WRITTEN:
                loop = path.partition(".")[0]
                raise SymbolError(
                    f"loop {loop!r} takes more than {MOST_WRITTEN:,} operations written out, which "
                    "no model.py can hold: give shapes of fewer turns"
                )
            values[node] = made = graph.node_copy(node, values.__getitem__)
            if node.op in ("get_attr", "call_module"):
                made.target = f"{path}{node.target}"
    raise AssertionError("a graph without an output")
