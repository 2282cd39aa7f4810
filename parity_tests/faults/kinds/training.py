"""Faults of losses and of training loops, each found at its step, stage and tensor.

Framework specific (mxnet, torch): each fault is a loss or a trainee of one framework.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
import torch
from torch import nn

from parity_tests.backends.gluon.trainee import GluonTrainee
from parity_tests.backends.runs import NET
from parity_tests.backends.torch.trainee import TorchTrainee
from parity_tests.backends.training import Batch, Stages
from parity_tests.faults.base import Detection, Fault, first_detection
from parity_tests.levels.training.level import check_training
from parity_tests.levels.training.trials import plain_trial
from parity_tests.reporting.verdicts import Level, Side


class MeanForSum(TorchTrainee):
    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        return super().loss(logits, labels) / len(labels)


class LabelsShifted(TorchTrainee):
    """From the second step on."""

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        return super().loss(logits, (labels + (self.count > 1)) % 10)


class GradientHalved(TorchTrainee):
    """The loss is right, and what flows back from it is not."""

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        each = super().loss(logits, labels)
        return each.detach() / 2 + each / 2


class SoftmaxTwice(TorchTrainee):
    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        return super().loss(logits.softmax(1), labels)


class Smoothed(TorchTrainee):
    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        wanted = torch.from_numpy(labels.astype(np.int64))
        return nn.functional.cross_entropy(logits, wanted, reduction="none", label_smoothing=0.1)


class LogitsClipped(TorchTrainee):
    """A ReLU in front of the loss."""

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        return super().loss(logits.relu(), labels)


class Accumulated(TorchTrainee):
    """Keeps the gradient of the step before in one tensor."""

    def update(self, rate: float, batch: int) -> None:
        self.gradient_before = self.net[5].weight.grad.clone()
        super().update(rate, batch)

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        if self.count > 1:
            self.net[5].weight.grad = self.gradient_before
        return super().loss(logits, labels)


class StaleSlot(TorchTrainee):
    """In the second step the slot of one tensor is not kept."""

    def update(self, rate: float, batch: int) -> None:
        before = self.updater.slots()
        super().update(rate, batch)
        if self.count == 2:
            after = self.updater.slots()
            self.updater.load({**after, "5/bias": before["5/bias"]}, self.count)


class OneWeight(TorchTrainee):
    """In the second step one weight comes out 64 units off."""

    def update(self, rate: float, batch: int) -> None:
        super().update(rate, batch)
        if self.count == 2:
            weight = self.net[5].weight.data
            weight[3, 7] *= 1 + 128 * torch.finfo(weight.dtype).eps


class Frozen(TorchTrainee):
    """One tensor is not handed to the optimizer."""

    def update(self, rate: float, batch: int) -> None:
        before = self.net[7].bias.detach().clone()
        super().update(rate, batch)
        self.net[7].bias.data.copy_(before)


class RateLate(TorchTrainee):
    """Runs at the rate of the step before."""

    def update(self, rate: float, batch: int) -> None:
        late, self.last = getattr(self, "last", rate), rate
        super().update(late, batch)


class StatisticsMissed(TorchTrainee):
    """In the second step BatchNorm does not keep what it saw."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.net[1].running_mean.clone()
        out = super().forward(x)
        if self.count == 2:
            self.net[1].running_mean.copy_(before)
        return out


class Inference(TorchTrainee):
    """BatchNorm left in inference mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.net.eval()
        return super().forward(x)


class Repeated(TorchTrainee):
    """The second step gets the first one's images again."""

    def step(self, batch: Batch) -> Stages:
        if self.count == 0:
            self.first = batch
        return super().step(replace(batch, images=self.first.images) if self.count == 1 else batch)


class GluonDivides(GluonTrainee):
    """Divides by the batch size twice: once more in the loss."""

    def loss(self, logits: mx.nd.NDArray, labels: np.ndarray) -> mx.nd.NDArray:
        return super().loss(logits, labels) / len(labels)


