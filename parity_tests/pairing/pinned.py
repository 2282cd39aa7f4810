"""Operations that a user's mapping pairs by name, where the alignment would not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gluon_cnn_parity import did_you_mean
from parity_tests.pairing.graph import Operation, OperationGraph


def known_names(graph: OperationGraph) -> dict[str, None]:
    """What a mapping may name of a net: modules that ran, those around them, and parameters."""
    names: dict[str, None] = {}
    for op in graph:
        parts = op.path.split(".")
        names |= {".".join(parts[:i]): None for i in range(1, len(parts) + 1) if op.path}
        names |= {parameter.name: None for parameter in op.parameters.values()}
    return names


def unknown_name(mapping: Mapping[str, str], gluon: Iterable[str], torch: Iterable[str]) -> str:
    """One line for the first name that its net does not have; empty if there is none."""
    for framework, names, known in (
        ("Gluon", mapping.keys(), list(gluon)),
        ("torch", mapping.values(), list(torch)),
    ):
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known)
                return f"{framework} runs no module or parameter {name!r} on these inputs{hint}"
    return ""


def pinned_pairs(
    left: OperationGraph, right: OperationGraph, mapping: Mapping[str, str]
) -> list[tuple[int, int]]:
    """Indices of the operations that a mapping from names of the left net to the right's pairs.

    A parameter stands for the operations that read it. A module stands for all that it ran: those
    of one kind are paired in order, and a single operation with a single one of any kind.
    """
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for mine, theirs in mapping.items():
        ours, others = _of(left, mine), _of(right, theirs)
        alone = len(ours) == len(others) == 1
        for op in ours:
            free = (o for o in others if o.index not in taken[1] and (alone or o.kind == op.kind))
            other = next(free, None)
            if other is not None and op.index not in taken[0]:
                pairs.append((op.index, other.index))
                taken[0].add(op.index)
                taken[1].add(other.index)
    return pairs


def _of(graph: OperationGraph, name: str) -> list[Operation]:
    readers = [op for op in graph if any(p.name == name for p in op.parameters.values())]
    return readers or [op for op in graph if f"{op.path}.".startswith(f"{name}.")]
