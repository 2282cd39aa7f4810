"""Layers that a written model carries with it: MXNet's, where torch's own train otherwise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BatchNorm", "Embedding", "hard_sigmoid", "relu6"]


def relu6(x: Tensor) -> Tensor:
    """x between 0 and 6; the gradient passes at both ends, as that of MXNet's clip does."""
    return x.clamp(0.0, 6.0)


def hard_sigmoid(x: Tensor) -> Tensor:
    """A line from 0 at -3 to 1 at 3."""
    return relu6(x + 3.0) / 6.0


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm as MXNet trains it: the running variance is the batch's own.

    torch keeps it n/(n - 1) times as large. `momentum` is torch's, the part that the batch
    adds; `scale=False` holds gamma at 1; `frozen=True` normalises by the running statistics
    in training too.
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        scale: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__(channels, eps, momentum)
        self.keep = 1 - momentum
        self.add = momentum
        self.frozen = frozen
        if not scale:
            self.register_parameter("weight", None)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        assert mean is not None
        assert var is not None
        if self.training and not self.frozen:
            with torch.no_grad():
                axes = [0] + list(range(2, x.dim()))  # noqa: RUF005
                batch_var, batch_mean = torch.var_mean(x, axes, correction=0)
                mean.copy_(mean * self.keep + batch_mean * self.add)
                var.copy_(var * self.keep + batch_var * self.add)
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)


class Embedding(nn.Embedding):
    """Rows by number, as MXNet: of any dtype; one out of range takes the nearest row."""

    def forward(self, indices: Tensor) -> Tensor:
        rows = indices.to(torch.int64).clamp(0, self.num_embeddings - 1)
        return F.embedding(rows, self.weight)
