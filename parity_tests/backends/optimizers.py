"""What an optimizer is to the suite: driven one update at a time, its slots in common units.

The units are MXNet's. Its momentum holds the learning rate, `mom = μ·mom − lr·g`, and torch.optim's
does not, `buf = μ·buf + g`: while the rate is constant mom is −lr·buf, so a foreign buffer is
converted with the rate of its last update. Adam's two slots mean the same in all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from parity_tests.reporting.verdicts import Side

# Gluon's and torch's optimizer, each "sgd(lr=0.1)" or a function of the net; one text for both
Optimizers = str | tuple[str | Callable[[Any], Any], str | Callable[[Any], Any]]

# Of one parameter: the "rule", its "rate", and the rule's other numbers by MXNet's names
Numbers = dict[str, float | str]

# Slots of each parameter: its name, then the slot's, in MXNet's units and the parameter's dtype.
Slots = dict[str, dict[str, np.ndarray]]


class Updater(Protocol):
    """An optimizer over named parameters, whichever framework it is of."""

    def update(self, rate: float, batch: int) -> None:
        """One update with the gradients that `backward` left, divided by `batch`.

        A user's optimizer has a rate of its own, and heeds none.
        """

    def numbers(self, name: str) -> Numbers:
        """What a parameter is updated with, as the optimizer has it now."""

    def slots(self) -> Slots:
        """Every parameter's slots; zeros before the first update."""

    def slots_of(self, name: str, *, common_units: bool = True) -> dict[str, np.ndarray]:
        """One parameter's slots, in MXNet's units or in the optimizer's own."""

    def load(self, slots: Slots, count: int) -> None:
        """Put slots back, as they were after `count` updates."""


class OptimizedParameters(Protocol):
    """Named parameters that belong to no net, and an optimizer over them."""

    side: Side
    updater: Updater

    def state(self) -> Slots:
        """Slots and "weight" of each parameter."""

    def set_gradients(self, values: Mapping[str, np.ndarray]) -> None:
        """Leave these gradients as `backward` would, for the next update."""
