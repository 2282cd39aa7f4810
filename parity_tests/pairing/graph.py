"""The operations that one forward pass executed, and how values flow between them.

These records know no framework: both tracers write them, `pairing.normalise` rewrites them, and
`pairing.dataflow` aligns two of them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity_tests.numerics.draws import Draw

# Runs an operation again: its arrays in the order of `Operation.reads`, and the dtype of floats
Replay = Callable[[Sequence[Any], str], list[Any]]


class Origin(enum.Enum):
    """Where a value comes from."""

    OPERATION = "operation"
    INPUT = "input"
    PARAMETER = "parameter"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Value:
    """One array in the graph.

    `key` is the index of the operation that produced it, the position of the net's input, the
    parameter's name, or a constant's description; `output` counts an operation's outputs.
    """

    origin: Origin
    key: int | str
    output: int = 0


@dataclass(frozen=True, slots=True)
class Operand:
    """A value that an operation reads, under the name of the operation's argument."""

    role: str
    value: Value
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter or buffer that an operation reads: its name in the net, its shape and dtype.

    `neutral`: not trained, and a norm's scale of ones or shift of zeros, as Gluon's norms hold them
    where they are told to have none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    neutral: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One executed operation.

    `path` is the module it ran in, `call` how often that module had been entered before, and
    `source` the `file:line` of the call in the user's code. An `opaque` operation ran code whose
    single operations could not be seen. `digest` summarises the outputs' values if they were
    asked for. After normalisation `kind` and `attributes` are in the common vocabulary, and
    `merged` lists the indices of the executed operations that this one stands for; `roles` has the
    roles of inputs and parameters in the order of the call, and `reads` what they hold. `replay`
    runs an executed operation on other arrays, leaving those it is given as they are. `normalised`
    operations are in the common vocabulary and cannot be run. `own_gradient`: what was executed
    passes back no gradient ("detach"), or its own and not its kind's ("own gradient"); `function`
    counts the calls of functions that have such, and is that in which it ran, or -1. `infinite`:
    its first output holds infinities, as behind a mask of −∞. `held` is its first output where no
    input and no parameter decides it, as of an index that the net's code writes out.
    `lacks_gradient`: why its framework does not differentiate what has a gradient.
    """

    index: int
    kind: str
    attributes: Mapping[str, Any]
    inputs: tuple[Operand, ...]
    parameters: Mapping[str, Parameter]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    path: str = ""
    call: int = 0
    source: str = ""
    opaque: bool = False
    digest: tuple[float, ...] = ()
    merged: tuple[int, ...] = ()
    roles: tuple[str, ...] = ()
    reads: tuple[Value, ...] = ()
    replay: Replay | None = field(default=None, compare=False, repr=False)
    normalised: bool = False
    own_gradient: str = ""
    function: int = -1
    infinite: bool = False
    held: np.ndarray | None = field(default=None, compare=False, repr=False)
    lacks_gradient: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The first output's shape."""
        return self.shapes[0]

    def __str__(self) -> str:
        place = f" in {self.path}" if self.path else ""
        return f"{self.kind}{place}" + (f" ({self.source})" if self.source else "")


@dataclass(frozen=True)
class Drawn:
    """What an executed operation draws, or makes of what one before it, the `root`, drew.

    `shape` is that of what is drawn. `expected`: it is a mask of which dropout is made, which
    passes its input on; so does the mask that has what it is on average.
    """

    draw: Draw
    shape: tuple[int, ...]
    root: int
    expected: bool

    @property
    def knows_all(self) -> bool:
        """Whether no array says with which parameters it is drawn."""
        return None not in self.draw.parameters.values()


