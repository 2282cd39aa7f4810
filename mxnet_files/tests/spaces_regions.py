"""The spaces of attention, CTC, regions, warps, correlation and deformable convolutions.

Most of them compute in float32 alone on MXNet's CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mxnet_files.tests.spaces import FLOATS, Draw, space


def sequence(d: Draw, parts: int, heads: int) -> tuple[int, ...]:
    return (d.integer(1, 4), d.integer(1, 2), heads * parts * d.integer(1, 3))


@space("_contrib_interleaved_matmul_selfatt_qk")
def self_scores(d: Draw) -> list[np.ndarray]:
    d.dtype, d.a["heads"] = "float32", d.integer(1, 3)
    return [d.array(sequence(d, 3, d.a["heads"]), edges=False)]


@space("_contrib_interleaved_matmul_selfatt_valatt")
def self_attended(d: Draw) -> list[np.ndarray]:
    d.dtype, heads = "float32", d.integer(1, 3)
    d.a["heads"] = heads
    steps, batch, width = sequence(d, 3, heads)
    maps = (batch * heads, steps, steps)
    return [d.array(shape, edges=False) for shape in ((steps, batch, width), maps)]


@space("_contrib_interleaved_matmul_encdec_qk")
def scores(d: Draw) -> list[np.ndarray]:
    d.dtype, heads = "float32", d.integer(1, 3)
    d.a["heads"] = heads
    steps, batch, width = sequence(d, 1, heads)
    shapes = (steps, batch, width), (d.integer(1, 4), batch, 2 * width)
    return [d.array(shape, edges=False) for shape in shapes]


@space("_contrib_interleaved_matmul_encdec_valatt")
def attended(d: Draw) -> list[np.ndarray]:
    d.dtype, heads = "float32", d.integer(1, 3)
    d.a["heads"] = heads
    steps, batch, width = sequence(d, 2, heads)
    maps = (batch * heads, d.integer(1, 4), steps)
    return [d.array(shape, edges=False) for shape in ((steps, batch, width), maps)]


@space("_contrib_div_sqrt_dim")
def div_sqrt_dim(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one(*FLOATS)
    return [d.array(d.shape())]


@space("CTCLoss")
def ctc(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    steps, batch, kinds, length = d.integer(3, 6), d.integer(1, 3), d.integer(2, 4), d.integer(1, 2)
    rng = np.random.default_rng(d.integer(0, 2**16))
    first = d.a.get("blank_label", "first") == "first"
    labels = rng.integers(0, kinds - 1, (batch, length)) + first
    arrays = [d.array((steps, batch, kinds), edges=False)]
    if not d.a.get("use_label_lengths"):  # padding ends a label
        padded = rng.integers(1, length, batch, endpoint=True)
        labels = np.where(np.arange(length) < padded[:, None], labels, 0 if first else -1)
    arrays.append(labels.astype(d.dtype))
    for key, least, most in (("data", 2 * length + 1, steps), ("label", 1, length)):
        if d.a.get(f"use_{key}_lengths"):
            least = min(least, most)
            arrays.append(rng.integers(least, most, batch, endpoint=True).astype(d.dtype))
    return arrays


def image(d: Draw, largest: int = 8) -> tuple[int, ...]:
    return (d.integer(1, 2), d.integer(1, 3), d.integer(1, largest), d.integer(1, largest))


def regions(d: Draw, images: int, size: float) -> np.ndarray:
    """Regions within, across and beyond the border; the first is the whole image."""
    rng = np.random.default_rng(d.integer(0, 2**16))
    count = d.integer(1, 4)
    corner = rng.uniform(-0.3, 1.0, (count, 2)) * size
    extent = rng.uniform(0.05, 0.8, (count, 2)) * size
    rows = np.concatenate([rng.integers(0, images, (count, 1)), corner, corner + extent], -1)
    rows[0, 1:] = [0, 0, size, size]
    return rows.astype(d.dtype)


@space("ROIPooling")
def roi_pooling(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    shape = image(d)
    scale = d.one(1.0, 0.5, 0.25)
    d.a |= {"pooled_size": (d.integer(1, 4), d.integer(1, 4)), "spatial_scale": scale}
    return [d.array(shape, edges=False), regions(d, shape[0], max(shape[2:]) / scale)]


@space("_contrib_ROIAlign")
def roi_align(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    size = (d.integer(1, 3), d.integer(1, 3))
    shape = list(image(d))
    if d.a.get("position_sensitive"):
        shape[1] *= size[0] * size[1]
    scale = d.one(1.0, 0.5, 0.25)
    d.a |= {"pooled_size": size, "spatial_scale": scale, "sample_ratio": d.one(None, -1, 1, 2, 3)}
    return [d.array(shape, edges=False), regions(d, shape[0], max(shape[2:]) / scale)]


@space("_contrib_PSROIPooling")
def psroi_pooling(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    pooled, group = d.integer(1, 4), d.one(None, 0, d.integer(1, 4))
    dim, scale = d.integer(1, 3), d.one(1.0, 0.5, 0.25)
    d.a |= {"pooled_size": pooled, "group_size": group, "output_dim": dim, "spatial_scale": scale}
    shape = list(image(d))
    shape[1] = dim * (group or pooled) ** 2
    return [d.array(shape, edges=False), regions(d, shape[0], max(shape[2:]) / scale)]


def filters(d: Draw, *, second: bool) -> list[np.ndarray]:
    """A deformable convolution: data, offsets, masks of the second version, weight, bias."""
    d.dtype = "float32"
    groups, moved = d.integer(1, 2), d.integer(1, 2)
    batch, width = d.integer(1, 2), 4
    kernel, stride = (d.integer(1, 3), d.integer(1, 3)), (d.integer(1, 2), d.integer(1, 2))
    dilate, pad = (d.integer(1, 2), 1), (d.integer(0, 2), d.integer(0, 2))
    high = tuple(d.integer(5, 8) for _ in range(2))
    out = [
        (size + 2 * p - dil * (k - 1) - 1) // s + 1
        for size, p, dil, k, s in zip(high, pad, dilate, kernel, stride, strict=True)
    ]
    count = groups * d.integer(1, 2)
    d.a |= {"kernel": kernel, "stride": stride, "dilate": dilate, "pad": pad, "num_filter": count}
    d.a |= {"num_group": groups, "num_deformable_group": moved, "layout": None, "im2col_step": None}
    taps = kernel[0] * kernel[1]
    shapes: list[Any] = [(batch, width, *high), (batch, 2 * moved * taps, *out)]
    shapes += [(batch, moved * taps, *out)] if second else []
    shapes += [(count, width // groups, *kernel), *([] if d.a.get("no_bias") else [(count,)])]
    return [d.array(shape, low=-2, high=2, edges=False) for shape in shapes]


@space("_contrib_DeformableConvolution")
def first_deformable(d: Draw) -> list[np.ndarray]:
    return filters(d, second=False)


@space("_contrib_ModulatedDeformableConvolution")
def second_deformable(d: Draw) -> list[np.ndarray]:
    return filters(d, second=True)


@space("Correlation")
def correlation(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    kernel, displacement = d.one(1, 3), d.integer(0, 3)
    border = displacement + kernel // 2
    d.a |= {"kernel_size": kernel, "max_displacement": displacement, "pad_size": d.integer(0, 4)}
    d.a |= {"stride1": d.integer(1, 3), "stride2": d.integer(1, 2)}
    batch, channels = d.integer(1, 2), d.integer(1, 3)
    least = max(1, 2 * (border - d.a["pad_size"]) + 1)
    shape = (batch, channels, d.integer(least, least + 5), d.integer(least, least + 5))
    return [d.array(shape, edges=False), d.array(shape, edges=False)]


@space("GridGenerator")
def grid(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    if d.a.get("transform_type") == "warp":
        d.a["target_shape"] = None
        return [d.array((d.integer(1, 2), 2, d.integer(2, 5), d.integer(2, 5)), edges=False)]
    d.a |= {"transform_type": "affine", "target_shape": (d.integer(2, 5), d.integer(2, 5))}
    return [d.array((d.integer(1, 2), 6), edges=False)]


@space("BilinearSampler")
def sampler(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    shape = image(d, 5)
    places = d.array(
        (shape[0], 2, d.integer(1, 4), d.integer(1, 4)), low=-1.2, high=1.2, edges=False
    )
    return [d.array(shape, edges=False), places]


@space("SpatialTransformer")
def transformer(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    shape = image(d, 5)
    d.a |= {"target_shape": (d.integer(2, 5), d.integer(2, 5)), "sampler_type": "bilinear"}
    d.a["transform_type"] = "affine"
    return [d.array(shape, edges=False), d.array((shape[0], 6), low=-1, high=1, edges=False)]


@space("_contrib_Proposal _contrib_MultiProposal")
def proposal(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    n = 1 if d.a["__name__"] == "_contrib_Proposal" else d.integer(1, 3)
    scales = d.a["scales"] = d.one((2.0,), (1.0, 2.5), (0.5, 1.0, 4.0))
    ratios = d.a["ratios"] = d.one((1.0,), (0.5, 2.0), (0.7, 1.0, 1.3))
    stride = d.a["feature_stride"] = d.one(4, 8, 16, 5)
    count = len(scales) * len(ratios)
    few = d.flag()  # MXNet's sort of up to 16 is stable: there scores may be equal
    high, wide = (1, 1) if few else (d.integer(1, 5), d.integer(1, 5))
    d.a |= {"rpn_pre_nms_top_n": d.one(None, 0, -1, 5, 12), "threshold": d.one(None, 0.0, 0.3, 0.9)}
    d.a |= {"rpn_post_nms_top_n": d.one(1, 4, 20), "rpn_min_size": d.one(0, 1, 3)}
    size = np.array([high * stride, wide * stride], "float32")
    info = np.empty((n, 3), "float32")
    for row in info:
        row[:2] = size - d.one(0, stride // 2) * few
        row[2] = d.one(1.0, 0.5, 1.3)
    rng = np.random.default_rng(d.integer(0, 2**16))
    scores = (rng.permutation(n * count * high * wide * 2) + 1) / (2 * n * count * high * wide + 1)
    if few:
        scores = np.round(scores * 4) / 4
    else:  # nothing is so small that its score is -1, as that of others
        d.a["rpn_min_size"] = 0
    low, top = (-0.5, 0.5) if not d.a.get("iou_loss") else (-2.0, 3.0)
    offsets = d.array((n, 4 * count, high, wide), low=low, high=top, edges=False)
    return [scores.reshape(n, 2 * count, high, wide).astype("float32"), offsets, info]


@space("_contrib_RROIAlign")
def rotated_roi_align(d: Draw) -> list[np.ndarray]:
    d.dtype = d.one("float32", "float64")
    shape, scale = image(d), d.one(1.0, 0.5, 0.25)
    d.a |= {"pooled_size": (d.integer(1, 3), d.integer(1, 3)), "spatial_scale": scale}
    d.a["sampling_ratio"] = d.one(None, -1, 0, 1, 2, 3)
    rows = regions(d, shape[0], max(shape[2:]) / scale)
    angle = np.random.default_rng(d.integer(0, 99)).uniform(-180, 180, (len(rows), 1))
    rois = np.concatenate([rows, angle if d.flag() else angle * 0], 1)
    rois[:, 1:5] += 0.123  # away from the border of what is inside
    return [d.array(shape, edges=False), rois.astype(d.dtype)]
