"""Branches that are alike and end in one `torch.cat`: heads on features of several sizes.

Such branches are written as one expression in a loop, their layers as an `nn.ModuleList`. So are
the layers that make the smaller of these features, each of the one before; and what makes boxes of
all their results is a method.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mxnet_files.writing.classes import Classes, common_tokens, letters
from mxnet_files.writing.layout import Atom, Brackets, Expr, Infix, call, literal
from mxnet_files.writing.ops import Op
from mxnet_files.writing.structure import Block, Item, Run, entries_of, ops_of, out_of

FEWEST = 3  # branches
FEWEST_OF_METHOD = 5  # lines of a forward that become a method
SUPPRESSING = ("box_nms", "multibox_detection")
LONGEST = 88  # characters of the expression in the loop
_NUMBER = re.compile(r"(\d+):(\d+)|(?<![\w.])(\d+)(?![\w.])")
INDEX = "i"
ROWS = ("layers", "varying", "held")  # in the order of the loop's variables


@dataclass(eq=False)
class Fan:
    """The branches into `out`: what each has of its own, in one row for each part of the loop."""

    out: Op
    axis: Expr
    function: str  # torch.cat or torch.stack
    layers: list[list[Item]] = field(default_factory=list)
    held: list[list[str]] = field(default_factory=list)
    varying: list[list[Op]] = field(default_factory=list)
    shared: list[Op] = field(default_factory=list)
    numbers: range | None = None  # of a loop that counts
    inside: list[Item] = field(default_factory=list)
    body: Expr = field(
        default_factory=lambda: Atom("")
    )  # of the placeholders that `placeholder` makes

    @property
    def entries(self) -> list[Op]:
        """The values that the loop reads."""
        return list(dict.fromkeys([*self.shared, *(op for row in self.varying for op in row)]))

    def written(self, names: Sequence[str], over: Sequence[Expr], shared: Sequence[Expr]) -> Expr:
        """The call, the loop's variables called `names` and running over `over`."""
        values: list[Expr] = [*map(Atom, names)]
        found = {placeholder("row", place): value for place, value in enumerate(values)}
        found |= {placeholder("shared", place): value for place, value in enumerate(shared)}
        made = substitute(self.body, {key: value.flat() for key, value in found.items()})
        if self.numbers is not None:
            sizes = [self.numbers.start, self.numbers.stop, self.numbers.step]
            given = sizes[1:2] if sizes[0] == 0 and sizes[2] == 1 else sizes[: 2 + (sizes[2] != 1)]
            text = f"for {INDEX} in {call('range', *map(literal, given)).flat()}"
        elif len(names) == 1:
            text = f"for {names[0]} in {over[0].flat()}"
        else:
            together = call("zip", *over, strict=literal(True))
            text = f"for {', '.join(names)} in {together.flat()}"
        return call(self.function, Brackets("", (made, Atom(text)), "[]", comma=""), self.axis)


def placeholder(kind: str, place: int) -> str:
    return f"\0{kind}{place}\0"


def find_fans(classes: Classes, outputs: Sequence[Op], pinned: set[Op]) -> list[Item | Fan]:
    """The items of the top, a join of like branches and what is in them as one."""
    items = classes.items
    made = {out_of(item): item for item in items}
    readers: Counter[Op] = Counter()
    for item in items:
        readers.update(set(entries_of(item)))
    readers.update(outputs)
    found: dict[Op, Fan] = {}
    for item in items:
        if isinstance(item, Op) and item.kind in (f"cat{len(item.inputs)}", "stack"):
            fan = _Matcher(classes, made, readers, pinned).fan(item)
            if fan is not None:
                found[item] = fan
    gone = {part for fan in found.values() for part in fan.inside}
    return [
        found.get(item, item) if isinstance(item, Op) else item
        for item in items
        if item not in gone
    ]


