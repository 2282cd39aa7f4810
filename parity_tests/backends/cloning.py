"""Deep copies of modules, quickly: plain values are shared, everything else is copied.

`copy.deepcopy` of a layer visits some hundred objects, most of them empty dictionaries and numbers;
a parity run copies thousands of layers.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import cache
from typing import Any

_PLAIN_BASES = (bool, int, float, complex, str, bytes, type(None), type)
_PLAIN = frozenset(_PLAIN_BASES)
_DICTS = (dict, OrderedDict)


def duplicate(module: Any, memo: dict[int, Any]) -> Any:
    """A copy of a module, as `copy.deepcopy` with this memo would make it.

    `memo` maps the identity of what has been copied to its copy, and is extended.
    """
    known = memo.get(id(module))
    if known is not None:
        return known
    kind: Any = type(module)
    if not _is_module(kind):
        return copy.deepcopy(module, memo)
    twin = object.__new__(type(module))
    memo[id(module)] = twin
    copies = vars(twin)
    for name, value in vars(module).items():
        plain = type(value) in _PLAIN  # as most are: not worth a call
        copies[name] = value if plain else _copied(value, memo)
    return twin


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in _DICTS:
        twin = kind()
        memo[id(value)] = twin
        if value:  # a layer's dictionaries are mostly empty
            for key, part in value.items():
                twin[key] = _copied(part, memo)
        return twin
    if kind is list:
        parts: list[Any] = []
        memo[id(value)] = parts
        parts.extend(_copied(part, memo) for part in value)
        return parts
    if kind is set and not value:
        return memo.setdefault(id(value), set())
    if isinstance(value, _PLAIN_BASES) or (
        kind is tuple and all(type(part) in _PLAIN for part in value)
    ):
        return value
    if _is_module(kind):
        return duplicate(value, memo)
    return copy.deepcopy(value, memo)


_KNOWN = (
    ("torch.nn.modules.module", "Module"),
    ("mxnet.gluon.block", "Block"),
    ("mxnet.gluon.block", "_BlockScope"),
    ("mxnet.gluon.parameter", "ParameterDict"),
)


_SPECIAL = ("__deepcopy__", "__copy__", "__reduce__", "__getstate__", "__slots__")


@cache
def _is_module(kind: Any) -> bool:
    """Whether instances are a framework's modules, without a way of their own of being copied."""
    known = [cls for cls in kind.__mro__ if (cls.__module__, cls.__name__) in _KNOWN]
    others = [cls for cls in kind.__mro__[:-1] if cls not in known]
    return bool(known) and not any(name in vars(cls) for cls in others for name in _SPECIAL)
