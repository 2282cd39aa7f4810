"""The body of a function: one line a value, short ones written within the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mxnet_files.reading.names import local_name, numbered
from mxnet_files.writing.layout import INDENT, Atom, Expr, Infix, call, statement
from mxnet_files.writing.ops import Op

LONGEST_INLINE = 64  # characters of an expression that stands within another
LONGEST_NAME = 40
# A view of a value, which has no name of its own and no line where there is room in the next
VIEWS = {"slice", "reshape", "permute", "transpose", "flatten", "unflatten", "unsqueeze"}
MOVES = VIEWS | {"zeros_like"}
PARTS = {"chunk", "getitem", "squeeze"}  # or some of them
KEPT = VIEWS | {"add", "sub", "mul", "truediv"}  # a value that becomes another of its kind
NOUNS = {
    **dict.fromkeys(("softmax", "log_softmax"), "scores"),
    **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), "mask"),
    **dict.fromkeys(("where", "gather", "take", "index_select"), "chosen"),
    **dict.fromkeys(("argsort", "argmax", "argmin"), "order"),
    "zeros_like": "zeros",
    "box_decode": "boxes",
    "box_nms": "detections",
}
COLUMNS = {"class_index": "class_ids", "score": "scores", "coordinates": "boxes"}  # of box_nms


@dataclass
class Statement:
    """One line of a forward: a value and how it is written."""

    value: Op
    inputs: list[Op]
    build: Callable[[Sequence[Expr]], Expr]
    hint: str
    repeats: bool = False
    section: bool = False  # a method in the place of many lines: what it is given has names
    over: str = ""  # `layer in self.layers`: they go on from the last input, one after the other


class Scope:
    """The local names of one function."""

    def __init__(self, reserved: set[str]) -> None:
        self.taken = set(reserved)
        self.kept: dict[str, str] = {}

    def lasting(self, hint: str) -> str:
        """The name that loops use for one kind of thing, each anew."""
        if hint not in self.kept:
            self.kept[hint] = self.fresh(safe_hint(hint))
        return self.kept[hint]

    def fresh(self, hint: str) -> str:
        return numbered(hint, self.taken)


def name_columns(order: Sequence[Op]) -> None:
    """Say of the values that become the columns of boxes under `box_nms` what they are."""
    for op in order:
        if op.kind == "box_nms" and op.inputs:
            _name_columns(op.inputs[0], {op.settings[key]: noun for key, noun in COLUMNS.items()})


def _name_columns(rows: Op, nouns: Mapping[int, str]) -> None:
    """Name what rows of boxes are joined of; `nouns` by the place of their first number."""
    width, *widths = (op.shape[-1] if op.shape else None for op in (rows, *rows.inputs))
    sizes = [each for each in widths if isinstance(each, int)]
    if set(widths) == {width} and (rows.kind.startswith("cat") or rows.kind in VIEWS):
        for op in rows.inputs:
            _name_columns(op, nouns)
    elif rows.kind.startswith("cat") and len(sizes) == len(widths) and sum(sizes) == width:
        for place, op in enumerate(rows.inputs):
            if noun := nouns.get(sum(sizes[:place])):
                _name(op, noun)


def _name(value: Op, noun: str) -> None:
    """Name a value, and those before it that are the same things."""
    if value.noun or value.kind == "input":
        return
    value.noun = "" if value.several else noun
    if value.kind in VIEWS | PARTS:
        _name(value.inputs[0], noun)
    elif value.kind == "where" and len(value.inputs) > 1:
        _name(value.inputs[1], noun)
    elif value.kind == "add" and noun == "class_ids":  # numbers from 0 on, added to zeros
        for op in value.inputs:
            op.noun = noun if op.kind in ("zeros_like", "mul") and not op.noun else op.noun


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

    A value that only the next line reads is written within it, as long as that stays short; what
    goes from line to line is `x`, what stays for longer has a name that says what it is.
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
    holders = {name: op for op, name in names.items() if not op.optional}  # what a name says now
    lines: list[str] = []

    def expression(op: Op) -> Expr:
        if op in items:
            inner = expression(items[op].inputs[0])
            return items[op].build([inner])
        return pending[op] if op in pending else Atom(variables[op])

    sole = outputs[0] if len(outputs) == 1 else None
    end = len(plainly)
    nouns: dict[Op, str] = {}  # what a value that stays for some lines is called
    carried: dict[Op, list[Op]] = {}  # variables within an expression that waits
    for place, st in enumerate(plainly):
        built = st.build([expression(op) for op in st.inputs])
        nouns[st.value] = st.value.noun or NOUNS.get(st.value.kind, st.hint)
        if st.section:
            nouns[st.value] = st.hint
        elif st.value.kind in VIEWS and len(st.inputs) == 1 and not st.value.noun:
            nouns[st.value] = nouns.get(source(st.inputs[0]), nouns[st.value])
        reads = [v for op in st.inputs for v in carried.get(source(op), [source(op)])]
        final = st.value is sole and place == end - 1
        if final:
            return [*lines, *statement("return ", built, indent=indent)]
        after = plainly[place + 1] if place + 1 < end else None
        shape = shape_of(st) if comments else None
        changed = shape is not None and shape != (reads[0].shape if reads else None)
        longest = LONGEST_INLINE // 2 if comments else LONGEST_INLINE
        short = built.depth < (3 if "self." in built.flat() else 4) and len(built.flat()) <= longest
        alone = uses[st.value] == 1 and not st.value.several and short
        waits = (
            alone
            and after is not None
            and (not changed or st.value.kind in MOVES)  # a line of its own, with the shape
            and last_use[st.value] == place + 1
            and not after.repeats
        )
        returned = alone and sole is None and last_use[st.value] == end and st.value.kind in MOVES
        if waits or returned:
            pending[st.value] = built
            carried[st.value] = reads
            for read in reads:  # alive until the expression is written
                last_use[read] = max(last_use[read], end if returned else place + 1)
            continue
        free = {name for name, op in holders.items() if last_use.get(op, -1) <= place}
        dying = [
            variables[op]
            for op in reads
            if op in variables and variables[op] in free and not op.several and not op.optional
        ]
        if st.over:
            step = "x" if "x" in free or "x" not in scope.taken else scope.fresh("y")
            scope.taken.add(step)
            name = variables[st.value] = scope.fresh(safe_hint(st.hint))
            lines += loop_lines(st, name, built, step, expression(st.inputs[-1]), indent)
            holders[name] = st.value
            holders[step] = Op(step, "step", (), [], st.value.build)  # which nobody reads
            continue
        name = ""
        if not st.value.several:
            named = after is not None and after.section
            passing = not comments or (last_use[st.value] == place + 1 and not named)
            kept = st.value.kind in KEPT and dying[:1] not in ([], ["x"])
            kept = kept and dying[0].startswith(st.value.noun) and not st.section
            # w - mean is no mean
            other = bool(dying) and holders[dying[0]].shape != st.value.shape
            other = other and st.value.kind in KEPT - VIEWS and "x" not in dying
            if dying and (passing or kept) and not other:
                name = "x" if passing and "x" in dying else dying[0]
            if passing and comments and ("x" in free or "x" not in scope.taken):
                name = "x"
        if not name:
            hint = nouns[st.value]
            hints = ["y", "z"] if not comments and "x" in scope.taken else []
            hints = [each for each in hints if each not in scope.taken]
            hint = hints[0] if hints else safe_hint(hint)
            name = hint if hint in free else scope.fresh(hint)
        if name == "x":
            scope.taken.add(name)
        variables[st.value] = name
        holders[name] = st.value
        comment = shape_text(shape) if changed else ""
        lines += statement(f"{name} = ", built, comment, indent)
    values = [expression(op).flat() for op in outputs]
    lines += statement("return ", Atom(", ".join(values)), indent=indent)
    return lines


def loop_lines(
    st: Statement, name: str, before: Expr, step: str, entry: Expr, indent: int
) -> list[str]:
    """A loop over layers: `name` becomes what it was and the result of each, `step` goes along."""
    made = st.value.inputs[len(st.inputs) - 1 :]
    layer = st.over.partition(" ")[0]
    comment = f"{shape_text(made[0].shape)} to {shape_text(made[-1].shape)}"
    return [
        *statement(f"{name} = ", before, indent=indent),
        *(statement(f"{step} = ", entry, indent=indent) if entry.flat() != step else []),
        f"{' ' * INDENT * indent}for {st.over}:",
        *statement(f"{step} = ", call(layer, Atom(step)), comment, indent + 1),
        *statement(f"{name} = ", Infix(Atom(name), "+", Atom(f"({step},)")), indent=indent + 1),
    ]


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
