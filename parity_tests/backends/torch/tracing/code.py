"""Writes what a torch net executed as Python that needs nothing but torch."""

from __future__ import annotations

from collections.abc import Mapping

from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.tracing.replay import ReplayCall
from parity_tests.backends.tracing import pass_on
from parity_tests.pairing.graph import OperationGraph, Origin, Value

__all__ = ["HEAD", "lines"]

HEAD = """\
import os

import numpy as np
import torch


def array(name):
    values = torch.from_numpy(arrays[name])
    return values.to(dtype) if values.is_floating_point() else values


"""


def lines(graph: OperationGraph, names: Mapping[Value, str]) -> list[str]:
    """One line for each operation; `names` are the expressions of inputs and parameters.

    Raises ParityError for what cannot be written so.
    """
    known = dict(names)
    written = []
    for operation in graph:
        arrays = [known[value] for value in operation.reads]
        replay = operation.replay
        if replay is pass_on:
            known[Value(Origin.OPERATION, operation.index)] = arrays[0]
            continue
        if not isinstance(replay, ReplayCall):
            raise ParityError(f"{operation.kind} cannot be written as a script of its own")
        try:
            called = replay.written(arrays)
        except ValueError as error:
            raise ParityError(f"{operation.kind}: {error}") from error
        results = [f"v{operation.index}_{i}" for i in range(len(operation.shapes))]
        written.append(f"{', '.join(results)} = {called}")
        for position, name in enumerate(results):
            known[Value(Origin.OPERATION, operation.index, position)] = name
    return [*written, f"outputs = [{', '.join(known[value] for value in graph.outputs)}]"]
