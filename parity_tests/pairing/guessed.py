"""Which parameter is which, where one side has a layer and the other the steps it consists of.

No operation says it, and the order in which a user's code reads them need not be that of the layer.
By how much the result moves with one of them, while all of a shape are equal, tells them apart:
which of them is which has no part in it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays
from parity_tests.pairing.align import Pair

_NEAR = 1e-5  # of its largest value: by which two moves are one, and the order of use tells

_Shape = tuple[int, ...]


def settled(pair: Pair, guessed: Mapping[str, str], inputs: Arrays, train: bool) -> dict[str, str]:
    """The Gluon name of each of torch's parameters in a pair that has several of one shape.

    `guessed` has those that no operation says, by torch's names.
    """
    partners = {t.name: role for role, t in pair.gluon.tensors.items()}
    groups: dict[_Shape, list[tuple[str, str]]] = {}  # roles of Gluon's and of torch's
    for role, tensor in pair.torch.tensors.items():
        partner = partners.get(guessed.get(tensor.name, ""))
        if partner is not None:
            shape = tuple(n for n in tensor.shape if n != 1)
            groups.setdefault(shape, []).append((partner, role))
    groups = {shape: roles for shape, roles in groups.items() if len(roles) > 1}
    sides = [{s: [both[side] for both in g] for s, g in groups.items()} for side in (0, 1)]
    ours, theirs = (_moves(*of, inputs, train) for of in zip(pair, sides, strict=True))
    names: dict[str, str] = {}
    for roles in groups.values():
        free = [partner for partner, _ in roles]
        for _, role in roles:
            errors = [_error(ours.get(partner), theirs.get(role)) for partner in free]
            near = max(_NEAR, 2 * min(errors))
            chosen = free.pop(next(i for i, error in enumerate(errors) if error <= near))
            names[pair.torch.tensors[role].name] = pair.gluon.tensors[chosen].name
    return names


def _moves(
    leaf: Leaf, groups: Mapping[_Shape, Sequence[str]], inputs: Arrays, train: bool
) -> dict[str, np.ndarray]:
    """How a leaf's output changes with each parameter, by role; `groups` are those of one shape.

    Values are drawn, since those of a new layer are alike.
    """
    drawn = {shape: [_drawn(shape, number) for number in range(2)] for shape in groups}
    alike = {role: drawn[shape][0] for shape, roles in groups.items() for role in roles}
    before = _output(leaf, alike, inputs, train) if groups else None
    moves = {}
    for shape, roles in groups.items():
        for role in roles:
            after = _output(leaf, {**alike, role: drawn[shape][1]}, inputs, train)
            if before is not None and after is not None and before.shape == after.shape:
                moves[role] = (after - before).reshape(-1)
    return moves


def _drawn(shape: _Shape, number: int) -> np.ndarray:
    """The same values for both sides, above 0 as variances are, and below what saturates a gate."""
    generator = np.random.default_rng(zlib.crc32(f"{shape} {number}".encode()))
    values = generator.uniform(0.5, 1.5, shape) / max(1, math.prod(shape[1:]))
    return values.astype(np.float32)


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
    error = float(np.abs(one - other).max(initial=0)) / (largest or 1)
    return error if math.isfinite(error) else math.inf
