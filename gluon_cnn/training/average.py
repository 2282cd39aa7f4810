"""A moving average of the weights, which is evaluated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import gluon

from cnn_harness.errors import CommandError
from gluon_cnn.training.parallel import one_copy, statistics

__all__ = ["Average"]


class Average:
    """The exponential moving average of a net's parameters and running statistics.

    After update t it is d·average + (1 − d)·weights, with d the smaller of `decay` and
    (1 + t) / (10 + t), so that the first weights do not stay in it (TensorFlow's
    `ExponentialMovingAverage`). It begins with the weights that the net has now.
    """

    def __init__(self, net: gluon.HybridBlock, decay: float) -> None:
        self._net, self._decay = net, decay
        self._values = {name: value.copy() for name, value in one_copy(net).items()}
        self._moving = bool(list(statistics(net)))

    def update(self, t: int) -> None:
        """Take in the weights after update t of the run, counted from 1."""
        if self._moving:
            mx.nd.waitall()  # the last backward may still write running statistics
        keep = min(self._decay, (1 + t) / (10 + t))
        for name, value in one_copy(self._net).items():
            average = self._values[name]
            average *= keep
            average += (1 - keep) * value

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The net computes with the average inside, and afterwards as before."""
        mx.nd.waitall()
        parameters = self._net._collect_params_with_prefix()
        before = {name: [v.copy() for v in p.list_data()] for name, p in parameters.items()}
        for name, parameter in parameters.items():
            parameter.set_data(self._values[name])
        try:
            yield
        finally:
            mx.nd.waitall()
            for name, parameter in parameters.items():
                for value, own in zip(parameter.list_data(), before[name], strict=True):
                    value[:] = own

    def arrays(self) -> dict[str, np.ndarray]:
        """The average by structural name, for a checkpoint."""
        return {name: value.asnumpy() for name, value in self._values.items()}

    def restore(self, arrays: Mapping[str, np.ndarray], origin: Path) -> None:
        """Put back what `arrays` gave. Raises: CommandError where it is another net's."""
        for name, value in self._values.items():
            saved = arrays.get(name)
            if saved is None or saved.shape != value.shape or saved.dtype != value.dtype:
                raise CommandError(f"{origin} has no average of {name} that fits: another net's?")
            value[:] = saved
