"""Which running statistics a norm has, where the net's own code keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from parity_tests.numerics.operators.batch_norm import OWN
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Value

# The role of one that no batch norm reads, and what computes a batch's own
_STATISTIC = "running_statistic"
_REDUCES = frozenset(("mean", "sum", "global_avg_pool", "var", "std"))


def running_statistics(inference: OperationGraph) -> dict[str, str]:
    """The roles of running statistics by their names, as a normalised graph reads them.

    What else than a batch norm reads may be a statistic, too, of a norm that is written out.
    """
    roles: dict[str, str] = {}
    for op in inference:
        for role, parameter in op.parameters.items():
            of_norm = op.kind == "batch_norm" and role.startswith("running_")
            roles.setdefault(parameter.name, role if of_norm else _STATISTIC)
    return roles


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
    """The normalised graph of a run in training, its norms with what is written beside them.

    A running statistic of one of these `roles` belongs to the batch norm whose input it is computed
    from, or where the norm is written out, to the mean that it is computed from; how much of it is
    kept only its values say. That of a module that ran twice stays alone.
    """
    norms = [op for op in normalised if op.kind == "batch_norm" and not _running(op)]
    held = {parameter.name for op in normalised for parameter in op.parameters.values()}
    found: dict[int, dict[str, str]] = {}
    for name, value in executed.writes.items():
        if name not in roles:
            continue
        _, computed = executed.leading_to([value])
        readers = [op for op in norms if _read(executed, op.merged) & computed]
        if not readers and name not in held:
            readers = _steps(normalised, computed)
        if readers and [op.path for op in readers].count(readers[-1].path) == 1:
            own = found.setdefault(readers[-1].index, {})
            own[roles[name] if roles[name] not in own else f"{roles[name]}_{len(own) + 1}"] = name
    return replace(
        normalised,
        operations=tuple(_with(op, found.get(op.index), executed) for op in normalised),
    )


def _steps(normalised: OperationGraph, computed: set[Value]) -> list[Operation]:
    """The operations of which one has a statistic that is computed of these executed values.

    The last mean among them, and that of each other call of its module.
    """
    made = {normalised.stands_for.get(value) for value in computed}
    for op in reversed(normalised.operations):
        if op.kind == "reshape" and _output(op) in made:
            made |= {x.value for x in op.inputs}
    means = [op for op in normalised if op.kind in _REDUCES and _output(op) in made]
    return [op for op in means if op is means[-1] or op.call != means[-1].call]


def _output(op: Operation) -> Value:
    return Value(Origin.OPERATION, op.index)


def _running(op: Operation) -> bool:
    return any(role.startswith("running_") for role in (*op.parameters, *op.roles))


def _read(executed: OperationGraph, indices: Iterable[int]) -> set[Value]:
    reads = (value for index in indices for value in executed.operations[index].reads)
    return {value for value in reads if value.origin is not Origin.PARAMETER}


def _with(op: Operation, names: Mapping[str, str] | None, executed: OperationGraph) -> Operation:
    if names is None:
        return op
    own = {role: executed.parameters[name] for role, name in names.items()}
    kept = {"kept": OWN} if op.kind == "batch_norm" else {}
    return replace(op, parameters={**op.parameters, **own}, attributes={**op.attributes, **kept})
