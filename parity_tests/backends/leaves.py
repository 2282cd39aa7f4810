"""What a net is to the suite: its leaves in order, each with a kind, hyper-parameters, tensors.

A leaf is a module that computes and holds no other. A module with parameters of its own *and*
children (Gluon's `Dense(activation='relu')`) counts as a leaf, and its children follow it.
Hyper-parameters are in one vocabulary for both frameworks, tensors under PyTorch's role names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity_tests.reporting.verdicts import Side


class ParityError(ValueError):
    """What parity cannot work with: one line with what arrived, what was expected, what to do."""


@dataclass(frozen=True)
class Tensor:
    """A parameter or buffer of a leaf; `read` copies its values, in their own dtype.

    `name` is the parameter's name in its own net (`features.1.gamma`). A `constant` is written in
    the net's code: no weights file replaces it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool
    buffer: bool
    read: Callable[[], np.ndarray]
    constant: bool = False

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Leaf:
    """One operation of a net.

    `kind` is a word both frameworks share ("conv2d", "relu"), or "custom:ClassName" for a class
    the suite does not know. `opaque` leaves hold a function that cannot be looked into, and
    `composite` ones compute through their children, so they cannot be run alone.
    """

    side: Side
    path: str
    kind: str
    block: Any
    hyper: Mapping[str, object] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    opaque: bool = False
    composite: bool = False

    @property
    def family(self) -> str:
        """The kind as the tolerance table knows it: every unknown class is "custom"."""
        return self.kind.split(":")[0]

    def __str__(self) -> str:
        return f"{self.kind} ({self.path})"
