"""MXNet's operators that sample regions of feature maps, in code that TorchScript reads.

Feature maps are (N, C, H, W); regions (R, 5) of image number and corners in pixels of the image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mxnet_files.functions import mx_math, mx_nn

# ruff: noqa: RUF005 (TorchScript has no [*a, b])

__all__ = [
    "bilinear_sampler",
    "correlation",
    "deformable_convolution",
    "grid_generator",
    "grid_of_flow",
    "psroi_pooling",
    "roi_align",
    "roi_pooling",
    "rotated_roi_align",
    "spatial_transformer",
]


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N·H·W, C), a row for each pixel."""
    return x.permute(0, 2, 3, 1).reshape([-1, x.size(1)])


def _windows(x: Tensor) -> Tensor:
    """(levels, levels, N, H, W, C): the maximum over windows of 2^i × 2^j that begin at a pixel."""
    rows = [x]
    step = 1
    while step * 2 <= x.size(1):
        last = rows[-1]
        rows.append(_larger(last, _shifted(last, step, 1)))
        step *= 2
    step = 1
    table = [torch.stack(rows)]
    while step * 2 <= x.size(2):
        last = table[-1]
        table.append(_larger(last, _shifted(last, step, 3)))
        step *= 2
    return torch.stack(table, 1)


def _shifted(x: Tensor, step: int, axis: int) -> Tensor:
    """x moved towards its beginning; its end stays."""
    kept = x.narrow(axis, step, x.size(axis) - step)
    return torch.cat([kept, x.narrow(axis, x.size(axis) - step, step)], axis)


def _larger(a: Tensor, b: Tensor) -> Tensor:
    """The larger one; a, the earlier one, where they tie."""
    return torch.where(b > a, b, a)


def _level(length: Tensor) -> Tensor:
    """The largest i with 2^i <= length."""
    level = torch.zeros_like(length)
    for i in range(1, 31):
        level = level + (length >= 2**i).to(length.dtype)
    return level


def roi_pooling(x: Tensor, rois: Tensor, size: list[int], scale: float) -> Tensor:
    """Maxima over size[0] × size[1] bins of each region: (R, C, height, width).

    Empty bins, and regions of an image that does not exist, give 0.
    """
    n, h, w = x.size(0), x.size(2), x.size(3)
    x = torch.where(torch.isnan(x), torch.full_like(x, -3.4028234663852886e38), x)
    table = _windows(x.permute(0, 2, 3, 1))
    image = rois[:, 0].to(torch.int64)
    edge = mx_math.round_half_away(rois[:, 1:] * scale)  # (R, 4) left, top, right, bottom
    length = (edge[:, 2:] - edge[:, :2] + 1).clamp(min=1)  # width, height
    starts: list[Tensor] = []
    ends: list[Tensor] = []
    for axis in range(2):  # rows, then columns
        bins = torch.arange(size[axis], device=x.device).to(x.dtype)
        step = (length[:, 1 - axis] / size[axis]).unsqueeze(1)
        first = edge[:, 1 - axis].unsqueeze(1)
        limit = h if axis == 0 else w
        starts.append((torch.floor(bins * step) + first).clamp(0, limit).to(torch.int64))
        ends.append((torch.ceil((bins + 1) * step) + first).clamp(0, limit).to(torch.int64))
    top, bottom = starts[0].unsqueeze(2), ends[0].unsqueeze(2)  # (R, rows, 1)
    left, right = starts[1].unsqueeze(1), ends[1].unsqueeze(1)  # (R, 1, columns)
    tall, wide = (bottom - top).clamp(min=1), (right - left).clamp(min=1)
    i, j = _level(tall), _level(wide)
    real = (image >= 0) & (image < n)
    base = (i * table.size(1) + j) * n + image.clamp(0, n - 1).reshape([-1, 1, 1])
    rows = table.reshape([-1, x.size(1)])
    up, down = top.clamp(max=h - 1), (top + tall - 2**i).clamp(0, h - 1)
    near, far = left.clamp(max=w - 1), (left + wide - 2**j).clamp(0, w - 1)
    best = _picked(rows, (base * h + up) * w + near)
    best = _larger(best, _picked(rows, (base * h + up) * w + far))
    best = _larger(best, _picked(rows, (base * h + down) * w + near))
    best = _larger(best, _picked(rows, (base * h + down) * w + far))
    full = (bottom > top) & (right > left) & real.reshape([-1, 1, 1])
    best = torch.where(full.unsqueeze(-1), best, torch.zeros_like(best))
    return best.permute(0, 3, 1, 2)


