"""A Gluon net made of what another one executed: one block for each segment of operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, Parameter
from mxnet.ndarray import NDArray

from parity_tests.backends.executed import Layout, Order, Program, Traces, taken_as
from parity_tests.backends.parts import part_of
from parity_tests.numerics.operators.cases import Change
from parity_tests.numerics.perturb import holds_integers
from parity_tests.pairing.graph import OperationGraph, Origin, Value
from parity_tests.pairing.segments import Slot


class _Changed(mx.autograd.Function):
    """The same array with its numbers changed, and its gradient on the way back.

    Whole numbers stay, which would be other indices with noise.
    """

    def __init__(self, change: Change) -> None:
        super().__init__()
        self._change = change

    def forward(self, x: NDArray) -> NDArray:
        numbers = x.asnumpy()
        changed = numbers if holds_integers(numbers) else self._change(numbers)
        return mx.nd.array(changed, dtype=x.dtype)

    def backward(self, gradient: NDArray) -> NDArray:
        return mx.nd.array(self._change(gradient.asnumpy()), dtype=gradient.dtype)


class ExecutedBlock(Block):
    """One segment: takes the shared values it reads, gives those it makes.

    `between` changes the numbers that pass between the operations inside it, and their gradients.
    `dtype` is what the net computes in, which decides what is made of no array.
    """

    between: Change | None = None
    of_operators = True
    dtype = "float32"

    def __init__(
        self,
        program: Program,
        parameters: Mapping[str, Parameter],
        constants: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__()
        self.program = program
        self._rate = program.layout.hyper.get("p", 0.0)
        for name, role in program.roles.items():
            self._reg_params[role] = parameters[name]
        self._constants = {key: constants[key] for key in program.constants}

    @property
    def held(self) -> list[np.ndarray]:
        """Arrays that the net's code holds as no parameters."""
        return list(self._constants.values())

    def forward(self, *arrays: NDArray) -> Any:
        kinds = (np.dtype(x.dtype).name for x in (*arrays, *self._reg_params.values()))
        kind = next((name for name in kinds if name.startswith("float")), self.dtype)

        def read(value: Value) -> NDArray:
            key = str(value.key)
            if value.origin is not Origin.CONSTANT:
                return self._reg_params[self.program.roles[key]].data()
            constant = self._constants[key]
            return mx.nd.array(
                constant, dtype=kind if constant.dtype.kind == "f" else constant.dtype
            )

        def write(role: str, value: NDArray) -> None:
            if self._reg_params[role].grad_req == "null":
                with mx.autograd.pause():
                    self._reg_params[role].set_data(value)

        def take(array: NDArray, own: str) -> NDArray:
            given = np.dtype(array.dtype).name
            wanted = taken_as(given, own, kind)
            if wanted == given:
                return array
            with mx.autograd.pause(mx.autograd.is_training()):
                return array.astype(wanted)

        def between(value: NDArray) -> NDArray:
            assert self.between is not None
            return _Changed(self.between)(value) if np.dtype(value.dtype).kind == "f" else value

        return self.program.run(
            arrays,
            read,
            write,
            take,
            kind,
            train=mx.autograd.is_training(),
            between=None if self.between is None else between,
        )


class ExecutedGluonNet(Block):
    """The whole net: its segments in the order in which it ran them."""

    of_operators = True

    def __init__(self, blocks: Sequence[ExecutedBlock], order: Order) -> None:
        super().__init__()
        for number, block in enumerate(blocks):
            self.register_child(block, str(number))
        self._order = order

    def forward(self, *inputs: NDArray) -> Any:
        absent = mx.nd.zeros((1,), dtype=inputs[0].dtype)
        return self._order.run(lambda n, *given: self._children[str(n)](*given), inputs, absent)


def _parts(graph: OperationGraph, parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """What is read of a parameter apart: views of its rows, so that what is written reaches it.

    Only clones of it are run, and set memory aside for gradients.
    """
    parts: dict[str, Parameter] = {}
    for name in graph.parameters:
        part = part_of(name, parameters)
        if part is not None:
            whole = parameters[part[0]]
            rows = part[1](whole.data(whole.list_ctx()[0]))
            twin = Parameter(
                name,
                grad_req="null",
                shape=rows.shape,
                dtype=rows.dtype,
                differentiable=whole._differentiable,
                lr_mult=whole.lr_mult,
                wd_mult=whole.wd_mult,
            )
            twin._init_impl(rows, whole.list_ctx()[:1])
            twin._data, twin._grad_req = [rows], whole.grad_req
            parts[name] = twin
    return parts


def rebuild(
    net: Block,
    traces: Traces,
    layouts: Sequence[Layout],
    outputs: Sequence[tuple[Slot, tuple[int, ...]]],
) -> ExecutedGluonNet:
    """The net that runs these segments, on the parameters of the net that was traced."""
    parameters = dict(net._collect_params_with_prefix())
    parameters.update({n: p for n, p in net.collect_params().items() if n not in parameters})
    for graph in traces.values():
        parameters.update(_parts(graph, parameters))
    constants = {
        key: array.asnumpy() for graph in traces.values() for key, array in graph.constants.items()
    }
    blocks = [ExecutedBlock(Program(layout, traces), parameters, constants) for layout in layouts]
    kinds = (np.dtype(parameter.dtype).name for parameter in parameters.values())
    kind = next((name for name in kinds if name.startswith("float")), ExecutedBlock.dtype)
    for block in blocks:
        block.dtype = kind
    return ExecutedGluonNet(blocks, Order(layouts, outputs))
