"""Regions, deformable convolutions, warps, correlation and images, against MXNet."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from mxnet_files import import_symbol
from mxnet_files.errors import SymbolError
from mxnet_files.tests.test_box_operators import near
from mxnet_files.tests.test_index_operators import alike
from mxnet_files.tests.test_symbol_operators import compare, draw

S = mx.sym
d, x, y = S.var("data"), S.var("x"), S.var("y")
weight, bias, offset, mask = map(S.var, ("weight", "bias", "offset", "mask"))


def regions(rng: np.random.Generator, count: int, images: int, size: float) -> np.ndarray:
    """Regions inside, across and beyond the border, some of a pixel, some turned inside out."""
    corner = rng.uniform(-0.3, 1.0, (count, 2)) * size
    extent = rng.uniform(-0.1, 0.8, (count, 2)) * size
    rows = np.concatenate([rng.integers(0, images, (count, 1)), corner, corner + extent], -1)
    rows[0, 1:] = [0, 0, size, size]
    rows[1, 1:] = [0.5, 1.5, 2.5, 3.5]  # halves
    return rows.astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.23])
@pytest.mark.parametrize("size", [(2, 3), (1, 1), (7, 7)])
def test_roi_pooling(size: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(1)
    for shape in ((2, 3, 9, 7), (1, 1, 4, 16), (3, 2, 1, 5)):
        data = rng.normal(size=shape).astype(np.float32)
        rois = regions(rng, 12, shape[0], max(shape[2:]) / scale)
        rois[3, 0] = -1 if shape[0] > 1 else 0
        alike(S.ROIPooling(d, x, pooled_size=size, spatial_scale=scale), {"data": data, "x": rois})


@pytest.mark.parametrize("samples", [-1, 2])
def test_rotated_regions(samples: int) -> None:
    """`RROIAlign`, of which MXNet computes no gradients."""
    rng = np.random.default_rng(1)
    data = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)
    rois = np.concatenate([regions(rng, 12, 2, 18.0), rng.uniform(-180, 180, (12, 1))], 1)
    options = {"pooled_size": (3, 2), "spatial_scale": 0.5, "sampling_ratio": samples}
    near(S.contrib.RROIAlign(d, x, **options), {"data": data, "x": rois.astype(np.float32)})


@pytest.mark.parametrize(("pooled", "group"), [(3, 0), (2, 4), (7, 7)])
def test_psroi_pooling(pooled: int, group: int) -> None:
    rng = np.random.default_rng(1)
    data = rng.normal(size=(2, 2 * (group or pooled) ** 2, 9, 7)).astype(np.float32)
    options = {"output_dim": 2, "pooled_size": pooled, "group_size": group}
    node = S.contrib.PSROIPooling(d, x, spatial_scale=0.5, **options)
    near(node, {"data": data, "x": regions(rng, 12, 2, 18.0)})


def test_a_region_beyond_the_last_image_is_empty() -> None:
    data = np.ones((1, 1, 1, 1), np.float32)
    rois = np.array([[0, 1, 1, 2, 2], [0, 0, 0, 0, 0], [0, 5, 5, 4, 4]], np.float32)
    node = S.ROIPooling(d, x, pooled_size=(1, 1), spatial_scale=1.0)
    alike(node, {"data": data, "x": rois})


def test_roi_pooling_sends_gradients_to_the_maxima() -> None:
    rng = np.random.default_rng(1)
    arrays = {"data": rng.normal(size=(2, 3, 9, 7)), "x": regions(rng, 6, 2, 9.0)}
    node = S.ROIPooling(d, S.BlockGrad(x), pooled_size=(2, 2), spatial_scale=1.0)
    compare(node, arrays, "float32")


@pytest.mark.parametrize("samples", [2, 1, 3, -1])
@pytest.mark.parametrize("sensitive", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_roi_align(samples: int, sensitive: bool, aligned: bool) -> None:
    rng = np.random.default_rng(1)
    for size, scale in (((2, 3), 1.0), ((4, 4), 0.5), ((1, 1), 0.3)):
        channels = 2 * size[0] * size[1] if sensitive else 3
        shape = (2, channels, 9, 7)
        rois = regions(rng, 10, 2, 9 / scale)
        if aligned:  # MXNet refuses those turned inside out
            rois[:, 3:] = np.maximum(rois[:, 3:], rois[:, 1:3] + 0.3)
        data = rng.normal(size=shape).astype(np.float32)
        node = S.contrib.ROIAlign(
            d, x, pooled_size=size, spatial_scale=scale, sample_ratio=samples,
            position_sensitive=sensitive, aligned=aligned,
        )  # fmt: skip
        near(node, {"data": data, "x": rois})


def test_roi_align_in_training() -> None:
    rng = np.random.default_rng(1)
    arrays = {"data": rng.normal(size=(2, 3, 9, 7)), "x": regions(rng, 6, 2, 9.0)}
    node = S.contrib.ROIAlign(
        d, S.BlockGrad(x), pooled_size=(2, 2), spatial_scale=1.0, sample_ratio=2
    )
    compare(node, arrays, "float32")


def convolution(second: bool, seed: int, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """A deformable convolution, and arrays that fit it."""
    groups, deformable = options.get("num_group", 1), options.get("num_deformable_group", 1)
    kernel, filters = options["kernel"], options["num_filter"]
    op = S.contrib.ModulatedDeformableConvolution if second else S.contrib.DeformableConvolution
    named = [d, offset, *([mask] if second else []), weight]
    if not options.get("no_bias"):
        named.append(bias)
    taps = kernel[0] * kernel[1]
    shapes = {"data": (2, 4, 8, 7), "weight": (filters, 4 // groups, *kernel)}
    if not options.get("no_bias"):
        shapes["bias"] = (filters,)
    plain = S.Convolution(
        d, weight, kernel=kernel, num_filter=filters, no_bias=True, num_group=groups,
        **{key: options[key] for key in ("stride", "pad", "dilate") if key in options},
    )  # fmt: skip
    _, out, _ = plain.infer_shape(data=shapes["data"])
    shapes["offset"] = (2, 2 * deformable * taps, *out[0][2:])
    if second:
        shapes["mask"] = (2, deformable * taps, *out[0][2:])
    return op(*named, **options), draw(shapes, seed)


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel": (3, 3), "num_filter": 4, "pad": (1, 1)},
    {"kernel": (3, 2), "num_filter": 6, "stride": (2, 1), "pad": (2, 0), "dilate": (1, 2)},
    {"kernel": (2, 2), "num_filter": 4, "num_group": 2, "num_deformable_group": 4, "no_bias": True},
    {"kernel": (1, 1), "num_filter": 2, "num_deformable_group": 2},
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("second", [False, True])
def test_deformable_convolution(second: bool, options: dict[str, Any]) -> None:
    for seed in (1, 2):
        node, arrays = convolution(second, seed, **options)
        compare(node, arrays, "float32", gradients=False)
        arrays["offset"] = np.round(arrays["offset"])  # in the middle of pixels, and on the border
        compare(node, arrays, "float32", gradients=False)


def test_gradients_of_a_deformable_convolution() -> None:
    """Inside the array, where MXNet's own are right too; the second version has none on its CPU."""
    node, arrays = convolution(False, 1, kernel=(3, 3), num_filter=4, stride=(2, 2))
    arrays["offset"] = np.abs(arrays["offset"]) % 0.8 + 0.1
    compare(node, arrays, "float32")


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 3, "max_displacement": 2, "pad_size": 3},
        {"kernel_size": 1, "max_displacement": 3, "stride1": 2, "stride2": 2, "pad_size": 4},
        {"kernel_size": 5, "max_displacement": 0, "stride1": 3, "pad_size": 1},
    ],
    ids=str,
)
def test_correlation(options: dict[str, int], multiply: bool) -> None:
    node = S.Correlation(x, y, is_multiply=multiply, **options)
    compare(node, draw({"x": (2, 3, 9, 8), "y": (2, 3, 9, 8)}, 1), "float32")


