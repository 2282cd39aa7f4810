"""Records the operations that a living Gluon net executes, so that they can be run again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import Block
from mxnet.ndarray import NDArray

from parity_tests.backends.draws import Live
from parity_tests.backends.files.gluon_script import (
    Recorder,
    imperative,
    named_parameters,
    new_tape,
    operator_of,
    paths_of,
)
from parity_tests.backends.files.tape import Tape
from parity_tests.backends.gluon.numpy_mode import call
from parity_tests.backends.gluon.tracing.draws import drawn, draws_numbers
from parity_tests.backends.gluon.tracing.dtypes import taken_for
from parity_tests.backends.gluon.tracing.replay import (
    lacks_gradient,
    passes_no_gradient,
    refuse_overrun,
    replay_assignment,
    replay_block,
    replay_copy,
    replay_function,
    replay_index,
    replay_method,
    replay_operator,
)
from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.tracing import BACKENDS, HELD, digest, flatten, graph_of, replay_whole
from parity_tests.pairing.graph import OperationGraph, Replay
from parity_tests.pairing.vocabulary import constant


def trace_gluon(
    net: Block,
    *inputs: NDArray,
    train: bool = False,
    values: bool = False,
    single: Collection[str] = (),
) -> OperationGraph:
    """The operations that `net(*inputs)` executes.

    The net is left as it was: hybridisation, moving averages, fixed scales and Python's and numpy's
    random state are restored. In training MXNet's own random stream moves on, as it has no getter.

    Args:
        net: a block whose parameters are initialised.
        inputs: what the net is called with.
        train: run in training mode instead of inference.
        values: give every operation a digest of its outputs' values.
        single: dtypes of floats that the net's code names, and that are float32 here: those of the
            net of which this one is a copy in float32.
    """
    tape = new_tape(BACKENDS)
    named = named_parameters(net)
    if any(parameter._data is None for parameter in named.values()):
        with mx.autograd.pause(), taken_for(single, "float32"):
            call(net, inputs)  # settles the shapes that wait for an input
    live = Live()
    # MXNet's BatchNorm writes 1 into a scale that it fixes, whenever it runs
    held = [
        p
        for name, p in named.items()
        if p._data is not None and ((train and p.grad_req == "null") or name.endswith("gamma"))
    ]
    saved = [p.data().copy() for p in held]
    with ExitStack() as stack:
        stack.enter_context(imperative(net))
        stack.enter_context(mx.autograd.pause(train_mode=train))
        dtype = _dtype_of(named.values(), inputs)
        recorder = _Recorder(tape, paths_of(net), values, dtype, live)
        stack.enter_context(live.of_host())
        stack.enter_context(recorder.patched())
        stack.enter_context(_custom_functions(tape, {dtype, "float64", *single}))
        for name, parameter in named.items():
            if parameter._data is not None:
                tape.add_parameter(name, parameter.data(parameter.list_ctx()[0]))
        for array in flatten(inputs, NDArray):
            tape.add_input(array)
        if single:
            stack.enter_context(taken_for(single, "float32"))
        outputs = call(net, inputs)
        graph = graph_of(tape.graph(outputs, train), tape.constants)
    for parameter, array in zip(held, saved, strict=True):
        parameter.data()[:] = array
    return graph.with_neutral(name for name in graph.parameters if _is_neutral(name, named[name]))


def _is_neutral(name: str, parameter: Any) -> bool:
    """Whether it is a scale of ones or a shift of zeros that nothing trains."""
    neutral = {"gamma": 1, "beta": 0}.get(name.rpartition(".")[2])
    if neutral is None or parameter.grad_req != "null" or parameter._data is None:
        return False
    return bool((parameter.data(parameter.list_ctx()[0]).asnumpy() == neutral).all())


@contextmanager
def _custom_functions(tape: Tape, same: Container[str]) -> Iterator[None]:
    """What an `autograd.Function` returns is replayed by it, so that its own backward runs.

    `same` are the dtypes of floats that its code names, and that are that of the run.
    """
    original = mx.autograd.Function.__call__

    def call(function: mx.autograd.Function, *inputs: NDArray) -> Any:
        uncalled, start = copy.copy(function), len(tape.operations)
        out = original(function, *inputs)
        outputs = list(flatten(out, NDArray))
        # one that gives back what it is given cannot be differentiated: MXNet raises
        if not any(y is x for y in outputs for x in inputs):
            replay_whole(tape, start, outputs, inputs, replay_function(uncalled, same))
        return out

    with mock.patch.object(mx.autograd.Function, "__call__", call):
        yield


def _dtype_of(parameters: Iterable[Any], inputs: Sequence[NDArray]) -> str:
    """What a net computes in: the dtype of its first floating-point parameter, or input."""
    kinds = [np.dtype(x.dtype) for x in (*parameters, *flatten(inputs, NDArray))]
    return next((kind.name for kind in kinds if kind.kind == "f"), "float32")


class _Recorder(Recorder):
    """Also keeps how each operation can be run again and, with `values`, a digest."""

    def __init__(
        self, tape: Tape, paths: Mapping[int, str], values: bool, dtype: str, live: Live
    ) -> None:
        super().__init__(tape, paths)
        self._live = live
        self._values = values
        self._dtype = dtype
        self._passing: set[int] = set()  # the operations that a gradient passes

    @contextmanager
    def patched(self) -> Iterator[None]:
        original = NDArray.asnumpy

        def asnumpy(array: NDArray) -> np.ndarray:
            computed = self.tape.producers.get(array, ("",))[0] in ("operation", "input")
            if computed and array.size > 1 and self._recording:
                self.tape.hand_over()
            return original(array)

        with mock.patch.object(NDArray, "asnumpy", asnumpy), super().patched():
            yield

    def _invoke(self) -> Callable[..., Any]:
        invoke = super()._invoke()

        def checked(
            handle: int, arrays: Sequence[NDArray], keys: Any, values: Any, *rest: Any
        ) -> Any:
            if self._recording:
                with self.unseen():
                    refuse_overrun(
                        operator_of(handle)[0], arrays, dict(zip(keys, values, strict=True))
                    )
            return invoke(handle, arrays, keys, values, *rest)

        return checked

    def run(self, kind: str, arrays: Sequence[NDArray], call: Callable[..., Any]) -> Any:
        JOURNAL.at(kind, self.tape.path)
        out = super().run(kind, arrays, call)
        if JOURNAL.tell is not None:  # operators run later, unless somebody waits
            mx.nd.waitall()
        return out

    def heeds_lengths(self, x: NDArray) -> bool:
        """Its replay does: see `replay_block`."""
        return True

    def note(
        self,
        kind: str,
        attributes: dict[str, Any],
        operands: Sequence[tuple[str, NDArray]],
        out: Any,
        how: tuple[Any, ...],
    ) -> int:
        self._settle(kind, attributes, operands, out)
        index = super().note(kind, attributes, operands, out, how)
        record = self.tape.operations[index]
        record["replay"] = self._replay(kind, how, record["dtypes"])
        if self.paused:
            record["stops_gradient"] = True
        elif self._passes(kind, record):
            self._passing.add(index)
            if why := lacks_gradient(kind):
                record["lacks_gradient"] = f"{why} ({record['source']})"
        outputs = list(flatten(out, NDArray))
        if self._values and outputs:
            with self.unseen():
                record["digest"] = digest(outputs[0].asnumpy())
        if record["fixed"] and outputs and outputs[0].size <= HELD:
            with self.unseen():
                record["held"] = outputs[0].asnumpy()
        return index

    def _settle(
        self,
        kind: str,
        attributes: Mapping[str, Any],
        operands: Sequence[tuple[str, NDArray]],
        out: Any,
    ) -> None:
        """Let what an operator drew be what it draws in each trace."""
        if not draws_numbers(kind):
            return
        with self.unseen():
            arrays = {role: constant(x.asnumpy())[1] for role, x in operands}
            draw = drawn(kind, attributes, arrays)
            if draw is not None:
                (array,) = flatten(out, NDArray)
                array._sync_copyfrom(self._live.values(draw, array.shape).astype(array.dtype))

    def _passes(self, kind: str, record: Mapping[str, Any]) -> bool:
        """Whether an operation passes back a gradient to a parameter or an input."""
        if passes_no_gradient(kind) or "float" not in record["dtypes"][0]:
            return False
        return any(
            origin in ("parameter", "input") or (origin == "operation" and key in self._passing)
            for origin, key, _ in record["reads"]["where" in kind :]  # a condition has none
        )

    def _replay(self, kind: str, how: tuple[Any, ...], dtypes: Sequence[str]) -> Replay | None:
        way, *rest = how
        if way == "operator":
            handle, attributes, flags = rest
            paused = bool(self.paused) or passes_no_gradient(kind) or bool(lacks_gradient(kind))
            if kind == "_copyto":
                return replay_copy(dtypes[0], self._dtype, paused)
            made = self._dtype, dtypes, bool(flags[1])
            return replay_operator(kind, handle, attributes, *made, paused)
        if way == "method":
            return replay_method(*rest)
        if way == "index":
            return replay_index(*rest)
        if way == "assignment":
            return replay_assignment(*rest)
        if way == "block":
            block, args = rest
            return replay_block(block, args, tuple(block._reg_params))
        return None
