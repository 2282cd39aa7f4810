"""Writes what a Gluon net executed as Python that needs nothing but MXNet."""

from __future__ import annotations

from collections.abc import Mapping

from parity_tests.backends.leaves import ParityError
from parity_tests.pairing.graph import Operation, OperationGraph, Origin, Value

__all__ = ["HEAD", "lines"]

HEAD = '''\
import os

try:
    import mxnet_compat  # brings MXNet beside a newer numpy, where it is installed
except ImportError:
    pass
import mxnet as mx
import numpy as np


def op(name):
    """An operator of MXNet by the name that its graphs have for it."""
    for place in (mx.nd, mx.nd._internal, mx.nd.contrib):
        for known in (name, name.replace("_contrib_", "")):
            if hasattr(place, known):
                return getattr(place, known)
    raise SystemExit("this MXNet has no operator " + name)


def array(name):
    return mx.nd.array(arrays[name], dtype=dtype if arrays[name].dtype.kind == "f" else None)


'''


def lines(graph: OperationGraph, names: Mapping[Value, str]) -> list[str]:
    """One line for each operation; `names` are the expressions of inputs and parameters.

    Raises ParityError for what cannot be written so.
    """
    known = dict(names)
    written = []
    for operation in graph:
        arrays = [known[value] for value in operation.reads]
        results = [f"v{operation.index}_{i}" for i in range(len(operation.shapes))]
        called = _call(operation, arrays)
        if len(results) > 1:
            written.append(f"{', '.join(results)} = {called}")
        else:
            written.append(f"{results[0]} = {called}")
        for position, name in enumerate(results):
            known[Value(Origin.OPERATION, operation.index, position)] = name
    return [*written, f"outputs = [{', '.join(known[value] for value in graph.outputs)}]"]


def _call(operation: Operation, arrays: list[str]) -> str:
    kind, attributes = operation.kind, operation.attributes
    if kind == "Reshape" and not attributes:
        return f"{arrays[0]}.reshape({operation.shape})"
    if kind == "detach":
        return f"{arrays[0]}.detach()"
    if kind in ("_slice", "_at"):
        start, *stop = attributes["args"]
        return f"{arrays[0]}[{start if not stop else f'{start}:{stop[0]}'}]"
    if operation.opaque or kind.startswith("_set") or kind[-4:] in ("LSTM", "Cell"):
        raise ParityError(f"{kind} cannot be written as a script of its own")
    options = [f"{key}={value!r}" for key, value in attributes.items()]
    return f"op({kind!r})({', '.join([*arrays, *options])})"
