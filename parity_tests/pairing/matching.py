"""Pairs the operations of two graphs, by hashes of what flows into and out of each.

An operation's *past* is a hash of everything that flows into it, its *future* one of everything
that it flows into (Merkle trees over the graph, after Weisfeiler and Lehman 1968). Equal nets
agree in both everywhere; behind a difference the futures still agree, before it the pasts, so
that what remains is the difference itself. Where several operations are alike the first are
paired (or those whose values are nearest), and pairs then grow along the edges.

Apart from sorting, the work is linear in the number of edges.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

from parity_tests.pairing.graph import Operand, Operation, OperationGraph, Origin, Value
from parity_tests.pairing.vocabulary import COMMUTATIVE


class GraphSide:
    """One graph with its labels, consumers and hashes.

    A reshape moves no number: what reads it is taken to read what it is made of, since one net may
    hold (N·heads, …) where the other holds (N, heads, …).
    """

    def __init__(self, graph: OperationGraph) -> None:
        self.graph = graph
        self.operations = graph.operations
        self.consumers: list[list[tuple[int, str]]] = [[] for _ in self.operations]
        for op in self.operations:
            for x in op.inputs if op.kind != "reshape" else ():
                value = self.source(x.value)
                if value.origin is Origin.OPERATION:
                    self.consumers[int(value.key)].append((op.index, slot_of(op, x)))
        self.weak = [_weak(op) for op in self.operations]
        self.loose = [_loose(op) for op in self.operations]
        self.strong = [
            (w, _attributes(op)) for w, op in zip(self.weak, self.operations, strict=True)
        ]
        self.past = self._pasts()
        self.future = self._futures()
        self.both = list(zip(self.past, self.future, strict=True))

    def source(self, value: Value) -> Value:
        """A value without the reshapes on its way."""
        while value.origin is Origin.OPERATION:
            op = self.operations[int(value.key)]
            if op.kind != "reshape" or not op.inputs:
                break
            value = op.inputs[0].value
        return value

    def _pasts(self) -> list[int]:
        hashes: list[int] = []
        for op, label in zip(self.operations, self.strong, strict=True):
            inputs = [(slot_of(op, x), self._value_hash(x.value, hashes)) for x in op.inputs]
            hashes.append(hash((label, tuple(sorted(inputs)))))
        return hashes

    def _value_hash(self, value: Value, hashes: Sequence[int]) -> int:
        value = self.source(value)
        if value.origin is Origin.OPERATION:
            return hash((hashes[int(value.key)], value.output))
        return hash((value.origin.value, value.key if value.origin is Origin.INPUT else ""))

    def _futures(self) -> list[int]:
        hashes = [0] * len(self.operations)
        outputs: dict[int, list[int]] = defaultdict(list)
        for position, value in enumerate(map(self.source, self.graph.outputs)):
            if value.origin is Origin.OPERATION:
                outputs[int(value.key)].append(position)
        for op in reversed(self.operations):
            into = sorted((slot, hashes[index]) for index, slot in self.consumers[op.index])
            label = self.strong[op.index]
            hashes[op.index] = hash((label, tuple(into), tuple(outputs[op.index])))
        return hashes

    def neighbourhoods(self, rounds: int) -> list[int]:
        """A hash of what lies within `rounds` edges of each operation."""
        current = [hash(label) for label in self.strong]
        for _ in range(rounds):
            current = [
                hash(
                    (
                        current[op.index],
                        tuple(sorted(hash(x) for x in self._before(op, current))),
                        tuple(sorted((s, current[i]) for i, s in self.consumers[op.index])),
                    )
                )
                for op in self.operations
            ]
        return current

    def _before(self, op: Operation, hashes: Sequence[int]) -> Iterator[tuple[str, int]]:
        for x in op.inputs:
            yield slot_of(op, x), self._value_hash(x.value, hashes)

    def producers(self, index: int) -> Iterator[tuple[int, str]]:
        op = self.operations[index]
        for x in op.inputs:
            value = self.source(x.value)
            if value.origin is Origin.OPERATION:
                yield int(value.key), slot_of(op, x)


def slot_of(op: Operation, operand: Operand) -> str:
    return "" if op.kind in COMMUTATIVE else operand.role


def _inputs(op: Operation) -> set[Value]:
    """What an operation reads of the net's own inputs."""
    return {x.value for x in op.inputs if x.value.origin is Origin.INPUT}


