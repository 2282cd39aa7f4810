"""MXNet's shape operators where torch's namesake differs, in code that TorchScript reads."""

import torch
from torch import Tensor

from mxnet_files.functions import mx_dtype

__all__ = [
    "broadcast_axes",
    "broadcast_like",
    "broadcast_to",
    "crop",
    "crop_like",
    "depth_to_space",
    "one_hot",
    "other_axes",
    "pick",
    "repeat",
    "reshape",
    "reshape_like",
    "reverse_axes",
    "shape_array",
    "size_array",
    "slice_axes",
    "slice_axis",
    "slice_like",
    "space_to_depth",
    "split_at",
    "split_even",
    "squeeze",
    "take",
    "upsample_nearest",
    "where",
    "without",
]


def _reshaped(size: list[int], codes: list[int]) -> list[int]:
    """MXNet's special codes: 0 copy, -1 infer, -2 copy the rest, -3 merge two, -4 split in two.

    -5, which is not among them, leaves out an axis of size 1, as -3 does in `mx.npx.reshape`.
    """
    out: list[int] = []
    source = 0
    unknown = -1
    total = 1
    for extent in size:
        total *= extent
    i = 0
    while i < len(codes):
        code = codes[i]
        if code == -2:
            while source < len(size):
                out.append(size[source])
                source += 1
        elif code == -4:
            if i + 2 >= len(codes) or source >= len(size):
                raise ValueError("reshape: -4 needs an axis to split and two numbers after it")
            first, second = codes[i + 1], codes[i + 2]
            if first == -1 and second > 0:
                first = size[source] // second
            elif second == -1 and first > 0:
                second = size[source] // first
            if first * second != size[source]:
                raise ValueError("reshape: -4 does not split its axis evenly")
            out.append(first)
            out.append(second)
            source += 1
            i += 2
        elif code == -3:
            if source + 1 >= len(size):
                raise ValueError("reshape: -3 needs two axes to merge")
            out.append(size[source] * size[source + 1])
            source += 2
        elif code == -1:
            if unknown >= 0:
                raise ValueError("reshape: at most one -1")
            unknown = len(out)
            out.append(1)
            source += 1
        elif code == -5:
            if source >= len(size) or size[source] != 1:
                raise ValueError("reshape: only an axis of size 1 is left out")
            source += 1
        elif code == 0:
            if source >= len(size):
                raise ValueError("reshape: 0 copies an axis that does not exist")
            out.append(size[source])
            source += 1
        elif code > 0:
            out.append(code)
            source += 1
        else:
            raise ValueError("reshape: codes are -4 to -1, 0 and sizes")
        i += 1
    if unknown >= 0:
        known = 1
        for extent in out:
            known *= extent
        if known > 0:
            out[unknown] = total // known
    return out


def reshape(x: Tensor, shape: list[int], reverse: bool = False) -> Tensor:
    """Reshape by MXNet's codes; `reverse` reads sizes and codes from the right."""
    size = list(x.shape)
    if reverse:
        return x.reshape(_reshaped(size[::-1], shape[::-1])[::-1])
    return x.reshape(_reshaped(size, shape))


def reshape_like(x: Tensor, like: Tensor, lhs: list[int], rhs: list[int]) -> Tensor:
    """x with axes lhs[0]:lhs[1] replaced by like's axes rhs[0]:rhs[1]."""
    size, other = list(x.shape), list(like.shape)
    first, last = _range(lhs[0], lhs[1], len(size))
    start, stop = _range(rhs[0], rhs[1], len(other))
    return x.reshape(size[:first] + other[start:stop] + size[last:])


def _range(first: int, last: int, count: int) -> tuple[int, int]:
    """Python's ends of a slice as positive numbers; 2⁶³ − 1 stands for an open end."""
    if first < 0:
        first += count
    if last < 0:
        last += count
    return first, min(last, count)


def reverse_axes(x: Tensor) -> Tensor:
    """Transpose with all axes in reverse order."""
    return x.permute(list(range(x.dim()))[::-1])