@dataclass(frozen=True)
class OperationGraph:
    """The operations in the order in which they ran.

    `parameters` are all that the net holds, executed or not, by name; a tied parameter appears
    once, under its first name, and `aliases` has its other names. `writes` has what the net's own
    code put into parameters, by their names. `train` says in which mode the net ran. `constants`
    are the arrays that no operation produced, by the keys of their values.
    `outside` has those that appeared after a computed value had gone to numpy, and where it went.
    In a normalised graph `stands_for` maps values that were executed to those of this graph, and
    `draws` has what executed operations, by index, draw at random.
    `given` are the outputs' dtypes where a copy of the net in float32 was traced in its place; none
    where they are not known.
    """

    operations: tuple[Operation, ...]
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[Value, ...]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    train: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    writes: Mapping[str, Value] = field(default_factory=dict)
    stands_for: Mapping[Value, Value] = field(default_factory=dict, compare=False, repr=False)
    outside: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    given: tuple[str, ...] | None = None
    draws: Mapping[int, Drawn] = field(default_factory=dict, compare=False, repr=False)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def with_neutral(self, names: Iterable[str]) -> OperationGraph:
        """The same with these parameters known to change nothing where a norm reads them."""
        known = {name: replace(self.parameters[name], neutral=True) for name in names}
        return replace(self, parameters={**self.parameters, **known})

    def dtype_of(self, value: Value) -> str:
        """The dtype of a parameter or of what an operation gives; empty where it is not known."""
        if value.origin is Origin.PARAMETER:
            return self.parameters[str(value.key)].dtype
        if value.origin is not Origin.OPERATION:
            return ""
        return self.operations[int(value.key)].dtypes[value.output]

    @property
    def output_dtypes(self) -> Sequence[str]:
        """The dtypes of what the net gives; none where they are not known."""
        return [self.dtype_of(v) for v in self.outputs] if self.given is None else self.given

    def live(self) -> OperationGraph:
        """The executed operations that reach an output or a write, indexed anew.

        What is written into whole numbers, such as a count of batches, is left out.
        """
        writes = {n: v for n, v in self.writes.items() if "float" in self.parameters[n].dtype}
        needed, _ = self.leading_to([*self.outputs, *writes.values()])
        operations = tuple(self.operations[i] for i in sorted(needed))
        return replace(self, operations=operations, writes=writes).renumbered()

    def leading_to(self, values: Iterable[Value]) -> tuple[set[int], set[Value]]:
        """The operations that values are computed by, and all values on the way, these included."""
        seen: set[Value] = set()
        pending = list(values)
        while pending:
            value = pending.pop()
            if value not in seen:
                seen.add(value)
                if value.origin is Origin.OPERATION:
                    op = self.operations[int(value.key)]
                    pending += [*op.reads, *(x.value for x in op.inputs)]
        return {int(value.key) for value in seen if value.origin is Origin.OPERATION}, seen

    def handed_over(self) -> str:
        """Where a value went to numpy that the outputs may be made of; empty if none did.

        What a function with a gradient of its own does inside is its own affair: it is run whole.
        """
        seen: set[Value] = set()
        pending = [*self.outputs, *self.writes.values()]
        while pending:
            value = pending.pop()
            if value.origin is Origin.CONSTANT and str(value.key) in self.outside:
                return self.outside[str(value.key)]
            if value.origin is Origin.OPERATION and value not in seen:
                pending += self.operations[int(value.key)].reads
            seen.add(value)
        return ""

    def renumbered(self) -> OperationGraph:
        """The same graph with operations indexed by their position."""
        position = {op.index: i for i, op in enumerate(self.operations)}

        def moved(value: Value) -> Value:
            if value.origin is Origin.OPERATION:
                return replace(value, key=position[int(value.key)])
            return value

        operations = tuple(
            replace(
                op,
                index=position[op.index],
                inputs=tuple(replace(x, value=moved(x.value)) for x in op.inputs),
                reads=tuple(map(moved, op.reads)) if not op.normalised else (),
                merged=(position[op.index],) if not op.normalised else op.merged,
            )
            for op in self.operations
        )
        stands_for = {
            executed: moved(value)
            for executed, value in self.stands_for.items()
            if value.origin is not Origin.OPERATION or int(value.key) in position
        }
        return replace(
            self,
            operations=operations,
            outputs=tuple(map(moved, self.outputs)),
            writes={name: moved(value) for name, value in self.writes.items()},
            stands_for=stands_for,
        )