def _weak(op: Operation) -> tuple[Hashable, ...]:
    """What two operations must share to be paired as the same thing."""
    shapes = tuple(
        sorted((role, tuple(n for n in p.shape if n != 1)) for role, p in op.parameters.items())
    )
    return (op.kind, shapes)


def _loose(op: Operation) -> tuple[Hashable, ...]:
    """The kind and the main parameter: one of the two may lack the bias, or more."""
    weight = op.parameters.get("weight")
    return (op.kind, tuple(n for n in weight.shape if n != 1) if weight else ())


def _attributes(op: Operation) -> Hashable:
    attributes = dict(op.attributes)
    if isinstance(attributes.get("axis"), int):  # of the last ones, where the others are merged
        attributes["axis"] -= len(op.shape)
    return tuple(sorted((k, repr(v)) for k, v in attributes.items())), len(op.inputs)


class Matching:
    def __init__(self, left: GraphSide, right: GraphSide, values: bool) -> None:
        self.left, self.right = left, right
        self._values = values
        self.forth: dict[int, int] = {}
        self.back: dict[int, int] = {}
        self._queue: deque[tuple[int, int]] = deque()

    def pin(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Pair operations before anything else is asked."""
        for left, right in pairs:
            self._pair(left, right)

    def solve(self) -> None:
        left, right = self.left, self.right
        self._unique(left.both, right.both)
        self._grow(left.strong, right.strong)
        for l_keys, r_keys in ((left.past, right.past), (left.future, right.future)):
            self._unique(l_keys, r_keys)
            self._grow(left.strong, right.strong)
        self._alike(left.both, right.both)
        self._alike(left.past, right.past)
        self._alike(left.future, right.future)
        if self._complete:
            return
        for rounds in (4, 2, 1):
            self._unique(left.neighbourhoods(rounds), right.neighbourhoods(rounds))
            self._grow(left.strong, right.strong)
        for name in ("strong", "weak", "loose"):
            labels = getattr(left, name), getattr(right, name)
            self._regrow(*labels)
            self._unique(*labels)
            self._regrow(*labels)
            self._in_order(*labels)
        self._substitute()

    @property
    def _complete(self) -> bool:
        return len(self.forth) == min(len(self.left.operations), len(self.right.operations))

    def _pair(self, left: int, right: int) -> None:
        self.forth[left] = right
        self.back[right] = left
        self._queue.append((left, right))

    def _free(
        self, keys: Sequence[Hashable], taken: Mapping[int, int]
    ) -> dict[Hashable, list[int]]:
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for index, key in enumerate(keys):
            if index not in taken:
                groups[key].append(index)
        return groups

    def _unique(self, l_keys: Sequence[Hashable], r_keys: Sequence[Hashable]) -> None:
        """Pair operations whose key no other free operation has."""
        others = self._free(r_keys, self.back)
        for key, group in self._free(l_keys, self.forth).items():
            if len(group) == 1 and len(others.get(key, ())) == 1:
                self._pair(group[0], others[key][0])

    def _alike(self, l_keys: Sequence[Hashable], r_keys: Sequence[Hashable]) -> None:
        """Pair operations of one key in order, each time letting the pairs grow first."""
        others = self._free(r_keys, self.back)
        for index, key in enumerate(l_keys):
            if index in self.forth:
                continue
            free = [i for i in others.get(key, ()) if i not in self.back]
            if free:
                self._pair(index, self._nearest(index, free))
                self._grow(self.left.strong, self.right.strong)
            others[key] = [i for i in free if i not in self.back]

    def _nearest(self, left: int, candidates: Sequence[int]) -> int:
        mine = self.left.operations[left].digest
        if not self._values or not mine:
            return candidates[0]

        def distance(index: int) -> float:
            other = self.right.operations[index].digest
            if len(other) != len(mine):
                return float("inf")
            return sum(abs(a - b) for a, b in zip(mine, other, strict=True))

        return min(candidates, key=distance)

    def _regrow(self, l_labels: Sequence[Hashable], r_labels: Sequence[Hashable]) -> None:
        self._queue.extend(self.forth.items())
        self._grow(l_labels, r_labels)

    def _grow(self, l_labels: Sequence[Hashable], r_labels: Sequence[Hashable]) -> None:
        """Pair neighbours of pairs that are alike, where there is one choice."""
        while self._queue:
            left, right = self._queue.popleft()
            if self.left.operations[left].kind == "reshape":
                continue  # any of one value is as good as another
            neighbours: tuple[tuple[list[tuple[int, str]], list[tuple[int, str]]], ...] = (
                (list(self.left.producers(left)), list(self.right.producers(right))),
                (self.left.consumers[left], self.right.consumers[right]),
            )
            for ours, theirs in neighbours:
                groups: dict[Hashable, set[int]] = defaultdict(set)
                for index, slot in theirs:
                    if index not in self.back:
                        groups[(slot, r_labels[index])].add(index)
                mine: dict[Hashable, set[int]] = defaultdict(set)
                for index, slot in ours:
                    if index not in self.forth:
                        mine[(slot, l_labels[index])].add(index)
                for key, group in mine.items():
                    self._choose(sorted(group), sorted(groups.get(key, ())))

    def _choose(self, ours: list[int], theirs: list[int]) -> None:
        if len(ours) == len(theirs) == 1:
            if ours[0] not in self.forth and theirs[0] not in self.back:
                self._pair(ours[0], theirs[0])
            return
        for keys in ("both", "past", "future"):
            l_keys, r_keys = getattr(self.left, keys), getattr(self.right, keys)
            for index in ours:
                alike = [i for i in theirs if i not in self.back and r_keys[i] == l_keys[index]]
                if index not in self.forth and alike and (len(alike) == 1 or keys == "both"):
                    self._pair(index, self._nearest(index, alike))

    def _in_order(self, l_labels: Sequence[Hashable], r_labels: Sequence[Hashable]) -> None:
        """Pair what is left by label, preferring operations whose neighbours are paired."""
        others = self._free(r_labels, self.back)
        for index, label in enumerate(l_labels):
            free = [i for i in others.get(label, ()) if i not in self.back]
            if index in self.forth or not free:
                continue
            scores = {i: self._agreement(index, i) for i in free[:64]}
            best = max(scores, key=lambda i: scores[i])
            if scores[best] > 0:
                self._pair(index, best)
                self._grow(l_labels, r_labels)

    def _agreement(self, left: int, right: int, steps: bool = False) -> int:
        """How many neighbours of two operations are paired with each other.

        With `steps` what has no partner on the right side is on the way to a neighbour before it.
        """
        before = {i for i, _ in self.right.producers(right)}
        pending = [i for i in before if steps and i not in self.back]
        while pending:
            more = {i for i, _ in self.right.producers(pending.pop())} - before
            before |= more
            pending += [i for i in more if i not in self.back]
        after = {i for i, _ in self.right.consumers[right]}
        read = _inputs(self.left.operations[left]) & _inputs(self.right.operations[right])
        return (
            sum(self.forth.get(i) in before for i, _ in self.left.producers(left))
            + sum(self.forth.get(i) in after for i, _ in self.left.consumers[left])
            + len(read)
        )

    def _substitute(self) -> None:
        """Pair operations of different kinds that stand in the same place."""
        for index in range(len(self.left.operations)):
            if index in self.forth:
                continue
            near = {
                consumer
                for producer, _ in self.left.producers(index)
                if producer in self.forth
                for consumer, _ in self.right.consumers[self.forth[producer]]
            } | {
                producer
                for consumer, _ in self.left.consumers[index]
                if consumer in self.forth
                for producer, _ in self.right.producers(self.forth[consumer])
            }
            read = _inputs(self.left.operations[index])
            near |= {op.index for op in self.right.operations if read & _inputs(op)}
            free = sorted(i for i in near if i not in self.back)
            needed = min(2, 1 + bool(self.left.consumers[index]))
            for steps in (False, True):  # one side may do in several what the other does at once
                fitting = [i for i in free if self._agreement(index, i, steps) >= needed]
                if fitting:
                    break
            if fitting:
                self._pair(index, max(fitting, key=lambda i: self._agreement(index, i)))
        self._queue.clear()
