"""Which parameter is which, where one side has a layer and the other the steps it consists of.

No operation says it, and the order in which a user's code reads them need not be that of the layer:
of all ways to pair those of one shape, the one is taken by which both sides compute the same.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays
from parity_tests.pairing.align import Pair

MOST_WAYS = 24  # of four parameters of one shape
_NEAR = 1e-5  # of the largest value: by which a way is taken without a look at the others


def settled(
    pair: Pair, guessed: Mapping[str, str], inputs: Arrays, train: bool, first: Sequence[int] = ()
) -> tuple[dict[str, str], Sequence[int]]:
    """The Gluon name of each of torch's parameters in a pair, and the number of the way.

    `guessed` has those that no operation says, by torch's names; `first` is the way that was right
    for another pair. Values are drawn, since those of a new layer are alike.
    """
    roles = {t.name: role for role, t in pair.torch.tensors.items() if t.name in guessed}
    partners = {t.name: role for role, t in pair.gluon.tensors.items()}
    roles = {name: role for name, role in roles.items() if guessed[name] in partners}
    names = list(roles)
    ways = list(itertools.islice(_ways(pair.torch, roles), MOST_WAYS + 1))
    if len(ways) < 2 or len(ways) > MOST_WAYS:
        return {}, ()
    ways.sort(key=lambda way: list(way) != list(first))  # it may be right again
    generator = np.random.default_rng(zlib.crc32(pair.path.encode()))
    drawn = {
        name: generator.uniform(0.5, 1.5, pair.torch.tensors[role].shape).astype(np.float32)
        for name, role in roles.items()
    }
    theirs = {roles[name]: value for name, value in drawn.items()}
    expected = _output(pair.torch, theirs, inputs, train)
    errors = []
    for way in ways:
        ours = {
            partners[guessed[names[i]]]: drawn[name] for name, i in zip(names, way, strict=True)
        }
        errors.append(_error(_output(pair.gluon, ours, inputs, train), expected))
        if errors[-1] <= _NEAR:
            break
    way = ways[int(np.argmin(errors))] if min(errors) < math.inf else ways[0]
    return {name: guessed[names[i]] for name, i in zip(names, way, strict=True)}, way


def _ways(leaf: Leaf, roles: Mapping[str, str]) -> Iterator[tuple[int, ...]]:
    """All orders of the parameters among those of their shape, as they are first."""
    shapes = [tuple(n for n in leaf.tensors[role].shape if n != 1) for role in roles.values()]
    places = [[i for i, other in enumerate(shapes) if other == s] for s in dict.fromkeys(shapes)]
    for orders in itertools.product(*map(itertools.permutations, places)):
        way = list(range(len(shapes)))
        for own, order in zip(places, orders, strict=True):
            for i, j in zip(own, order, strict=True):
                way[i] = j
        yield tuple(way)


def _output(
    leaf: Leaf, values: Mapping[str, np.ndarray], inputs: Arrays, train: bool
) -> np.ndarray | None:
    shaped = {role: value.reshape(leaf.tensors[role].shape) for role, value in values.items()}
    source = backend(leaf.side)
    try:
        run = source.run_leaf(source.leaf_with_values(leaf, shaped), inputs, "float64", train=train)
    except Exception:  # foreign code on values that it was not made for
        return None
    return run.get("output")


def _error(one: np.ndarray | None, other: np.ndarray | None) -> float:
    if one is None or other is None or one.size != other.size:
        return math.inf
    largest = float(np.abs(other).max(initial=0))
    error = float(np.abs(one.reshape(-1) - other.reshape(-1)).max(initial=0)) / (largest or 1)
    return error if math.isfinite(error) else math.inf
