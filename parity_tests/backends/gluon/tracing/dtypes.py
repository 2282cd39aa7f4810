"""The dtypes that a net's own code names: what it gives, and how its copy in another one runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import mxnet as mx
import numpy as np
from mxnet.gluon import Block
from mxnet.ndarray import register
from mxnet.symbol import Symbol

from parity_tests.backends.files.gluon_script import operator_of
from parity_tests.backends.gluon.numpy_mode import as_set, is_on
from parity_tests.backends.runs import Arrays
from parity_tests.backends.tracing import flatten

# Where arrays are made without an operator: the function, and which argument says the dtype
_MAKERS = [
    (mx.ndarray.ndarray, "_new_alloc_handle", 3),
    (mx.numpy.multiarray, "_new_alloc_handle", 3),
    (getattr(mx.nd.numpy._op, "_api_internal", None), "zeros", 1),
]


@contextmanager
def taken_for(names: Container[str], kind: str) -> Iterator[None]:
    """In this context calls that ask for one of these dtypes are given `kind`.

    So a net of float16 runs as its copy in float32, though its code casts to float16. What an
    operator gives in one of them, as `one_hot` gives float32 where it is told no dtype, is of
    `kind` too. Only calls of this thread are: MXNet calls the backward of an `autograd.Function` in
    one of its own.

    Args:
        names: dtypes of floats, such as "float16".
        kind: what is taken for them.

    Examples:
        >>> with taken_for({"float16"}, "float32"):
        ...     mx.nd.ones(2).astype("float16").dtype, mx.nd.zeros(2, dtype="float16").dtype
        (<class 'numpy.float32'>, <class 'numpy.float32'>)
    """
    before = getattr(_TAKEN, "names", ()), getattr(_TAKEN, "kind", "")
    _TAKEN.names, _TAKEN.kind = names, kind
    try:
        with _PATCHED:
            yield
    finally:
        _TAKEN.names, _TAKEN.kind = before


_TAKEN = threading.local()


def _named(dtype: Any) -> Any:
    """What is taken for a dtype in this thread."""
    try:
        meant = dtype is not None and np.dtype(dtype).name in getattr(_TAKEN, "names", ())
    except TypeError:  # one that numpy does not have
        return dtype
    return _TAKEN.kind if meant else dtype


def _cast(made: Any) -> Any:
    """What an operator gives, if it gives floats of one dtype whatever it is given: `one_hot`."""
    if isinstance(made, list):
        return list(map(_cast, made))
    kind = _named(made.dtype)
    return made if kind is made.dtype or np.dtype(kind) == made.dtype else made.astype(kind)


class _Patched:
    """MXNet's functions that are given dtypes, patched while any thread is in this context."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stack = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._patch()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stack.close()

    def _patch(self) -> None:
        invoke = register._imperative_invoke

        def invoked(
            handle: Any, arrays: Any, keys: Sequence[str], values: Sequence[Any], *rest: Any
        ) -> Any:
            taken = [
                _named(value) if key.endswith("dtype") and isinstance(value, str) else value
                for key, value in zip(keys, values, strict=True)
            ]
            if operator_of(handle)[2] and "dtype" not in keys and _named("float32") != "float32":
                # Told no dtype, it would round its numbers to float32
                keys, taken = [*keys, "dtype"], [*taken, _named("float32")]
            made = invoke(handle, arrays, keys, taken, *rest)
            return made if rest and rest[0] is not None else _cast(made)

        def making(make: Callable[..., Any], place: int) -> Callable[..., Any]:
            def made(*args: Any, **kwargs: Any) -> Any:
                args = tuple(_named(x) if i == place else x for i, x in enumerate(args))
                named = {k: _named(v) if k == "dtype" else v for k, v in kwargs.items()}
                return make(*args, **named)

            return made

        self._stack.enter_context(mock.patch.object(register, "_imperative_invoke", invoked))
        for owner, name, place in _MAKERS:
            if hasattr(owner, name):
                made = making(getattr(owner, name), place)
                self._stack.enter_context(mock.patch.object(owner, name, made))


_PATCHED = _Patched()


def given_dtypes(net: Block, inputs: Arrays, kind: str) -> tuple[str, ...]:
    """The dtypes of what a net of dtype `kind` gives, inferred; none where MXNet cannot infer them.

    MXNet runs no convolution and no dense layer in float16 on a CPU.
    """
    names = [f"data{i}" for i in range(len(inputs))]
    dtypes = {
        name: np.dtype(kind) if x.dtype.kind == "f" else x.dtype
        for name, x in zip(names, inputs, strict=True)
    }
    dtypes |= {p.name: np.dtype(p.dtype) for p in net.collect_params().values()}
    try:
        with as_set():
            symbols = [mx.sym.var(name) for name in names]
            out = net(*(s.as_np_ndarray() for s in symbols) if is_on() else symbols)
        graph = mx.sym.Group([y.as_nd_ndarray() for y in flatten(out, Symbol)])
        read = graph.list_inputs()
        _, given, _ = graph.infer_type(**{n: d for n, d in dtypes.items() if n in read})
    except Exception:  # what is no symbol, as a `Block` with code of its own
        return ()
    return tuple(np.dtype(dtype).name for dtype in given or ())
