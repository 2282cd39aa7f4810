"""Rewrites executed operations of either framework into one vocabulary and one form.

What computes nothing vanishes, and what one framework does in one operator and the other in
several gets one form; `pairing.rewrites` has the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from parity_tests.numerics.draws import DRAWS, Draw, is_draw
from parity_tests.numerics.operators.executed import is_known
from parity_tests.pairing.graph import (
    Drawn,
    Operand,
    Operation,
    OperationGraph,
    Origin,
    Parameter,
    Value,
)
from parity_tests.pairing.rewrites import ORDERED, RULES
from parity_tests.pairing.rules.form import Rule
from parity_tests.pairing.vocabulary import (
    COMMUTATIVE,
    Arguments,
    Emit,
    as_numpy,
    constant,
    real,
)

# The outputs of one executed operation, in the common vocabulary
Reader = Callable[[Arguments, Emit], Sequence[Operand]]


def normalise(
    graph: OperationGraph, read: Reader, *, ordered: bool = False, apart: Container[int] = ()
) -> OperationGraph:
    """The graph in the common vocabulary, without what computes nothing or reaches no output.

    `read` expresses one executed operation of its framework (`backends.*.tracing.vocabulary`).
    `ordered`: linear layers take rows in the order in which they were made, and give it back.
    `apart`: executed recurrent layers, by index, that are read as the layers they consist of.
    """
    emitter = Emitter(graph, ORDERED if ordered else RULES, apart)
    for operation in graph:
        emitter.read(operation, read)
    outputs = tuple(emitter.translated(value).value for value in graph.outputs)
    return _live(
        replace(
            graph,
            operations=tuple(emitter.operations),
            outputs=outputs,
            writes={},
            stands_for=emitter.stands_for(),
            draws=emitter.draws(),
        )
    )


class Emitter:
    """Collects normalised operations; calling it applies the rules for the operation's kind."""

    def __init__(
        self,
        graph: OperationGraph,
        rules: Mapping[str, tuple[Rule, ...]],
        apart: Container[int] = (),
    ) -> None:
        self.train = graph.train
        self.operations: list[Operation] = []
        self._rules = rules
        self._apart = apart
        self._parameters = graph.parameters
        self._constants = graph.constants
        self._held = {op.index: op.held for op in graph}
        one = {op.index for op in graph if len(op.shapes) == 1 and op.kind != "cast_to_itself"}
        # what an operation with one output gives whatever the input is
        self._fixed = {i: x for i, x in self._held.items() if x is not None and i in one}
        self._alike: dict[Value, float] = {}  # the number in all places of a constant
        self._translated: dict[Value, Operand] = {}
        self._computed: dict[Hashable, int] = {}
        self._current: Operation = _NOWHERE
        readers = (
            (value.key, op.index)
            for op in graph
            for value in op.reads
            if value.origin is Origin.OPERATION
        )
        self._readers = Counter(index for index, _ in set(readers))
        self._draws: dict[int, Draw] = {}  # by the operation of this graph
        self._drawn: dict[int, Operation] = {}  # by the executed operation that gives them
        self._expected: set[int] = set()
        self._behind: set[Value] = set()  # executed: values as before, whose gradients are others
        self._gradient: object = ""  # what the current operation's results get of their own

    def read(self, operation: Operation, read: Reader) -> None:
        """Express one executed operation."""
        self._current = operation
        if operation.index in self._fixed:
            fixed, number = constant(as_numpy(self._fixed[operation.index]))
            if number is not None:
                self._alike[fixed] = number
            value = Value(Origin.OPERATION, operation.index)
            self._translated[value] = Operand("", fixed, operation.shape)
            return
        behind = not self._behind.isdisjoint(operation.reads)
        self._gradient = operation.own_gradient or behind
        before = len(self.operations)
        arrays = {x.role: self.translated(x.value, x) for x in operation.inputs}
        for role, parameter in operation.parameters.items():
            value = Value(Origin.PARAMETER, parameter.name)
            arrays[role] = Operand(role, value, parameter.shape)
        # parameters were split from the other inputs
        ordered = {role: arrays[role] for role in operation.roles}
        outputs = read(Arguments(operation, ordered, self._known(operation)), self)
        for position, output in enumerate(outputs):
            value = Value(Origin.OPERATION, operation.index, position)
            self._translated[value] = output
            made = output.value.origin is Origin.OPERATION and int(output.value.key) >= before
            if self._gradient and not made:
                self._behind.add(value)
        if outputs and outputs[0].value.origin is Origin.OPERATION:
            index = int(outputs[0].value.key)
            if index >= before:
                self.operations[index] = replace(self.operations[index], digest=operation.digest)
            self._note_draw(operation, self.operations[index])

    def _note_draw(self, operation: Operation, made: Operation) -> None:
        """Note what an executed operation draws: what stands for it, in as many numbers or more."""
        if made.kind == "expand" and made.inputs:
            made = self.producer(made.inputs[0]) or made
        if is_draw(made.kind) and (not made.inputs or made.merged == (operation.index,)):
            self._drawn[operation.index] = made

    def draws(self) -> dict[int, Drawn]:
        """What executed operations draw, by their indices."""
        return {
            index: Drawn(self._draws[op.index], op.shape, op.merged[0], op.index in self._expected)
            for index, op in self._drawn.items()
        }

    def draw(self, draw: Draw, shape: Sequence[int], p: Operand | None = None) -> Operand:
        """An operation that draws: how many numbers along which axes is one of its attributes."""
        numbers = {"scale": draw.scale, "shift": draw.shift, **draw.parameters}
        rounded = {name: real(f"{x:.6g}") for name, x in numbers.items() if x is not None}
        counts = tuple(size for size in shape if size != 1)
        out = self(DRAWS + draw.kind, [("p", p)], shape, **rounded, shape=counts)
        self._draws[int(out.value.key)] = draw
        return out

    def drawn(self, operand: Operand) -> Draw | None:
        """What an operand is, if it is drawn."""
        producer = self.producer(operand)
        return None if producer is None else self._draws.get(producer.index)

    def is_read_once(self, operation: Operation) -> bool:
        return all(self._readers[index] == 1 for index in operation.merged)

    def expect(self, draw: Operation) -> None:
        self._expected.add(draw.index)

    @property
    def apart(self) -> bool:
        """Whether the executed operation that is read now is taken apart."""
        return self._current.index in self._apart

    def _known(self, operation: Operation) -> dict[str, np.ndarray]:
        """The operands that neither an input nor a parameter decides, by role."""
        known = {}
        for x in operation.inputs:
            held = None
            if x.value.origin is Origin.CONSTANT:
                held = self._constants.get(str(x.value.key))
            elif x.value.origin is Origin.OPERATION and not x.value.output:
                held = self._held.get(int(x.value.key))
            if held is not None:
                known[x.role] = held
        return known

    def stands_for(self) -> dict[Value, Value]:
        """The normalised value of every executed one."""
        return {executed: operand.value for executed, operand in self._translated.items()}

    def translated(self, value: Value, operand: Operand | None = None) -> Operand:
        """What stands for a value of the executed graph."""
        shape = operand.shape if operand else ()
        known = self._translated.get(value)
        return known or Operand("", value, shape)

    def __call__(
        self,
        kind: str,
        inputs: Sequence[tuple[str, Operand | None]],
        shape: Sequence[int],
        /,
        **attributes: object,
    ) -> Operand:
        operands = [replace(x, role=role) for role, x in inputs if x is not None]
        if kind in COMMUTATIVE:
            operands = _parameters_last(operands)
        shape = tuple(shape)
        for rule in self._rules.get(kind, ()):
            known = rule(self, operands, shape, attributes)
            if known is not None:
                return known
        return self._append(kind, operands, shape, attributes)

    def _append(
        self,
        kind: str,
        operands: Sequence[Operand],
        shape: tuple[int, ...],
        attributes: Mapping[str, object],
    ) -> Operand:
        current = self._current
        parameters: dict[str, Parameter] = {}
        values: list[Operand] = []
        for operand in operands:
            if operand.value.origin is Origin.PARAMETER:
                parameters[operand.role] = self._parameters[str(operand.value.key)]
            else:
                values.append(operand)
        index = self._index_of(kind, operands, shape, attributes)
        if index < len(self.operations):
            return Operand("", Value(Origin.OPERATION, index), shape)
        self.operations.append(
            replace(
                current,
                index=index,
                kind=kind,
                attributes=dict(attributes),
                inputs=tuple(values),
                parameters=parameters,
                shapes=(shape,),
                digest=(),
                replay=None,
                normalised=True,
            )
        )
        return Operand("", Value(Origin.OPERATION, index), shape)

    def _index_of(
        self,
        kind: str,
        operands: Sequence[Operand],
        shape: tuple[int, ...],
        attributes: Mapping[str, object],
    ) -> int:
        """Where an operation stands; what computes the same from the same values stands once."""
        fresh = len(self.operations)
        by_call = kind in _BY_CALL or attributes.get("dropout")
        known = is_known(kind) or kind == "cast"  # which rounds nothing that another one would not
        if not operands or self._current.opaque or not known or by_call:
            return fresh
        # a parameter is reshaped without an operation
        shapes = (x.shape if x.value.origin is Origin.PARAMETER else () for x in operands)
        read = tuple((x.role, x.value, s) for x, s in zip(operands, shapes, strict=True))
        given = {name: self._current.attributes.get(name) for name in _UNSPOKEN}
        told = {name: x for name, x in given.items() if str(x) not in ("None", "False")}
        made = tuple(sorted((name, repr(x)) for name, x in {**told, **attributes}.items()))
        return self._computed.setdefault((kind, read, shape, made, self._gradient), fresh)

    def output(self, first: Operand, position: int, shape: Sequence[int]) -> Operand:
        value = replace(first.value, output=position)
        if position and value.origin is Origin.OPERATION:
            operation = self.operations[int(value.key)]
            shapes = (*operation.shapes[:position], tuple(shape))
            self.operations[operation.index] = replace(operation, shapes=shapes)
        return Operand("", value, tuple(shape))

    def producer(self, operand: Operand) -> Operation | None:
        """The normalised operation whose first output an operand is."""
        if operand.value.origin is not Origin.OPERATION or operand.value.output:
            return None
        return self.operations[int(operand.value.key)]

    def dtype_of(self, operand: Operand) -> str:
        """The dtype of a parameter or of what an operation gives; empty where it is not known."""
        if operand.value.origin is Origin.PARAMETER:
            return self._parameters[str(operand.value.key)].dtype
        producer = self.producer(operand)
        return "" if producer is None else producer.dtypes[0]

    def merge(self, *operations: Operation) -> None:
        """What is emitted next stands for these executed operations too."""
        merged = dict.fromkeys(i for op in (*operations, self._current) for i in op.merged)
        self._current = replace(self._current, merged=tuple(merged))

    def is_zero(self, value: Operand) -> bool:
        return self.number_of(value) == 0.0

    def number_of(self, value: Operand) -> float | None:
        producer = self.producer(value)
        if producer is not None and producer.kind == "constant":
            return float(producer.attributes["value"])
        held = self._constants.get(str(value.value.key))
        if value.value.origin is Origin.CONSTANT and held is not None:
            return constant(as_numpy(held))[1]
        return self._alike.get(value.value)


