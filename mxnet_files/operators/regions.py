"""Regions and warps: operators that sample feature maps at places that the net works out."""

from __future__ import annotations

from types import SimpleNamespace

from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_regions
from mxnet_files.operators.neural import LAYOUT, bias_unless, check_kernel, groups, spatial
from mxnet_files.reading.attributes import Attributes
from mxnet_files.registry import Wired, Wiring, register, register_call, registered

MOST_BINS = 2**16
MOST_MOVES = 4_096


def pair(w: Wiring, a: SimpleNamespace, key: str, least: int = 1) -> tuple[int, ...]:
    """Two positive sizes."""
    sizes: tuple[int, ...] = getattr(a, key)
    if len(sizes) != 2 or min(sizes) < least or sizes[0] * sizes[1] > MOST_BINS:
        raise w.refuse(f"{key}={sizes}, expected two numbers of at least {least}")
    return sizes


POOLED = "pooled_size: integers, spatial_scale: real"
register(
    "ROIPooling _npx_roi_pooling",
    lambda w, a, x, rois: w.call(
        mx_regions.roi_pooling, x, rois, pair(w, a, "pooled_size"), a.spatial_scale
    ),
    "data rois",
    POOLED,
    dtypes=Dtypes.FLOATING,
)


@registered(
    "_contrib_ROIAlign",
    "data rois",
    f"{POOLED}, sample_ratio: integer = -1, position_sensitive: boolean = False, "
    "aligned: boolean = False",
    dtypes=Dtypes.FLOATING,
)
def roi_align(w: Wiring, a: SimpleNamespace, x: fx.Node, rois: fx.Node) -> Wired:
    size = pair(w, a, "pooled_size")
    if a.sample_ratio > MOST_MOVES:
        raise w.refuse(f"sample_ratio={a.sample_ratio}, expected at most {MOST_MOVES}")
    options = (a.spatial_scale, a.sample_ratio, a.position_sensitive, a.aligned)
    return w.call(mx_regions.roi_align, x, rois, size, *options)


@registered(
    "_contrib_RROIAlign",
    "data rois",
    f"{POOLED}, sampling_ratio: integer = -1",
    dtypes=Dtypes.FLOATING,
)
def rotated_roi_align(w: Wiring, a: SimpleNamespace, x: fx.Node, rois: fx.Node) -> Wired:
    size = pair(w, a, "pooled_size")
    if a.sampling_ratio > MOST_MOVES:
        raise w.refuse(f"sampling_ratio={a.sampling_ratio}, expected at most {MOST_MOVES}")
    return w.call(mx_regions.rotated_roi_align, x, rois, size, a.spatial_scale, a.sampling_ratio)


@registered(
    "_contrib_PSROIPooling",
    "data rois",
    "spatial_scale: real, output_dim: integer, pooled_size: integer, group_size: integer = 0",
    dtypes=Dtypes.FLOATING,
)
def psroi_pooling(w: Wiring, a: SimpleNamespace, x: fx.Node, rois: fx.Node) -> Wired:
    group = a.group_size or a.pooled_size
    if min(group, a.pooled_size, a.output_dim) < 1 or max(group, a.pooled_size) ** 2 > MOST_BINS:
        raise w.refuse(
            f"output_dim={a.output_dim}, pooled_size={a.pooled_size}, group_size={a.group_size}, "
            f"expected positive numbers and at most {MOST_BINS} bins"
        )
    sizes = (a.output_dim, a.pooled_size, group)
    return w.call(mx_regions.psroi_pooling, x, rois, a.spatial_scale, *sizes)


