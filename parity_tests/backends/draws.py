"""Executed draws with the same numbers on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity_tests.numerics.draws import is_draw
from parity_tests.pairing.dataflow import Alignment
from parity_tests.pairing.graph import Drawn, OperationGraph
from parity_tests.pairing.vocabulary import as_numpy
from parity_tests.reporting.verdicts import Side

# An array of the framework's, of values and a dtype
Make = Callable[[np.ndarray, str], Any]
Key = tuple[int, int]


def keys_of(alignment: Alignment) -> dict[Side, dict[int, Key]]:
    """What tells the draws of each side apart, by the first operation of each that is executed.

    Partners have the same, and what has none one of its own.
    """
    keys: dict[Side, dict[int, Key]] = {Side.GLUON: {}, Side.TORCH: {}}
    for pair in alignment.pairs:
        if is_draw(pair.left.kind) and is_draw(pair.right.kind):
            ours, theirs = pair.left.merged[0], pair.right.merged[0]
            if ours not in keys[Side.GLUON] and theirs not in keys[Side.TORCH]:
                keys[Side.GLUON][ours] = keys[Side.TORCH][theirs] = (1, theirs)
    return keys


def with_draws(
    graph: OperationGraph, draws: Mapping[int, Drawn], keys: Mapping[int, Key], own: int, make: Make
) -> OperationGraph:
    """The executed graph whose draws give what `keys` says; `own` begins those of all others."""
    operations = list(graph.operations)
    for index, drawn in draws.items():
        op = operations[index]
        replay = _Given(
            drawn, keys.get(drawn.root, (own, drawn.root)), op.shape, op.dtypes[0], make
        )
        reads, roles = ((), ()) if drawn.knows_all else (op.reads, op.roles)
        kind = op.kind if not op.kind.lower().endswith("dropout") else "random_bernoulli"
        operations[index] = replace(op, kind=kind, reads=reads, roles=roles, replay=replay)
    return replace(graph, operations=tuple(operations))


@dataclass(frozen=True)
class _Given:
    """The replay of a draw, which gives the same numbers again and again."""

    drawn: Drawn
    key: Key
    shape: tuple[int, ...]
    dtype: str
    make: Make

    def __call__(self, arrays: Sequence[Any], dtype: str) -> list[Any]:
        draw = self.drawn.draw
        if not self.drawn.knows_all:
            draw = replace(draw, parameters={"p": as_numpy(arrays[0])})
        if self.drawn.expected:
            share = float(draw.parameters["p"])  # type: ignore[arg-type]
            values = np.asarray(draw.shift + draw.scale * share)
        else:
            values = draw.values(self.drawn.shape, self.key)
        if values.size == np.prod(self.shape):
            values = values.reshape(self.shape)
        kind = dtype if self.dtype.startswith("float") else self.dtype
        return [self.make(np.broadcast_to(values, self.shape), kind)]
