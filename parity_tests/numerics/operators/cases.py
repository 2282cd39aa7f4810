"""What an operator's scale and its reference value are computed from, and what a scale is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from parity_tests.numerics.chance import FIRST_LOCAL_DRAWS
from parity_tests.numerics.compare import UNIT

Change = Callable[[np.ndarray], np.ndarray]


class Rerun(Protocol):
    def __call__(
        self, change: Change, upstream_only: bool, *, inside: bool = False
    ) -> dict[str, np.ndarray]: ...


@dataclass
class Scales:
    """s for each of a leaf's results, by its name and in its shape.

    `family` is the operator's kind, under which it has its tolerances; `length` is the number of
    terms in its longest sum. `drift` is an error in absolute numbers that float32 arithmetic is
    known to make on these very values, and is allowed twice: MXNet's, and torch's where `both` add
    in the same way. `draws` is of how many runs with noise a scale that is measured is the largest
    move; 0 where a formula gives it.
    """

    family: str
    sizes: dict[str, np.ndarray]
    length: int = 1
    drift: dict[str, np.ndarray] = field(default_factory=dict)
    both: bool = False
    draws: int = 0

    def allowance(self, name: str, side: str, dtype: str, *, single: bool) -> np.ndarray | float:
        """What a result of a side may be off, in absolute numbers, beside its u·s.

        `single` says that MXNet computes in float32 whatever the `dtype` is. In float64 a drift is
        as much smaller as its unit is, and no fault is as small as what n equal terms leave: n/2 u.
        """
        if name not in self.drift or not (side == "gluon" or self.both):
            return 0.0
        if dtype == "float32" or single:
            return 2 * self.drift[name]
        repeated = max(1.0, math.sqrt(self.length) / 4)
        return 2 * self.drift[name] * repeated * UNIT["float64"] / UNIT["float32"]

    def raise_to(self, name: str, size: np.ndarray) -> None:
        """Let a result's s be no less than this, of as many values."""
        known = self.sizes[name]
        self.sizes[name] = np.maximum(known, size.reshape(known.shape))


@dataclass(frozen=True)
class ScaleCase:
    """One leaf alone in float64: its inputs and gradients sent back, and all that it gave.

    `parameter` gives a tensor by its role, None where there is none. `rerun` runs the leaf again
    with every floating-point number of inputs, parameters and upstream gradients changed; of the
    upstream gradients alone; or also of what passes between the operations inside it. `draws` is
    how many such runs a scale is measured by.
    """

    kind: str
    hyper: Mapping[str, Any]
    inputs: tuple[np.ndarray, ...]
    run: Mapping[str, np.ndarray]
    train: bool
    upstream: tuple[np.ndarray, ...] | None
    parameter: Callable[[str], np.ndarray | None]
    rerun: Rerun
    draws: int = FIRST_LOCAL_DRAWS

    @property
    def x(self) -> np.ndarray:
        return self.inputs[0]

    @property
    def y(self) -> np.ndarray:
        return self.run["output"]

    @property
    def axis(self) -> int:
        return int(self.hyper["axis"])

    @property
    def g(self) -> np.ndarray:
        return np.abs(self.upstream[0]) if self.upstream else np.zeros_like(self.y)


@dataclass
class ReferenceCase:
    """What a reference value is written with: torch itself, and float64 tensors of torch.

    `fault` asks for one of the operator's faults, empty for none. A reference puts what the
    operator's buffers become into `buffers`.
    """

    torch: Any
    x: Any
    tensors: Mapping[str, Any]
    hyper: Mapping[str, Any]
    train: bool
    fault: str
    buffers: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def functional(self) -> Any:
        return self.torch.nn.functional