# Each call draws anew, or changes what the next one reads
_BY_CALL = frozenset({"dropout", "batch_norm"})
# What the vocabulary has no word for, and tells two lookups in one table apart
_UNSPOKEN = ("padding_idx", "max_norm", "scale_grad_by_freq")

_NOWHERE = Operation(-1, "", {}, (), {}, ((),), ("",))


def _parameters_last(operands: Sequence[Operand]) -> list[Operand]:
    """Operands that may change places, parameters behind computed values."""
    roles = [x.role for x in operands]
    ordered = sorted(operands, key=lambda x: x.value.origin is Origin.PARAMETER)
    return [replace(x, role=role) for x, role in zip(ordered, roles, strict=True)]


def _live(graph: OperationGraph) -> OperationGraph:
    """Only operations that reach an output."""
    needed: set[int] = set()
    pending = [int(v.key) for v in graph.outputs if v.origin is Origin.OPERATION]
    while pending:
        index = pending.pop()
        if index in needed:
            continue
        needed.add(index)
        pending += [
            int(x.value.key)
            for x in graph.operations[index].inputs
            if x.value.origin is Origin.OPERATION
        ]
    kept = tuple(op for op in graph.operations if op.index in needed)

    def root(value: Value) -> Value:
        """What a reshape that nobody reads was made of: the same numbers."""
        while value.origin is Origin.OPERATION and value.key not in needed:
            op = graph.operations[int(value.key)]
            if op.kind != "reshape" or not op.inputs or value.output:
                break
            value = op.inputs[0].value
        return value

    stands_for = {executed: root(value) for executed, value in graph.stands_for.items()}
    return replace(graph, operations=kept, stands_for=stands_for).renumbered()
