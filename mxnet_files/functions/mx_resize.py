"""MXNet's bilinear resizing of (N, C, H, W) arrays, and its images, in code of TorchScript."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mxnet_files.functions import mx_dtype

__all__ = [
    "image_crop",
    "image_flip",
    "image_normalize",
    "image_resize",
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


def _places(size: int, wanted: int, x: Tensor) -> Tensor:
    """Where the pixels of the wider or narrower image lie in the old one, in float32 as OpenCV."""
    scale = 1.0 / (float(wanted) / float(size))
    middle = torch.arange(wanted, device=x.device).to(torch.float64) + 0.5
    return (middle * scale - 0.5).to(torch.float32)


def _weighed(x: Tensor, axis: int, low: Tensor, part: Tensor, whole: bool) -> Tensor:
    """x between `low` and the next place; `whole` numbers are weighed by parts of 2,048."""
    last = x.size(axis) - 1
    shape = [-1, 1, 1] if axis == -3 else [-1, 1]
    near = x.index_select(axis, low.clamp(0, last).to(torch.int64))
    far = x.index_select(axis, (low + 1.0).clamp(0, last).to(torch.int64))
    left, right = (1.0 - part).reshape(shape), part.reshape(shape)
    if not whole:
        return near * left.to(x.dtype) + far * right.to(x.dtype)
    left = torch.round(left * 2048.0).to(torch.int64)
    right = torch.round(right * 2048.0).to(torch.int64)
    if axis == -2:
        return near * left + far * right
    near = torch.div(near, 16, rounding_mode="floor") * left
    far = torch.div(far, 16, rounding_mode="floor") * right
    cut = torch.div(near, 65536, rounding_mode="floor") + torch.div(
        far, 65536, rounding_mode="floor"
    )
    return torch.div(cut + 2, 4, rounding_mode="floor")


def image_resize(x: Tensor, size: list[int], keep: bool, bilinear: bool) -> Tensor:
    """(H, W, C) or (N, H, W, C) at `size` (width, height), or its one number, as OpenCV does it.

    With `keep` the one number is the shorter side. uint8 is computed in fixed point.
    """
    if x.dim() != 3 and x.dim() != 4:
        raise ValueError("image_resize: expected an image (H, W, C) or several")
    whole = not x.is_floating_point()
    if whole and x.dtype != torch.uint8 and (bilinear or x.dtype != torch.int32):
        raise ValueError("image_resize: expected uint8 or floating point")
    h, w = x.size(-3), x.size(-2)
    wide, high = size[0], size[-1]
    if len(size) == 1 and keep:
        if h > w:
            high = h * wide // w
        else:
            wide = w * high // h
    if not bilinear:
        down = torch.arange(high, device=x.device).to(torch.float64)
        right = torch.arange(wide, device=x.device).to(torch.float64)
        down = torch.floor(down * (1.0 / (float(high) / float(h)))).clamp(max=h - 1)
        right = torch.floor(right * (1.0 / (float(wide) / float(w)))).clamp(max=w - 1)
        return x.index_select(-3, down.to(torch.int64)).index_select(-2, right.to(torch.int64))
    if whole and h == 2 * high and w == 2 * wide:  # the mean of four, halves up or to even
        shape = list(x.shape[:-3]) + [high, 2, wide, 2, x.size(-1)]  # noqa: RUF005
        total = x.reshape(shape).to(torch.int64).sum([-4, -2])
        if x.size(-1) in [1, 3, 4]:
            return torch.div(total + 2, 4, rounding_mode="floor").to(x.dtype)
        return torch.round(total.to(torch.float32) / 4.0).to(x.dtype)
    y, z = _places(h, high, x), _places(w, wide, x)
    row, column = torch.floor(y), torch.floor(z)
    within = (column >= 0) & (column < w - 1)  # rows beyond the border meet themselves
    part = torch.where(within, z - column, torch.zeros_like(z))
    wider = x.to(torch.int64) if whole else x
    out = _weighed(wider, -2, column.clamp(0, w - 1), part, whole)
    return _weighed(out, -3, row, y - row, whole).to(x.dtype)