class _Matcher:
    """Compares the branches of one join, from its inputs back."""

    def __init__(
        self, classes: Classes, made: dict[Op, Item], readers: Counter[Op], pinned: set[Op]
    ) -> None:
        self.classes = classes
        self.made = made
        self.readers = readers
        self.pinned = pinned

    def fan(self, join: Op) -> Fan | None:
        """A join's branches in a loop, where they are alike."""
        if len(set(join.inputs)) != len(join.inputs) or len(join.inputs) < FEWEST or join.held:
            return None
        whole = join.build([Atom(f"\0{place}\0") for place in range(len(join.inputs))], [])
        if not isinstance(whole, Brackets) or len(whole.items) != 2:
            return None
        self.rows: list[tuple[str, list[object]]] = []
        self.shared: list[Op] = []
        self.inside: list[Item] = []
        bodies = self.match(join.inputs)
        if not self.inside:
            return None
        order = [row for kind in ROWS for row in self.rows if row[0] == kind]
        names = {
            placeholder("raw", self.rows.index(row)): placeholder("row", place)
            for place, row in enumerate(order)
        }
        counting: list[range] = []
        joined = unify([substitute(body, names) for body in bodies], counting)
        if joined is None or len(joined.flat()) > LONGEST or bool(counting) == bool(order):
            return None
        fan = Fan(join, whole.items[1], whole.before, shared=self.shared, inside=self.inside)
        for kind, values in order:
            getattr(fan, kind).append(values)
        fan.numbers = counting[0] if counting else None
        fan.body = joined
        return fan

    def match(self, values: Sequence[Op]) -> list[Expr]:
        """Each branch's expression of one value, alike but for numbers."""
        first = values[0]
        if all(value is first for value in values):
            if first not in self.shared:
                self.shared.append(first)
            return [Atom(placeholder("shared", self.shared.index(first)))] * len(values)
        items = [self.made.get(value) for value in values]
        if any(item is None for item in items) or not self.alike(items, values):  # type: ignore[arg-type]
            return self.row("varying", values)
        self.inside += items  # type: ignore[arg-type]
        example = items[0]
        inputs = [entries_of(item) for item in items]  # type: ignore[arg-type]
        children = [self.match(row) for row in zip(*inputs, strict=True)]
        own: list[list[Expr]] = []
        if isinstance(example, Block):
            owner = self.classes.of[example]
            if owner.is_function:
                own = [[Atom(owner.name)] * len(values)]
            else:
                own = [self.row("layers", items)]
            return [
                call(own[0][place].flat(), *(child[place] for child in children))
                for place in range(len(values))
            ]
        assert isinstance(example, Op)
        if example.layer is not None:
            own.append(self.row("layers", items))
        for place in range(len(example.held)):
            own.append(self.row("held", [item.held[place] for item in items]))  # type: ignore[union-attr]
        return [
            item.build([child[place] for child in children], [x[place].flat() for x in own])  # type: ignore[union-attr]
            for place, item in enumerate(items)
        ]

    def row(self, kind: str, values: Sequence[object]) -> list[Expr]:
        """A variable of the loop."""
        wanted = (kind, list(values))
        if wanted not in self.rows:
            self.rows.append(wanted)
        return [Atom(placeholder("raw", self.rows.index(wanted)))] * len(values)

    def alike(self, items: Sequence[Item], values: Sequence[Op]) -> bool:
        """One expression could say what all of them do, and nobody else reads them."""
        if len(set(items)) < len(items) or any(self.readers[value] != 1 for value in values):
            return False
        if any(value in self.pinned for value in values):
            return False
        first = items[0]
        if isinstance(first, Block):
            owner = self.classes.of[first]
            return all(isinstance(i, Block) and self.classes.of[i] is owner for i in items)
        if first.kind == "input" or first.several or first.optional:
            return False
        return all(
            isinstance(item, Op)
            and item.kind == first.kind
            and len(item.inputs) == len(first.inputs)
            and len(item.held) == len(first.held)
            and (item.layer is None) == (first.layer is None)
            and (item.layer is None or item.key == first.key)
            for item in items
        )


def substitute(value: Expr, names: dict[str, str]) -> Expr:
    """An expression with other names in it."""

    def text(old: str) -> str:
        for name, new in names.items():
            old = old.replace(name, new)
        return old

    if isinstance(value, Atom):
        return Atom(text(value.text))
    if isinstance(value, Infix):
        return Infix(substitute(value.left, names), value.operator, substitute(value.right, names))
    items = tuple(substitute(item, names) for item in value.items)
    return Brackets(text(value.before), items, value.brackets, text(value.after), value.comma)


def unify(values: Sequence[Expr], counting: list[range]) -> Expr | None:
    """One expression for all; numbers that count up become `i`, and their range is noted."""
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        return None
    if isinstance(first, Atom):
        text = _unify_text([value.flat() for value in values], counting)
        return None if text is None else Atom(text)
    if isinstance(first, Infix):
        if len({value.operator for value in values}) > 1:  # type: ignore[union-attr]
            return None
        left = unify([value.left for value in values], counting)  # type: ignore[union-attr]
        right = unify([value.right for value in values], counting)  # type: ignore[union-attr]
        return None if left is None or right is None else Infix(left, first.operator, right)
    around = {(v.brackets, v.comma, len(v.items)) for v in values}  # type: ignore[union-attr]
    before = _unify_text([value.before for value in values], counting)  # type: ignore[union-attr]
    after = _unify_text([value.after for value in values], counting)  # type: ignore[union-attr]
    if len(around) > 1 or before is None or after is None:
        return None
    items = [unify(row, counting) for row in zip(*(v.items for v in values), strict=True)]  # type: ignore[union-attr]
    if any(item is None for item in items):
        return None
    return Brackets(before, tuple(items), first.brackets, after, first.comma)  # type: ignore[arg-type]


