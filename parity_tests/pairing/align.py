"""Pairs the leaves of two nets one to one, in order, and says where two of a pair differ.

The pairing is the cheapest alignment of the two lists (Needleman and Wunsch 1970), so that one
missing leaf is reported as that leaf, and not as a difference at every leaf after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET
from parity_tests.numerics.compare import holds_whole_numbers
from parity_tests.numerics.operators.batch_norm import OWN
from parity_tests.numerics.operators.table import operator_of


@dataclass(frozen=True)
class Pair:
    """Two leaves in the same place; `comparable` if they may compute the same thing."""

    gluon: Leaf
    torch: Leaf

    @property
    def path(self) -> str:
        return self.torch.path or NET

    @property
    def comparable(self) -> bool:
        alike = self.gluon.kind == self.torch.kind or self._unknown
        return alike and not (self.gluon.composite or self.torch.composite)

    @property
    def _unknown(self) -> bool:
        # A function that cannot be looked into may be anything without tensors; and two unknown
        # classes may be the same thing under two names. Running them tells.
        if self.gluon.opaque and not self.torch.tensors:
            return True
        return self.gluon.family == self.torch.family == "custom" and _same_shapes(*self)

    def __iter__(self) -> Iterator[Leaf]:
        return iter((self.gluon, self.torch))


@dataclass
class Pairing:
    """The aligned leaves: pairs, and what has no partner, each with the leaf that it follows."""

    pairs: list[Pair] = field(default_factory=list)
    alone: list[Leaf] = field(default_factory=list)
    steps: list[tuple[Leaf | None, Leaf | None]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.pairs) + len(self.alone)


def _same_shapes(gluon: Leaf, torch: Leaf) -> bool:
    return {r: t.shape for r, t in gluon.tensors.items()} == {
        r: t.shape for r, t in torch.tensors.items()
    }


def _pair_cost(gluon: Leaf, torch: Leaf) -> float:
    """What it costs to pair two leaves; leaving both alone costs 2."""
    if gluon.kind == torch.kind:
        return 0.25 * (not _same_shapes(gluon, torch)) + 0.1 * bool(differences(gluon, torch))
    if Pair(gluon, torch)._unknown:
        return 0.5
    if _absorbed(gluon) or _absorbed(torch):
        return math.inf  # they are free to have no partner
    return 1.5


def pair_leaves(gluon: Sequence[Leaf], torch: Sequence[Leaf]) -> Pairing:
    """The cheapest pairing that keeps both orders."""
    cost = np.zeros((len(gluon) + 1, len(torch) + 1))
    cost[1:, 0] = np.cumsum([_alone_cost(leaf) for leaf in gluon])
    cost[0, 1:] = np.cumsum([_alone_cost(leaf) for leaf in torch])
    for i, left in enumerate(gluon, 1):
        for j, right in enumerate(torch, 1):
            cost[i, j] = min(
                cost[i - 1, j - 1] + _pair_cost(left, right),
                cost[i - 1, j] + _alone_cost(left),
                cost[i, j - 1] + _alone_cost(right),
            )
    pairing = Pairing()
    i, j = len(gluon), len(torch)
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + _pair_cost(gluon[i - 1], torch[j - 1]):
            i, j = i - 1, j - 1
            pairing.steps.append((gluon[i], torch[j]))
            pairing.pairs.append(Pair(gluon[i], torch[j]))
        elif i and cost[i, j] == cost[i - 1, j] + _alone_cost(gluon[i - 1]):
            i -= 1
            pairing.steps.append((gluon[i], None))
            pairing.alone.append(gluon[i])
        else:
            j -= 1
            pairing.steps.append((None, torch[j]))
            pairing.alone.append(torch[j])
    for steps in (pairing.steps, pairing.pairs, pairing.alone):
        steps.reverse()
    return pairing


def _absorbed(leaf: Leaf) -> bool:
    return _is_absorbed(leaf.kind)


@cache
def _is_absorbed(kind: str) -> bool:
    return operator_of(kind.split(":")[0]).absorbed


def _alone_cost(leaf: Leaf) -> float:
    return 0.05 if _absorbed(leaf) else 1.0


def differences(gluon: Leaf, torch: Leaf) -> list[tuple[str, object, object]]:
    """(quantity, Gluon's, torch's) for every hyper-parameter and tensor that differs."""
    different: list[tuple[str, object, object]] = []
    shared = gluon.hyper.keys() & torch.hyper.keys()
    names = shared if gluon.family == "custom" else gluon.hyper.keys() | torch.hyper.keys()
    if gluon.kind == torch.kind:
        for name in sorted(names):
            a, b = gluon.hyper.get(name, "none"), torch.hyper.get(name, "none")
            if not _equal(name, a, b):
                different.append((name, a, b))
    for role in sorted(gluon.tensors.keys() | torch.tensors.keys()):
        a, b = gluon.tensors.get(role), torch.tensors.get(role)
        if a is None or b is None:
            different.append((role, "one" if a else "none", "one" if b else "none"))
            continue
        # whole numbers are compared by value
        whole = any(holds_whole_numbers(tensor.dtype) for tensor in (a, b))
        for quantity, left, right in (
            (f"{role} shape", a.shape, b.shape),
            (f"{role} dtype", a.dtype, a.dtype if whole else b.dtype),
            (f"{role} trainable", a.trainable, b.trainable),
        ):
            if left != right:
                different.append((quantity, left, right))
    return different


def _equal(name: str, a: object, b: object) -> bool:
    if name == "kept" and OWN in (a, b):
        return True  # the statistics themselves are compared
    if name == "axis" and isinstance(a, int) and isinstance(b, int):
        return a == b or {a, b} == {1, -1}  # of (N, C) inputs both are the same; running tells
    if isinstance(a, float) and isinstance(b, float):
        # 1 − 0.9 is not 0.1; and MXNet rounds a slope or a momentum to float32
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
    return a == b
