"""What a scale is computed from, and what it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun, rounded

__all__ = ["ScaleCase", "Scales"]


@dataclass
class Scales:
    """s for each of a leaf's results, by its name and in its shape.

    `family` is the operation's name in the tolerance table, "custom" where s was measured;
    `length` is the number of terms in its longest sum. `drift` is an error in absolute numbers that
    MXNet's float32 arithmetic is known to make on these very values, and is allowed twice.
    """

    family: str
    sizes: dict[str, np.ndarray]
    length: int = 1
    drift: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ScaleCase:
    leaf: Leaf
    inputs: Arrays
    run: LeafRun
    train: bool
    upstream: Arrays | None

    @property
    def x(self) -> np.ndarray:
        return self.inputs[0]

    @property
    def y(self) -> np.ndarray:
        return self.run["output"]

    @property
    def axis(self) -> int:
        axis: Any = self.leaf.hyper["axis"]
        return int(axis)

    @property
    def g(self) -> np.ndarray:
        return np.abs(self.upstream[0]) if self.upstream else np.zeros_like(self.y)

    def parameter(self, role: str) -> np.ndarray | None:
        tensor = self.leaf.tensors.get(role)
        return None if tensor is None else rounded(tensor.read(), "float64")
