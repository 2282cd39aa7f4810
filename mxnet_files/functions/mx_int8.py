"""MXNet's int8 arithmetic, as its CPU does it through oneDNN, in code that TorchScript reads.

Arrays of int8 and uint8 come with the range (1,) that ±127.5 or 255.5 stand for, int32 ones with
that of ±2³¹. All is reckoned in float32, whatever the dtype of the net. Sums are exact here;
without VNNI oneDNN adds pairs of products in 16 bits, which saturates near the limits.
"""

import torch
from torch import Tensor

from mxnet_files.functions import mx_dtype

__all__ = [
    "batch_norm",
    "biased",
    "concatenate",
    "dense_bias",
    "dense_range",
    "dequantize",
    "elementwise_add",
    "elementwise_multiply",
    "product_range",
    "quantize",
    "quantize_between",
    "rectify",
    "requantize",
    "rounded",
    "whole_like",
]


def _single(x: Tensor) -> Tensor:
    return x.to(torch.float32)


def _largest(low: Tensor, high: Tensor) -> Tensor:
    """The larger size, the first one where the second is NaN."""
    a, b = _single(low).abs(), _single(high).abs()
    return torch.where(a < b, b, a)


def _ends(x: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest number, NaN left out; MXNet begins at the finite ones' ends."""
    last = torch.full_like(x, 3.4028234663852886e38)
    unknown = torch.isnan(x)
    low = torch.minimum(torch.where(unknown, last, x), last).min()
    return low.reshape([1]), torch.maximum(torch.where(unknown, -last, x), -last).max().reshape([1])


def _over(value: float, x: Tensor) -> Tensor:
    """A number over an array, rounded once; torch multiplies by the reciprocal."""
    return torch.full_like(x, value) / x


def _limit(dtype: torch.dtype) -> float:
    """What the end of a range stands for."""
    if dtype == torch.int32:
        return 2147483648.0
    return 255.5 if dtype == torch.uint8 else 127.5


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest integer, halves to even, or the nearest that the dtype has; 0 for NaN.

    The largest one of 32 bits is that which float32 has, too.
    """
    known = torch.where(torch.isnan(x), torch.zeros_like(x), x)
    if dtype == torch.int32:
        return torch.round(known.to(torch.float64)).clamp(-2147483648, 2147483520).to(dtype)
    low, high = (0.0, 255.0) if dtype == torch.uint8 else (-128.0, 127.0)
    return torch.round(known).clamp(low, high).to(dtype)


def _scaled(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """x in 8 bits as oneDNN's reorder writes it: NaN, as of zeros by infinity, is 127 in int8."""
    y = _single(x) * scale
    if dtype == torch.int8:
        y = torch.where(torch.isnan(y), torch.full_like(y, 127.0), y)
    return rounded(y, dtype)


def biased(y: Tensor, bias: Tensor | None, axis: int) -> Tensor:
    """Sums of products in float32, in which oneDNN adds a bias for each channel, too."""
    if bias is None:
        return _single(y)
    shape = [1] * y.dim()
    shape[axis] = y.size(axis)
    return _single(y) + _single(bias).reshape(shape)


def whole_like(y: Tensor, x: Tensor) -> Tensor:
    """y in the dtype of x, halves to even."""
    return rounded(y, x.dtype)


def quantize(
    x: Tensor, dtype: torch.dtype, low: float | None, high: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """x in 8 bits and its range: the calibrated one, or that of its values."""
    if not x.is_floating_point():
        end = 255.5 if x.dtype == torch.uint8 else 127.5
        first = torch.full([1], 0.0 if x.dtype == torch.uint8 else -end, device=x.device)
        last = torch.full([1], end, device=x.device)
        if low is not None and high is not None:
            first, last = torch.full_like(first, low), torch.full_like(last, high)
        return x, first, last
    y = _single(x)
    if low is not None and high is not None:
        first = torch.full([1], low, device=x.device)
        last = torch.full([1], high, device=x.device)
    else:
        first, last = _ends(y)
    real = _largest(first, last)
    out = _scaled(y, _over(_limit(dtype), real), dtype)
    if dtype == torch.uint8:
        return out, first, last
    return out, -real, real


def quantize_between(
    x: Tensor, low: Tensor, high: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """x in 8 bits by the range that other nodes found, and this range."""
    real = _largest(low, high)
    out = _scaled(x, _over(255.0 if dtype == torch.uint8 else 127.0, real), dtype)
    if dtype == torch.uint8:
        return out, _single(low), _single(high)
    return out, -real, real


def dequantize(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x in float32."""
    return _single(x) * (_largest(low, high) / _limit(x.dtype))


def requantize(
    x: Tensor,
    low: Tensor,
    high: Tensor,
    dtype: torch.dtype,
    calibrated_low: float | None,
    calibrated_high: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """int32 in 8 bits, of the calibrated range or that of its values."""
    first = _largest(low, high) / 2147483648.0
    if calibrated_low is not None and calibrated_high is not None:
        real = torch.full_like(first, max(abs(calibrated_low), abs(calibrated_high)))
    else:
        # the size of -2³¹ is beyond int32, and -2³¹ again
        size = x.to(torch.int64).abs().max().to(torch.int32)
        real = _single(size) * _largest(low, high) / 2147483648.0
    end = 255.0 if dtype == torch.uint8 else 127.0
    out = _scaled(x, first * _over(end, real), dtype)
    return out, torch.zeros_like(real) if dtype == torch.uint8 else -real, real


def product_range(
    low: Tensor, high: Tensor, weight_low: Tensor, weight_high: Tensor, unsigned: bool
) -> tuple[Tensor, Tensor]:
    """The range of int32 products of data and int8 weights."""
    step = _largest(low, high) / (255.0 if unsigned else 127.0)
    end = step * (_largest(weight_low, weight_high) / 127.0) * 2147483648.0
    return -end, end


def elementwise_multiply(
    x: Tensor,
    y: Tensor,
    low: Tensor,
    high: Tensor,
    other_low: Tensor,
    other_high: Tensor,
    ends: list[float],
    floats: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Products of int8 arrays and their range: in int32, in int8 of the range `ends`, in float32.

    Fractions are cut off, as C does it.
    """
    if x.dtype != torch.int8 or y.dtype != torch.int8:
        raise ValueError("quantized_elemwise_mul: expected int8")
    product = x.to(torch.int32) * y.to(torch.int32)
    first, last = product_range(low, high, other_low, other_high, False)
    a, b = _over(127.5, _largest(low, high)), _over(127.5, _largest(other_low, other_high))
    if floats:
        one = torch.ones_like(a).to(torch.float64)
        return _single(product) * _single(one / a / b), first, last
    if len(ends) == 0:
        return product, first, last
    first, last = torch.full_like(first, ends[0]), torch.full_like(last, ends[1])
    scale = _over(127.5, _largest(first, last)) / a / b
    return mx_dtype.cut(_single(product) * scale, torch.int8), first, last


def dense_range(
    x: Tensor, low: Tensor, high: Tensor, weight_low: Tensor, weight_high: Tensor
) -> tuple[Tensor, Tensor]:
    """`product_range` of what the data is."""
    return product_range(low, high, weight_low, weight_high, x.dtype == torch.uint8)


def dense_bias(
    bias: Tensor,
    x: Tensor,
    low: Tensor,
    high: Tensor,
    weight_low: Tensor,
    weight_high: Tensor,
    bias_low: Tensor,
    bias_high: Tensor,
) -> Tensor:
    """An int8 bias in the units of the products, without its fraction; -2³¹ beyond 32 bits."""
    scale = _over(_limit(x.dtype), _largest(low, high))
    scale = scale * _over(127.5, _largest(weight_low, weight_high))
    whole = torch.trunc(_single(bias) * (scale * _largest(bias_low, bias_high) / 127.5))
    return torch.where(whole.abs() < 2147483648.0, whole, -2147483648.0)


def rectify(x: Tensor) -> Tensor:
    """The larger of x and 0, as int8 whatever x is."""
    return x.clamp(min=0).to(torch.int8)


def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    var: Tensor,
    low: Tensor,
    high: Tensor,
    eps: float,
    axis: int,
    calibrated_low: float,
    calibrated_high: float,
) -> Tensor:
    """int8 by the running statistics; MXNet takes gamma as it is stored, and adds eps twice."""
    y = _single(x)
    if x.dtype == torch.uint8:
        y = torch.round(y * (127.5 / 255.5)).clamp(-128.0, 127.0)
    real, out = _largest(low, high), max(abs(calibrated_low), abs(calibrated_high))
    scale = _single(gamma) * (1.0 / torch.sqrt(_single(var).to(torch.float64) + eps)).to(
        torch.float32
    )
    shift = (_single(beta) - _single(mean) * scale) * 127.5 / out
    scale = scale * real / out
    shape = [1] * x.dim()
    shape[axis] = x.size(axis)
    again = _over(1.0, torch.sqrt(torch.ones_like(scale) + eps)).reshape(shape)
    return rounded(y * (scale.reshape(shape) * again) + shift.reshape(shape), torch.int8)


def concatenate(
    inputs: list[Tensor], lows: list[Tensor], highs: list[Tensor], axis: int
) -> tuple[Tensor, Tensor, Tensor]:
    """8-bit arrays in the range that holds them all, joined."""
    dtype = torch.uint8
    low, high = torch.zeros_like(_single(lows[0])), torch.zeros_like(_single(highs[0]))
    for i in range(len(inputs)):
        if inputs[i].dtype == torch.int8:
            dtype = torch.int8
        first, last = _single(lows[i]), _single(highs[i])
        low, high = torch.where(first < low, first, low), torch.where(last > high, last, high)
    scale = _over(_limit(dtype), _largest(low, high))
    parts: list[Tensor] = []
    for i in range(len(inputs)):
        own = _over(_limit(inputs[i].dtype), _largest(lows[i], highs[i]))
        part = _scaled(inputs[i], scale / own, dtype)
        parts.append(torch.where(scale == own, inputs[i].to(dtype), part))
    return torch.cat(parts, axis), low, high


def elementwise_add(
    a: Tensor,
    b: Tensor,
    a_low: Tensor,
    a_high: Tensor,
    b_low: Tensor,
    b_high: Tensor,
    low: float | None,
    high: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of 8-bit arrays: in 8 bits of a calibrated range, else in int32."""
    left, right = _largest(a_low, a_high), _largest(b_low, b_high)
    dtype = torch.int32
    if low is not None and high is not None:
        dtype = a.dtype if a.dtype == b.dtype else torch.int8
        first, last = torch.full_like(left, low), torch.full_like(left, high)
        end = _over(_limit(dtype), _largest(first, last))
        of_a = end / _over(_limit(a.dtype), left)
        of_b = end / _over(_limit(b.dtype), right)
    else:
        last = left + right
        first = -last
        of_a = left * 2147483648.0 / (last * _limit(a.dtype))
        of_b = right * 2147483648.0 / (last * _limit(b.dtype))
    x, y = _single(a), _single(b)
    if a.dtype != b.dtype:  # the unsigned one becomes int8 first
        one = torch.ones_like(of_a)
        if a.dtype == torch.uint8:
            x, of_a = _single(_scaled(a, of_a, torch.int8)), one
        else:
            y, of_b = _single(_scaled(b, of_b, torch.int8)), one
    return rounded(x * of_a + y * of_b, dtype), first, last
