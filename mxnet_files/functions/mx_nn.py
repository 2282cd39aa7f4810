"""MXNet's neural operators where torch's namesake differs, in code that TorchScript reads.

Shapes are (N, C, spatial...) unless said otherwise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# ruff: noqa: RUF005 (TorchScript has no [*a, b])

__all__ = [
    "deconvolution_to",
    "embedding",
    "global_pool",
    "group_norm",
    "l2_normalize",
    "layer_norm",
    "layer_norm_statistics",
    "pool",
    "pool_1d",
    "pool_v1",
    "selu",
    "sum_pool",
]


def sum_pool(
    x: Tensor, kernel: list[int], stride: list[int], pad: list[int], full: bool = False
) -> Tensor:
    """Sums of windows over 2 or 3 spatial axes; `full` as torch's ceil_mode."""
    if len(kernel) == 3:
        return F.avg_pool3d(x, kernel, stride, pad, full, True, 1)
    return F.avg_pool2d(x, kernel, stride, pad, full, True, 1)


def _max_pool(
    x: Tensor, kernel: list[int], stride: list[int], pad: list[int], full: bool
) -> Tensor:
    ones = [1] * len(kernel)
    if len(kernel) == 3:
        return torch.max_pool3d(x, kernel, stride, pad, ones, full)
    return torch.max_pool2d(x, kernel, stride, pad, ones, full)


def _average_pool(
    x: Tensor, kernel: list[int], stride: list[int], pad: list[int], full: bool, count_pad: bool
) -> Tensor:
    if len(kernel) == 3:
        return F.avg_pool3d(x, kernel, stride, pad, full, count_pad)
    return F.avg_pool2d(x, kernel, stride, pad, full, count_pad)


def _both_sides(pad: list[int]) -> list[int]:
    """Padding per axis -> the list that `F.pad` takes, last axis first."""
    sides: list[int] = []
    for amount in pad:
        sides = [amount, amount] + sides
    return sides


def _root(x: Tensor, p: int) -> Tensor:
    if p == 1:
        return x
    if p == 2:
        return torch.sqrt(x)
    return torch.sign(x) * torch.pow(torch.abs(x), 1.0 / 3.0)


def _left_out(x: Tensor, kernel: list[int], stride: list[int], pad: list[int]) -> list[int]:
    """How many of MXNet's `full` windows torch leaves out, as `F.pad` takes it."""
    sides: list[int] = []
    for i in range(len(kernel)):
        size = x.size(i + 2)
        windows = 1 + (size + 2 * pad[i] - kernel[i] + stride[i] - 1) // stride[i]
        missing = 1 if (windows - 1) * stride[i] >= size + pad[i] else 0
        sides = [0, missing] + sides
    return sides


def pool(
    x: Tensor,
    kind: str,
    kernel: list[int],
    stride: list[int],
    pad: list[int],
    full: bool = False,
    count_pad: bool = True,
    p: int = 2,
) -> Tensor:
    """Pooling with kind max, avg, sum or lp over 2 or 3 spatial axes.

    `full` gives 1 + ceil((x + 2·pad − kernel)/stride) windows. Torch drops a last window that
    starts in the right padding; MXNet keeps it: it holds no pixel, so its maximum is the lowest
    number and its sum and mean are 0. `lp` is (Σ xᵖ)^(1/p), without absolute values.
    """
    wide = False  # torch pads at most half a kernel
    for i in range(len(kernel)):
        wide = wide or 2 * pad[i] > kernel[i]
    none = [0] * len(pad) if wide else pad
    ones = torch.ones_like(x[:1, :1])
    if wide:
        border = -float("inf") if kind == "max" else 0.0
        x = F.pad(x, _both_sides(pad), "constant", border)
        ones = F.pad(ones, _both_sides(pad))
    empty = [0] * (2 * len(kernel))
    if full:
        empty = _left_out(x, kernel, stride, none)
    if kind == "max":
        y = _max_pool(x, kernel, stride, none, full)
        y = F.pad(y, empty, "constant", -float("inf"))
        if wide or sum(empty) > 0:
            y = torch.nan_to_num(y, float("nan"), float("inf"))  # -inf -> the lowest number
        return y
    if kind == "lp":
        y = _root(sum_pool(torch.pow(x, p), kernel, stride, none, full), p)
    elif kind == "sum":
        y = sum_pool(x, kernel, stride, none, full)
    elif wide and not count_pad:
        pixels = sum_pool(ones, kernel, stride, none, full)
        y = sum_pool(x, kernel, stride, none, full) / pixels.clamp(min=1)
    else:
        y = _average_pool(x, kernel, stride, none, full, count_pad)
    return F.pad(y, empty)


def pool_1d(
    x: Tensor,
    kind: str,
    kernel: list[int],
    stride: list[int],
    pad: list[int],
    full: bool = False,
    count_pad: bool = True,
    p: int = 2,
) -> Tensor:
    """`pool` over one spatial axis."""
    y = x.unsqueeze(-1)
    wide = (list(kernel) + [1], list(stride) + [1], list(pad) + [0])
    y = pool(y, kind, wide[0], wide[1], wide[2], full, count_pad, p)
    return y.squeeze(-1)