def _picked(rows: Tensor, places: Tensor) -> Tensor:
    """Rows at places (…): (…, C)."""
    return rows.index_select(0, places.reshape([-1])).reshape(list(places.shape) + [rows.size(1)])


def _samples(
    start: Tensor, step: Tensor, count: int, grid: Tensor, number: int, size: int, axis: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sample `number` of each bin along one axis: low and high pixel, weight of the high, inside.

    start, step and grid are (R,), results (R, count) with an axis of size 1 put in.
    """
    bins = torch.arange(count, device=start.device).to(start.dtype)
    at = start.unsqueeze(1) + bins * step.unsqueeze(1)
    at = at + ((number + 0.5) * step / grid).unsqueeze(1)
    inside = (at >= -1.0) & (at <= size) & (number < grid).unsqueeze(1)
    at = at.clamp(min=0.0)
    low = at.to(torch.int64).clamp(max=size - 1)
    high = (low + 1).clamp(max=size - 1)
    weight = torch.where(low >= size - 1, torch.zeros_like(at), at - low.to(at.dtype))
    return low.unsqueeze(axis), high.unsqueeze(axis), weight.unsqueeze(axis), inside.unsqueeze(axis)


def _sampled(extent: Tensor, samples: int) -> tuple[Tensor, int]:
    """Samples along bins of these extents, `samples` or as many as they have pixels; the most."""
    count = torch.ceil(extent)
    if samples > 0:
        return torch.full_like(count, samples), samples
    if torch.jit.is_tracing():  # which would keep the number that these regions have
        raise ValueError("as many samples as a region has pixels: a fixed graph needs a number")
    return count, int(count.max()) if count.numel() > 0 else 0


def roi_align(
    x: Tensor,
    rois: Tensor,
    size: list[int],
    scale: float,
    samples: int,
    sensitive: bool,
    aligned: bool,
) -> Tensor:
    """Means of bilinear samples in size[0] × size[1] bins of each region: (R, C, height, width).

    `samples` in each direction of a bin, below 1 as many as the bin has pixels. `sensitive` takes
    a channel of its own for each bin. A region of image −1 gives 0; of four columns, image 0.
    """
    n, h, w = x.size(0), x.size(2), x.size(3)
    image = torch.zeros_like(rois[:, 0], dtype=torch.int64)
    if rois.size(1) == 5:
        image, rois = rois[:, 0].to(torch.int64), rois[:, 1:]
    corner = rois * scale - (0.5 if aligned else 0.0)
    left, top = corner[:, 0], corner[:, 1]
    wide, tall = corner[:, 2] - left, corner[:, 3] - top
    if not aligned:
        wide, tall = wide.clamp(min=1.0), tall.clamp(min=1.0)
    down, right = tall / size[0], wide / size[1]
    rows, most = _sampled(down, samples)
    columns, across = _sampled(right, samples)
    real = image >= 0
    bins = size[0] * size[1]
    channels = x.size(1)
    base = image.clamp(0, n - 1).reshape([-1, 1, 1])
    pixels = x
    if sensitive:  # (N, C', bins, H, W) -> an image for each bin
        channels = channels // bins
        pixels = x.reshape([n, channels, bins, h, w]).transpose(1, 2).reshape([-1, channels, h, w])
        bin_of = torch.arange(bins, device=x.device).reshape([1, size[0], size[1]])
        base = base * bins + bin_of
    places: list[Tensor] = []
    weights: list[Tensor] = []
    for i in range(most):
        low, high, ly, in_y = _samples(top, down, size[0], rows, i, h, 2)
        for j in range(across):
            near, far, lx, in_x = _samples(left, right, size[1], columns, j, w, 1)
            hy, hx = 1.0 - ly, 1.0 - lx
            places.append((base * h + low) * w + near)
            places.append((base * h + low) * w + far)
            places.append((base * h + high) * w + near)
            places.append((base * h + high) * w + far)
            inside = (in_y & in_x).to(x.dtype)
            weights.append(hy * hx * inside)
            weights.append(hy * lx * inside)
            weights.append(ly * hx * inside)
            weights.append(ly * lx * inside)
    shape = [rois.size(0), size[0], size[1], channels]
    mean = _mean_of_samples(pixels, places, weights, shape, rows * columns)
    mean = torch.where(real.reshape([-1, 1, 1, 1]), mean, torch.zeros_like(mean))
    return mean.permute(0, 3, 1, 2)


def _mean_of_samples(
    x: Tensor, places: list[Tensor], weights: list[Tensor], shape: list[int], count: Tensor
) -> Tensor:
    """Pixels of x by weight, summed for each bin, over the `count` of samples of each region."""
    if len(places) == 0:
        return x.new_zeros(shape)
    index, weight = torch.stack(places, -1), torch.stack(weights, -1)
    total = F.embedding_bag(
        index.reshape([-1, index.size(-1)]),
        _pixels(x),
        per_sample_weights=weight.reshape([-1, index.size(-1)]),
        mode="sum",
    )
    return total.reshape(shape) / count.reshape([-1, 1, 1, 1])


def _bilinear(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """x (B, C, H, W) at rows y and columns z (B, P); what lies outside counts as 0: (B, C, P)."""
    b, c, h, w = x.shape
    low, near = torch.floor(y), torch.floor(z)
    ly, lx = y - low, z - near
    flat = x.reshape([b, c, h * w])
    total = torch.zeros([b, c, y.size(1)], dtype=x.dtype, device=x.device)
    for i in range(2):
        for j in range(2):
            row, column = low + i, near + j
            weight = (ly if i == 1 else 1.0 - ly) * (lx if j == 1 else 1.0 - lx)
            inside = (row >= 0) & (row <= h - 1) & (column >= 0) & (column <= w - 1)
            place = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
            index = place.to(torch.int64).unsqueeze(1).expand(b, c, y.size(1))
            value = flat.gather(2, index) * weight.unsqueeze(1)
            total = total + torch.where(inside.unsqueeze(1), value, torch.zeros_like(value))
    return total


def deformable_convolution(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pad: list[int],
    dilate: list[int],
    groups: int,
    deformable_groups: int,
) -> Tensor:
    """Convolution whose taps are moved by `offset` (N, groups·taps·2, H', W'), rows before columns.

    With `mask` (N, groups·taps, H', W') each tap is weighted, and fades out beyond the border (the
    second version); without, taps outside count 0 and those in the last pixel keep its value.
    """
    n, c, h, w = x.shape
    kernel = [weight.size(2), weight.size(3)]
    taps = kernel[0] * kernel[1]
    high, wide = offset.size(2), offset.size(3)
    moved = offset.reshape([n, deformable_groups, taps, 2, high, wide])
    tap = torch.arange(taps, device=x.device)
    row = torch.div(tap, kernel[1], rounding_mode="floor")
    column = tap - row * kernel[1]
    y = (torch.arange(high, device=x.device) * stride[0] - pad[0]).reshape([1, high, 1])
    z = (torch.arange(wide, device=x.device) * stride[1] - pad[1]).reshape([1, 1, wide])
    y = (y + (row * dilate[0]).reshape([-1, 1, 1])).to(x.dtype) + moved[:, :, :, 0]
    z = (z + (column * dilate[1]).reshape([-1, 1, 1])).to(x.dtype) + moved[:, :, :, 1]
    flat = [n * deformable_groups, taps * high * wide]
    y, z = y.reshape(flat), z.reshape(flat)
    inside = (y > -1) & (y < h) & (z > -1) & (z < w)
    if mask is None:
        inside = (y >= 0) & (y < h) & (z >= 0) & (z < w)
        y, z = y.clamp(max=h - 1), z.clamp(max=w - 1)
    group = x.reshape([n * deformable_groups, c // deformable_groups, h, w])
    columns = _bilinear(group, y, z)
    columns = torch.where(inside.unsqueeze(1), columns, torch.zeros_like(columns))
    if mask is not None:
        columns = columns * mask.reshape(flat).unsqueeze(1)
    columns = columns.reshape([n, groups, c // groups * taps, high * wide])
    filters = weight.reshape([1, groups, weight.size(0) // groups, -1])
    out = torch.matmul(filters, columns).reshape([n, weight.size(0), high, wide])
    return out if bias is None else out + bias.reshape([1, -1, 1, 1])


def correlation(
    a: Tensor,
    b: Tensor,
    kernel: int,
    displacement: int,
    stride: int,
    step: int,
    pad: int,
    multiply: bool,
) -> Tensor:
    """Mean product (or distance) of windows of a and of b moved by up to `displacement`.

    The channels of the result are the moves, row by row, in steps of `step`.
    """
    a, b = F.pad(a, [pad] * 4), F.pad(b, [pad] * 4)
    border = displacement + (kernel - 1) // 2
    rows = -(-(a.size(2) - 2 * border) // stride)
    columns = -(-(a.size(3) - 2 * border) // stride)
    if rows < 1 or columns < 1:
        raise ValueError("Correlation: the arrays are smaller than its border")
    high, wide = (rows - 1) * stride + kernel, (columns - 1) * stride + kernel
    window = a[:, :, displacement : displacement + high, displacement : displacement + wide]
    radius = displacement // step
    out: list[Tensor] = []
    for i in range(-radius, radius + 1):
        for j in range(-radius, radius + 1):
            y, z = displacement + i * step, displacement + j * step
            other = b[:, :, y : y + high, z : z + wide]
            each = window * other if multiply else (window - other).abs()
            total = mx_nn.sum_pool(each, [kernel] * 2, [stride] * 2, [0, 0])
            out.append(total.sum(1))
    return torch.stack(out, 1) / (kernel * kernel * a.size(1))


def _steps(count: int, like: Tensor) -> Tensor:
    """−1 to 1 in `count` steps."""
    return torch.arange(count, device=like.device).to(like.dtype) * (2.0 / (count - 1)) - 1.0


def grid_generator(theta: Tensor, size: list[int]) -> Tensor:
    """Where an affine map (N, 6) takes a grid of −1 to 1: (N, 2, height, width), x before y."""
    x = _steps(size[1], theta).reshape([1, -1]).expand(size[0], size[1])
    y = _steps(size[0], theta).reshape([-1, 1]).expand(size[0], size[1])
    every = torch.stack([x, y, torch.ones_like(x)]).reshape([3, -1])
    return torch.matmul(theta.reshape([-1, 2, 3]), every).reshape([-1, 2, size[0], size[1]])


def grid_of_flow(flow: Tensor) -> Tensor:
    """The grid that an optical flow (N, 2, H, W) in pixels makes, in −1 to 1."""
    h, w = flow.size(2), flow.size(3)
    x = torch.arange(w, device=flow.device).to(flow.dtype).reshape([1, -1]).expand(h, w)
    y = torch.arange(h, device=flow.device).to(flow.dtype).reshape([-1, 1]).expand(h, w)
    half = torch.tensor([(w - 1.0) / 2.0, (h - 1.0) / 2.0], dtype=flow.dtype, device=flow.device)
    return (flow + torch.stack([x, y])) / half.reshape([1, 2, 1, 1]) - 1


def bilinear_sampler(x: Tensor, grid: Tensor) -> Tensor:
    """x (N, C, H, W) at a grid (N, 2, H', W') of −1 to 1, x before y; 0 outside."""
    n, high, wide = grid.size(0), grid.size(2), grid.size(3)
    z = ((grid[:, 0] + 1) * (x.size(3) - 1) / 2).reshape([n, -1])
    y = ((grid[:, 1] + 1) * (x.size(2) - 1) / 2).reshape([n, -1])
    return _bilinear(x, y, z).reshape([n, x.size(1), high, wide])


def spatial_transformer(x: Tensor, theta: Tensor, size: list[int]) -> Tensor:
    """x moved by an affine map (N, 6)."""
    return bilinear_sampler(x, grid_generator(theta, size))


def psroi_pooling(
    x: Tensor, rois: Tensor, scale: float, dim: int, pooled: int, group: int
) -> Tensor:
    """Means over pooled × pooled bins of each region, each of its own map: (R, dim, rows, columns).

    x (N, dim·group², H, W) holds group × group maps for each of `dim`; empty bins give 0.
    """
    n, h, w = x.size(0), x.size(2), x.size(3)
    image = rois[:, 0].to(torch.int64).clamp(0, n - 1)
    corner = mx_math.round_half_away(rois[:, 1:])  # (R, 4) left, top, right, bottom
    start, end = corner[:, :2] * scale, (corner[:, 2:] + 1) * scale
    step = (end - start).clamp(min=0.1) / pooled
    bins = torch.arange(pooled, device=x.device)
    inside: list[Tensor] = []  # (R, pooled, W), then (R, pooled, H): 1 where a bin has the pixel
    for axis, size in enumerate([w, h]):
        width, begin = step[:, axis : axis + 1], start[:, axis : axis + 1]
        first = torch.floor(bins.to(x.dtype) * width + begin).clamp(0, size).unsqueeze(2)
        last = torch.ceil((bins + 1).to(x.dtype) * width + begin).clamp(0, size).unsqueeze(2)
        place = torch.arange(size, device=x.device)
        inside.append(((place >= first) & (place < last)).to(x.dtype))
    cell = torch.div(bins * group, pooled, rounding_mode="floor")
    maps = x.narrow(1, 0, dim * group * group).reshape([n, dim, group, group, h, w])
    maps = maps.index_select(2, cell).index_select(3, cell)
    strips = torch.einsum("ndijhw,rjw->ndijhr", maps, inside[0])
    sums = torch.einsum("ndijhr,rih->nrdij", strips, inside[1])
    chosen = sums[image, torch.arange(rois.size(0), device=x.device)]
    count = inside[1].sum(2).unsqueeze(2) * inside[0].sum(2).unsqueeze(1)
    return chosen / count.clamp(min=1).unsqueeze(1)


def rotated_roi_align(
    x: Tensor, rois: Tensor, size: list[int], scale: float, samples: int
) -> Tensor:
    """Means of bilinear samples in the bins of turned regions: (R, C, size[0], size[1]).

    A region is (image, x, y, width, height, degrees), of which x and y are the middle. `samples` in
    each direction of a bin, below 1 as many as the bin has pixels.
    """
    h, w = x.size(2), x.size(3)
    base = rois[:, 0].to(torch.int64).reshape([-1, 1, 1]) * (h * w)
    place = rois[:, 1:] * scale
    middle_x, middle_y = place[:, 0].reshape([-1, 1, 1]), place[:, 1].reshape([-1, 1, 1])
    wide, tall = place[:, 2].clamp(min=1.0), place[:, 3].clamp(min=1.0)
    angle = (rois[:, 5].to(torch.float64) * math.pi / 180.0).to(x.dtype).reshape([-1, 1, 1])
    cos, sin = torch.cos(angle), torch.sin(angle)
    down, right = tall / size[0], wide / size[1]
    rows, most = _sampled(down, samples)
    columns, across = _sampled(right, samples)
    top = torch.arange(size[0], device=x.device).to(x.dtype) * down.unsqueeze(1)
    left = torch.arange(size[1], device=x.device).to(x.dtype) * right.unsqueeze(1)
    top, left = top - (tall / 2.0).unsqueeze(1), left - (wide / 2.0).unsqueeze(1)
    places: list[Tensor] = []
    weights: list[Tensor] = []
    for i in range(most):
        b = (top + ((i + 0.5) * down / rows).unsqueeze(1)).unsqueeze(2)
        for j in range(across):
            a = (left + ((j + 0.5) * right / columns).unsqueeze(1)).unsqueeze(1)
            z = a * cos + b * sin + middle_x
            y = b * cos - a * sin + middle_y
            inside = (y >= -1.0) & (y <= h) & (z >= -1.0) & (z <= w)
            inside = inside & (i < rows).reshape([-1, 1, 1]) & (j < columns).reshape([-1, 1, 1])
            y, z = y.clamp(0.0, h - 1.0), z.clamp(0.0, w - 1.0)
            low, near = torch.floor(y), torch.floor(z)
            for row in range(2):
                for column in range(2):
                    high = (low + row).clamp(max=h - 1.0).to(torch.int64)
                    far = (near + column).clamp(max=w - 1.0).to(torch.int64)
                    weight = (y - low) if row == 1 else (1.0 - (y - low))
                    weight = weight * ((z - near) if column == 1 else (1.0 - (z - near)))
                    places.append(base + high * w + far)
                    weights.append(weight * inside.to(x.dtype))
    shape = [rois.size(0), size[0], size[1], x.size(1)]
    mean = _mean_of_samples(x, places, weights, shape, rows * columns)
    return mean.permute(0, 3, 1, 2)
