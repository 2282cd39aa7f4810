"""What a fault is, before it is known where it is planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from parity_tests.pairing.graph import Operation
from parity_tests.reporting.verdicts import Level, Side
from parity_tests.tests.pairing.real_faults.planting import Change, NotHere, Site

Plant = Callable[[Site, Any], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A way to be wrong at any operation of some kinds.

    `plant` is given the place and the net, and raises NotHere where it does not fit. `level` is
    where it must be seen first, and `names` what it may be called, none if it has no name. It may
    be seen where the operation is, and if it is `behind`, where its output is read: what is
    missing cannot be seen where it was.
    """

    name: str
    side: Side
    kinds: tuple[str, ...]
    plant: Plant
    level: Level
    names: tuple[str, ...]
    behind: bool = False

    def paths(self, site: Site) -> frozenset[str]:
        """Where it may be seen, among the paths of the clean pair."""
        return site.here | site.behind if self.behind else site.here

    def is_right(self, site: Site, path: str) -> bool:
        """Whether a path is that of the operation, under the name that it has got now."""
        if path in self.paths(site):
            return True
        module = path.rpartition(".")[0]
        return path not in site.known and site.op.path in (module, path.removesuffix(" (2)"))


def at_call(change: Change, fits: Callable[[Operation], bool] = lambda op: True) -> Plant:
    """Planted by changing what the operation's call does."""

    def plant(site: Site, net: Any) -> None:
        if not fits(site.op):
            raise NotHere(f"{site.op} is of another form")
        site.plant(net, change)

    return plant


def following(site: Site, kinds: Sequence[str], through: Sequence[str]) -> Operation:
    """The next operation of these kinds, behind some that are read once each."""
    op = site.op
    while True:
        readers = site.readers(op)
        if len(readers) != 1 or readers[0].kind not in (*kinds, *through):
            raise NotHere(f"nothing of {kinds} follows {site.op}")
        (op,) = readers
        if op.kind in kinds:
            return op


def table(side: Side, level: Level, *rows: tuple[Any, ...], behind: bool = False) -> Iterator[Any]:
    """Recipes of one level: each a name, kinds, what it may be called, a plant or a change."""
    make = partial(Recipe, side=side, level=level, behind=behind)
    for name, kinds, names, how in rows:
        yield make(name=name, kinds=tuple(kinds.split()), names=tuple(names), plant=how)
