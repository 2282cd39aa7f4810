"""Data out of a pickle without unpickling: nothing that it names is imported or called.

CIFAR-10's "python version" is six pickles of a dictionary. `pickle.load` runs whatever a file says,
so this module reads the opcodes (`pickletools.genops` decodes, and executes nothing) and acts on
the few that plain data needs: numbers, strings, lists, tuples, dictionaries and numpy arrays of
bytes. Anything else is refused. The opcodes are described in the standard library's `pickletools`.
"""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np


class UnsafePickle(ValueError):
    """The pickle asks for more than plain data, or is damaged."""


class _Mark:
    """Where a group begins on the stack."""


class _Name:
    """A global that the pickle mentions: a word here, never looked up."""

    def __init__(self, text: str) -> None:
        self.text = text


class _Dtype:
    """A numpy dtype under construction: only unsigned bytes are known."""


class _Array:
    """A numpy array under construction; `value` is set when its state arrives."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None


_MARK = _Mark()

_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTIES = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")


def read_plain(content: bytes) -> Any:
    """The data in a pickle: built of int, float, bytes, str, list, tuple, dict and uint8 arrays.

    The byte strings of a Python 2 pickle come out as str, a character a byte (Latin-1).

    Raises:
        UnsafePickle: an opcode, a global or an order of them that plain data does not need.
    """
    try:
        return _run(content)
    except UnsafePickle:
        raise
    except Exception as error:  # pickletools and the stack complain in many ways
        raise UnsafePickle(f"damaged: {_shown(str(error) or type(error).__name__)}") from error


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in _LITERALS:
            stack.append(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTIES:
            stack.append(_EMPTIES[name]())
        elif name in _TUPLES:
            length = _TUPLES[name]
            items = tuple(stack[len(stack) - length :])
            del stack[len(stack) - length :]
            stack.append(items)
        elif name in ("TUPLE", "LIST", "DICT"):
            group = _group(stack)
            stack.append(
                tuple(group) if name == "TUPLE" else group if name == "LIST" else _pairs(group)
            )
        elif name in ("APPENDS", "APPEND"):
            group = _group(stack) if name == "APPENDS" else [stack.pop()]
            _expect(stack[-1], list).extend(group)
        elif name in ("SETITEMS", "SETITEM"):
            group = _group(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            _expect(stack[-1], dict).update(_pairs(group))
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_Name(f"{module} {attribute}"))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_made(_expect(stack.pop(), _Name).text, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        elif name == "STOP":
            (value,) = stack
            return _finished(value)
        elif name not in ("PROTO", "FRAME"):
            raise UnsafePickle(f"uses {name}, which plain data does not need")
    raise UnsafePickle("has no end")


def _group(stack: list[Any]) -> list[Any]:
    start = len(stack) - 1 - stack[::-1].index(_MARK)
    group = stack[start + 1 :]
    del stack[start:]
    return group


def _pairs(group: list[Any]) -> dict[Any, Any]:
    return dict(zip(group[::2], group[1::2], strict=True))


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise UnsafePickle(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _made(name: str, arguments: Any) -> Any:
    if name in _RECONSTRUCT:
        return _Array()
    if name == "numpy dtype" and arguments[0] in ("u1", b"u1"):
        return _Dtype()
    if name == "_codecs encode" and arguments[1] == "latin1":  # bytes, as Python 3 writes them
        return _expect(arguments[0], str).encode("latin1")
    raise UnsafePickle(f"asks for {_shown(name)}{arguments!r:.60}; refused")


def _shown(name: str) -> str:
    """A name out of a file, fit for a message."""
    return name if name.isprintable() and len(name) <= 80 else f"{name!r:.80}"


def _build(target: Any, state: Any) -> None:
    if isinstance(target, _Dtype):
        return  # unsigned bytes have no order
    array = _expect(target, _Array)
    _, shape, dtype, fortran, values = state
    _expect(dtype, _Dtype)
    values = values.encode("latin1") if isinstance(values, str) else values
    array.value = np.frombuffer(values, np.uint8).reshape(shape, order="F" if fortran else "C")


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.value is None:
            raise UnsafePickle("an array without values")
        return value.value
    if isinstance(value, dict):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, _Name | _Dtype | _Mark):
        raise UnsafePickle(f"holds a {type(value).__name__[1:].lower()}; expected data")
    return value
