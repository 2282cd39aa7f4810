"""Nets on arrays of `mx.np`: their own code runs on these, and the rest on those of `mx.nd`.

Source: https://mxnet.apache.org/versions/1.9.1/api/python/docs/api/npx/generated/mxnet.npx.set_np.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any
from unittest import mock

import mxnet as mx
from mxnet.gluon import Block, Parameter
from mxnet.ndarray import NDArray

from parity_tests.backends.files.gluon_script import takes_numpy
from parity_tests.backends.runs import Arrays
from parity_tests.backends.tracing import flatten

_ON: ContextVar[bool] = ContextVar("on", default=False)  # for the nets that are compared


@contextmanager
def set_apart(net: Block) -> Iterator[None]:
    """Arrays are of `mx.nd` in this context, except inside `call`, if the net's are of `mx.np`.

    They are if the user has `npx.set_np()` on, or decorated the net's class by `mx.util.use_np`.
    """
    on = takes_numpy(net) or _ON.get()
    token = _ON.set(on)
    try:
        with mx.util.np_shape(on or mx.util.is_np_shape()), mx.util.np_array(False):
            yield
    finally:
        _ON.reset(token)


def is_on() -> bool:
    """Whether the user's nets run on arrays of `mx.np`."""
    return _ON.get()


def call(function: Callable[..., Any], arrays: Iterable[NDArray]) -> list[NDArray]:
    """What a user's block or loss gives for these arrays, flat; both are arrays of `mx.nd`."""
    if not _ON.get() or getattr(function, "of_operators", False):  # which take both classes
        return list(flatten(function(*arrays), NDArray))
    with as_set():
        out = function(*(x.as_np_ndarray() for x in arrays))
        return [y.as_nd_ndarray() for y in flatten(out, NDArray)]


@contextmanager
def as_set() -> Iterator[None]:
    """A user's net may be run and exported in this context."""
    data = Parameter.data

    def as_numpy(parameter: Parameter, ctx: Any = None) -> NDArray:
        return data(parameter, ctx).as_np_ndarray()

    patch = mock.patch.object(Parameter, "data", as_numpy) if _ON.get() else nullcontext()
    with mx.util.np_array(_ON.get()), patch:
        yield


def run_once(net: Block, inputs: Arrays, kind: str = "float32") -> None:
    """Call a user's net as it is, which settles what waits for inputs; floats are of this dtype."""
    with set_apart(net):
        dtypes = [kind if x.dtype.kind == "f" else x.dtype for x in inputs]
        call(net, [mx.nd.array(x, dtype=d) for x, d in zip(inputs, dtypes, strict=True)])


def like(array: NDArray, other: NDArray) -> NDArray:
    """The array as one of `mx.np` if the other is one: their arithmetic takes no other."""
    return array.as_np_ndarray() if isinstance(other, mx.np.ndarray) else array
