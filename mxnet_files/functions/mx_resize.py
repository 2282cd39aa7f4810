"""MXNet's bilinear resizing of (N, C, H, W) arrays, in code that TorchScript reads."""

import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize_bilinear", "resize_bilinear_by", "resize_bilinear_like"]


def resize_bilinear(x: Tensor, size: list[int], align_corners: bool = True) -> Tensor:
    """x at `size` (height, width), the corners of both grids aligned or not.

    Torch puts a single row in the middle where corners are not aligned, MXNet takes the first.
    """
    if size[0] == 1:
        x = x[:, :, :1]
    if size[1] == 1:
        x = x[:, :, :, :1]
    return F.interpolate(x, size, None, "bilinear", align_corners)


def resize_bilinear_like(x: Tensor, like: Tensor, align_corners: bool = True) -> Tensor:
    """x at like's height and width."""
    return resize_bilinear(x, [like.size(2), like.size(3)], align_corners)


def resize_bilinear_by(
    x: Tensor, rule: str, scale: list[float], align_corners: bool = True
) -> Tensor:
    """x at a size that `rule` makes of its own: `size` and `odd_scale` by factors, others by one.

    `odd_scale` gives (n − 1)·scale + 1 for odd n, as a strided convolution of kernel 1 does.
    """
    sizes = [_resized(x.size(2), rule, scale[0]), _resized(x.size(3), rule, scale[1])]
    return resize_bilinear(x, sizes, align_corners)


def _resized(size: int, rule: str, scale: float) -> int:
    odd = size % 2 == 1
    if rule == "size":
        return _scaled(size, scale)
    if rule == "odd_scale":
        return _scaled(size - 1, scale) + 1 if odd else _scaled(size, scale)
    if odd == rule.startswith("to_odd"):
        return size
    return size + 1 if rule.endswith("up") else size - 1


def _scaled(size: int, scale: float) -> int:
    """The whole part of size·scale, the product rounded to float32 as MXNet's is."""
    product = float(size) * scale  # of numbers: a trace would take arrays of float32
    wide = product * 536870913.0  # 2²⁹ + 1: Veltkamp's splitting leaves 24 bits
    return int(wide - (wide - product))