def deformable(w: Wiring, a: Attributes, x: fx.Node, offset: fx.Node, *rest: fx.Node) -> Wired:
    masked = w.operator.startswith("_contrib_Modulated")
    mask = rest[0] if masked else None
    weight, *bias = rest[1:] if masked else rest
    check_kernel(w, a)
    groups(w, a)
    if masked and a.num_deformable_group > 0 and a.num_filter % a.num_deformable_group:
        raise w.refuse(
            f"num_filter={a.num_filter}, expected a multiple of "
            f"num_deformable_group={a.num_deformable_group}"
        )
    if len(a.kernel) != 2 or a.num_deformable_group < 1:
        raise w.refuse(
            f"kernel={a.kernel}, num_deformable_group={a.num_deformable_group}, expected 2-D"
        )
    if a.layout not in (None, "NCHW"):
        raise w.refuse(f"layout={a.layout}, expected NCHW")
    w.expect(weight, (a.num_filter, None, *a.kernel), "weight")
    return w.call(
        mx_regions.deformable_convolution,
        x,
        offset,
        mask,
        weight,
        bias[0] if bias else None,
        spatial(w, a, "stride", 1),
        spatial(w, a, "pad", 0),
        spatial(w, a, "dilate", 1),
        a.num_group,
        a.num_deformable_group,
    )


DEFORMABLE = (
    "kernel: shape, stride: shape = (), dilate: shape = (), pad: shape = (), "
    "num_filter: integer, num_group: integer = 1, num_deformable_group: integer = 1, "
    f"workspace: ignored, no_bias: boolean = False, {LAYOUT}"
)
register(
    "_contrib_DeformableConvolution",
    deformable,
    lambda a: ("data", "offset", *bias_unless(a)[1:]),
    DEFORMABLE,
    dtypes=Dtypes.FLOATING,
)
register(
    "_contrib_ModulatedDeformableConvolution",
    deformable,
    lambda a: ("data", "offset", "mask", *bias_unless(a)[1:]),
    f"{DEFORMABLE}, im2col_step: ignored",
    dtypes=Dtypes.FLOATING,
)


@registered(
    "Correlation",
    "data1 data2",
    "kernel_size: integer = 1, max_displacement: integer = 1, stride1: integer = 1, "
    "stride2: integer = 1, pad_size: integer = 0, is_multiply: boolean = True",
    dtypes=Dtypes.FLOATING,
)
def correlation(w: Wiring, a: SimpleNamespace, x: fx.Node, y: fx.Node) -> Wired:
    if a.kernel_size < 1 or a.kernel_size % 2 == 0 or min(a.stride1, a.stride2) < 1:
        raise w.refuse(f"kernel_size={a.kernel_size}, expected odd; strides of at least 1")
    if min(a.max_displacement, a.pad_size) < 0:
        raise w.refuse(f"max_displacement={a.max_displacement}, pad_size={a.pad_size}: negative")
    if (2 * (a.max_displacement // a.stride2) + 1) ** 2 > MOST_MOVES:
        raise w.refuse(
            f"max_displacement={a.max_displacement}, expected {MOST_MOVES} moves at most"
        )
    sizes = (a.kernel_size, a.max_displacement, a.stride1, a.stride2, a.pad_size)
    return w.call(mx_regions.correlation, x, y, *sizes, a.is_multiply)


TARGET = "target_shape: integers = (0, 0)"


@registered(
    "GridGenerator", "data", f"{TARGET}, transform_type: (affine|warp)", dtypes=Dtypes.FLOATING
)
def grid_generator(w: Wiring, a: Attributes, x: fx.Node) -> Wired:
    if a.transform_type == "warp":
        a.have_no_effect("target_shape")
        return w.call(mx_regions.grid_of_flow, x)
    return w.call(mx_regions.grid_generator, x, pair(w, a, "target_shape", 2))


register_call(
    "BilinearSampler",
    mx_regions.bilinear_sampler,
    "data grid",
    "cudnn_off: ignored",
    dtypes=Dtypes.FLOATING,
)


@registered(
    "SpatialTransformer",
    "data loc",
    f"{TARGET}, transform_type: (affine), sampler_type: (bilinear), cudnn_off: ignored",
    dtypes=Dtypes.FLOATING,
)
def spatial_transformer(w: Wiring, a: Attributes, x: fx.Node, theta: fx.Node) -> Wired:
    a.have_no_effect("transform_type", "sampler_type")  # there is one of each
    return w.call(mx_regions.spatial_transformer, x, theta, pair(w, a, "target_shape", 2))
