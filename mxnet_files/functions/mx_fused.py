"""Layers that MXNet's oneDNN backend joins and quantises, in code that TorchScript reads.

The weights are float32 in the file (those of a dense layer may be int8), and become int8 when the
graph runs: BatchNorm is folded into them, each filter has a scale of its own where the output is
calibrated, and the scale shrinks where a large bias would overflow. Sums are exact here, as VNNI's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mxnet_files.functions import mx_math
from mxnet_files.functions.mx_int8 import _largest, _limit, _over, _single, biased, rounded

__all__ = [
    "dense_scale",
    "dense_weights",
    "eight_bits",
    "fold_batch_norm",
    "requantize_convolution",
    "requantize_dense",
]

LARGEST = 2147483648.0  # what float32 makes of the largest integer of 32 bits


def _scale(limit: float, low: Tensor, high: Tensor) -> Tensor:
    """Units of a number, where the larger end of a range is `limit`."""
    real = _largest(low, high)
    return torch.where(real == 0, torch.full_like(real, LARGEST), _over(limit, real))


def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    fix_gamma: bool,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does what BatchNorm after it would."""
    size = torch.ones_like(gamma) if fix_gamma else gamma
    alpha = _single(size.to(torch.float64) / torch.sqrt(_single(var).to(torch.float64) + eps))
    shift = _single(mean)
    if bias is None:
        moved = _single(beta) - alpha * shift
    else:
        moved = _single(beta) + alpha * (_single(bias) - shift)
    return _single(weight) * alpha.reshape([-1] + [1] * (weight.dim() - 1)), moved


