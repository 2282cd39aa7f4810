"""`mx.np`'s functions where torch's namesake differs, in code that TorchScript reads.

`axes` empty means all of them; a reduction of everything has shape ().
"""

import torch
from torch import Tensor

from mxnet_files.functions import mx_math

__all__ = [
    "argmax",
    "argmin",
    "concatenate",
    "deviation",
    "dot",
    "reduce_all",
    "reduce_any",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "squeeze",
    "variance",
    "where",
]


def _scalar(y: Tensor, axes: list[int], keepdims: bool, dims: int) -> Tensor:
    """() in the place of (1,) where every axis went."""
    gone = len(axes) == 0 or len(axes) == dims
    return y.reshape([]) if gone and not keepdims else y


def reduce_sum(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Sum over `axes`."""
    return _scalar(mx_math.reduce_sum(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_mean(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Mean over `axes`."""
    return _scalar(mx_math.reduce_mean(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_prod(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Product over `axes`."""
    return _scalar(mx_math.reduce_prod(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_max(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Largest over `axes`."""
    return _scalar(mx_math.reduce_max(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_min(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """Smallest over `axes`."""
    return _scalar(mx_math.reduce_min(x, axes, keepdims), axes, keepdims, x.dim())


def reduce_all(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """True where no element over `axes` is 0."""
    low = mx_math.reduce_min((x != 0).to(torch.int32), axes, keepdims)
    return _scalar(low != 0, axes, keepdims, x.dim())


def reduce_any(x: Tensor, axes: list[int], keepdims: bool) -> Tensor:
    """True where an element over `axes` is not 0."""
    high = mx_math.reduce_max((x != 0).to(torch.int32), axes, keepdims)
    return _scalar(high != 0, axes, keepdims, x.dim())


def variance(x: Tensor, axes: list[int], ddof: int, keepdims: bool) -> Tensor:
    """Mean square distance from the mean, over n − ddof."""
    chosen = axes if len(axes) > 0 else list(range(x.dim()))
    return torch.var(x, chosen, correction=ddof, keepdim=keepdims)


def deviation(x: Tensor, axes: list[int], ddof: int, keepdims: bool) -> Tensor:
    """The root of the variance."""
    return torch.sqrt(variance(x, axes, ddof, keepdims))


def argmax(x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    """Place of the first largest element, int64."""
    if axis is None:
        place = torch.argmax(x.reshape([-1]))
        return place.reshape([1] * x.dim()) if keepdims else place
    return torch.argmax(x, axis, keepdims)


def argmin(x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    """Place of the first smallest element, int64."""
    return argmax(-x, axis, keepdims)


def squeeze(x: Tensor, axes: list[int]) -> Tensor:
    """Drop axes of size 1, all of them if none is given."""
    return x.squeeze() if len(axes) == 0 else x.squeeze([axis for axis in axes])  # noqa: C416


def concatenate(inputs: list[Tensor], axis: int | None) -> Tensor:
    """Joined along `axis`, or flattened first."""
    if axis is None:
        return torch.cat([x.reshape([-1]) for x in inputs])
    return torch.cat(inputs, axis)


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition is not zero."""
    return torch.where(condition != 0, x, y)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """numpy's dot: a's last axis with b's last but one."""
    if a.dim() == 0 or b.dim() == 0:
        return a * b
    if b.dim() == 1:
        return torch.matmul(a, b)
    inner = b.size(-2)
    right = b.movedim(-2, 0)
    out = a.reshape([-1, inner]) @ right.reshape([inner, -1])
    return out.reshape(list(a.shape[:-1]) + list(right.shape[1:]))
