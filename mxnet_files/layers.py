"""The layers that behave differently while training.

Their parameters arrive as arguments: the root module holds them, under MXNet's own names.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BatchNorm", "BatchNormWithStatistics", "Dropout"]


def _channels(axis: int, x: Tensor) -> int:
    """The channel axis of x counted from the left; torch's ONNX exporter needs it so."""
    return axis + x.dim() if axis < 0 else axis


def _all_but_channels(x: Tensor) -> list[int]:
    axes = list(range(x.dim()))
    axes.pop(1)
    return axes


class BatchNorm(nn.Module):
    """MXNet's BatchNorm over channel axis `axis`.

    In training it normalises with the batch's mean and biased variance, and keeps
    `momentum·running + (1 − momentum)·batch` of both, the variance biased too (torch keeps the
    unbiased one). MXNet on the CPU updates the running values in backward; here it happens in
    forward. `momentum` and `1 − momentum` are rounded to float32, as MXNet's are.
    """

    def __init__(self, eps: float, momentum: float, use_global_stats: bool, axis: int) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = float(np.float32(momentum))
        self.rest = float(np.float32(1) - np.float32(momentum))
        self.use_global_stats = use_global_stats
        self.axis = axis

    def extra_repr(self) -> str:
        return (
            f"eps={self.eps:g}, momentum={self.momentum:g}, "
            f"use_global_stats={self.use_global_stats}, axis={self.axis}"
        )

    def forward(
        self,
        x: Tensor,  # (N, C, ...) for axis 1
        gamma: Tensor | None,  # (C,); None where fix_gamma holds it at 1
        beta: Tensor,
        moving_mean: Tensor,
        moving_var: Tensor,
    ) -> Tensor:
        axis = _channels(self.axis, x)
        if axis != 1:
            x = x.movedim(axis, 1)
        if self.training and not self.use_global_stats:
            self.keep(x, moving_mean, moving_var)
            y = F.batch_norm(x, None, None, gamma, beta, True, 0.0, self.eps)
        else:
            y = F.batch_norm(x, moving_mean, moving_var, gamma, beta, False, 0.0, self.eps)
        if axis != 1:
            y = y.movedim(1, axis)
        return y

    def keep(self, x: Tensor, moving_mean: Tensor, moving_var: Tensor) -> None:
        """Fold the batch's mean and biased variance into the running ones."""
        with torch.no_grad():
            axes = _all_but_channels(x)
            var, mean = torch.var_mean(x, axes, correction=0)
            moving_mean.copy_(moving_mean * self.momentum + mean * self.rest)
            moving_var.copy_(moving_var * self.momentum + var * self.rest)


class BatchNormWithStatistics(BatchNorm):
    """BatchNorm with `output_mean_var`: (y, mean, 1/sqrt(var + eps)) of what it normalised with."""

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor,
        moving_mean: Tensor,
        moving_var: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        axis = _channels(self.axis, x)
        if axis != 1:
            x = x.movedim(axis, 1)
        if self.training and not self.use_global_stats:
            axes = _all_but_channels(x)
            var, mean = torch.var_mean(x, axes, correction=0)
            self.keep(x, moving_mean, moving_var)
        else:
            mean, var = moving_mean.clone(), moving_var
        scale = torch.rsqrt(var + self.eps)
        y = F.batch_norm(x, mean, var, gamma, beta, False, 0.0, self.eps)
        if axis != 1:
            y = y.movedim(1, axis)
        return y, mean, scale


class Dropout(nn.Module):
    """Dropout with MXNet's extras: masks shared along `axes`, and `always` (in inference too)."""

    def __init__(self, p: float, axes: tuple[int, ...], always: bool) -> None:
        super().__init__()
        self.p = p
        self.axes = list(axes)
        self.always = always

    def extra_repr(self) -> str:
        return f"p={self.p:g}, axes={self.axes}, always={self.always}"

    def forward(self, x: Tensor) -> Tensor:
        active = self.training or self.always
        if len(self.axes) == 0:
            return F.dropout(x, self.p, active)
        mask = torch.ones_like(x)
        for axis in self.axes:
            mask = mask.narrow(axis, 0, 1)
        return x * F.dropout(mask, self.p, active)
