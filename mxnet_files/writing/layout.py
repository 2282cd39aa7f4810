"""Python expressions laid out as `ruff format --line-length 100` lays them out."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

WIDTH = 100
INDENT = 4


@dataclass(frozen=True)
class Atom:
    """A name, a number, an attribute: what cannot be broken."""

    text: str

    def flat(self) -> str:
        return self.text

    depth = 0


@dataclass(frozen=True)
class Infix:
    """`left operator right`."""

    left: Expr
    operator: str
    right: Expr

    def flat(self) -> str:
        left = _operand(self.left, LEFT.get(self.operator, ""))
        return f"{left} {self.operator} {_operand(self.right, RIGHT.get(self.operator, ''))}"

    @property
    def depth(self) -> int:
        return 1 + max(self.left.depth, self.right.depth)


@dataclass(frozen=True)
class Brackets:
    """`before(items)after`: a call, a list, a tuple, and what follows it on the same line."""

    before: str
    items: tuple[Expr, ...]
    brackets: str = "()"
    after: str = ""
    comma: str = ","  # none between the two halves of a comprehension

    def flat(self) -> str:
        inner = f"{self.comma} ".join(item.flat() for item in self.items)
        comma = "," if self.brackets == "()" and not self.before and len(self.items) == 1 else ""
        return f"{self.before}{self.brackets[0]}{inner}{comma}{self.brackets[1]}{self.after}"

    @property
    def depth(self) -> int:
        return 1 + max((item.depth for item in self.items), default=0)


Expr = Atom | Infix | Brackets


# Operators that an operand may have without parentheses
LEFT = {"+": "+-*/", "-": "+-*/", "*": "*/", "/": "*/"}
RIGHT = {"+": "*/", "-": "*/"}


def _operand(value: Expr, bare: str) -> str:
    enclosed = isinstance(value, Infix) and value.operator not in [*bare]
    return f"({value.flat()})" if enclosed else value.flat()


def call(function: str, *arguments: Expr, **named: Expr) -> Brackets:
    """`function(arguments, name=value)`."""
    keywords = tuple(Atom(f"{name}={value.flat()}") for name, value in named.items())
    return Brackets(function, (*arguments, *keywords))


def loop(made: Expr, over: str) -> Brackets:
    """`*(made for over)`, an argument."""
    return Brackets("*", (made, Atom(f"for {over}")), comma="")


class Name(str):
    """The name of a function, as an argument is: written without quotes."""


def literal(value: Any) -> Expr:
    """A constant of an operator: a number, a word of MXNet's, a dtype, or several of them."""
    if isinstance(value, (tuple, list)):
        brackets = "()" if isinstance(value, tuple) else "[]"
        return Brackets("", tuple(map(literal, value)), brackets)
    if isinstance(value, float) and not math.isfinite(value):
        return Atom(f'float("{value}")')
    if isinstance(value, Name):
        return Atom(value)
    if isinstance(value, str):
        return Atom('"' + repr(value)[1:-1].replace('"', '\\"') + '"')
    if isinstance(value, float):
        return Atom(re.sub(r"e([+-])0", r"e\1", repr(shortest(value))))
    if value is None or isinstance(value, (bool, int, torch.dtype)):
        return Atom(repr(value))
    raise TypeError(f"no literal for {type(value).__name__}")


def shortest(value: float) -> float:
    """0.1 for 0.10000000149011612, which is what MXNet keeps of it: the same in float32."""
    short = float(f"{value:.6g}")
    same = single(value) and struct.pack("f", short) == struct.pack("f", value)
    return short if same else value


def single(value: float) -> bool:
    """A float32 holds it."""
    try:
        return bool(struct.unpack("f", struct.pack("f", value))[0] == value)
    except OverflowError:
        return False


def statement(before: str, value: Expr, comment: str = "", indent: int = 2) -> list[str]:
    """`before value  # comment`, in as many lines as it takes; `indent` in steps of four."""
    margin = " " * INDENT * indent
    lines = _lines(before, value, "", margin)
    if comment:
        lines[-1] += f"  # {comment}"
        if len(lines[-1]) > WIDTH and len(lines) == 1:  # a comment of its own line
            return [f"{margin}# {comment}", *_lines(before, value, "", margin)]
    return lines


def _lines(before: str, value: Expr, after: str, margin: str) -> list[str]:
    flat = f"{margin}{before}{value.flat()}{after}"
    if before and len(flat) > WIDTH and isinstance(value, Infix) and not {*"(["} & {*value.flat()}:
        return [f"{margin}{before}(", f"{margin}{' ' * INDENT}{value.flat()}", f"{margin}){after}"]
    if len(flat) <= WIDTH or not isinstance(value, Brackets) or not value.items:
        return [flat]
    first = f"{margin}{before}{value.before}{value.brackets[0]}"
    last = f"{margin}{value.brackets[1]}{value.after}{after}"
    deeper = margin + " " * INDENT
    inner = ", ".join(item.flat() for item in value.items)
    if value.comma and len(deeper + inner) <= WIDTH:
        return [first, deeper + inner, last]
    return [first, *_each(value.items, deeper, value.comma), last]


def _each(items: Sequence[Expr], margin: str, comma: str) -> Iterable[str]:
    if len(items) == 1 and isinstance(items[0], Brackets) and not items[0].before:
        comma = ""  # a list alone
    for item in items:
        yield from _lines("", item, comma, margin)
