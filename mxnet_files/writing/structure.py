"""What repeats in a graph: a convolution with its norm and activation, a residual block, a gate.

A block has one array coming in and one going out. Most are a chain of items, joined at the end with
what came in (`x + f(x)`, `x * f(x)`, `cat(x, f(x))`), some have several branches. Blocks nest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mxnet_files.writing.ops import Op

LARGEST_BLOCK = 400  # operations
WEIGHTED = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Linear")
POOLS = ("pool", "Dropout", "chunk", "getitem")
SCALAR = ("add", "sub", "mul", "truediv")


@dataclass(eq=False)
class Block:
    """Items between the value `entry` and the value `out`, of which nothing else is seen outside.

    `main` is a chain; with a `join` its result and that of `shortcut` (empty: the entry itself)
    are the inputs of `join`, which `tail` follows. A block of branches has its items, in order, in
    `body` instead.
    """

    entry: Op
    out: Op
    main: list[Item] = field(default_factory=list)
    join: Op | None = None
    shortcut: list[Item] = field(default_factory=list)
    tail: list[Op] = field(default_factory=list)
    body: list[Item] = field(default_factory=list)
    main_first: bool = True  # the chain is the join's first input
    residual: bool = True  # False where a class whose instances join has one that does not

    @property
    def items(self) -> list[Item]:
        """What the block consists of, in order."""
        joined = [] if self.join is None else [self.join]
        return [*self.main, *self.shortcut, *joined, *self.tail, *self.body]

    @property
    def ops(self) -> list[Op]:
        """All operations, those of nested blocks included."""
        return [op for item in self.items for op in ops_of(item)]

    @property
    def has_layers(self) -> bool:
        return any(op.layer is not None or op.held for op in self.ops)


Item = Op | Block


@dataclass(eq=False)
class Run:
    """Blocks of one class, one after the other: an nn.Sequential."""

    blocks: list[Block]

    @property
    def entry(self) -> Op:
        return self.blocks[0].entry

    @property
    def out(self) -> Op:
        return self.blocks[-1].out


def ops_of(item: Item) -> list[Op]:
    """The operations of an item."""
    return [item] if isinstance(item, Op) else item.ops


def out_of(item: Item) -> Op:
    """The value that an item gives."""
    return item if isinstance(item, Op) else item.out


def entries_of(item: Item) -> list[Op]:
    """The values that an item reads."""
    return item.inputs if isinstance(item, Op) else [item.entry]


def find_blocks(order: Sequence[Op], outputs: Sequence[Op]) -> list[Item]:
    """The operations in order, those of blocks gathered."""
    return _Finder(order, outputs).run()


def shared(order: Sequence[Op]) -> set[Op]:
    """Operations whose layer or tensors another uses, too: those stay where both uses see them."""
    layers = Counter(id(op.layer) for op in order if op.layer is not None)
    held = Counter(path for op in order for path in op.held)
    return {
        op
        for op in order
        if (op.layer is not None and layers[id(op.layer)] > 1)
        or any(held[path] > 1 for path in op.held)
    }


class _Finder:
    def __init__(self, order: Sequence[Op], outputs: Sequence[Op]) -> None:
        self.order = [op for op in order if op.kind != "input"]
        self.place = {op: number for number, op in enumerate(order)}
        self.outputs = set(outputs)
        self.users: dict[Op, list[Op]] = defaultdict(list)
        for op in self.order:
            for source in dict.fromkeys(op.inputs):
                self.users[source].append(op)
        self.pinned = shared(self.order)
        self.owner: dict[Op, Block] = {}  # outermost block of an operation
        self.constant: set[Op] = set()  # what no input leads to

    def run(self) -> list[Item]:
        self.join_regions()
        items = self.top()
        return _Units(self, items).gather(items)

    def top(self) -> list[Item]:
        """Blocks and the operations outside them; a block stands where its result does."""
        blocks = {block.out: block for block in self.owner.values()}
        return [blocks.get(op, op) for op in self.order if op not in self.owner or op in blocks]

    def readers(self, op: Op) -> list[Op]:
        """Who uses a value; all of a block counts as one, by its result."""
        found = []
        for user in self.users[op]:
            block = self.owner.get(user)
            found.append(
                block.out if block is not None and block is not self.owner.get(op) else user
            )
        return list(dict.fromkeys(found))

    # joins

    def join_regions(self) -> None:
        """Every join whose inputs come from one value makes a block, inner ones first."""
        dominators = self.dominators()
        for join in self.order:
            if len(set(join.inputs)) < 2 or join.several or join in self.owner:
                continue
            entry = dominators[join]
            if entry is not None and entry.kind == "chunk" and len(entry.inputs) == 1:
                entry = entry.inputs[0]  # the block cuts what comes in
            if entry is None or entry.several:
                continue
            inside = self.region(join, entry)
            if inside is None or (inside & self.constant and not any(op.layer for op in inside)):
                continue
            self.take(self.block(join, entry, inside), inside)

    def dominators(self) -> dict[Op, Op | None]:
        """The nearest value through which everything an operation reads has come."""
        found: dict[Op, Op | None] = {}
        depth: dict[Op | None, int] = {None: 0}

        def meet(a: Op | None, b: Op | None) -> Op | None:
            while a is not b:
                if depth[a] >= depth[b]:
                    assert a is not None
                    a = found[a]
                else:
                    assert b is not None
                    b = found[b]
            return a

        for op in self.place:
            sources = [source for source in dict.fromkeys(op.inputs) if source not in self.constant]
            if not sources and op.kind != "input":
                self.constant.add(op)
            common: Op | None = None
            for number, source in enumerate(sources):
                common = source if number == 0 else meet(common, source)
            found[op] = common
            depth[op] = depth[common] + 1
        return found

    def region(self, join: Op, entry: Op) -> set[Op] | None:
        """The operations between two values, if nothing else sees them."""
        inside, stack = {join}, [join]
        while stack:
            for source in stack.pop().inputs:
                if source is not entry and source not in inside:
                    inside.add(source)
                    stack.append(source)
            if len(inside) > LARGEST_BLOCK:
                return None
        for op in inside:
            if op in self.pinned or op.kind == "input":
                return None
            if op is not join and (
                op in self.outputs or any(u not in inside for u in self.users[op])
            ):
                return None
        return inside

    def block(self, join: Op, entry: Op, inside: set[Op]) -> Block:
        """As a joined chain where it is one."""
        sources = list(dict.fromkeys(join.inputs))
        if len(sources) == 2 and len(join.inputs) == 2:
            chains = [self.chain(source, entry) for source in sources]
            first, second = chains
            if first is not None and second is not None and sum(map(len, chains)) > 0:  # type: ignore[arg-type]
                used = [op for chain in chains for item in chain for op in ops_of(item)]  # type: ignore[union-attr]
                alone = not first or not second or join.kind == "add"
                if alone and len(used) == len(set(used)) and {*used, join} == inside:
                    main_first = len(first) >= len(second)
                    main, shortcut = (first, second) if main_first else (second, first)
                    if all(map(is_module, shortcut)):
                        return Block(entry, join, main, join, shortcut, main_first=main_first)
        members = sorted(inside, key=self.place.__getitem__)
        outs = {block.out: block for block in map(self.owner.get, members) if block is not None}
        body = [outs.get(op, op) for op in members if op not in self.owner or op in outs]
        return Block(entry, join, body=list(body))

    def chain(self, last: Op, entry: Op) -> list[Item] | None:
        """The items from `entry` to `last`, one after the other."""
        items: list[Item] = []
        while last is not entry:
            item: Item = self.owner.get(last, last)
            sources = list(dict.fromkeys(entries_of(item)))
            if out_of(item) is not last or len(sources) != 1:
                return None
            items.append(item)
            last = sources[0]
        return items[::-1]

    def take(self, block: Block, inside: set[Op]) -> None:
        """Let the block own its operations, and the activation, scaling or shuffle that follows."""
        while True:
            after = self.users[block.out]
            if len(after) != 1 or block.out in self.outputs:
                break
            (user,) = after
            sole = len(set(user.inputs)) == 1 and user.layer is None and not user.held
            scaling = not block.has_layers and user.kind in SCALAR
            activation = (
                block.has_layers
                and user.function
                and block.join is not None
                and user.kind != "dropout"
            )
            if not sole or user in self.pinned or not (scaling or activation) or block.body:
                break
            block.tail.append(user)
            block.out = user
            inside.add(user)
        if block.body and block.has_layers:
            shuffle = self.shuffle(block.out)
            block.body += shuffle
            block.out = shuffle[-1] if shuffle else block.out
            inside.update(shuffle)
        for op in inside:
            self.owner[op] = block

    def shuffle(self, value: Op) -> list[Op]:
        """The views that follow and end in the shape of the value: channels in another order."""
        views: list[Op] = []
        last = value
        while last not in self.outputs and len(self.users[last]) == 1:
            (last,) = self.users[last]
            if last.kind not in ("reshape", "unflatten", "transpose", "permute", "flatten"):
                break
            views.append(last)
            if last.shape is not None and last.shape == value.shape:
                return views if len(views) > 1 else []
        return []


class _Units:
    """A layer with weights, and what follows it in a chain, where that repeats."""

    def __init__(self, finder: _Finder, items: list[Item]) -> None:
        self.finder = finder
        self.users = finder.users
        self.chains: dict[Op, list[Item]] = {}
        for level in levels(items):
            self.collect(level)
        prefixes = Counter(
            tuple(map(unit_key, chain[:length]))
            for chain in self.chains.values()
            for length in range(2, len(chain) + 1)
        )
        self.units: dict[Op, list[Item]] = {}
        for start, chain in self.chains.items():
            for length in range(len(chain), 1, -1):
                count = prefixes[tuple(map(unit_key, chain[:length]))]
                layers = sum(
                    isinstance(item, Op) and item.layer is not None for item in chain[:length]
                )
                if count >= (2 if layers > 1 or length > 2 else 3):
                    self.units[start] = chain[:length]
                    break

    def collect(self, level: Sequence[Item]) -> None:
        """Candidates among the items of one body."""
        by_entry: dict[Op, list[Item]] = defaultdict(list)
        for item in level:
            for source in dict.fromkeys(entries_of(item)):
                by_entry[source].append(item)
        for item in level:
            if not isinstance(item, Op) or item.kind not in WEIGHTED or item in self.finder.pinned:
                continue
            chain: list[Item] = [item]
            while True:
                value = out_of(chain[-1])
                after = by_entry[value]
                if len(after) != 1 or value in self.finder.outputs or not follows(after[0]):
                    break
                inner = set(ops_of(after[0]))
                if (
                    any(user not in inner for user in self.users[value])
                    or inner & self.finder.pinned
                ):
                    break
                chain.append(after[0])
            self.chains[item] = chain

    def gather(self, level: list[Item]) -> list[Item]:
        """The items of a body with its units in the place of their parts."""
        gone: set[int] = set()
        made: dict[int, Block] = {}
        for item in level:
            if isinstance(item, Op) and item in self.units:
                unit = self.units[item]
                gone |= {id(part) for part in unit}
                # a unit stands where its result does, when all that it reads is there
                made[id(unit[-1])] = Block(item.inputs[0], out_of(unit[-1]), main=list(unit))
        out: list[Item] = []
        for item in level:
            if id(item) in made:
                out.append(made[id(item)])
            elif id(item) not in gone:
                if isinstance(item, Block):
                    item.main = self.gather(item.main)
                    item.shortcut = self.gather(item.shortcut)
                    item.body = self.gather(item.body)
                out.append(item)
        return out


def is_module(item: Item) -> bool:
    """Whether one module computes the item, as a `self.shortcut` has to."""
    if isinstance(item, Block):
        return item.has_layers
    return item.layer is not None and not item.held


def levels(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Every body: the top one and those of all blocks."""
    yield items
    for item in items:
        if isinstance(item, Block):
            yield from levels(item.main)
            yield from levels(item.shortcut)
            yield from levels(item.body)


def follows(item: Item) -> bool:
    """Something that a unit may end with: a norm, an activation, a permutation."""
    if isinstance(item, Block):
        return not item.has_layers
    if item.layer is not None:
        return item.kind in ("BatchNorm", "PReLU") and len(item.inputs) == 1
    plain = len(item.inputs) == 1 and not item.held and not item.several
    return plain and not any(word in item.kind for word in POOLS)


def unit_key(item: Item) -> Any:
    """Equal for items that one class can hold in one place: activations of every kind are."""
    if isinstance(item, Block):
        return "activation" if not item.has_layers else id(item)
    if item.function and item.layer is None:
        return "activation"
    return item.key
