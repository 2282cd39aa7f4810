"""Random numbers by their distribution, the same for both frameworks and in every run.

Two nets that draw cannot be given each other's generator. So what a draw gives is computed here:
`shift + scale · standard`, by its distribution's standard form and parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# How the kinds of draws begin in the common vocabulary: `random_uniform`, `random_bernoulli`
DRAWS = "random_"
# Where in its distribution a single number lies, which may decide what a net does: `rand() < 0.5`
# and a Bernoulli number of 0.5 decide alike
MIDDLE = 0.5 - 2.0**-20

Numbers = float | np.ndarray


@dataclass(frozen=True)
class Draw:
    """What is drawn: `shift + scale · standard`, the standard form being that of `kind`.

    Parameters that no scale and no shift changes: `p` of "bernoulli" (or None, where an array of
    the net's own says it), `low` and `high` of "integers", `alpha` of "gamma", `lam` of "poisson".
    """

    kind: str
    scale: float = 1.0
    shift: float = 0.0
    parameters: Mapping[str, Numbers | None] = field(default_factory=dict)

    def values(self, shape: Sequence[int], key: Sequence[int] = ()) -> np.ndarray:
        """What is drawn, in float64: another key gives others, no key what lies in the middle.

        >>> Draw("normal", scale=0.1).values((2,)).tolist()
        [0.1, 0.1]
        >>> Draw("bernoulli", parameters={"p": 0.8}).values((1,)).tolist()
        [1.0]
        """
        generator = np.random.default_rng(key) if key else _Middle()
        return np.asarray(self.shift + self.scale * self._standard(tuple(shape), generator))

    def _standard(self, shape: tuple[int, ...], generator: Any) -> np.ndarray:
        given = self.parameters
        if self.kind == "normal":
            return np.asarray(generator.standard_normal(shape))
        uniform = np.asarray(generator.random(shape))
        if self.kind == "bernoulli":
            return (uniform < given["p"]).astype(np.float64)
        if self.kind == "integers":
            low, high = float(given["low"] or 0), float(given["high"] or 0)
            return np.floor(low + (high - low) * uniform)
        if self.kind == "exponential":
            return -np.log1p(-uniform)
        if self.kind == "gamma":
            return np.asarray(generator.standard_gamma(given["alpha"], shape))
        if self.kind == "poisson":
            return np.asarray(generator.poisson(given["lam"], shape), np.float64)
        return uniform


class _Middle:
    """As numpy's generators, with one number in all places: a draw may decide by a single one.

    That of a normal distribution is one standard deviation, which a mean would not show.
    """

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, MIDDLE)

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.ones(shape)

    def standard_gamma(self, alpha: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, alpha)

    def poisson(self, lam: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, math.floor(lam + 0.5))


def is_draw(kind: str) -> bool:
    """Whether an operation of the common vocabulary draws numbers of its own.

    >>> is_draw("random_normal"), is_draw("dropout")
    (True, False)
    """
    return kind.startswith(DRAWS)
