"""The source of what a written model brings along: functions and classes of this package."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from mxnet_files.writing.layout import literal

_NOTE = re.compile(r"\s*# (noqa|type: ignore).*$", re.MULTILINE)
_LONG = re.compile(r"^(?=.{101})(def \w+)\((.+)\)( -> .+:)$", re.MULTILINE)
IMPORTS = {
    "math": "import math",
    "torch": "import torch",
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "Tensor": "from torch import Tensor",
    "Any": "from typing import Any",
}


class Borrowed:
    """What a written model brings along, under names that are unique in the file.

    A definition keeps its own name while it is the only one of that name; the next of the name is
    called by its module too, `math_reduce_sum` beside `reduce_sum` of `mx_numpy`.
    """

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], str] = {}  # by module and name there
        self.owners: dict[str, tuple[str, str]] = {}
        self.constants: dict[tuple[str, str], str] = {}  # what each one is, as source

    def name(self, thing: Any) -> str:
        """What a function or class of this package is called in the file."""
        return self.called(thing.__module__, thing.__qualname__)

    def called(self, module: str, own: str, constant: str = "") -> str:
        """The name of what `module` calls `own`; constants of one value share theirs."""
        key = (module, own)
        if key in self.names:
            return self.names[key]
        wanted, number = own, 1
        while wanted in self.owners and not (
            constant and self.constants.get(self.owners[wanted]) == constant
        ):
            wanted = longer(module, own) if number == 1 else f"{longer(module, own)}_{number}"
            number += 1
        self.owners.setdefault(wanted, key)
        self.names[key] = wanted
        if constant:
            self.constants[key] = constant
        return wanted

    def sources(self, wanted: Iterable[Any]) -> tuple[dict[str, str], set[str]]:
        """Sources by name of all that `wanted` needs, what is used first; names to import."""
        found: dict[str, str] = {}
        imports: set[str] = set()

        def reference(scope: dict[str, Any], module: str, name: str) -> str:
            """What a global name of a module is called in the file."""
            value = scope[name]
            if name in IMPORTS:
                imports.add(name)
                return name
            if isinstance(value, ModuleType):
                raise TypeError(f"{module} needs the module {name} for itself")
            if getattr(value, "__module__", "").startswith("mxnet_files"):
                visit(value)
                return self.name(value)
            text = literal(value).flat()
            called = self.called(module, name, text)
            found.setdefault(called, f"{called} = {text}")
            return called

        def visit(thing: Any) -> None:
            called = self.name(thing)
            if called in found:
                return
            found[called] = ""  # against recursion
            text = _NOTE.sub("", textwrap.dedent(inspect.getsource(thing))).rstrip()
            module = thing.__module__
            scope = vars(sys.modules[module])
            edits: dict[ast.expr, str] = {}
            for node in global_names(ast.parse(text)):
                root = node if isinstance(node, ast.Name) else node.value
                assert isinstance(root, ast.Name)
                value: Any = scope.get(root.id)
                ours = isinstance(value, ModuleType) and value.__name__.startswith("mxnet_files")
                if ours and isinstance(node, ast.Attribute):  # mx_dtype.cut(x) becomes cut(x)
                    edits[node] = reference(vars(value), value.__name__, node.attr)
                elif root.id in scope and not ours:
                    edits[root] = reference(scope, module, root.id)
            text = edited(text, edits)
            text = re.sub(rf"^(def|class) {thing.__name__}\b", rf"\1 {called}", text, flags=re.M)
            text = _LONG.sub(r"\1(\n    \2\n)\3", text)
            del found[called]  # behind what it uses
            found[called] = text

        for thing in wanted:
            visit(thing)
        return found, imports


def longer(module: str, name: str) -> str:
    """A name that tells the module too."""
    last = module.rpartition(".")[2].removeprefix("mx_")
    if name[:1].isupper():  # one takes its weights as arguments, the other owns them
        return f"Functional{name}" if last == "layers" else f"{name}Layer"
    return f"_{last}{name}" if name.startswith("_") else f"{last}_{name}"


def global_names(tree: ast.AST) -> Iterator[ast.Name | ast.Attribute]:
    """Names, and attributes of names, that no function around them binds."""

    def within(node: ast.AST, bound: frozenset[str]) -> Iterator[ast.Name | ast.Attribute]:
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            inner = list(ast.walk(node))
            bound |= {each.arg for each in inner if isinstance(each, ast.arg)}
            bound |= {
                each.id
                for each in inner
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id not in bound:
                yield node
            return
        if isinstance(node, ast.Name) and node.id not in bound:
            yield node
        for child in ast.iter_child_nodes(node):
            yield from within(child, bound)

    return within(tree, frozenset())


def edited(text: str, edits: Mapping[ast.expr, str]) -> str:
    """Source with these expressions, each on one line, written otherwise."""
    lines = text.encode().split(b"\n")  # ast counts bytes
    for node in sorted(edits, key=lambda each: each.col_offset, reverse=True):
        line = lines[node.lineno - 1]
        assert node.end_lineno == node.lineno
        after = line[node.end_col_offset :]
        lines[node.lineno - 1] = line[: node.col_offset] + edits[node].encode() + after
    return b"\n".join(lines).decode()
