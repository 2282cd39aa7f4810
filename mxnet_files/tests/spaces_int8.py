"""The spaces of int8 arithmetic: arrays of 8 and 32 bits with their ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mxnet_files.tests.spaces import Draw, space


def eight(d: Draw, shape: Sequence[int], dtype: str, most: int = 127) -> np.ndarray:
    """Whole numbers of up to `most`; small ones where oneDNN may add in 16 bits."""
    low = 0 if dtype == "uint8" else -most
    rng = np.random.default_rng(d.integer(0, 2**16))
    return rng.integers(low, most, shape, endpoint=True).astype(dtype)


def ends(d: Draw, dtype: str = "int8") -> list[np.ndarray]:
    """The range of an array: (1,) and (1,)."""
    low = 0.0 if dtype == "uint8" else d.one(-1.5, -0.2, -3.0)
    return [np.array([value], np.float32) for value in (low, d.one(1.2, 0.4, 2.0))]


def calibrated(d: Draw, *, positive: bool = False) -> None:
    """A range that calibration found, or none."""
    pairs: list[Any] = [(None, None), (0.0, 0.9), *([] if positive else [(-0.7, 0.5)])]
    d.a["min_calib_range"], d.a["max_calib_range"] = d.one(*pairs)


@space("_contrib_quantize_v2")
def quantize(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    unsigned = d.a.get("out_type") == "uint8"
    calibrated(d, positive=unsigned)
    x = d.array(d.shape(), low=-1, high=1, edges=False) * np.float32(d.one(1, 1, 0))
    if d.one(False, False, True):
        x.flat[0] = d.one(np.nan, np.inf)
    return [np.abs(x) if unsigned else x]


@space("_contrib_quantize")
def quantize_between(d: Draw) -> list[np.ndarray]:
    d.dtype = "float32"
    x = d.array(d.shape(), low=-2, high=2, edges=False)
    low = d.one(-1.5, -0.2, -3.0, 0.0)
    return [x, *(np.array([end], np.float32) for end in (low, d.one(1.2, 0.4, 2.0)))]


@space("_contrib_requantize")
def requantize(d: Draw) -> list[np.ndarray]:
    calibrated(d, positive=d.a.get("out_type") == "uint8")
    rng = np.random.default_rng(d.integer(0, 2**16))
    x = rng.integers(-(2**24), 2**24, d.shape()).astype(np.int32) * np.int32(d.one(1, 1, 0))
    return [x, *(np.array([end], np.float32) for end in (-500.0, 400.0))]


@space("_contrib_dequantize _contrib_quantized_flatten _contrib_quantized_act")
def with_range(d: Draw) -> list[np.ndarray]:
    dtype = d.one("int8", "uint8")
    if "act_type" in d.a:
        d.a["act_type"] = "relu"
    shape = d.shape(4, 4) if "dequantize" not in d.a["__name__"] else d.shape(2, 4)
    return [eight(d, shape, dtype), *ends(d, dtype)]


@space("_contrib_quantized_pooling")
def pooling(d: Draw) -> list[np.ndarray]:
    dtype = d.one("int8", "uint8")
    kernel = (d.integer(1, 3), d.integer(1, 3))
    d.a |= {"kernel": kernel, "stride": d.one(None, (2, 2)), "pad": d.one(None, (0, 0))}
    d.a |= {"pool_type": d.one("max", "avg"), "pooling_convention": d.one(None, "valid")}
    d.a |= {"p_value": None, "layout": None, "count_include_pad": None}
    return [eight(d, (d.integer(1, 2), d.integer(1, 4), 6, 5), dtype), *ends(d, dtype)]


def weighted(d: Draw, dtype: str, shapes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """Data, weight and perhaps bias, and then the ranges of each."""
    kinds = [dtype, "int8", "int8"]
    if d.a.get("no_bias"):
        shapes = shapes[:2]
    arrays = [eight(d, shape, kind, 60) for shape, kind in zip(shapes, kinds, strict=False)]
    return arrays + [end for array in arrays for end in ends(d, array.dtype.name)]


@space("_contrib_quantized_conv")
def conv(d: Draw) -> list[np.ndarray]:
    kernel, count = (d.integer(1, 3), d.integer(1, 3)), d.integer(1, 4)
    d.a |= {"kernel": kernel, "num_filter": count, "layout": "NCHW", "num_group": None}
    d.a |= {"stride": d.one((1, 1), (2, 1)), "pad": d.one((0, 0), (1, 1)), "dilate": d.one((1, 1))}
    channels = d.integer(1, 4)
    shapes = ((d.integer(1, 2), channels, 6, 5), (count, channels, *kernel), (count,))
    return weighted(d, "uint8", shapes)


@space("_contrib_quantized_fully_connected")
def dense(d: Draw) -> list[np.ndarray]:
    rows, width, count = d.integer(1, 3), d.integer(1, 6), d.integer(1, 4)
    d.a |= {"num_hidden": count, "flatten": None}
    return weighted(d, d.one("int8", "uint8"), ((rows, width), (count, width), (count,)))


@space("_contrib_quantized_batch_norm")
def batch_norm(d: Draw) -> list[np.ndarray]:
    channels = d.integer(1, 4)
    d.a |= {"min_calib_range": -3.0, "max_calib_range": 2.5, "eps": d.one(1e-3, 1e-5), "axis": 1}
    d.a |= {"momentum": None, "output_mean_var": None, "fix_gamma": None, "use_global_stats": None}
    rng = np.random.default_rng(d.integer(0, 2**16))
    low, high = (0.5, -1.0, -1.0, 0.5), (1.5, 1.0, 1.0, 1.5)
    rows = [rng.uniform(a, b, channels).astype(np.float32) for a, b in zip(low, high, strict=True)]
    dtype = d.one("int8", "uint8")
    return [eight(d, (d.integer(1, 2), channels, 3, 4), dtype), *rows, *ends(d, dtype)]


@space("_contrib_quantized_concat")
def concat(d: Draw) -> list[np.ndarray]:
    count = d.integer(1, 3)
    d.a |= {"dim": 1, "num_args": count}
    shape = (d.integer(1, 2), d.integer(1, 3), 3, 4)
    kinds = [d.one("int8", "uint8") for _ in range(count)]
    arrays = [eight(d, shape, kind) for kind in kinds]
    return arrays + [end for kind in kinds for end in ends(d, kind)]


@space("_contrib_quantized_elemwise_add")
def add(d: Draw) -> list[np.ndarray]:
    d.a["min_calib_range"], d.a["max_calib_range"] = d.one((None, None), (-1.1, 1.7))
    shape = (d.integer(1, 2), d.integer(1, 3), 3, 4)
    kinds = [d.one("int8", "uint8") for _ in range(2)]
    arrays = [eight(d, shape, kind) for kind in kinds]
    return arrays + [end for kind in kinds for end in ends(d, kind)]


@space("_contrib_quantized_elemwise_mul")
def elementwise_multiply(d: Draw) -> list[np.ndarray]:
    calibrated(d)
    shape = d.shape()
    return [*(eight(d, shape, "int8") for _ in range(2)), *ends(d), *ends(d)]


@space("_contrib_quantized_embedding")
def embedding(d: Draw) -> list[np.ndarray]:
    rows, width = d.integer(1, 5), d.integer(1, 4)
    d.a |= {"input_dim": rows, "output_dim": width, "dtype": d.one(None, "int8")}
    places = d.array(d.shape(1, 3), d.one("float32", "int32", "uint8", "int64"), -2, 7, edges=False)
    return [places, eight(d, (rows, width), "int8"), *ends(d)]
