"""A moving average of the weights, which is evaluated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cnn_harness.errors import CommandError

__all__ = ["Average"]


class Average:
    """Exponential moving average of a state dict, running statistics included.

    average ← average + (1 − d)·(weights − average), d = min(decay, (1 + t) / (10 + t)) after
    update t, as TensorFlow warms its average up. It starts at the weights of now.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self._net, self._decay = net, decay
        self._values = {name: value.clone() for name, value in self._state().items()}

    def update(self, t: int) -> None:
        """Take in the weights after update t of the run, counted from 1."""
        share = 1 - min(self._decay, (1 + t) / (10 + t))
        for name, value in self._state().items():
            self._values[name].lerp_(value, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The net computes with the average inside, and afterwards as before."""
        before = {name: value.clone() for name, value in self._state().items()}
        self._net.load_state_dict(self._values, strict=False)
        try:
            yield
        finally:
            self._net.load_state_dict(before, strict=False)

    def arrays(self) -> dict[str, np.ndarray]:
        """The average by name, for a checkpoint."""
        return {name: value.cpu().numpy() for name, value in self._values.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], origin: Path) -> None:
        """Put back what `arrays` gave. Raises: CommandError where it is another net's."""
        for name, value in self._values.items():
            saved = arrays.get(name)
            like = value.cpu().numpy()
            if saved is None or saved.shape != like.shape or saved.dtype != like.dtype:
                raise CommandError(f"{origin} has no average of {name} that fits: another net's?")
            value.copy_(torch.from_numpy(saved.copy()))

    def _state(self) -> dict[str, torch.Tensor]:
        state = self._net.state_dict()
        return {name: value for name, value in state.items() if value.is_floating_point()}