def slice_axis(x: Tensor, axis: int, begin: int, end: int | None) -> Tensor:
    """x[begin:end] along one axis; ends outside the axis are an error, as in MXNet."""
    size = x.size(axis)
    last = size if end is None else end
    first = begin + size if begin < 0 else begin
    last = last + size if last < 0 else last
    if first < 0 or first >= last or last > size:
        raise ValueError("slice_axis: begin and end must lie inside the axis")
    return x.narrow(axis, first, last - first)


def slice_axes(x: Tensor, begin: list[int], end: list[int], step: list[int]) -> Tensor:
    """Python's slicing of the leading axes by positive steps; 2⁶³ − 1 stands for an open end."""
    for axis in range(len(begin)):
        x = torch.ops.aten.slice(x, axis, begin[axis], end[axis], step[axis])
    return x


def slice_like(x: Tensor, like: Tensor, axes: list[int]) -> Tensor:
    """x cut to like's size along `axes` (none given: all)."""
    chosen = axes if len(axes) > 0 else list(range(x.dim()))
    for axis in chosen:
        x = x.narrow(axis, 0, like.size(axis))
    return x


def split_at(x: Tensor, indices: list[int], axis: int, squeeze: bool) -> list[Tensor]:
    """Parts of x that start at `indices` along `axis`."""
    out: list[Tensor] = []
    for i in range(len(indices)):
        last = indices[i + 1] if i + 1 < len(indices) else x.size(axis)
        part = x.narrow(axis, indices[i], last - indices[i])
        out.append(part.squeeze(axis) if squeeze else part)
    return out


