"""A Gluon net that trains on several devices, by the very functions of `gluon_cnn.train`.

Framework specific (mxnet): only Gluon's train command splits a batch over devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import mxnet as mx
import numpy as np

from gluon_cnn.training import loop, parallel
from gluon_cnn.training.staging import to_devices
from parity_tests.backends.gluon.optimizer import GluonUpdater
from parity_tests.backends.gluon.trainee import GluonTrainee
from parity_tests.backends.optimizers import Updater
from parity_tests.backends.runs import Outputs
from parity_tests.backends.training import Batch, Key, Stages
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side

DEVICES = [mx.cpu(0), mx.cpu(1)]


def parts_of(count: int, devices: int = len(DEVICES)) -> list[slice]:
    """Which of a batch's `count` images each device gets; devices without any are left out."""
    indices = np.array_split(np.arange(count), min(devices, count))
    return [slice(int(part[0]), int(part[-1]) + 1) for part in indices]


class _Part:
    """Stages of one device's part of a batch, as numpy."""

    def __init__(self, trainee: SplitTrainee, x: mx.nd.NDArray, y: mx.nd.NDArray) -> None:
        logits = trainee.forward(x)
        self._zeros = mx.nd.zeros(logits.shape, ctx=x.context, dtype=trainee.dtype)
        self._zeros.attach_grad()  # MXNet keeps no gradient of the logits themselves
        self._logits = logits + self._zeros
        self.each = trainee.objective.losses[Side.GLUON](self._logits, y)
        self.outputs = trainee.recorded_outputs()

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logits, loss, logit gradient."""
        return self._logits.asnumpy(), self.each.asnumpy(), self._zeros.grad.asnumpy()


class SplitTrainee(GluonTrainee):
    """Trains on `devices`; methods may be overridden to plant a fault."""

    devices: ClassVar = DEVICES

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        self.net.collect_params().reset_ctx(self.devices)

        def trainer(values: list[mx.gluon.Parameter], rule: Rule) -> mx.gluon.Trainer:
            fixed = [self.parameter(key) for key in self.keys(trainable=False)]
            return self.combining([*values, *fixed], rule.name, rule.mxnet_options())

        return GluonUpdater(parameters, self.rule, trainer)

    def combining(
        self, values: list[mx.gluon.Parameter], name: str, options: Mapping[str, Any]
    ) -> mx.gluon.Trainer:
        return parallel.combining_trainer(values, name, options, self.devices)

    def step(self, batch: Batch) -> Stages:
        """Forward, backward and one update on all devices."""
        self.count += 1
        xs, ys = (
            to_devices(array.astype(self.dtype), self.devices)
            for array in (batch.images, batch.labels)
        )
        parts: list[_Part] = []
        slices = parts_of(len(batch.labels), len(self.devices))

        def objective(x: mx.nd.NDArray, y: mx.nd.NDArray) -> tuple[Any, Any, Any, Any]:
            here = slices[len(parts)]
            self.masks = {path: mask[here] for path, mask in batch.masks.items()}
            parts.append(_Part(self, x, y))
            each = self.weighted(parts[-1].each, len(batch.labels))
            return each, each.sum(), each.sum(), None

        self.trainer.set_learning_rate(batch.rate)
        self.update_together(objective, xs, ys, len(batch.labels))
        gradients = {key: self.gradient(key) for key in self.keys(trainable=True)}
        parallel.agree_on_statistics(self.net)
        logits, loss, logit_gradient = (
            np.concatenate(arrays) for arrays in zip(*(part.arrays for part in parts), strict=True)
        )
        outputs = _joined([part.outputs for part in parts])
        return Stages(logits, loss, logit_gradient, gradients, self.state(), outputs)

    @property
    def trainer(self) -> mx.gluon.Trainer:
        assert isinstance(self.updater, GluonUpdater)
        return self.updater.trainer

    def update_together(self, objective: Any, xs: Any, ys: Any, count: int) -> None:
        loop.train_step(objective, self.trainer, [(xs, ys)], count)

    def weighted(self, each: mx.nd.NDArray, count: int) -> mx.nd.NDArray:
        """What the part's loss counts in the batch's: itself."""
        return each

    def gradient(self, key: Key) -> np.ndarray:
        return self.parameter(key).grad(self.devices[0]).asnumpy()

    def copies(self, key: Key) -> list[np.ndarray]:
        """A parameter's values on every device."""
        return [value.asnumpy() for value in self.parameter(key).list_data()]


class InTurn(GluonTrainee):
    """One device that takes the parts one after another and adds their gradients in numpy.

    What several devices compute, by definition: each part is normalised by its own statistics,
    which leave their trace in a copy of the running statistics for each part.
    """

    def step(self, batch: Batch) -> Stages:
        self.count += 1
        slices = parts_of(len(batch.labels))
        if not hasattr(self, "_running"):
            start = {key: self.tensors[key].read() for key in self.keys(trainable=False)}
            self._running = [dict(start) for _ in DEVICES]
        total: dict[Key, np.ndarray] = {}
        parts = []
        for number, here in enumerate(slices):
            self.masks = {path: mask[here] for path, mask in batch.masks.items()}
            for key, value in self._running[number].items():
                self._put(key, value)
            parts.append(self.differentiate(batch.images[here], batch.labels[here]))
            self._running[number] = {
                key: self.tensors[key].read() for key in self.keys(trainable=False)
            }
            for key in self.keys(trainable=True):
                gradient = self.parameter(key).grad().asnumpy()
                total[key] = total[key] + gradient if key in total else gradient
        if len(slices) < len(DEVICES):  # a device without images adds 0, which makes −0 a 0
            total = {key: gradient + np.zeros_like(gradient) for key, gradient in total.items()}
        for key, gradient in total.items():
            self.parameter(key).grad()[:] = mx.nd.array(gradient, dtype=self.dtype)
        self.update(batch.rate, len(batch.labels))
        for key in self.keys(trainable=False):
            copies = [running[key] for running in self._running]
            mean = sum(copies[1:], copies[0]) / np.array(len(copies), copies[0].dtype)
            self._put(key, mean)
            for running in self._running:
                running[key] = mean
        logits, loss, logit_gradient = (
            np.concatenate(arrays) for arrays in zip(*parts, strict=True)
        )
        return Stages(logits, loss, logit_gradient, total, self.state(), {})


def _joined(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of all parts, as if one device had computed the whole batch."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