def _unify_text(texts: Sequence[str], counting: list[range]) -> str | None:
    if len(set(texts)) == 1:
        return texts[0]
    texts = [re.sub(r"(?<=[\[ ]):(?=\d)", "0:", text) for text in texts]  # [:1] is [0:1]
    if len({_NUMBER.sub("#", text) for text in texts}) > 1:
        return None
    rows = list(zip(*(list(_NUMBER.finditer(text)) for text in texts), strict=True))
    out, end = "", 0
    for row in rows:
        parts = []
        for group in (1, 2, 3):
            if row[0].group(group) is not None:
                part = _counted([int(match.group(group)) for match in row], counting)
                if part is None:
                    return None
                parts.append(part)
        plain = all(part.isdigit() for part in parts)
        out += texts[0][end : row[0].start()] + (":" if plain else " : ").join(parts)
        end = row[0].end()
    return out + texts[0][end:]


def _counted(numbers: Sequence[int], counting: list[range]) -> str | None:
    """Numbers as `i`, or as it and something."""
    if len(set(numbers)) == 1:
        return str(numbers[0])
    step = numbers[1] - numbers[0]
    made = range(numbers[0], numbers[-1] + step, step) if step > 0 else range(0)
    if list(made) != list(numbers):
        return None
    if not counting:
        counting.append(made)
    if counting[0].step != step or len(counting[0]) != len(made):
        return None
    apart = made.start - counting[0].start
    return INDEX if apart == 0 else f"{INDEX} {'+' if apart > 0 else '-'} {abs(apart)}"


@dataclass(eq=False)
class Ladder:
    """Layers of one form, each of what the one before gives, whose results loops run over.

    `row` are the values of those loops: the results of the `steps` come last in it.
    """

    steps: list[list[Item]]
    row: list[Op]

    @property
    def entry(self) -> Op:
        """What the first of the layers reads."""
        return entries_of(self.steps[0][0])[0]

    @property
    def before(self) -> list[Op]:
        """The values that others give."""
        return self.row[: -len(self.steps)]


Part = Item | Run | Fan | Ladder


def read_by(part: Part) -> list[Op]:
    """The values that a part of the top reads."""
    if isinstance(part, Fan):
        return part.entries
    if isinstance(part, Ladder):
        return [*part.before, part.entry]
    return [part.entry] if isinstance(part, Run) else entries_of(part)


def find_ladders(
    parts: Sequence[Part], classes: Classes, outputs: Sequence[Op], pinned: set[Op]
) -> list[Part]:
    """The parts of the top, each ladder as one, before the loop that is the first to run over it.

    `pinned` are the operations whose layers others use, too.
    """
    climber = _Climber(parts, classes, {*outputs}, pinned)
    before: dict[Part, list[Ladder]] = defaultdict(list)
    gone: set[Part] = set()
    rows = {
        tuple(row): fan for fan in reversed(parts) if isinstance(fan, Fan) for row in fan.varying
    }
    for row, fan in rows.items():
        steps = climber.climb(row)
        taken = {part for step in steps for part in step}
        if steps and gone.isdisjoint(taken):
            gone |= taken
            before[fan].append(Ladder([_members(step) for step in steps], list(row)))
    out: list[Part] = []
    for part in parts:
        out += before[part]
        if part not in gone:
            out.append(part)
    return out


