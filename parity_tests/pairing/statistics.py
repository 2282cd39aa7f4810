"""Which running statistics a batch norm has, where the net's own code keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from parity_tests.numerics.operators.batch_norm import OWN
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Value

__all__ = ["running_statistics", "with_own_statistics", "without_updates"]


def running_statistics(inference: OperationGraph) -> dict[str, str]:
    """The roles of running statistics by their names, as a normalised graph reads them."""
    return {
        parameter.name: role
        for op in inference
        if op.kind == "batch_norm"
        for role, parameter in op.parameters.items()
        if role.startswith("running_")
    }


def without_updates(inference: OperationGraph) -> OperationGraph:
    """A normalised graph whose batch norms do not say how they would train."""
    operations = (
        replace(op, attributes={**op.attributes, "kept": OWN}) if op.kind == "batch_norm" else op
        for op in inference
    )
    return replace(inference, operations=tuple(operations))


def with_own_statistics(
    executed: OperationGraph, normalised: OperationGraph, roles: Mapping[str, str]
) -> OperationGraph:
    """The normalised graph of a run in training, its batch norms with what is written beside them.

    A running statistic of one of these `roles` belongs to the batch norm whose input it is computed
    from; how much of it is kept only its values say. That of a module that ran twice stays alone.
    """
    norms = [op for op in normalised if op.kind == "batch_norm" and not _running(op)]
    found: dict[int, dict[str, str]] = {}
    for name, value in executed.writes.items():
        if name in roles:
            _, computed = executed.leading_to([value])
            readers = [op for op in norms if _read(executed, op.merged) & computed]
            if readers and [op.path for op in readers].count(readers[-1].path) == 1:
                found.setdefault(readers[-1].index, {})[roles[name]] = name
    return replace(
        normalised,
        operations=tuple(_with(op, found.get(op.index), executed) for op in normalised),
    )


def _running(op: Operation) -> bool:
    return any(role.startswith("running_") for role in (*op.parameters, *op.roles))


def _read(executed: OperationGraph, indices: Iterable[int]) -> set[Value]:
    reads = (value for index in indices for value in executed.operations[index].reads)
    return {value for value in reads if value.origin is not Origin.PARAMETER}


def _with(op: Operation, names: Mapping[str, str] | None, executed: OperationGraph) -> Operation:
    if names is None:
        return op
    own = {role: executed.parameters[name] for role, name in names.items()}
    return replace(
        op, parameters={**op.parameters, **own}, attributes={**op.attributes, "kept": OWN}
    )
