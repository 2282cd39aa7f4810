"""Blocks that are alike as one class: what differs between them are its constructor's arguments."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mxnet_files.reading.names import attribute_name, identifier, numbered
from mxnet_files.writing.layout import Name, literal
from mxnet_files.writing.ops import Op
from mxnet_files.writing.structure import Block, Item, entries_of, is_module, ops_of, out_of

OF_INPUTS = ("input", "expect")  # kinds of operations that are no node of the file
CHANNELS = ("channels", "features", "groups", "num_parameters")
GENERIC = ("", "conv", "dense")  # what layers are called that have no name of their own
NUMBERS = {"mul": "factor", "truediv": "divisor"}  # what the number of an operation is called
CONTAINERS = ("seq", "sequential", "hybridsequential")
OF_A_LAYER = re.compile(r"conv[123]d|rnn\d*")  # what a layer is called within a block of its own


@dataclass(frozen=True)
class Signature:
    """What a slot holds; a layer may be left out of it."""

    key: tuple[Any, ...]
    is_layer: bool


ACTIVATION = Signature(("activation",), is_layer=False)


@dataclass
class Slot:
    """One item of a class: its attribute, and the item that each instance has there, or None."""

    attr: str
    items: list[Item | None]

    @property
    def optional(self) -> bool:
        return any(item is None for item in self.items)

    @property
    def example(self) -> Item:
        return next(item for item in self.items if item is not None)


@dataclass
class Parameter:
    """An argument of a constructor and each instance's value of it (None: it has none)."""

    name: str
    values: list[Any]
    default: Any = None
    has_default: bool = False


@dataclass(eq=False)
class Class:
    """A class or function of the file, and the blocks that are its instances."""

    number: int
    blocks: list[Block]
    is_function: bool = False
    outline: Any = None  # what blocks of other depths must share to join a class
    name: str = ""
    slots: list[Slot] = field(default_factory=list)  # main, or the whole body
    shortcut: list[Slot] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)  # parameters, where a name is taken
    # (attribute of a slot, argument) -> expression of the parameters
    expressions: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def example(self) -> Block:
        return self.blocks[0]

    @property
    def project(self) -> bool:
        """Some instances pass what came in on as it is, others through layers."""
        return any(block.join and not block.shortcut for block in self.blocks) and bool(
            self.shortcut
        )

    @property
    def residual(self) -> bool:
        """Some instances do not join."""
        return any(not block.residual for block in self.blocks)

    def arguments(self, block: Block) -> dict[str, Any]:
        """What one instance is made with."""
        place = self.blocks.index(block)
        return {parameter.name: parameter.values[place] for parameter in self.parameters}


