"""What the readers of executed MXNet operators share."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import Arguments, Emit

Reader = Callable[[Arguments, Emit], "Operand | list[Operand]"]


def unknown(args: Arguments, emit: Emit) -> list[Operand]:
    name = args.operation.kind
    attributes = {key: parse(value) for key, value in args.operation.attributes.items()}
    out = emit(name, list(args.arrays.items()), args.shape, **attributes)
    return [emit.output(out, i, s) for i, s in enumerate(args.operation.shapes)]


def parse(text: Any) -> Any:
    """An attribute, which MXNet's C interface takes as text."""
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (SyntaxError, ValueError):
        return text


def attribute(args: Arguments, name: str, default: Any) -> Any:
    value = parse(args.attribute(name))
    return default if value is None or value == "None" else value


def flag(args: Arguments, name: str, default: bool = False) -> bool:
    return bool(attribute(args, name, default))


def identity(args: Arguments, emit: Emit) -> Operand:
    return args.first


def plain(kind: str, **attributes: float) -> Reader:
    return lambda args, emit: emit(kind, [("input", args.first)], args.shape, **attributes)


def fill(names: Sequence[str], reader: Reader) -> dict[str, Reader]:
    return dict.fromkeys(names, reader)


def within(args: Arguments, role: str, length: int) -> Operand | np.ndarray:
    """An array of indices, its numbers where they are known: of those beyond an end the last."""
    index = args.index(role)
    if isinstance(index, np.ndarray) and attribute(args, "mode", "clip") == "clip":
        return index.clip(0, length - 1)
    return index