# (trainee, path, quantity): where each is found first
TRAINEES: tuple[tuple[type[TorchTrainee], str, str], ...] = (
    (MeanForSum, NET, "step 1 loss"),
    (LabelsShifted, NET, "step 2 loss"),
    (GradientHalved, NET, "step 1 logit gradient"),
    (SoftmaxTwice, NET, "step 1 loss"),
    (Smoothed, NET, "step 1 loss"),
    (LogitsClipped, NET, "step 1 loss"),
    (Accumulated, "5", "step 2 weight gradient"),
    (StaleSlot, "5", "step 2 bias mom"),
    (OneWeight, "5", "step 2 weight"),
    (Frozen, "7", "step 1 bias"),
    (RateLate, "0", "step 2 weight mom"),
    (StatisticsMissed, "1", "step 2 running_mean"),
    (Inference, NET, "step 1 logits"),
    (Repeated, NET, "step 2 logits"),
)


def _trained(side: Side, cls: Any, steps: int = 2) -> Callable[[], Detection]:
    def run() -> Detection:
        trial = plain_trial(steps)
        trial.make[side] = cls
        return first_detection(check_training(trial, steps=0, resynchronised=steps))

    return run


def _torchs_own() -> Detection:
    trial = plain_trial(1, norm=nn.BatchNorm2d)
    return first_detection(check_training(trial, steps=0, resynchronised=1))


def _fault(
    name: str, cls: Any, path: str, diagnosis: str, imitates: str, source: str,
    group: str = "loss", side: Side = Side.TORCH,
) -> Fault:  # fmt: skip
    where = f"{side} side of a small training run"
    run = _trained(side, cls)
    return Fault(name, where, run, Level.TRAINING, path, diagnosis, imitates, source, group=group)


LOSS: tuple[Fault, ...] = (
    _fault("mean for sum", MeanForSum, NET, "factor of B", "a loss that is averaged already",
           "torch's reduction='mean' beside Gluon's loss per sample"),
    _fault("divided twice", GluonDivides, NET, "factor of B",
           "a mean loss, and Trainer.step(batch_size) as well",
           "Gluon's Trainer.step documentation: gradients are divided by batch_size",
           side=Side.GLUON),
    _fault("label off by one", LabelsShifted, NET, "labels off by one",
           "classes counted from 1 on one side", "MATLAB and Torch7 count classes from 1"),
    _fault("gradient halved", GradientHalved, NET, "constant factor",
           "a half in the loss on one side", "Gluon's L2Loss carries a ½"),
    _fault("softmax twice", SoftmaxTwice, NET, "softmax applied twice",
           "probabilities handed to a loss that applies log-softmax itself",
           "doc-2: from_logits=False; torch.nn.CrossEntropyLoss's documentation"),
    _fault("labels smoothed", Smoothed, NET, "label smoothing",
           "label smoothing on one side only", "Szegedy et al. 2016, section 7"),
    _fault("logits clipped at zero", LogitsClipped, NET, "activation before the loss",
           "a ReLU after the last layer", "doc-1's classifier"),
    _fault("gradient kept from the step before", Accumulated, "5", "gradient accumulated",
           "zero_grad forgotten", "torch's gradients add up; Gluon's grad_req='write' does not"),
    _fault("update of one bias missing", Frozen, "7", "update missed",
           "a parameter that no optimizer knows", "filter(lambda p: p.requires_grad, …)",
           "optimizer"),
    _fault("slot of one bias not kept", StaleSlot, "5", "update missed",
           "optimizer states loaded for some parameters only",
           "Trainer.load_states keeps counts by device", "optimizer"),
    _fault("one weight off after an update", OneWeight, "5", "single value",
           "one damaged number", "a race or a bit flip in an update in place", "optimizer"),
    _fault("rate of the step before", RateLate, "0", "schedule off by one",
           "scheduler.step() after optimizer.step(), or before",
           "torch.optim.lr_scheduler's documentation: the order changed in 1.1", "optimizer"),
    _fault("running mean missed once", StatisticsMissed, "1", "update missed",
           "a step recorded without backward", "MXNet 1.9.1 updates in backward", "batchnorm"),
    _fault("inference mode in training", Inference, NET, "running statistics in training",
           "eval() before an evaluation, and no train() after it",
           "torch's mode is the module's state", "batchnorm"),
    Fault(name="torch's own BatchNorm in training", group="batchnorm",
          where="torch side of a small training run",
          imitates="nn.BatchNorm2d for the mirror's",
          source="apache/mxnet issue 18751: v/n and v/(n − 1)",
          level=Level.TRAINING, path="1", run=_torchs_own, diagnosis="variance ratio n/(n−1)"),
    _fault("images of the step before", Repeated, NET, "repeated batch",
           "a batch that is trained on twice", "an iterator that is not advanced; a buffer that is"
           " reused while it is read", "data"),
)  # fmt: skip
