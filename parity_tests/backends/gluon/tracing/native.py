"""MXNet's operators by the handles of its C interface."""

from __future__ import annotations

import ctypes
import functools

from mxnet.base import _LIB, check_call, mx_uint, py_str

__all__ = ["handle_of", "operator_of"]


@functools.cache
def operator_of(handle: int) -> tuple[str, tuple[str, ...]]:
    """An operator's name and the names of its array arguments, by its C handle."""
    name, description, key = ctypes.c_char_p(), ctypes.c_char_p(), ctypes.c_char_p()
    count, kind = mx_uint(), ctypes.c_char_p()
    strings = [ctypes.POINTER(ctypes.c_char_p)() for _ in range(3)]
    check_call(
        _LIB.MXSymbolGetAtomicSymbolInfo(
            ctypes.c_void_p(handle),
            ctypes.byref(name),
            ctypes.byref(description),
            ctypes.byref(count),
            *map(ctypes.byref, strings),
            ctypes.byref(key),
            ctypes.byref(kind),
        )
    )
    names, types, _ = strings
    arguments = [(py_str(names[i]), py_str(types[i])) for i in range(count.value)]
    arrays = tuple(n for n, t in arguments if t.startswith(("NDArray", "Symbol")))
    return py_str(name.value), arrays


@functools.cache
def handle_of(operator: str) -> int:
    """The C handle of an operator."""
    handle = ctypes.c_void_p()
    check_call(_LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
    return int(handle.value or 0)
