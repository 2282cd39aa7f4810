"""Draws with the same numbers on both sides: those that are executed, and those of the host."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np

from parity_tests.numerics.draws import Draw, is_draw
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


class Live:
    """What is drawn while a net is traced: the same in each trace, in either framework.

    It may leave the graph and decide what the net does. A single number lies in the middle of its
    distribution, whatever the net drew before it.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def values(self, draw: Draw, shape: Sequence[int]) -> np.ndarray:
        """What is drawn, in float64."""
        if np.prod(shape, dtype=int) == 1:
            return draw.values(shape)
        self._counts[draw.kind] += 1
        return draw.values(shape, (4, self._counts[draw.kind]))

    @contextmanager
    def of_host(self) -> Iterator[None]:
        """Let the functions of `random` and `numpy.random` give this, and restore both after.

        Those that are not known, such as `shuffle`, draw from a seed.
        """
        state = random.getstate(), np.random.get_state()
        random.seed(0)
        np.random.seed(0)
        with ExitStack() as stack:
            for owner, functions in ((random, _OF_RANDOM), (np.random, _OF_NUMPY)):
                for name, describe in functions.items():
                    called = self._function(describe, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, called))
            try:
                yield
            finally:
                random.setstate(state[0])
                np.random.set_state(state[1])

    def _function(self, describe: Callable[..., Any], original: Any) -> Callable[..., Any]:
        def draw(*args: Any, **kwargs: Any) -> Any:
            try:
                found = describe(*args, **kwargs)
            except TypeError:  # it is called with more, or with arrays
                found = None
            if found is None:
                return original(*args, **kwargs)
            drawn, size = found
            whole = drawn.kind in ("bernoulli", "integers", "poisson")
            if size is None:
                number = float(self.values(drawn, ()))
                return int(number) if whole else number
            shape = (size,) if isinstance(size, int) else tuple(size)
            values = self.values(drawn, shape)
            return values.astype(np.int64) if whole else values

        return draw


def _uniform(low: float = 0.0, high: float = 1.0, size: Any = None) -> tuple[Draw, Any]:
    low, high = float(low), float(high)
    return Draw("uniform", high - low, low), size


def _normal(loc: float = 0.0, scale: float = 1.0, size: Any = None) -> tuple[Draw, Any]:
    return Draw("normal", float(scale), float(loc)), size


def _binomial(n: int, p: float, size: Any = None) -> tuple[Draw, Any] | None:
    one = isinstance(p, (int, float)) and isinstance(n, int) and n == 1
    return (Draw("bernoulli", parameters={"p": p}), size) if one else None


def _integers(low: int, high: int | None = None, size: Any = None) -> tuple[Draw, Any]:
    ends = (0, low) if high is None else (low, high)
    return Draw("integers", parameters={"low": int(ends[0]), "high": int(ends[1])}), size


# What each function draws, and how much, by what it is called with
_OF_NUMPY: dict[str, Callable[..., tuple[Draw, Any] | None]] = {
    **dict.fromkeys(
        ("random", "random_sample", "ranf", "sample"), lambda size=None: (Draw("uniform"), size)
    ),
    "rand": lambda *size: (Draw("uniform"), size or None),
    "randn": lambda *size: (Draw("normal"), size or None),
    "standard_normal": lambda size=None: (Draw("normal"), size),
    "uniform": _uniform,
    "normal": _normal,
    "binomial": _binomial,
    "randint": _integers,
}
_OF_RANDOM: dict[str, Callable[..., tuple[Draw, Any] | None]] = {
    "random": lambda: (Draw("uniform"), None),
    "uniform": _uniform,
    "gauss": _normal,
    "normalvariate": _normal,
    "randint": lambda a, b: _integers(a, b + 1),
}
