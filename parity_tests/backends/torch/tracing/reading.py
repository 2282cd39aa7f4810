"""What the readers of executed torch calls share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import Arguments, Emit, real

Reader = Callable[[Arguments, Emit], "Operand | list[Operand]"]


def unknown(name: str, args: Arguments, emit: Emit) -> list[Operand]:
    attributes = {
        key: value
        for key, value in args.operation.attributes.items()
        if isinstance(value, (bool, int, float, str, tuple, list))
        and key != "inplace"
        and not key.startswith("_")
    }
    out = emit(name, list(args.arrays.items()), args.shape, **attributes)
    return [emit.output(out, i, s) for i, s in enumerate(args.operation.shapes)]


def identity(args: Arguments, emit: Emit) -> Operand:
    return args.first


def plain(kind: str, **attributes: Any) -> Reader:
    """A kind whose attributes are numbers: argument names with their defaults."""

    def read(args: Arguments, emit: Emit) -> Operand:
        values = {key: real(args.attribute(key, value)) for key, value in attributes.items()}
        return emit(kind, [("input", args.first)], args.shape, **values)

    return read


def dim(args: Arguments, default: Any) -> Any:
    return args.attribute("dim", default)


def fill(names: Sequence[str], reader: Reader) -> dict[str, Reader]:
    return dict.fromkeys(names, reader)