def split_even(x: Tensor, parts: int, axis: int) -> list[Tensor]:
    """`parts` equal parts along `axis`."""
    if x.size(axis) % parts != 0:
        raise ValueError("split: num_outputs does not divide the axis")
    if parts == 1:
        return [x]  # ONNX would keep the size of the example's axis
    return x.split(x.size(axis) // parts, axis)


def squeeze(x: Tensor, axes: list[int]) -> Tensor:
    """Drop axes of size 1 (none given: all); at least one axis stays."""
    y = x.squeeze() if len(axes) == 0 else without(x, axes)
    return y.reshape([1]) if y.dim() == 0 else y


def other_axes(count: int, axes: list[int]) -> list[int]:
    """Those of `count` axes that are not among these."""
    others: list[int] = []
    for axis in range(count):
        if axis not in axes:
            others.append(axis)
    return others


def without(x: Tensor, axes: list[int]) -> Tensor:
    """Drop these axes where their size is 1, one at a time: ONNX takes no list of them."""
    count = x.dim()
    ordered = sorted([axis + count if axis < 0 else axis for axis in axes])
    for place in range(len(ordered) - 1, -1, -1):
        if place > 0 and ordered[place] == ordered[place - 1]:
            raise ValueError("an axis is named twice")
        x = x.squeeze(ordered[place])
    return x


def broadcast_to(x: Tensor, shape: list[int]) -> Tensor:
    """Expand axes of size 1; 0 keeps an axis."""
    if len(shape) != x.dim():
        raise ValueError("broadcast_to: shape needs one number per axis")
    return x.expand([x.size(i) if shape[i] == 0 else shape[i] for i in range(len(shape))])


def broadcast_axes(x: Tensor, axes: list[int], sizes: list[int]) -> Tensor:
    """Expand the given axes of size 1 to the given sizes."""
    shape = list(x.shape)
    for i in range(len(axes)):
        shape[axes[i]] = sizes[i]
    return x.expand(shape)


def broadcast_like(x: Tensor, like: Tensor, lhs: list[int], rhs: list[int]) -> Tensor:
    """Expand x to like's shape, or its axes `lhs` to like's axes `rhs`."""
    if len(lhs) == 0:
        return x.expand(like.shape)
    return broadcast_axes(x, lhs, [like.size(axis) for axis in rhs])


def repeat(x: Tensor, repeats: int, axis: int | None) -> Tensor:
    """Each element (axis None: of the flattened array) `repeats` times in a row."""
    if axis is None:
        return x.reshape([-1]).repeat_interleave(repeats)
    return x.repeat_interleave(repeats, axis)


def crop(x: Tensor, size: list[int], offset: list[int], centre: bool) -> Tensor:
    """A window of (height, width) from an (N, C, H, W) array."""
    top, left = offset[0], offset[1]
    if centre:
        top = (x.size(2) - size[0]) // 2
        left = (x.size(3) - size[1]) // 2
    return x.narrow(2, top, size[0]).narrow(3, left, size[1])


def crop_like(x: Tensor, like: Tensor, offset: list[int], centre: bool) -> Tensor:
    """A window of like's height and width."""
    return crop(x, [like.size(2), like.size(3)], offset, centre)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """(N, C, H, W) -> (N, C/b², H·b, W·b); the block index is the slower part of the channel."""
    n, c, h, w = x.shape
    c = c // (block * block)
    y = x.reshape([n, block, block, c, h, w]).permute(0, 3, 4, 1, 5, 2)
    return y.reshape([n, c, h * block, w * block])


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """The inverse of depth_to_space."""
    n, c, h, w = x.shape
    h, w = h // block, w // block
    y = x.reshape([n, c, h, block, w, block]).permute(0, 3, 5, 1, 2, 4)
    return y.reshape([n, c * block * block, h, w])


def _enlarge(x: Tensor, scale: int) -> Tensor:
    n, c, h, w = x.shape
    y = x.reshape([n, c, h, 1, w, 1]).expand([n, c, h, scale, w, scale])
    return y.reshape([n, c, h * scale, w * scale])


def upsample_nearest(inputs: list[Tensor], scale: int, add: bool) -> Tensor:
    """Every input enlarged to `scale` times the first one's size; concatenated, or added."""
    height = inputs[0].size(2) * scale
    out = [_enlarge(x, height // x.size(2)) for x in inputs]
    if not add:
        return torch.cat(out, 1)
    y = out[0]
    for x in out[1:]:
        y = y + x
    return y


def _bounded(indices: Tensor, size: int, wrap: bool) -> Tensor:
    whole = indices.to(torch.int64)
    return torch.remainder(whole, size) if wrap else whole.clamp(0, size - 1)


def take(x: Tensor, indices: Tensor, axis: int, wrap: bool) -> Tensor:
    """Slices of x along `axis`; indices out of range are clipped, or wrapped round."""
    if axis < 0:
        axis += x.dim()
    rows = _bounded(indices, x.size(axis), wrap)
    picked = x.index_select(axis, rows.reshape([-1]))
    return picked.reshape(x.shape[:axis] + rows.shape + x.shape[axis + 1 :])


def pick(x: Tensor, index: Tensor, axis: int, keepdims: bool, wrap: bool) -> Tensor:
    """One element per position along `axis`."""
    size = list(x.shape)
    size[axis] = 1
    rows = _bounded(index, x.size(axis), wrap).reshape(size)
    y = x.gather(axis, rows)
    return y if keepdims else y.squeeze(axis)


def one_hot(indices: Tensor, depth: int, on: float, off: float, dtype: torch.dtype) -> Tensor:
    """`on` at each index, `off` elsewhere; an index out of range gives all `off`."""
    hits = indices.to(torch.int64).unsqueeze(-1) == torch.arange(depth, device=indices.device)
    like = torch.zeros([], dtype=dtype, device=indices.device)
    return torch.where(hits, mx_dtype.number(on, like), mx_dtype.number(off, like))


def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where the condition is not zero; a condition of one axis chooses whole rows."""
    chosen = condition != 0
    if condition.dim() == 1 and x.dim() > 1:
        chosen = chosen.reshape([-1] + [1] * (x.dim() - 1))
    return torch.where(chosen, x, y)


def shape_array(x: Tensor) -> Tensor:
    """x's shape as int64."""
    return torch.tensor(list(x.shape), dtype=torch.int64)


def size_array(x: Tensor) -> Tensor:
    """x's number of elements as int64, shape (1,)."""
    return torch.tensor([x.numel()], dtype=torch.int64)