def test_grids_and_samplers() -> None:
    theta = draw({"x": (2, 6)}, 1)
    for size in ((4, 5), (2, 2), (9, 3)):
        node = S.GridGenerator(x, transform_type="affine", target_shape=size)
        compare(node, theta, "float32")
        warped = S.SpatialTransformer(
            d, x, target_shape=size, transform_type="affine", sampler_type="bilinear"
        )
        arrays = draw({"data": (2, 3, 6, 5), "x": (2, 6)}, 2)
        compare(warped, arrays, "float32")
        arrays["x"][:] = [1, 0, 0, 0, 1, 0]  # no move
        compare(warped, arrays, "float32", gradients=False)
    compare(S.GridGenerator(x, transform_type="warp"), draw({"x": (2, 2, 4, 5)}, 1), "float32")


@pytest.mark.parametrize("size", [(6, 5), (3, 4), (9, 2)])
def test_bilinear_sampler(size: tuple[int, int]) -> None:
    arrays = draw({"data": (2, 3, 6, 5), "x": (2, 2, *size)}, 1)
    compare(S.BilinearSampler(d, x), {**arrays, "x": arrays["x"] * 0.8}, "float32")


IMAGES: dict[str, dict[str, int]] = {
    "image_crop": {"x": 1, "y": 2, "width": 4, "height": 2},
    "image_flip_left_right": {},
    "image_flip_top_bottom": {},
    "image_to_tensor": {},
}


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("name", IMAGES)
def test_images(name: str, kind: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 6, 3)).astype(kind)
    node = getattr(S.image, name.removeprefix("image_"))(d, **IMAGES[name])
    near(node, {"data": pixels})
    if "flip" not in name:
        near(node, {"data": np.stack([pixels, pixels[::-1]])})


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_image_resize(channels: int) -> None:
    """`image_resize` of uint8 bit for bit, in OpenCV's fixed point; of reals as rounded."""
    rng = np.random.default_rng(1)
    for shape in ((64, 48, channels), (2, 37, 51, channels)):
        pixels = rng.integers(0, 256, shape)
        for options in ({"size": (24, 32)}, {"size": 50, "keep_ratio": True}, {"size": 91}):
            for interp in (0, 1):
                node = S.image.resize(d, interp=interp, **options)
                alike(node, {"data": pixels.astype(np.uint8)})
                near(node, {"data": pixels.astype(np.float32)})


@pytest.mark.parametrize("options", [{"size": (4, 4), "interp": 2}, {"size": (0, 4)}, {}], ids=str)
def test_what_no_image_is_resized_to_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SymbolError, match="expected"):
        import_symbol(json.loads(S.image.resize(d, **options).tojson()), {}, inputs=["data"])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (S.ROIPooling(d, x, pooled_size=(2, 10**6), spatial_scale=1.0), "two numbers"),
        (
            S.contrib.ROIAlign(d, x, pooled_size=(3, 3), spatial_scale=1.0, sample_ratio=10**6),
            "expected at most",
        ),
        (S.Correlation(d, x, kernel_size=2), "expected odd"),
        (S.Correlation(d, x, max_displacement=100), "moves at most"),
        (S.GridGenerator(d, transform_type="affine"), "two numbers of at least 2"),
        (
            S.contrib.DeformableConvolution(
                d, x, y, bias, kernel=(3, 3), num_filter=2, num_deformable_group=0
            ),
            "expected 2-D",
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(node: Any, message: str) -> None:
    with pytest.raises(SymbolError, match=message):
        import_symbol(json.loads(node.tojson()), {}, inputs=node.list_arguments())