class Classes:
    """The classes of all blocks under `items`, and `items` without the blocks that are alone."""

    def __init__(self, items: Sequence[Item], reserved: Collection[str]) -> None:
        self.items = list(items)
        self.reserved = reserved  # names of the file, which no class's may be
        self.of: dict[Block, Class] = {}
        self.all: list[Class] = []
        by_depth: dict[tuple[bool, int], list[Block]] = defaultdict(list)
        for block in blocks_of(self.items):
            by_depth[depth(block)].append(block)
        for level in sorted(by_depth):  # functions first
            self.group(by_depth[level])
        self.dissolve()
        self.complete()
        used = {self.of[block] for block in blocks_of(self.items)}
        self.all = [each for each in self.all if each in used]
        for each in self.all:
            each.blocks = [block for block in each.blocks if block in set(blocks_of(self.items))]
        self.all.sort(key=lambda each: max(map(depth, each.blocks)))  # inner ones first
        self.name_classes()
        for each in self.all:
            self.lay_out(each)

    # which blocks are alike

    def signature(self, item: Item) -> Signature:
        """Equal for items that one slot can hold."""
        layer = needs_attribute(item, self) and is_module(item)
        if isinstance(item, Block):
            return Signature(("class", self.of[item].number), layer) if layer else ACTIVATION
        return ACTIVATION if is_activation(item) else Signature(item.key, layer)

    def exact(self, item: Item) -> Any:
        """Equal for items that compute the same, arguments of layers aside."""
        if isinstance(item, Block):
            return ("class", self.of[item].number)
        return item.key

    def loose(self, item: Item) -> Any:
        """Equal for items that one number may tell apart, too."""
        if isinstance(item, Block) or item.number is None:
            return self.exact(item)
        callee, inputs, constants, *rest = item.key
        return (callee, inputs, constants.replace(repr(item.number), "number"), *rest)

    def group(self, blocks: Sequence[Block]) -> None:
        """Classes for blocks whose own blocks have theirs."""
        groups: dict[Any, list[Block]] = defaultdict(list)
        for block in blocks:
            groups[self.outline(block)].append(block)
        for key, alike in groups.items():
            if key[0] != "joined":
                self.add(alike, is_function=key[0] == "function")
                continue
            earlier = [each for each in self.all if each.outline == key]
            for members in self.merge([*(b for each in earlier for b in each.blocks), *alike]):
                self.put(members, earlier, key)

    def outline(self, block: Block) -> Any:
        """What two blocks must have in common."""
        if block.body:
            places: dict[Op, int] = {block.entry: -1}
            alike = self.loose if any(op.layer for op in block.ops) else self.exact
            rows = []
            for number, item in enumerate(block.body):
                rows.append((alike(item), tuple(places[op] for op in entries_of(item))))
                places[out_of(item)] = number
            return ("body" if block.has_layers else "function", tuple(rows))
        join = None if block.join is None else (block.join.key, block.main_first)
        if not block.has_layers:
            every = [*block.main, *block.shortcut, *block.tail]
            return ("function", join, len(block.main), tuple(map(self.exact, every)))
        tail = tuple(map(self.signature, block.tail))
        if join is None:
            return ("chain", tuple(map(self.signature, block.main)), tail)
        return ("joined", join, tail)

    def merge(self, blocks: Sequence[Block]) -> list[list[Block]]:
        """Blocks whose chain is another's with items left out, and whose shortcuts agree.

        None of them holds another.
        """
        masters: list[tuple[list[Any], list[Any], list[Block], set[Op]]] = []
        for block in sorted(blocks, key=lambda block: -len(block.main)):
            chain = [self.signature(item) for item in block.main]
            side = [self.signature(item) for item in block.shortcut]
            for whole, other, members, inside in masters:
                fits = subsequence(chain, whole) is not None and 2 * len(chain) >= len(whole)
                agree = not side or not other or side == other
                if fits and agree and inside.isdisjoint(block.ops):
                    members.append(block)
                    inside.update(block.ops)
                    other.extend(side if not other else [])
                    break
            else:
                masters.append((chain, side, [block], set(block.ops)))
        order = {block: number for number, block in enumerate(blocks)}
        return [sorted(members, key=order.__getitem__) for _, _, members, _ in masters]

    def put(self, members: list[Block], earlier: Sequence[Class], outline: Any) -> None:
        """Members of one class, some of whom may be in classes of blocks nested less deeply."""
        new = [block for block in members if block not in self.of]
        owners = [each for each in earlier if set(each.blocks) & set(members)]
        fits = [each for each in owners if set(each.blocks) <= set(members)]
        if not new:
            return
        if len(owners) == len(fits) == 1:
            fits[0].blocks = members
            self.of.update(dict.fromkeys(new, fits[0]))
            return
        for blocks in [members] if not owners else self.merge(new):
            self.add(blocks)
            self.all[-1].outline = outline

    def add(self, blocks: list[Block], is_function: bool = False) -> None:
        made = Class(len(self.all), blocks, is_function)
        self.all.append(made)
        self.of.update(dict.fromkeys(blocks, made))

    def dissolve(self) -> None:
        """Blocks of a class of their own become the items that they consist of, at the top."""
        again = True
        while again:
            again = False
            out: list[Item] = []
            for item in self.items:
                if isinstance(item, Block) and len(self.of[item].blocks) == 1:
                    out += item.items
                    again = True
                else:
                    out.append(item)
            self.items = out

    def complete(self) -> None:
        """Chains at the top that are a residual block's, but for the sum, become one."""
        top = set(blocks_of(self.items))
        masters = [
            each
            for each in self.all
            if not each.is_function and len(each.blocks) > 1 and each.example in top
            if each.example.join is not None and each.example.join.kind == "add"
            if not each.example.tail and not all(block.shortcut for block in each.blocks)
        ]
        words = [tokens(op.name) for item in self.items for op in ops_of(item)]
        root = common_tokens([op for item in self.items for op in ops_of(item)])
        readers: Counter[Op] = Counter()
        for item in self.items:
            readers.update(set(entries_of(item)))
        place = 0
        while place < len(self.items):
            for length in range(max((len(longest(m.blocks)) for m in masters), default=0), 1, -1):
                part = self.items[place : place + length]
                if len(part) < length or not linear(part, readers):
                    continue
                owner = next((each for each in masters if self.fits(part, each, words, root)), None)
                if owner is None:
                    continue
                first = owner.example
                made = Block(entries_of(part[0])[0], out_of(part[-1]), main=part)
                made.main_first, made.residual = first.main_first, False
                owner.blocks.append(made)
                self.of[made] = owner
                self.items[place : place + length] = [made]
                break
            place += 1

    def fits(
        self, part: Sequence[Item], each: Class, words: Sequence[list[str]], root: Sequence[str]
    ) -> bool:
        """A class could hold these items, and MXNet's names do not speak against it."""
        whole = [self.signature(item) for item in longest(each.blocks)]
        chain = [self.signature(item) for item in part]
        if chain[-1] != whole[-1] or subsequence(chain, whole) is None:
            return False
        if any(len(common_tokens(block.ops)) <= len(root) for block in each.blocks):
            return True  # names that do not tell blocks apart
        ops = [op for item in part for op in ops_of(item)]
        scope = common_tokens(ops)
        alike = sum(other[: len(scope)] == scope for other in words)
        return len(scope) > len(root) and alike == len(ops)

    # names, slots and parameters

    def name_classes(self) -> None:
        """Names of what a class is made of."""
        taken: Counter[str] = Counter()
        for each in self.all:
            base = self.describe(each)
            taken[base] += 1
            each.name = base if taken[base] == 1 else f"{base}{taken[base]}"
            while each.name in self.reserved:
                each.name += "_"

    def describe(self, each: Class) -> str:
        block = each.example
        if each.is_function:
            kinds = [op.kind for op in block.ops]
            gates = {
                "sigmoid": "swish",
                "relu6": "hard_swish",
                "hard_sigmoid": "hard_swish",
                "clamp": "hard_swish",
                "tanh": "mish",
            }
            if block.join is not None and block.join.kind == "mul":
                return next((gates[kind] for kind in kinds if kind in gates), "gate")
            return "combine"
        if block.join is None and not block.body and all(one.residual for one in each.blocks):
            parts = [self.part_name(each, place) for place in range(len(block.main))]
            known = [part for part in parts if part]
            if len(known) == len(parts) and len(parts) <= 3:
                return "".join(known)
            moves = {"permute", "transpose", "flatten", "unflatten", "reshape"}
            return "Head" if moves & {op.kind for op in block.ops} else "ConvAct"
        joined = next((one.join for one in each.blocks if one.join is not None), None)
        if joined is None:
            words = {letters("".join(common_tokens(one.ops)[-1:])) for one in each.blocks}
            word = words.pop() if len(words) == 1 else ""
            return word.capitalize() if len(word) > 3 and word not in GENERIC else "Block"
        if joined.kind == "mul":
            pooled = any("pool" in op.kind or op.kind == "mean" for op in block.ops[:1])
            return "SqueezeExcitation" if pooled else "Gate"
        return {"add": "ResidualBlock", "cat2": "DenseLayer"}.get(joined.kind, "Block")

    def part_name(self, each: Class, place: int) -> str:
        """`Conv`, `Norm`, `Relu`."""
        item = each.example.main[place]
        texts = {self.activation_text(block.main[place]) for block in each.blocks}
        if self.signature(item) == ACTIVATION:
            names = {text.rpartition(".")[2].title().replace("_", "") for text in texts if text}
            return names.pop() if len(names) == 1 else "Act"
        if isinstance(item, Block):
            return ""
        for start in ("ConvTranspose", "Conv", "Linear"):
            if item.kind.startswith(start):
                return start
        return "Norm" if "Norm" in item.kind else ""

    def activation_text(self, item: Item) -> str:
        """The function that an activation calls."""
        if isinstance(item, Block):
            return self.of[item].name if self.of[item].is_function else ""
        return item.function

    def lay_out(self, each: Class) -> None:
        """Slots, then parameters."""
        if each.is_function:
            return
        if each.example.body:
            rows: list[list[Item | None]] = [
                list(row) for row in zip(*(b.body for b in each.blocks), strict=True)
            ]
        else:
            whole = longest(each.blocks)
            signs = [self.signature(item) for item in whole]
            columns = []
            for block in each.blocks:
                places = subsequence([self.signature(item) for item in block.main], signs)
                assert places is not None
                column: list[Item | None] = [None] * len(whole)
                for item, where in zip(block.main, places, strict=True):
                    column[where] = item
                columns.append(column)
            rows = [list(row) for row in zip(*columns, strict=True)]
        sides = max((block.shortcut for block in each.blocks), key=len)
        side_rows: list[list[Item | None]] = [
            [block.shortcut[place] if block.shortcut else None for block in each.blocks]
            for place in range(len(sides))
        ]
        names = self.attributes(list(rows), each)
        each.slots = [Slot(name, row) for name, row in zip(names, rows, strict=True)]
        shortcuts = (
            ["shortcut"]
            if len(side_rows) == 1
            else [f"shortcut.{i}" for i in range(len(side_rows))]
        )
        each.shortcut = [Slot(name, row) for name, row in zip(shortcuts, side_rows, strict=True)]
        self.parametrise(each)

    def attributes(self, rows: Sequence[Sequence[Item | None]], each: Class) -> list[str]:
        """Attribute names from MXNet's, numbered afresh where they repeat."""
        first = [next(item for item in row if item is not None) for row in rows]
        bases = [attribute_name(self.row_name(row, each)) for row in rows]
        needs = [needs_attribute(item, self) for item in first]
        # `conv` for a `predictor0_conv` beside which there is no other
        ends = [base.rpartition("_")[2] for base in bases]
        alone = [base for base, needed in zip(bases, needs, strict=True) if needed]
        kept = Counter(base.rpartition("_")[2] for base in dict.fromkeys(alone))
        bases = [
            end if kept[end] == 1 and end.isalpha() else base
            for end, base in zip(ends, bases, strict=True)
        ]
        counts = Counter(base for base, needed in zip(bases, needs, strict=True) if needed)
        seen: Counter[str] = Counter()
        names = []
        for base, needed in zip(bases, needs, strict=True):
            if not needed:
                names.append("activation")
                continue
            seen[base] += 1
            names.append(f"{base}{seen[base]}" if counts[base] > 1 else base)
        return unique(names, needs)

    def row_name(self, row: Sequence[Item | None], each: Class) -> str:
        """What every instance calls an item, beside the names of its own block; its last word."""
        found: dict[str, None] = {}
        for item, owner in zip(row, each.blocks, strict=True):
            if item is not None:
                name = stem(item, len(common_tokens(owner.ops)))
                words = plain_words(re.sub(r"_?\d+$", "", name).split("_"))
                found["_".join(words) or "layer"] = None
        names = list(found)
        ends = {name.rpartition("_")[2] for name in names}
        example = next(item for item in row if item is not None)
        if isinstance(example, Op) and example.layer is None and len(example.held) == 1:
            words = [word for word in map(letters, tokens(example.held[0])) if word]
            return words[-1] if words else "tensor"
        if isinstance(example, Block) and self.of[example].name.startswith("SqueezeExcitation"):
            return "se"
        if len(names) > 1 and len(ends) == 1:
            return ends.pop()
        if len(names) > 1 and isinstance(example, Op) and example.kind.startswith("Conv"):
            return "conv"
        return names[0]

    def made_with(self, item: Item) -> dict[str, Any]:
        """The arguments of an item's constructor; an activation's is the function."""
        if isinstance(item, Block):
            owner = self.of[item]
            return {"activation": Name(owner.name)} if owner.is_function else owner.arguments(item)
        if is_activation(item):
            return {"activation": Name(item.function)}
        if item.number is not None:
            return {NUMBERS.get(item.kind, "number"): item.number}
        return dict(item.layer.args) if item.layer is not None else {}

    def parametrise(self, each: Class) -> None:
        """Arguments that differ become parameters; those that always agree become one."""
        rows: dict[tuple[str, str], list[Any]] = {}
        tails = [
            Slot(f"tail{place}", [block.tail[place] for block in each.blocks])
            for place in range(len(each.example.tail))
        ]
        for slot in [*each.slots, *each.shortcut, *tails]:
            made = [None if item is None else self.made_with(item) for item in slot.items]
            for name in dict.fromkeys(name for one in made if one for name in one):
                rows[slot.attr, name] = [None if one is None else one.get(name) for one in made]
        groups: list[tuple[list[tuple[str, str]], list[Any]]] = []
        for key, values in rows.items():
            known = [value for value in values if value is not None]
            if all(same_value(value, known[0]) for value in known):
                if known:
                    each.expressions[key] = literal(known[0]).flat()
                continue
            for members, merged in groups:
                both = [(a, b) for a, b in zip(values, merged, strict=True) if None not in (a, b)]
                if (
                    category(members[0][1]) == category(key[1])
                    and both
                    and all(same_value(a, b) for a, b in both)
                ):
                    members.append(key)
                    merged[:] = [b if a is None else a for a, b in zip(values, merged, strict=True)]
                    break
            else:
                groups.append(([key], list(values)))
        self.name_parameters(each, groups)
        flags: list[tuple[str, list[bool]]] = []
        for slot in each.slots:
            if slot.optional and needs_attribute(slot.example, self):
                flags.append((slot.attr, [item is not None for item in slot.items]))
        if each.project:
            flags.append(("project", [bool(block.shortcut) for block in each.blocks]))
        if each.residual:
            flags.append(("residual", [block.residual for block in each.blocks]))
        taken = {parameter.name for parameter in each.parameters}
        for name, present in flags:
            default = Counter(present).most_common(1)[0][0]
            shown = name if name not in taken else f"has_{name}"
            each.parameters.append(Parameter(shown, list(present), default, True))

    def name_parameters(
        self, each: Class, groups: list[tuple[list[tuple[str, str]], list[Any]]]
    ) -> None:
        weighted = [slot.attr for slot in each.slots if needs_attribute(slot.example, self)]
        first, last = (weighted[0], weighted[-1]) if weighted else ("", "")
        taken: set[str] = set()
        for members, values in groups:
            kind = category(members[0][1])
            name = members[0][1]
            if kind == "channels":
                entering = any(
                    slot == first and arg.startswith(("in_", "channels")) for slot, arg in members
                )
                leaving = any(
                    slot == last and arg.startswith(("out_", "channels")) for slot, arg in members
                )
                if entering and leaving:
                    name = "channels"
                elif entering or leaving:
                    word = "features" if name.endswith("features") else "channels"
                    name = f"in_{word}" if entering else f"out_{word}"
                elif name != "groups":
                    name = (
                        f"{members[0][0]}_channels" if "mid_channels" in taken else "mid_channels"
                    )
            if name in taken or name in dir(Block):
                name = f"{members[0][0].replace('.', '')}_{members[0][1]}"
            while name in taken:
                name += "_"
            taken.add(name)
            parameter = Parameter(name, values)
            kernel = next((p for p in each.parameters if category(p.name) == "kernel_size"), None)
            if kind == "padding" and kernel is not None and half(values, kernel.values):
                expression = f"{kernel.name} // 2"
            else:
                expression = name
                if name == "in_channels":
                    parameter.values = [
                        entering_channels(block) if value is None else value
                        for value, block in zip(values, each.blocks, strict=True)
                    ]
                    values = parameter.values
                required = ("channels", "kernel_size", "number", *NUMBERS.values())
                if kind not in required or name == "groups" or None in values:
                    known = Counter(value for value in values if value is not None)
                    parameter.default = known.most_common(1)[0][0]
                    if kind == "channels" and name != "groups":
                        parameter.default = 0
                    parameter.has_default = True
                    parameter.values = [parameter.default if v is None else v for v in values]
                each.parameters.append(parameter)
            for member in members:
                each.expressions[member] = expression
        each.parameters.sort(key=written_order)


