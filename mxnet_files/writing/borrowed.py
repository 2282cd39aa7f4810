"""The source of what a written model brings along: functions and classes of this package."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from mxnet_files.writing.layout import literal

__all__ = ["borrow"]

_NOTE = re.compile(r"\s*# (noqa|type: ignore).*$", re.MULTILINE)
IMPORTS = {
    "math": "import math",
    "np": "import numpy as np",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "Tensor": "from torch import Tensor",
    "Any": "from typing import Any",
}


def borrow(wanted: Iterable[Any]) -> tuple[dict[str, str], set[str]]:
    """Sources by name of everything that `wanted` needs, what is used first; names to import."""
    sources: dict[str, str] = {}
    imports: set[str] = set()

    def visit(thing: Any) -> None:
        if thing.__name__ in sources:
            return
        text = _NOTE.sub("", textwrap.dedent(inspect.getsource(thing))).rstrip()
        sources[thing.__name__] = ""  # against recursion
        scope = vars(inspect.getmodule(thing))
        tree = list(ast.walk(ast.parse(text)))
        names = {node.id for node in tree if isinstance(node, ast.Name)}
        for node in tree:  # mx_dtype.cut(x) of a module of ours becomes cut(x)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = scope.get(node.value.id)
                if isinstance(owner, ModuleType) and owner.__name__.startswith("mxnet_files"):
                    text = re.sub(rf"\b{node.value.id}\.{node.attr}\b", node.attr, text)
                    names.discard(node.value.id)
                    visit(getattr(owner, node.attr))
        for name in sorted(names & scope.keys() - {thing.__name__}):
            value = scope[name]
            if name in IMPORTS:
                imports.add(name)
            elif isinstance(value, ModuleType):
                raise TypeError(f"{thing.__name__} needs the module {name}")
            elif getattr(value, "__module__", "").startswith("mxnet_files"):
                visit(value)
            else:
                sources[name] = f"{name} = {literal(value).flat()}"
        sources[thing.__name__] = sources.pop(thing.__name__) or text

    for thing in wanted:
        visit(thing)
    return sources, imports
