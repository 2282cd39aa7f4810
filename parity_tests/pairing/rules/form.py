"""What a rewriting rule is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from parity_tests.pairing.graph import Operand, Operation
from parity_tests.pairing.vocabulary import Emit


class Graph(Emit, Protocol):
    """The graph under construction."""

    def dtype_of(self, operand: Operand) -> str: ...

    def merge(self, *operations: Operation) -> None: ...

    def is_read_once(self, operation: Operation) -> bool:
        """Whether nothing but one operation, in the end, reads what it draws or computes."""
        ...

    def expect(self, draw: Operation) -> None:
        """Let a drawn mask, of which dropout is made, have what it is on average."""
        ...


Attributes = Mapping[str, Any]
Rule = Callable[[Graph, Sequence[Operand], tuple[int, ...], Attributes], "Operand | None"]


def produced_by(graph: Graph, operand: Operand, kind: str) -> Operation | None:
    """The operation of one kind whose first output an operand is, else None."""
    producer = graph.producer(operand)
    return producer if producer is not None and producer.kind == kind else None