def eight_bits(
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    low: Tensor,
    high: Tensor,
    by_filter: bool,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Weight and bias as whole numbers in float64, the scales of x and of the weight, its range.

    `by_filter` gives each filter a scale of its own; MXNet takes the n-th filter's for the weights
    of the n-th group, which is right where a group has one filter.
    """
    weight = _single(weight)
    of_data = _scale(_limit(x.dtype), low, high)
    flat = weight.reshape([weight.size(0), -1])
    least, most = flat.min(1)[0], flat.max(1)[0]
    if not by_filter:
        least, most = least.min().reshape([1]), most.max().reshape([1])
    scale = _scale(127.5, least, most)
    moved = torch.zeros_like(flat[:, 0])
    if bias is not None:
        moved = _single(bias)
        if by_filter:  # the bias has 32 bits, half of which oneDNN leaves to the sum
            end = torch.where(moved > 0, torch.full_like(moved, LARGEST / 2), -LARGEST / 2)
            scale = torch.where(moved == 0, scale, torch.minimum(scale, end / moved / of_data))
    taken = scale
    if by_filter and groups > 1:
        taken = scale[:groups].repeat_interleave(weight.size(0) // groups)
    whole = rounded(weight * taken.reshape([-1] + [1] * (weight.dim() - 1)), torch.int8)
    shift = rounded(moved * (scale * of_data), torch.int32)
    return whole.to(torch.float64), shift.to(torch.float64), of_data, scale, least, most


def dense_weights(
    weight: Tensor,
    bias: Tensor | None,
    x: Tensor,
    low: Tensor,
    high: Tensor,
    weight_low: Tensor,
    weight_high: Tensor,
    bias_low: Tensor | None,
    bias_high: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `eight_bits`, of weight and bias that the file has in 8 bits already."""
    of_data = _scale(_limit(x.dtype), low, high)
    scale = _scale(127.5, weight_low, weight_high)
    whole = _single(weight)
    shift = torch.zeros_like(whole[:, 0])
    if bias is not None and bias_low is not None and bias_high is not None:
        of_bias = _scale(127.5, bias_low, bias_high)
        wanted = of_data * scale / of_bias
        most = _over(LARGEST / 2, _largest(bias_low, bias_high)) / of_bias
        smaller = most * of_bias / of_data / scale
        over = wanted > most
        whole = torch.where(over, mx_math.round_half_away(whole * smaller), whole)
        scale = torch.where(over, scale * smaller, scale)
        shift = mx_math.round_half_away(_single(bias) * torch.minimum(wanted, most))
    return whole.to(torch.float64), shift.to(torch.float64), of_data, scale


def requantize_convolution(
    y: Tensor,
    shift: Tensor,
    of_data: Tensor,
    scale: Tensor,
    low: float | None,
    high: float | None,
    unsigned: bool,
    slope: float | None,
    other: Tensor | None,
    other_low: Tensor | None,
    other_high: Tensor | None,
    relu: bool,
) -> Tensor:
    """Sums of products as 8 bits of [low, high], as 32 bits without.

    `slope` is that of an activation; then `other` is added, and `relu` cuts what is below 0. The
    sum is kept in the dtype of `other`, whose memory it takes, whatever it is read as then.
    """
    shape = [1, -1] + [1] * (y.dim() - 2)
    out = biased(y, shift, 1)
    dtype = torch.int32
    units = of_data * scale
    if low is not None and high is not None:
        dtype = torch.uint8 if unsigned else torch.int8
        ends = torch.full_like(of_data, low), torch.full_like(of_data, high)
        units = _scale(_limit(dtype), ends[0], ends[1])
        out = out * (units / of_data / scale).reshape(shape)
    if slope is not None:
        out = torch.where(out > 0, out, out * slope)
    kept = dtype
    if other is not None and other_low is not None and other_high is not None:
        factor = units / _scale(_limit(other.dtype), other_low, other_high)
        # one rounding, as of a fused multiply-add
        out = _single(out.to(torch.float64) + factor.to(torch.float64) * other.to(torch.float64))
        kept = torch.int32 if dtype == torch.int32 else other.dtype
    if relu:
        out = out.clamp(min=0)
    return _read_as(rounded(out, kept), dtype)


def _read_as(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The same bits as another dtype of 8."""
    if x.dtype == dtype:
        return x
    wide = x.to(torch.int32)
    if dtype == torch.uint8:
        return torch.where(wide < 0, wide + 256, wide).to(dtype)
    return torch.where(wide > 127, wide - 256, wide).to(dtype)


def dense_scale(x: Tensor, scale: Tensor) -> Tensor:
    """A scale for the last axis of x."""
    return scale.reshape([1] * (x.dim() - 1) + [-1])


def requantize_dense(
    y: Tensor,
    shift: Tensor | None,
    of_data: Tensor,
    scale: Tensor,
    low: float | None,
    high: float | None,
    unsigned: bool,
    floating: bool,
    kind: str,
    alpha: float,
) -> Tensor:
    """Sums of products, of which `kind` is the activation, as 8 bits, as float32 or as 32 bits."""
    dtype = torch.uint8 if unsigned else torch.int8
    calibrated = low is not None and high is not None
    if shift is None and kind == "" and not calibrated and not floating:
        return rounded(y, torch.int32)  # no float32 on the way
    out = biased(y, shift, -1)
    units = torch.ones_like(of_data)
    if low is not None and high is not None:
        ends = torch.full_like(of_data, low), torch.full_like(of_data, high)
        units = _scale(_limit(dtype), ends[0], ends[1])
    if calibrated and kind == "":
        out = out * dense_scale(out, units / of_data / scale)
    elif calibrated or floating:
        out = out * dense_scale(out, _over(1.0, of_data) / scale)
    if kind == "leaky":
        out = torch.where(out > 0, out, out * alpha)
    elif kind == "elu":
        out = torch.where(out > 0, out, alpha * torch.expm1(out))
    elif kind == "gelu":
        out = F.gelu(out)
    elif kind == "abs":
        out = out.abs()
    elif kind == "clip":
        out = out.clamp(0.0, alpha)
    if kind != "" and calibrated:
        out = out * units
    if floating:
        return out
    return rounded(out, dtype if calibrated else torch.int32)
