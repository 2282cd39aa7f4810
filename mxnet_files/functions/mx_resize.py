"""MXNet's bilinear resizing of (N, C, H, W) arrays, and its images, in code of TorchScript."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mxnet_files.functions import mx_dtype

__all__ = [
    "image_crop",
    "image_flip",
    "image_normalize",
    "image_to_tensor",
    "resize_bilinear",
    "resize_bilinear_by",
    "resize_bilinear_like",
]


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


def image_to_tensor(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(H, W, C) or (N, H, W, C) of 0 to 255 -> channels first, 0 to 1."""
    if x.dim() != 3 and x.dim() != 4:
        raise ValueError("image_to_tensor: expected an image (H, W, C) or several")
    axes = [2, 0, 1] if x.dim() == 3 else [0, 3, 1, 2]
    return x.to(dtype).div(255.0).permute(axes)


def image_normalize(x: Tensor, mean: list[float], std: list[float]) -> Tensor:
    """(x - mean) / std for each channel of (C, H, W) or (N, C, H, W); integers wrap round."""
    if x.dim() != 3 and x.dim() != 4:
        raise ValueError("image_normalize: expected an image (C, H, W) or several")
    channels = x.size(-3)
    if channels != 1 and channels != 3:
        raise ValueError("image_normalize: expected 1 or 3 channels")
    for count in [len(mean), len(std)]:
        if count != 1 and count != channels:
            raise ValueError("image_normalize: mean and std need a number for each channel")
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    center = torch.tensor(mean, dtype=wide.dtype, device=x.device).reshape([-1, 1, 1])
    spread = torch.tensor(std, dtype=wide.dtype, device=x.device).reshape([-1, 1, 1])
    return mx_dtype.cast((wide - center) / spread, x.dtype)


def image_crop(x: Tensor, left: int, top: int, width: int, height: int) -> Tensor:
    """A part of (H, W, C) or (N, H, W, C)."""
    if x.dim() != 3 and x.dim() != 4:
        raise ValueError("image_crop: expected an image (H, W, C) or several")
    return x.narrow(-3, top, height).narrow(-2, left, width)


def image_flip(x: Tensor, axis: int) -> Tensor:
    """(H, W, C) upside down (axis 0) or mirrored (axis 1)."""
    if x.dim() != 3:
        raise ValueError("image_flip: expected an image (H, W, C)")
    return x.flip([axis])