def global_pool(x: Tensor, kind: str, p: int = 2) -> Tensor:
    """One window over all spatial axes, kept with size 1."""
    flat = x.flatten(2)
    if kind == "max":
        y = F.adaptive_max_pool1d(flat, 1)
    elif kind == "avg":
        y = flat.mean(2, True)
    elif kind == "sum":
        y = flat.sum(2, True)
    else:
        y = _root(torch.pow(flat, p).sum(2, True), p)
    for _ in range(x.dim() - 3):
        y = y.unsqueeze(-1)
    return y


def pool_v1(
    x: Tensor, kind: str, kernel: list[int], stride: list[int], pad: list[int], full: bool
) -> Tensor:
    """Pooling_v1: pads with zeros even for max, and always divides by the whole kernel.

    A window of `full` that starts behind the padded input holds nothing: its maximum is -infinity.
    """
    x = F.pad(x, _both_sides(pad))
    none = [0] * len(pad)
    empty = [0] * (2 * len(kernel))
    if full:
        empty = _left_out(x, kernel, stride, none)
    if kind == "max":
        return F.pad(_max_pool(x, kernel, stride, none, full), empty, "constant", -float("inf"))
    y = sum_pool(x, kernel, stride, none, full)
    if kind == "avg":
        area = 1
        for size in kernel:
            area *= size
        y = y / area
    return F.pad(y, empty)


def deconvolution_to(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: list[int],
    stride: list[int],
    dilate: list[int],
    groups: int,
) -> Tensor:
    """Transposed convolution padded so that the spatial output is `target` exactly."""
    pad: list[int] = []
    adjust: list[int] = []
    for i in range(len(target)):
        reach = (weight.size(i + 2) - 1) * dilate[i] + 1
        excess = stride[i] * (x.size(i + 2) - 1) + reach - target[i]
        if excess < 0:
            raise ValueError("Deconvolution target_shape is larger than its input can fill")
        if excess % 2 >= stride[i]:
            raise ValueError("Deconvolution target_shape needs more than its stride adds")
        adjust.append(excess % 2)
        pad.append((excess + 1) // 2)
    if len(target) == 1:
        return F.conv_transpose1d(x, weight, bias, stride, pad, adjust, groups, dilate)
    if len(target) == 2:
        return F.conv_transpose2d(x, weight, bias, stride, pad, adjust, groups, dilate)
    return F.conv_transpose3d(x, weight, bias, stride, pad, adjust, groups, dilate)


def embedding(indices: Tensor, weight: Tensor) -> Tensor:
    """Rows of `weight`. Indices are floats as a rule; those out of range take the nearest row."""
    rows = indices.to(torch.int64).clamp(0, weight.size(0) - 1)
    return F.embedding(rows, weight)


def selu(x: Tensor) -> Tensor:
    """Self-normalising ELU; below zero the slope is λα + y (MXNet's own gradient is λ(α + y))."""
    # λ and α as MXNet holds them: float32, in float64 nets too
    low = 1.6732631921768188 * torch.expm1(torch.clamp(x, max=0.0))
    return 1.0507010221481323 * torch.where(x > 0, x, low)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, axis: int, eps: float) -> Tensor:
    """Normalise along one axis, then scale and shift along the same."""
    if axis == -1 or axis == x.dim() - 1:
        return F.layer_norm(x, [int(gamma.size(0))], gamma, beta, eps)  # fixed in a trace, for ONNX
    return layer_norm_statistics(x, gamma, beta, axis, eps)[0]


def layer_norm_statistics(
    x: Tensor, gamma: Tensor, beta: Tensor, axis: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """layer_norm, the mean, and sqrt(var + eps); the last two keep the axis with size 1."""
    var, mean = torch.var_mean(x, [axis], correction=0, keepdim=True)
    std = torch.sqrt(var + eps)
    shape = [1] * x.dim()
    shape[axis] = x.size(axis)
    y = (x - mean) / std * gamma.reshape(shape) + beta.reshape(shape)
    return y, mean, std


def group_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over each group of channels; (y, mean, sqrt(var + eps)), statistics (N, groups).

    MXNet 1.6 to 1.9 scale by one gamma a group, later versions by one a channel: the length tells.
    """
    n, c = x.size(0), x.size(1)
    grouped = x.reshape([n, groups, -1])
    var, mean = torch.var_mean(grouped, [2], correction=0, keepdim=True)
    std = torch.sqrt(var + eps)
    y = (grouped - mean) / std
    if gamma.size(0) == groups:
        y = (y * gamma.reshape(1, -1, 1) + beta.reshape(1, -1, 1)).reshape(x.shape)
    else:
        y = y.reshape([n, c, -1]) * gamma.reshape(1, -1, 1) + beta.reshape(1, -1, 1)
        y = y.reshape(x.shape)
    return y, mean.squeeze(2), std.squeeze(2)


def l2_normalize(x: Tensor, mode: str, eps: float) -> Tensor:
    """x / sqrt(Σ x² + eps), the sum over all but the batch, over channels, or over space."""
    axes: list[int] = []
    for axis in range(1, x.dim()):
        if mode == "instance" or (mode == "channel") == (axis == 1):
            axes.append(axis)
    return x / torch.sqrt((x * x).sum(axes, True) + eps)