class _Climber:
    """Finds the layers that lead from one value of a loop to the next."""

    def __init__(
        self, parts: Sequence[Part], classes: Classes, outputs: set[Op], pinned: set[Op]
    ) -> None:
        self.classes, self.outputs, self.pinned = classes, outputs, pinned
        self.made: dict[Op, Item | Run] = {}
        self.readers: dict[Op, set[Part]] = defaultdict(set)
        for part in parts:
            if not isinstance(part, (Fan, Ladder)):
                self.made[part.out if isinstance(part, Run) else out_of(part)] = part
            for op in read_by(part):
                self.readers[op].add(part)

    def climb(self, row: Sequence[Op]) -> list[list[Item | Run]]:
        """The steps to the last values of a row, each from the value before; none if too few."""
        steps: list[list[Item | Run]] = []
        for place in reversed(range(len(row))):
            step = self.step(row[place], None if steps else row[place - 1], len(steps and steps[0]))
            if not step or (steps and self.form(step) != self.form(steps[0])):
                break
            others = self.readers[row[place]] - {part for after in steps[:1] for part in after[:1]}
            if row[place] in self.outputs or not all(
                isinstance(part, Fan) and list(row) in part.varying for part in others
            ):
                break
            steps.insert(0, step)
            if place == 0 or read_by(step[0])[0] is not row[place - 1]:
                break
        return steps if len(steps) >= FEWEST else []

    def step(self, value: Op, start: Op | None, count: int) -> list[Item | Run]:
        """The layers that give a value, back to that which `start` is, or so many."""
        found: list[Item | Run] = []
        while not found or (value is not start if start is not None else len(found) < count):
            part = self.made.get(value)
            inner = found and (self.readers[value] != {found[0]} or value in self.outputs)
            if part is None or inner or not self.is_layer(part):
                return []
            found.insert(0, part)
            value = read_by(part)[0]
        return found

    def is_layer(self, part: Item | Run) -> bool:
        """It is called with one array alone."""
        if isinstance(part, Run):
            return True
        if isinstance(part, Block):
            return not self.classes.of[part].is_function
        plain = part.layer is not None and len(part.inputs) == 1 and not part.held
        return plain and part not in self.pinned and part.build([Atom("x")], ["f"]).flat() == "f(x)"

    def form(self, step: Sequence[Item | Run]) -> Any:
        """Equal for steps that differ in arguments alone, and in the numbers of their names."""
        members = _members(step)
        words = common_tokens([op for member in members for op in ops_of(member)])
        kinds = [self.classes.of[m] if isinstance(m, Block) else m.key for m in members]
        return kinds, [letters(word) for word in words]


def _members(step: Sequence[Item | Run]) -> list[Item]:
    """The layers of a step, those of runs one by one."""
    found: list[Item] = []
    for part in step:
        found += part.blocks if isinstance(part, Run) else [part]
    return found


def find_sections(
    parts: Sequence[Part], classes: Classes, outputs: Sequence[Op]
) -> dict[str, list[int]]:
    """What makes boxes of the results of layers: places among the parts, by a method's name.

    No layer comes in between. The last gives all outputs, each one before it a value that layers
    behind it read. They `detect` where boxes have classes, and `propose` them where not.
    """
    made = {op: place for place, part in enumerate(parts) for op in given_by(part)}
    reads = [{made[op] for op in read_by(part) if op in made} for part in parts]
    readers = [
        {user for user, row in enumerate(reads) if place in row} for place in range(len(parts))
    ]

    def needed(places: Iterable[int]) -> set[int]:
        found = {*places}
        for place in reversed(range(len(parts))):
            found |= reads[place] if place in found else set()
        return found

    layers = {place for place, part in enumerate(parts) if has_layers(part, classes)}
    ends = [
        place
        for place, part in enumerate(parts)
        if isinstance(part, Op) and part.kind in SUPPRESSING
    ]
    before = needed(layers)
    found: list[tuple[str, set[int]]] = []
    last = [place for place in ends if place not in before]
    for group in (*([place] for place in ends if place in before), last):
        whole = needed(group)
        inside = whole - needed(whole & layers)
        for place in range(min(group, default=len(parts)), len(parts)):
            alone = group is last or len(readers[max(inside)]) == 1
            if reads[place] and reads[place] <= inside and alone and place not in layers:
                inside.add(place)
        given = {each for each in inside if not readers[each] <= inside}
        given |= {made[op] for op in outputs if made.get(op) in inside}
        results = {made.get(op) for op in outputs}
        final = given <= results <= inside
        single = given == {max(inside, default=-1)} and results.isdisjoint(given)
        if len(inside) >= FEWEST_OF_METHOD and (final if group is last else single):
            ranked = any(has_classes(parts[place]) for place in group)
            found.append(("detect" if ranked else "propose", inside))
    names = [name for name, _ in found]
    return {
        f"{name}_{count}" if (count := names[:number].count(name) + 1) > 1 else name: sorted(places)
        for number, (name, places) in enumerate(found)
    }


def has_classes(part: Part) -> bool:
    """Boxes of one class alone suppress each other."""
    return isinstance(part, Op) and bool(part.settings.get("class_index", 0) >= 0)


def given_by(part: Part) -> list[Op]:
    """The values that a part of the top gives."""
    if isinstance(part, Ladder):
        return part.row[-len(part.steps) :]
    return [out_of(part)] if isinstance(part, (Op, Block)) else [part.out]


def has_layers(part: Part, classes: Classes) -> bool:
    if isinstance(part, Fan):
        return bool(part.layers)
    if isinstance(part, Op):
        return part.layer is not None
    return not (isinstance(part, Block) and classes.of[part].is_function)
