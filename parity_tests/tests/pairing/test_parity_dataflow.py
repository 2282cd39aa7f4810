"""Faults planted into the graphs of Gluon's zoo: each is found at its operation, alone."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import replace

import mxnet as mx
import pytest
from mxnet.gluon.model_zoo import vision

from parity_tests.backends.gluon.tracing.trace import trace_gluon
from parity_tests.backends.gluon.tracing.vocabulary import read_gluon
from parity_tests.pairing.dataflow import align
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Value
from parity_tests.pairing.normalise import normalise
from parity_tests.tests.pairing.nets import initialised, random_image

NETS = {"resnet18_v1": 64, "resnet18_v2": 64, "squeezenet1_0": 224, "mobilenet_v2_0_25": 64}
PLANTED = 12  # in each net, of each kind


@functools.cache
def graph_of(name: str) -> OperationGraph:
    x = random_image(1, 3, NETS[name], NETS[name])
    net = initialised(getattr(vision, name)(classes=10), x)
    return normalise(trace_gluon(net, mx.nd.array(x)), read_gluon)


def _without(graph: OperationGraph, index: int) -> OperationGraph:
    """The graph with an operation's readers reading what it read."""
    (source,) = graph.operations[index].inputs
    gone = Value(Origin.OPERATION, index)

    def moved(value: Value) -> Value:
        return source.value if value == gone else value

    operations = tuple(
        replace(op, inputs=tuple(replace(x, value=moved(x.value)) for x in op.inputs))
        for op in graph.operations
        if op.index != index
    )
    outputs = tuple(map(moved, graph.outputs))
    return replace(graph, operations=operations, outputs=outputs).renumbered()


def _changed(graph: OperationGraph, changed: Operation) -> OperationGraph:
    operations = tuple(changed if op.index == changed.index else op for op in graph)
    return replace(graph, operations=operations)


def _sites(graph: OperationGraph, suits: Callable[[Operation], bool]) -> list[Operation]:
    sites = [op for op in graph if suits(op)]
    return random.Random(0).sample(sites, min(PLANTED, len(sites)))


@pytest.mark.parametrize("name", NETS)
def test_a_graph_aligns_with_itself_in_any_order_of_running(name: str) -> None:
    graph = graph_of(name)
    alignment = align(graph, _shuffled(graph))
    assert alignment.equal
    assert all(a == b for a, b in alignment.parameters.items())


def _shuffled(graph: OperationGraph) -> OperationGraph:
    """The same graph, its operations in another order that dataflow allows."""
    generator = random.Random(1)
    waiting, order, done = list(graph.operations), [], set[int]()
    while waiting:
        ready = [
            op
            for op in waiting
            if all(x.value.origin is not Origin.OPERATION or x.value.key in done for x in op.inputs)
        ]
        op = generator.choice(ready)
        waiting.remove(op)
        order.append(op)
        done.add(op.index)
    return replace(graph, operations=tuple(order)).renumbered()


@pytest.mark.parametrize("name", NETS)
def test_a_changed_attribute_is_the_only_difference(name: str) -> None:
    graph = graph_of(name)
    for op in _sites(graph, lambda op: op.kind in ("conv", "batch_norm", "max_pool")):
        attribute = sorted(op.attributes)[0]
        other = replace(op, attributes={**op.attributes, attribute: "other"})
        alignment = align(graph, _changed(graph, other))
        (pair,) = alignment.differing
        assert pair.left.index == pair.right.index == op.index
        assert [d.what for d in pair.differences] == [attribute]
        assert not any(alignment.alone)
        assert alignment.total


@pytest.mark.parametrize("name", NETS)
def test_another_function_in_the_same_place_is_the_only_difference(name: str) -> None:
    graph = graph_of(name)
    for op in _sites(graph, lambda op: op.kind in ("relu", "clip")):
        alignment = align(graph, _changed(graph, replace(op, kind="elu", attributes={})))
        (pair,) = alignment.differing
        assert pair.left.index == pair.right.index == op.index
        assert [(d.what, d.right) for d in pair.differences] == [("kind", "elu")]
        assert not any(alignment.alone)
        assert alignment.total


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_missing_activation_is_alone_and_nothing_else_differs(name: str, side: str) -> None:
    graph = graph_of(name)
    for op in _sites(graph, lambda op: op.kind in ("relu", "clip")):
        lesser = _without(graph, op.index)
        alignment = align(graph, lesser) if side == "left" else align(lesser, graph)
        ours, others = alignment.alone if side == "left" else alignment.alone[::-1]
        assert [x.index for x in ours] == [op.index]
        assert not others
        assert not alignment.differing
        assert not alignment.outputs
        assert alignment.total


@pytest.mark.parametrize("name", NETS)
def test_a_shortcut_from_elsewhere_is_the_only_difference(name: str) -> None:
    graph = graph_of(name)
    for op in _sites(graph, lambda op: op.kind in ("add", "concat")):
        first, *rest = op.inputs
        # from before the operation that the shortcut comes from
        before = [
            x
            for x in graph.operations[int(first.value.key)].inputs
            if x.shape == first.shape and x.value not in {y.value for y in rest}
        ]
        if not before:
            continue
        moved = replace(op, inputs=(replace(first, value=before[0].value), *rest))
        alignment = align(graph, _changed(graph, moved))
        (pair,) = alignment.differing
        assert pair.left.index == pair.right.index == op.index
        assert len(pair.differences) == 1
        assert pair.differences[0].what.startswith("reads")
        assert not any(alignment.alone)
        assert alignment.total
