"""Names the arguments of torch calls: those of Python by signature, compiled ones by schema."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import torch

_SPECIAL_NAMES = {
    "truediv": "div", "floordiv": "floor_divide", "rtruediv": "rdiv", "__rmatmul__": "rmatmul",
    "itruediv": "div", "imul": "mul", "iadd": "add", "isub": "sub",
}  # fmt: skip
SPELLINGS = {"self": "input", "axis": "dim", "keepdims": "keepdim", "x": "input"}


def call_name(func: Any) -> str:
    """A call's name without what only says how it was spelt: `__iadd__` and `add_` are add."""
    name = str(func.__name__).partition(".")[0]  # an operator of one overload: `sum.default`
    if name == "__get__":
        return str(func.__self__.__name__)
    if name.startswith("__"):
        name = name.strip("_")
        return _SPECIAL_NAMES.get(name, name)
    return name


def bind(func: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> dict[str, Any]:
    """The call's arguments by name, with the defaults that were not given."""
    given = {SPELLINGS.get(key, key): value for key, value in kwargs.items()}
    given.pop("return_indices", None)  # F's pools choose one of two operators by it
    signature = _signature(func)
    if signature is not None and "args" not in signature.parameters:
        return _bind_python(signature, args, kwargs)
    bare = name.removesuffix("_") if not name.startswith("_") else name
    # x.view(2, -1) is a call with one list, and the 1 of x.var(1) an axis, and not true
    for spread, strict in ((False, True), (False, False), (True, False)):
        for arguments in _schemas(bare):
            bound = _match(arguments, args, given, spread=spread, strict=strict)
            if bound is not None:
                return bound
    if signature is not None:
        return _bind_python(signature, args, kwargs)
    return {f"arg.{i}": value for i, value in enumerate(args)} | given


def _signature(func: Any) -> inspect.Signature | None:
    """Of a Python function; one that wraps a compiled method, as `**` does, has none."""
    if not isinstance(func, FunctionType):
        return None
    try:
        return inspect.signature(func)
    except ValueError:
        return None


def _bind_python(signature: inspect.Signature, args: Any, kwargs: Any) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return {f"arg.{i}": value for i, value in enumerate(args)} | dict(kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        if isinstance(value, dict) and key == "kwargs":
            named.update(value)
        else:
            named[SPELLINGS.get(key, key)] = value
    return named


_Argument = tuple[str, str, object, bool, bool]


@functools.cache
def _schemas(name: str) -> tuple[tuple[_Argument, ...], ...]:
    """Names, types, defaults of each form's arguments; whether they have one, are only named."""
    found = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    return tuple(
        tuple(
            (
                SPELLINGS.get(a.name, a.name),
                str(a.type),
                a.default_value,
                a.has_default_value(),
                a.kwarg_only,
            )
            for a in schema.arguments
        )
        for schema in found
        if not any(argument.is_out for argument in schema.arguments)
    )


_LISTS = {"List[int]": int, "List[Tensor]": torch.Tensor}


def _match(
    arguments: Sequence[_Argument],
    args: Sequence[Any],
    given: Mapping[str, Any],
    *,
    spread: bool,
    strict: bool,
) -> dict[str, Any] | None:
    """Arguments by name if a call fits this form of the operator, else None.

    `strict`: no number stands for true or false.
    """
    names = [name for name, *_ in arguments]
    if spread:
        kind = arguments[1][1] if len(arguments) > 1 else ""
        of = next((c for words, c in _LISTS.items() if kind.startswith(words)), None)
        if of is None or not all(isinstance(value, of) for value in args[1:]):
            return None
        args = (args[0], tuple(args[1:]))
    positional = sum(not named for *_, named in arguments)
    if len(args) > positional or not set(given) <= set(names):
        return None
    bound = dict(zip(names, args, strict=False)) | dict(given)
    for name, kind, default, optional, _ in arguments:
        # F.max_pool2d(x, 2) hands on stride=None, for a list that is not optional
        if name not in bound or (bound[name] is None and optional and not _fits(None, kind)):
            if not optional:
                return None
            bound[name] = default
        elif not _fits(bound[name], kind) or (
            strict and kind == "bool" and not isinstance(bound[name], bool)
        ):
            return None
    return bound


def _fits(value: Any, kind: str) -> bool:
    if value is None:
        return kind.startswith("Optional")
    if isinstance(value, torch.Tensor):
        return "Tensor" in kind and "List" not in kind
    if isinstance(value, str):
        return "str" in kind
    if isinstance(value, (tuple, list)):
        if any(isinstance(x, torch.Tensor) for x in value):
            return "List[" in kind and "Tensor" in kind
        return "List[" in kind and "Tensor" not in kind
    return "Tensor" not in kind and "str" not in kind
