"""The body of a function: one line a value, short ones written within the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mxnet_files.reading.names import local_name
from mxnet_files.writing.layout import Atom, Expr, statement
from mxnet_files.writing.ops import Op

__all__ = ["LONGEST_NAME", "Scope", "Statement", "emit", "shape_text"]

LONGEST_INLINE = 64  # characters of an expression that stands within another
LONGEST_NAME = 40


@dataclass
class Statement:
    """One line of a forward: a value and how it is written."""

    value: Op
    inputs: list[Op]
    build: Callable[[Sequence[Expr]], Expr]
    hint: str
    repeats: bool = False


class Scope:
    """The local names of one function."""

    def __init__(self, reserved: set[str]) -> None:
        self.taken = set(reserved)

    def fresh(self, hint: str) -> str:
        for wanted in (hint, *(f"{hint}_{number}" for number in range(2, 100_000))):
            if wanted not in self.taken:
                self.taken.add(wanted)
                return wanted
        raise AssertionError("unreachable")


def emit(
    statements: Sequence[Statement],
    outputs: Sequence[Op],
    names: dict[Op, str],
    scope: Scope,
    *,
    indent: int = 2,
    comments: bool = False,
) -> list[str]:
    """The lines of a function's body.

    A value that only the next line reads is written within it, as long as that stays short; a name
    is taken again once its value is not needed any more.
    """
    items = {
        st.value: st for st in statements if st.value.kind == "getitem" and len(st.inputs) == 1
    }
    plainly = [st for st in statements if st.value not in items]

    def source(op: Op) -> Op:
        while op in items:
            op = items[op].inputs[0]
        return op

    last_use: dict[Op, int] = {}
    uses: Counter[Op] = Counter()
    for place, st in enumerate(plainly):
        for op in st.inputs:
            uses[op] += 1
            last_use[source(op)] = place
    for op in outputs:
        uses[op] += 1
        last_use[source(op)] = len(plainly)
    pending: dict[Op, Expr] = {}
    variables: dict[Op, str] = dict(names)
    lines: list[str] = []

    def expression(op: Op) -> Expr:
        if op in items:
            inner = expression(items[op].inputs[0])
            return items[op].build([inner])
        return pending[op] if op in pending else Atom(variables[op])

    sole = outputs[0] if len(outputs) == 1 else None
    carried: dict[Op, list[Op]] = {}  # variables within an expression that waits
    for place, st in enumerate(plainly):
        built = st.build([expression(op) for op in st.inputs])
        reads = [v for op in st.inputs for v in carried.get(source(op), [source(op)])]
        final = st.value is sole and place == len(plainly) - 1
        if final:
            return [*lines, *statement("return ", built, indent=indent)]
        after = plainly[place + 1] if place + 1 < len(plainly) else None
        shape = shape_of(st) if comments else None
        changed = shape is not None and shape != (reads[0].shape if reads else None)
        waits = (
            after is not None
            and not changed  # a line of its own, with the shape
            and uses[st.value] == 1
            and last_use[st.value] == place + 1
            and not after.repeats
            and not st.value.several
            and built.depth < (3 if "self." in built.flat() else 4)
            and len(built.flat()) <= (LONGEST_INLINE // 2 if comments else LONGEST_INLINE)
        )
        if waits:
            pending[st.value] = built
            carried[st.value] = reads
            for read in reads:  # alive until the expression is written
                last_use[read] = max(last_use[read], place + 1)
            continue
        dying = [
            variables[op]
            for op in reads
            if op in variables and last_use[op] <= place and not op.several and not op.optional
        ]
        if dying and not st.value.several:
            name = "x" if "x" in dying else dying[0]
        else:
            hints = ["y", "z"] if not comments and "x" in scope.taken else []
            free = [hint for hint in hints if hint not in scope.taken]
            name = scope.fresh(free[0] if free else safe_hint(st.hint))
        variables[st.value] = name
        comment = shape_text(shape) if changed else ""
        lines += statement(f"{name} = ", built, comment, indent)
    values = [expression(op).flat() for op in outputs]
    lines += statement("return ", Atom(", ".join(values)), indent=indent)
    return lines


def safe_hint(hint: str) -> str:
    return local_name(hint.lower())[:LONGEST_NAME]


def shape_of(st: Statement) -> tuple[int, ...] | None:
    return None if st.value.several else st.value.shape


def shape_text(shape: Sequence[Any] | None) -> str:
    """`(N, 64, 56, 56)`."""
    if shape is None:
        return "(…)"
    inner = ", ".join(map(str, shape))
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