def entering_channels(block: Block) -> int | None:
    """Channels of what a block reads, if its shape is known."""
    shape = block.entry.shape
    return shape[1] if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else None


def written_order(parameter: Parameter) -> tuple[bool, int]:
    """What has no default first; channels from the first to the last layer, then the kernel."""
    known = ("in_", "channels", "mid_", "", "out_", "kernel_size")
    order = next((i for i, word in enumerate(known) if word and parameter.name.startswith(word)), 3)
    return parameter.has_default, order


def half(values: Sequence[Any], kernels: Sequence[Any]) -> bool:
    """Every padding is half the kernel."""
    pairs = [(v, k) for v, k in zip(values, kernels, strict=True) if None not in (v, k)]
    return all(isinstance(k, int) and v == k // 2 for v, k in pairs)


def same_value(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b


def category(argument: str) -> str:
    """Arguments of one category may become one parameter."""
    if argument.endswith(CHANNELS):
        return "channels"
    known = ("kernel_size", "stride", "output_padding", "padding", "dilation", "activation")
    return next((word for word in known if argument.endswith(word)), argument)


def is_activation(op: Op) -> bool:
    """A function of one array, called by its bare name."""
    return bool(op.function) and op.layer is None


def needs_attribute(item: Item, classes: Classes) -> bool:
    """It has something to keep: a layer, parameters."""
    if isinstance(item, Block):
        return not classes.of[item].is_function
    return item.layer is not None or bool(item.held)


def longest(blocks: Iterable[Block]) -> list[Item]:
    return max((block.main for block in blocks), key=len)


def subsequence(part: Sequence[Any], whole: Sequence[Any]) -> list[int] | None:
    """Places of `part` in `whole`, in order, from the end; None where it does not fit.

    Only layers may be left out: their place is taken by `nn.Identity`, a function has none.
    """
    places: list[int] = []
    last = len(whole)
    for sign in reversed(part):
        last -= 1
        while last >= 0 and whole[last] != sign:
            last -= 1
        if last < 0:
            return None
        places.append(last)
    left_out = set(range(len(whole))) - set(places)
    return None if any(not whole[place].is_layer for place in left_out) else places[::-1]


def linear(part: Sequence[Item], readers: Mapping[Op, int]) -> bool:
    """Each item reads the one before, and nothing else does."""
    return len(set(entries_of(part[0]))) == 1 and all(
        entries_of(after) == [out_of(before)] and readers[out_of(before)] == 1
        for before, after in pairwise(part)
    )


def depth(block: Block) -> tuple[bool, int]:
    """How deep blocks are nested in one; those without layers are functions and do not count."""
    inner = [depth(item) for item in block.items if isinstance(item, Block)]
    alike = [deep for layers, deep in inner if layers == block.has_layers]
    return block.has_layers, 1 + max(alike, default=0)


def blocks_of(items: Iterable[Item]) -> list[Block]:
    """All blocks, inner ones before the outer."""
    found: list[Block] = []
    for item in items:
        if isinstance(item, Block):
            found += [*blocks_of(item.items), item]
    return found


def tokens(name: str) -> list[str]:
    """`net_stage1_conv0_fwd` -> net, stage1, conv0."""
    pieces = [piece for piece in re.split(r"[^A-Za-z0-9]+", name) if piece]
    return pieces[:-1] if len(pieces) > 1 and pieces[-1] == "fwd" else pieces


def common_tokens(ops: Sequence[Op]) -> list[str]:
    """The words that all names begin with."""
    lists = [tokens(op.name) for op in ops if op.kind not in OF_INPUTS]
    found: list[str] = []
    for pieces in zip(*lists, strict=False):
        if len(set(pieces)) > 1:
            break
        found.append(pieces[0])
    return found


def letters(word: str) -> str:
    """`conv0` -> conv."""
    return re.sub(r"\d+$", "", word)


def shorten(order: Sequence[Op]) -> dict[tuple[str, str], str]:
    """Leave out of the names what their words say twice; what became of a word behind another.

    A block within a net is often called by the net: `yolov30_yolooutputv30_conv0` is now
    yolov30_output0_conv0.
    """
    rows = {op: tokens(op.name) for op in order if op.kind not in OF_INPUTS}
    layers = {row[-1] for row in rows.values() if row}
    inner: dict[str, set[str]] = defaultdict(set)
    for row in rows.values():
        for outer, word in pairwise(row):
            inner[outer].add(word)
    short: dict[tuple[str, str], str] = {}
    for outer, words in inner.items():
        if len(words) > 1 and outer not in layers:
            made = {word: without(outer, word) for word in words}
            counts = Counter(made.values())
            short |= {(outer, word): new for word, new in made.items() if counts[new] == 1}
    short = {pair: new for pair, new in short.items() if new != pair[1]}
    for op, row in rows.items():
        if any(pair in short for pair in pairwise(row)):
            op.name = "_".join(shortened(row, short))
    return short


def without(outer: str, word: str) -> str:
    """`yolov30`, `yolooutputv31` -> output1: the net's version goes, too."""
    common = re.sub(r"v?\d*$", "", outer)
    rest = word[len(common) :]
    if len(common) < 3 or not word.startswith(common) or not re.match("[A-Za-z]{3}", rest):
        return word
    return re.sub(r"(?<!con)v\d(?=\d+$)", "", rest)


def shortened(words: Sequence[str], short: Mapping[tuple[str, str], str]) -> list[str]:
    """The words of a name, those left out that `shorten` does."""
    return [*words[:1], *(short.get(pair, pair[1]) for pair in pairwise(words))]


def plain_words(words: Sequence[str]) -> list[str]:
    """seq, 3, exp, conv2d -> exp: without containers and their numbers, and what a layer is."""
    kept: list[str] = []
    before = ""
    for word in words:
        contained = letters(word) in CONTAINERS or (word.isdigit() and before in CONTAINERS)
        if not contained and not (kept and word == letters(kept[-1])):  # normalize0_normalize
            kept.append(word)
        before = word
    while len(kept) > 1 and OF_A_LAYER.fullmatch(kept[-1]):
        kept.pop()
    return ["conv"] if len(kept) == 1 and re.fullmatch(r"conv\dd", kept[0]) else kept or list(words)


def stem(item: Item, prefix: int) -> str:
    """The name of an item beside others that begin with the same `prefix` words."""
    ops = ops_of(item)
    words = common_tokens(ops)[prefix:]
    if not words:
        main = next((op for op in ops if op.layer is not None), ops[0])
        words = tokens(main.name)[prefix:] or tokens(main.name)[-1:]
    return identifier("_".join(words))[:40] if words else "layer"


def unique(names: Sequence[str], needed: Sequence[bool]) -> list[str]:
    """Names made different by a number."""
    taken: set[str] = set()
    out = [
        numbered(name, taken) if keep else name for name, keep in zip(names, needed, strict=True)
    ]
    # functions have no attribute, but their slots must be told apart
    seen = Counter[str]()
    for place, keep in enumerate(needed):
        if not keep:
            seen[out[place]] += 1
            if out[place] in taken or seen[out[place]] > 1:
                out[place] = f"{out[place]}{seen[out[place]]}"
                while out[place] in taken:
                    out[place] += "_"
    return out
