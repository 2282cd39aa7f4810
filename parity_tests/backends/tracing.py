"""What both tracers share: a builder of operation graphs while a net runs."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from parity_tests.pairing.graph import (
    Operand,
    Operation,
    OperationGraph,
    Origin,
    Parameter,
    Replay,
    Value,
)

__all__ = ["GraphBuilder", "digest", "flatten", "pass_on"]

# How many values of an output its digest samples
_SAMPLES = 16


class GraphBuilder:
    """Collects the operations of one forward pass.

    `producers` maps arrays, by identity, to the values they hold; `libraries` are the folders
    whose frames are not the user's code, apart from those in `models`.
    """

    def __init__(
        self,
        producers: MutableMapping[Any, Value],
        describe: Callable[[Any], tuple[tuple[int, ...], str]],
        libraries: Sequence[str],
        models: Sequence[str] = (),
    ) -> None:
        self.producers = producers
        self.parameters: dict[str, Parameter] = {}
        self._describe = describe
        self._libraries = (*libraries, os.path.dirname(__file__) + os.sep)
        self._models = tuple(models)
        self._operations: list[Operation] = []
        self._stack: list[tuple[str, int]] = [("", 0)]
        self._calls: Counter[str] = Counter()
        self._aliases: dict[str, str] = {}
        self._inputs: list[tuple[int, ...]] = []
        self._constants: dict[str, Any] = {}
        self._held: list[tuple[str, Any]] = []  # the net's own arrays, by name

    @property
    def path(self) -> str:
        return self._stack[-1][0]

    def add_parameter(self, name: str, array: Any) -> None:
        """Register an array that the net holds; the same array again gives it another name."""
        value = self.producers.get(array)
        if value is not None and value.origin is Origin.PARAMETER:
            self._aliases[name] = str(value.key)
            return
        self.producers[array] = Value(Origin.PARAMETER, name)
        self._held.append((name, array))
        self.parameters[name] = Parameter(name, *self._describe(array))

    def add_input(self, array: Any) -> None:
        self.producers[array] = Value(Origin.INPUT, len(self._inputs))
        self._inputs.append(self._describe(array)[0])

    def enter(self, path: str) -> None:
        self._stack.append((path, self._calls[path]))
        self._calls[path] += 1

    def leave(self) -> None:
        self._stack.pop()

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Operations recorded in this context belong to the module at `path`."""
        self.enter(path)
        try:
            yield
        finally:
            self.leave()

    def add(
        self,
        kind: str,
        attributes: Mapping[str, object],
        operands: Sequence[tuple[str, Any]],
        outputs: Sequence[Any],
        *,
        opaque: bool = False,
        values: tuple[float, ...] = (),
        replay: Replay | None = None,
        stops_gradient: bool = False,
    ) -> None:
        """Record an operation that has run: arrays by the role of the argument, and its outputs."""
        inputs, parameters = [], {}
        reads = tuple(self.value(array) for _, array in operands)
        for (role, array), value in zip(operands, reads, strict=True):
            if value.origin is Origin.PARAMETER:
                parameters[role] = self.parameters[str(value.key)]
            else:
                inputs.append(Operand(role, value, self._describe(array)[0]))
        described = [self._describe(array) for array in outputs]
        index = len(self._operations)
        path, call = self._stack[-1]
        self._operations.append(
            Operation(
                index,
                kind,
                dict(attributes),
                tuple(inputs),
                parameters,
                tuple(shape for shape, _ in described),
                tuple(dtype for _, dtype in described),
                path,
                call,
                self._source(),
                opaque,
                values,
                (index,),
                tuple(role for role, _ in operands),
                reads,
                replay,
                stops_gradient=stops_gradient,
            )
        )
        for position, array in enumerate(outputs):
            self.producers[array] = Value(Origin.OPERATION, index, position)

    def replay_whole(self, array: Any, reads: Sequence[Any], replay: Replay) -> None:
        """Let a function's result be replayed by the function itself, and not by what it ran."""
        value = self.producers.get(array)
        if value is None or value.origin is not Origin.OPERATION:
            return
        index = int(value.key)
        if len(self._operations[index].shapes) == 1:
            self._operations[index] = dataclasses.replace(
                self._operations[index], reads=tuple(map(self.value, reads)), replay=replay
            )

    def value(self, array: Any) -> Value:
        """Where an array comes from; one that nobody produced is a constant of the net."""
        known = self.producers.get(array)
        if known is not None:
            return known
        shape, dtype = self._describe(array)
        value = Value(Origin.CONSTANT, f"{dtype}{list(shape)} {len(self._constants) + 1}")
        self._constants[str(value.key)] = array
        self.producers[array] = value
        return value

    def _source(self) -> str:
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_code.co_filename
            theirs = name.startswith(self._libraries) or name.startswith("<")
            if not theirs or name.startswith(self._models):
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back  # type: ignore[assignment]
        return ""

    def finish(self, outputs: Sequence[Any], train: bool) -> OperationGraph:
        """The graph, given the arrays that the net returned and the mode it ran in."""
        return OperationGraph(
            tuple(self._operations),
            tuple(self._inputs),
            tuple(self.value(array) for array in outputs),
            dict(self.parameters),
            dict(self._aliases),
            train,
            dict(self._constants),
            self._writes(),
        )

    def _writes(self) -> dict[str, Value]:
        """What is in the net's parameters by now, where it is not what was there."""
        return {
            name: self.producers[array]
            for name, array in self._held
            if self.producers[array].origin is not Origin.PARAMETER
        }


def flatten(value: Any, leaf: type[Any]) -> Iterator[Any]:
    """The arrays of class `leaf` in nested tuples, lists and dicts, in order."""
    if isinstance(value, leaf):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from flatten(item, leaf)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from flatten(item, leaf)


def pass_on(arrays: Sequence[Any], dtype: str) -> list[Any]:
    """The replay of an operation that gives back its first array."""
    return [arrays[0]]


def digest(array: np.ndarray) -> tuple[float, ...]:
    """A few numbers that tell two arrays of values apart: their sums and samples."""
    flat = np.asarray(array, dtype=np.float64).reshape(-1)
    if not flat.size:
        return ()
    step = max(1, flat.size // _SAMPLES)
    return (float(flat.sum()), float(np.abs(flat).sum()), *map(float, flat[::step][:_SAMPLES]))
