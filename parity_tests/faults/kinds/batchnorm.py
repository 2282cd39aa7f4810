"""Faults of batch normalisation that its listing does not show.

Framework specific (torch): each fault is a normalisation layer of one framework.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from parity_tests.faults.base import Fault
from parity_tests.faults.kinds.pairs import in_model, turned
from parity_tests.reporting.verdicts import Level
from torch_ref.models.layers import MXBatchNorm2d

functional = nn.functional


def _per_channel(values: torch.Tensor) -> torch.Tensor:
    return values[None, :, None, None]


class _Written(MXBatchNorm2d):
    """Normalisation by hand; what is wrong is overridden."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = input.mean((0, 2, 3)), input.var((0, 2, 3), unbiased=False)
            self.keep(mean.detach(), variance.detach(), input.numel() // input.shape[1])
        mean, deviation = self.statistics(mean, variance, input)
        normal = (input - _per_channel(mean)) / _per_channel(deviation)
        return normal * _per_channel(self.gain()) + _per_channel(self.offset())

    def keep(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        kept = self.kept()
        for running, batch in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.mul_(kept).add_(batch * (1 - kept))

    def kept(self) -> float:
        return float(torch.tensor(self.mx_momentum, dtype=torch.float32))

    def statistics(self, mean: Any, variance: Any, input: torch.Tensor) -> Any:
        return mean, (variance + self.eps).sqrt()

    def gain(self) -> torch.Tensor:
        return self.weight

    def offset(self) -> torch.Tensor:
        return self.bias


class EpsilonOutside(_Written):
    def statistics(self, mean: Any, variance: Any, input: torch.Tensor) -> Any:
        return mean, variance.sqrt() + self.eps


class Unbiased(_Written):
    def statistics(self, mean: Any, variance: Any, input: torch.Tensor) -> Any:
        n = input.numel() // input.shape[1]
        return mean, (variance * (n / (n - 1)) + self.eps).sqrt() if self.training else (
            variance + self.eps
        ).sqrt()


class FixedGamma(_Written):
    def gain(self) -> torch.Tensor:
        return torch.ones_like(self.weight) + 0 * self.weight


class NoBeta(_Written):
    def offset(self) -> torch.Tensor:
        return 0 * self.bias


class AlwaysTraining(MXBatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training:
            return super().forward(input)
        return functional.batch_norm(
            input, None, None, self.weight, self.bias, training=True, eps=self.eps
        )


class AlwaysInference(MXBatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class Complement(_Written):
    def kept(self) -> float:
        return 1.0 - super().kept()


class NeverKept(_Written):
    def keep(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        return


class StoresUnbiased(_Written):
    def keep(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        super().keep(mean, variance * (count / (count - 1)), count)


class KeptTwice(_Written):
    """A forward that runs twice a step, as gradient checkpointing does."""

    def keep(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        super().keep(mean, variance, count)
        super().keep(mean, variance, count)


class StatisticsConstant(_Written):
    """Sends no gradient through mean and variance."""

    def statistics(self, mean: Any, variance: Any, input: torch.Tensor) -> Any:
        return mean.detach(), (variance.detach() + self.eps).sqrt()


_PATH = "features.4"


def _fault(name: str, cls: Any, level: Level, diagnosis: str, imitates: str, source: str) -> Fault:
    run, where = in_model("mnist_bn_cnn", turned(_PATH, cls)), f"torch mnist_bn_cnn, {_PATH}"
    return Fault(name, where, run, level, _PATH, diagnosis, imitates, source, group="batchnorm")


BATCHNORM: tuple[Fault, ...] = (
    _fault("epsilon outside the root", EpsilonOutside, Level.FORWARD, "eps placement",
           "γ·(x − μ)/(σ + eps) for γ·(x − μ)/√(σ² + eps)",
           "Ioffe and Szegedy 2015, algorithm 1, beside hand-written normalisations"),
    _fault("normalised by the unbiased variance", Unbiased, Level.FORWARD, "variance ratio n/(n−1)",
           "torch.var's default in a BatchNorm written by hand",
           "pytorch/pytorch issue 19902: which of the two is used where"),
    _fault("gamma computed as one", FixedGamma, Level.FORWARD, "gamma ≡ 1",
           "fix_gamma=True left in a symbol file", "apache/mxnet issue 9624"),
    _fault("beta not added", NoBeta, Level.FORWARD, "bias ignored",
           "center=False, or a beta merged into a bias that was dropped",
           "Keras' BatchNormalization(center=False)"),
    _fault("batch statistics in inference", AlwaysTraining, Level.FORWARD,
           "batch statistics in inference", "eval() forgotten, or train_mode left on",
           "MXNet's mode is the autograd scope, torch's the module's state"),
    _fault("running statistics in training", AlwaysInference, Level.FORWARD,
           "running statistics in training", "use_global_stats, or eval() before training",
           "detectors train with frozen BatchNorm: use_global_stats=True in GluonCV"),
    _fault("momentum complement inside", Complement, Level.BACKWARD, "momentum complement",
           "0.1 kept and 0.9 taken", "torch's momentum is what it takes, MXNet's what it keeps"),
    _fault("running statistics never updated", NeverKept, Level.BACKWARD, "update missed",
           "a recorded forward without backward, which leaves MXNet's statistics as they were",
           "apache/mxnet issues 14357 and 18751: the CPU updates them in backward"),
    _fault("unbiased variance stored", StoresUnbiased, Level.BACKWARD, "variance ratio n/(n−1)",
           "torch's own BatchNorm2d, and cuDNN's", "apache/mxnet issue 18751: v/n and v/(n − 1)"),
    _fault("running statistics updated twice", KeptTwice, Level.BACKWARD, "update made twice",
           "a forward that is run again for its activations",
           "torch.utils.checkpoint's documentation warns of it"),
    _fault("statistics held constant in backward", StatisticsConstant, Level.BACKWARD,
           "statistics held constant", "mean and variance detached",
           "apache/mxnet pull request 1061: the second term of ∂μ was once overlooked"),
)  # fmt: skip
