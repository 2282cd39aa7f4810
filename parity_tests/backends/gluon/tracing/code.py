"""Writes what a Gluon net executed as Python that needs nothing but MXNet."""

from __future__ import annotations

from typing import Any

from parity_tests.backends.leaves import ParityError
from parity_tests.pairing.graph import Operation

HEAD = '''\
import operator
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
    places = {"_npi_": "numpy._internal", "_np_": "numpy", "_npx_": "numpy_extension"}
    for prefix, place in places.items():
        found = operator.attrgetter(place)(mx.nd) if name.startswith(prefix) else None
        if hasattr(found, name[len(prefix):]):
            return of_numpy(getattr(found, name[len(prefix):]))
    raise SystemExit("this MXNet has no operator " + name)


def of_numpy(function):
    """An operator of mx.np, on arrays of mx.nd."""
    def run(*inputs, **attributes):
        with mx.util.np_shape(True):
            out = function(*(x.as_np_ndarray() for x in inputs), **attributes)
        several = isinstance(out, (list, tuple))
        return [y.as_nd_ndarray() for y in out] if several else out.as_nd_ndarray()
    return run


def array(name):
    return mx.nd.array(arrays[name], dtype=dtype if arrays[name].dtype.kind == "f" else None)


'''


def call(operation: Operation, arrays: list[str]) -> str:
    """An operation on these expressions. Raises ParityError for one that cannot be written so."""
    kind, attributes = operation.kind, operation.attributes
    if kind == "Reshape" and not attributes:
        return f"{arrays[0]}.reshape({operation.shape})"
    if kind == "detach":
        return f"{arrays[0]}.detach()"
    if kind in ("_slice", "_at"):
        start, *stop = attributes["args"]
        return f"{arrays[0]}[{start if not stop else f'{start}:{stop[0]}'}]"
    if kind == "_getitem":
        return f"{arrays[0]}[{', '.join(_part(k, arrays[1:]) for k in attributes['key'])}]"
    if operation.opaque or kind.startswith("_set") or kind[-4:] in ("LSTM", "Cell"):
        raise ParityError(f"{kind} cannot be written as a script of its own")
    options = [f"{key}={value!r}" for key, value in attributes.items()]
    return f"op({kind!r})({', '.join([*arrays, *options])})"


def _part(written: Any, arrays: list[str]) -> str:
    """What stands in a key; see `tape.written_key`."""
    if not isinstance(written, dict):
        return str(written)
    ((what, value),) = written.items()
    if what == "slice":
        return ":".join("" if end is None else str(end) for end in value)
    return str(value) if what == "values" else arrays[value]
