"""Every operator against MXNet: values in float64, and gradients in training mode."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import import_symbol
from mxnet_files.checking.local import FLOAT32_INSIDE
from mxnet_files.checking.oracle import Oracle
from mxnet_files.registry import OPERATORS

S = mx.sym
Build = Callable[..., Any]
Shapes = dict[str, tuple[int, ...]]
X: Shapes = {"data": (2, 3, 6, 5)}
XY: Shapes = {"data": (2, 3, 4), "b": (2, 3, 4)}
FLAT: Shapes = {"data": (3, 7)}


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int, low: float = -2.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    arrays = {name: rng.uniform(low, 2.0, shape) for name, shape in shapes.items()}
    return {name: a + 2.5 if name.endswith("var") else a for name, a in arrays.items()}


def compare(
    symbol: Any,
    arrays: Mapping[str, np.ndarray],
    dtype: str = "float64",
    gradients: bool = True,
) -> torch.fx.GraphModule:
    """Values, then gradients, of `symbol` in MXNet and through the import."""
    text = symbol.tojson()
    inputs = list(arrays)
    oracle = Oracle(text, {}, arrays, dtype, backward=gradients)
    module = import_symbol(json.loads(text), {}, inputs=inputs).to(getattr(torch, dtype))
    moving = symbol.list_auxiliary_states()
    tensors = [torch.tensor(arrays[name].astype(dtype)) for name in inputs]
    with torch.no_grad():
        got = module(*tensors)
    got = got if isinstance(got, tuple) else (got,)
    expected = oracle.forward()
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        agree(a.numpy(), b, dtype)
    if gradients:
        rng = np.random.default_rng(1)
        heads = [rng.uniform(0.5, 1.5, y.shape) for y in expected]
        wanted = oracle.gradients(heads)
        module.train()
        for name, tensor in zip(inputs, tensors, strict=True):
            tensor.requires_grad_(name not in moving)
        got = module(*tensors)
        got = got if isinstance(got, tuple) else (got,)
        torch.autograd.backward(
            got, [torch.tensor(head, dtype=y.dtype) for head, y in zip(heads, got, strict=True)]
        )
        for name, tensor in zip(inputs, tensors, strict=True):
            if name in moving:
                agree(tensor.numpy(), oracle.auxiliary()[name], dtype)
                continue
            found = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
            agree(found, wanted[name], dtype)
    return module


def agree(a: np.ndarray, b: np.ndarray, dtype: str) -> None:
    """Same shape, and equal to a few units of the largest value."""
    assert a.shape == b.shape
    assert np.isfinite(b).all()
    unit = 2.0**-53 if dtype == "float64" else 2.0**-24
    np.testing.assert_allclose(a, b, rtol=64 * unit, atol=64 * unit * max(1.0, np.abs(b).max()))


def var(*names: str) -> list[Any]:
    return [S.var(name) for name in names]


d, b, g, m, v, w = var("data", "b", "gamma", "moving_mean", "moving_var", "weight")
bias, beta, label = var("bias", "beta", "label")

SQUARES = S.broadcast_add(d * 0.3, S.eye(3) * 2)
CASES: dict[str, tuple[Any, Shapes]] = {
    "conv": (
        S.Convolution(d, w, bias, kernel=(3, 2), num_filter=4, stride=(2, 1), pad=(1, 0)),
        {**X, "weight": (4, 3, 3, 2), "bias": (4,)},
    ),
    "conv_grouped_dilated": (
        S.Convolution(d, w, kernel=(3, 3), num_filter=6, num_group=3, dilate=(2, 1), no_bias=True),
        {**X, "weight": (6, 1, 3, 3)},
    ),
    "conv_1d": (
        S.Convolution(d, w, bias, kernel=(3,), num_filter=2, pad=(2,)),
        {"data": (2, 3, 7), "weight": (2, 3, 3), "bias": (2,)},
    ),
    "conv_3d": (
        S.Convolution(d, w, kernel=(2, 3, 1), num_filter=2, no_bias=True),
        {"data": (1, 2, 4, 4, 3), "weight": (2, 2, 2, 3, 1)},
    ),
    "deconv": (
        S.Deconvolution(d, w, kernel=(3, 3), num_filter=4, stride=(2, 2), pad=(1, 1), adj=(1, 0)),
        {**X, "weight": (3, 4, 3, 3)},
    ),
    "deconv_grouped_bias": (
        S.Deconvolution(d, w, bias, kernel=(2, 2), num_filter=6, num_group=3, no_bias=False),
        {**X, "weight": (3, 2, 2, 2), "bias": (6,)},
    ),
    "deconv_target_shape": (
        S.Deconvolution(
            d, w, kernel=(4, 4), num_filter=2, stride=(2, 2), pad=(7, 7), target_shape=(12, 9)
        ),
        {**X, "weight": (3, 2, 4, 4)},
    ),
    "dense": (
        S.FullyConnected(d, w, bias, num_hidden=4),
        {**X, "weight": (4, 90), "bias": (4,)},
    ),
    "dense_no_flatten": (
        S.FullyConnected(d, w, num_hidden=4, flatten=False, no_bias=True),
        {"data": (2, 3, 5), "weight": (4, 5)},
    ),
    "image_normalize": (
        S.image.normalize(d, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
        {"data": (2, 3, 4, 5)},
    ),
    "batch_norm_defaults": (
        S.BatchNorm(d, g, beta, m, v),
        {**X, "gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_var": (3,)},
    ),
    "batch_norm": (
        S.BatchNorm(d, g, beta, m, v, fix_gamma=False, eps=1e-5, momentum=0.7),
        {**X, "gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_var": (3,)},
    ),
    "batch_norm_last_axis": (
        S.BatchNorm(d, g, beta, m, v, fix_gamma=False, axis=-1),
        {**X, "gamma": (5,), "beta": (5,), "moving_mean": (5,), "moving_var": (5,)},
    ),
    "batch_norm_global": (
        S.BatchNorm(d, g, beta, m, v, fix_gamma=False, use_global_stats=True),
        {**X, "gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_var": (3,)},
    ),
    "batch_norm_v1": (
        S.BatchNorm_v1(d, g, beta, eps=0.01, fix_gamma=False, name="v1"),
        {**X, "gamma": (3,), "beta": (3,), "v1_moving_mean": (3,), "v1_moving_var": (3,)},
    ),
    "sync_batch_norm": (
        S.contrib.SyncBatchNorm(d, g, beta, m, v, key="one", ndev=1, fix_gamma=False),
        {**X, "gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_var": (3,)},
    ),
    "convolution_v1": (
        S.Convolution_v1(d, w, bias, kernel=(3, 2), num_filter=4, stride=(2, 1), pad=(1, 0)),
        {**X, "weight": (4, 3, 3, 2), "bias": (4,)},
    ),
    "batch_norm_2d": (
        S.BatchNorm(d, g, beta, m, v, fix_gamma=False),
        {"data": (4, 3), "gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_var": (3,)},
    ),
    "instance_norm": (S.InstanceNorm(d, g, beta), {**X, "gamma": (3,), "beta": (3,)}),
    "layer_norm": (S.LayerNorm(d, g, beta), {**X, "gamma": (5,), "beta": (5,)}),
    "layer_norm_axis": (S.LayerNorm(d, g, beta, axis=1), {**X, "gamma": (3,), "beta": (3,)}),
    "group_norm": (
        S.GroupNorm(d, g, beta, num_groups=2),
        {"data": (2, 4, 3, 3), "gamma": (2,), "beta": (2,)},
    ),
    "l2_instance": (S.L2Normalization(d), X),
    "l2_channel": (S.L2Normalization(d, mode="channel", eps=0.1), X),
    "l2_spatial": (S.L2Normalization(d, mode="spatial"), X),
    "leaky": (S.LeakyReLU(d), X),
    "leaky_slope": (S.LeakyReLU(d, slope=0.1), X),
    "elu": (S.LeakyReLU(d, act_type="elu", slope=0.7), X),
    "selu": (S.LeakyReLU(d, act_type="selu"), X),
    "gelu": (S.LeakyReLU(d, act_type="gelu"), X),
    "prelu": (S.LeakyReLU(d, g, act_type="prelu"), {**X, "gamma": (3,)}),
    "prelu_shared": (S.LeakyReLU(d, g, act_type="prelu"), {**X, "gamma": (1,)}),
    "hard_sigmoid": (S.hard_sigmoid(d), X),
    "softmax": (S.softmax(d), X),
    "softmax_axis": (S.softmax(d, axis=1, temperature=2.5), X),
    "log_softmax": (S.log_softmax(d, axis=1), X),
    "softmin": (S.softmin(d, temperature=0.5), X),
    "embedding": (
        S.Embedding(S.BlockGrad(d), w, input_dim=4, output_dim=3),
        {"data": (5,), "weight": (4, 3)},
    ),
    "sparse_embedding": (
        S.contrib.SparseEmbedding(S.BlockGrad(d), w, input_dim=4, output_dim=3),
        {"data": (5,), "weight": (4, 3)},
    ),
    "clip": (S.clip(d, -0.5, 1.0), X),
    "amp_cast": (S.amp_cast(d, dtype="float32"), X),
    "flatten": (S.Flatten(d), X),
    "pad_constant": (
        S.Pad(d, mode="constant", pad_width=(0, 0, 0, 0, 1, 2, 0, 3), constant_value=1.5),
        X,
    ),
    "pad_edge": (S.Pad(d, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 0, 3)), X),
    "pad_reflect": (S.Pad(d, mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 4, 3)), X),
    "pad_5d": (
        S.Pad(d, mode="reflect", pad_width=(0, 0, 0, 0, 1, 0, 0, 2, 1, 1)),
        {"data": (1, 2, 3, 4, 3)},
    ),
    "upsampling_nearest": (S.UpSampling(d, scale=3, sample_type="nearest"), X),
    "upsampling_two": (
        S.UpSampling(d, b, scale=2, sample_type="nearest", num_args=2),
        {"data": (1, 2, 4, 4), "b": (1, 3, 2, 2)},
    ),
    "upsampling_sum": (
        S.UpSampling(d, b, scale=2, sample_type="nearest", num_args=2, multi_input_mode="sum"),
        {"data": (1, 2, 4, 4), "b": (1, 2, 2, 2)},
    ),
    "upsampling_bilinear": (
        S.UpSampling(d, w, scale=3, num_filter=3, sample_type="bilinear", num_args=2),
        {**X, "weight": (3, 1, 5, 5)},
    ),
    "concat": (S.Concat(d, b, dim=2), {"data": (2, 3, 4), "b": (2, 3, 5)}),
    "stack": (S.stack(d, b, axis=-1), XY),
    "add_n": (S.add_n(d, b, d), XY),
    "split": (S.Group(list(S.split(d, num_outputs=3, axis=1))), X),
    "split_squeeze": (S.Group(list(S.split(d, num_outputs=3, axis=1, squeeze_axis=True))), X),
    "split_one_used": (S.split(d, num_outputs=3)[1] * 2, X),
    "transpose": (S.transpose(d), X),
    "transpose_axes": (S.transpose(d, axes=(0, 2, 3, 1)), X),
    "swap_axes": (S.SwapAxis(d, dim1=1, dim2=3), X),
    "expand_dims": (S.expand_dims(d, axis=-1), X),
    "squeeze": (S.squeeze(d), {"data": (1, 3, 1, 2)}),
    "squeeze_axis": (S.squeeze(d, axis=(0, 2)), {"data": (1, 3, 1, 2)}),
    "squeeze_all": (S.squeeze(d), {"data": (1, 1)}),
    "tile": (S.tile(d, reps=(2, 1, 3)), {"data": (2, 3)}),
    "repeat": (S.repeat(d, repeats=2, axis=1), X),
    "repeat_flat": (S.repeat(d, repeats=3), FLAT),
    "reverse": (S.reverse(d, axis=(1, 3)), X),
    "slice": (S.slice(d, begin=(0, None, 1), end=(1, None, -1)), X),
    "slice_steps": (S.slice(d, begin=(None, 2, -1), end=(None, 0, None), step=(1, -1, -2)), X),
    "slice_axis": (S.slice_axis(d, axis=-1, begin=-4, end=-1), X),
    "slice_axis_open": (S.slice_axis(d, axis=2, begin=2, end=None), X),
    "slice_like": (S.slice_like(d, b, axes=(1, -1)), {**X, "b": (9, 2, 9, 3)}),
    "slice_like_all": (S.slice_like(d, b), {"data": (4, 5), "b": (2, 3)}),
    "crop": (S.Crop(d, offset=(1, 2), h_w=(3, 2), num_args=1), X),
    "crop_like": (S.Crop(d, b, num_args=2, center_crop=True), {**X, "b": (1, 1, 3, 2)}),
    "broadcast_to": (S.broadcast_to(d, shape=(4, 0)), {"data": (1, 3)}),
    "broadcast_axis": (S.broadcast_axis(d, axis=(0, 2), size=(4, 3)), {"data": (1, 2, 1)}),
    "broadcast_like": (S.broadcast_like(d, b), {"data": (1, 3), "b": (4, 3)}),
    "reshape_like": (
        S.reshape_like(d, b, lhs_begin=1, lhs_end=None, rhs_begin=0, rhs_end=2),
        {"data": (2, 6), "b": (2, 3, 7)},
    ),
    "depth_to_space": (S.depth_to_space(d, block_size=2), {"data": (1, 8, 2, 3)}),
    "space_to_depth": (S.space_to_depth(d, block_size=2), {"data": (1, 2, 4, 6)}),
    "where": (S.where(S.BlockGrad(d) > 0, d, b), XY),
    "where_rows": (S.where(S.BlockGrad(g) > 0, d, b), {**XY, "gamma": (2,)}),
    "take": (S.take(d, S.BlockGrad(g) * 3, axis=1), {"data": (2, 5, 3), "gamma": (2, 4)}),
    "take_wrap": (
        S.take(d, S.BlockGrad(g) * 9, axis=-1, mode="wrap"),
        {"data": (2, 5), "gamma": (4,)},
    ),
    "pick": (S.pick(d, S.BlockGrad(g) * 5), {"data": (4, 5), "gamma": (4,)}),
    "one_hot": (
        S.one_hot(S.BlockGrad(d) * 4, depth=3, on_value=2, off_value=-1, dtype="float64"),
        {"data": (6,)},
    ),
    "dot": (S.dot(d, b), {"data": (2, 3, 4), "b": (4, 5, 2)}),
    "dot_ta": (S.dot(d, b, transpose_a=True), {"data": (4, 2, 3), "b": (4, 5)}),
    "dot_tb": (S.dot(d, b, transpose_b=True), {"data": (2, 4), "b": (5, 3, 4)}),
    "dot_vectors": (S.dot(d, b), {"data": (4,), "b": (4,)}),
    "batch_dot": (S.batch_dot(d, b), {"data": (2, 3, 4), "b": (2, 4, 5)}),
    "batch_dot_tt": (
        S.batch_dot(d, b, transpose_a=True, transpose_b=True),
        {"data": (2, 4, 3), "b": (2, 5, 4)},
    ),
    "gemm2": (
        S.linalg.gemm2(d, b, transpose_b=True, alpha=0.5),
        {"data": (2, 3, 4), "b": (2, 5, 4)},
    ),
    "reshape_reshape": (S.reshape(S.reshape(d, shape=(0, -3, -1)), shape=(-4, 1, 2, -2)), X),
    "smooth_l1": (S.smooth_l1(d, scalar=1.5), X),
    "linear_regression": (
        S.LinearRegressionOutput(d, label, grad_scale=2),
        {**FLAT, "label": (3, 7)},
    ),
    "logistic_regression": (S.LogisticRegressionOutput(d, label), {**FLAT, "label": (3, 7)}),
    "gemm": (
        S.linalg.gemm(d, b, w, transpose_b=True, alpha=2, beta=0.5),
        {"data": (2, 3, 4), "b": (2, 5, 4), "weight": (2, 3, 5)},
    ),
    "syrk": (S.linalg.syrk(d, transpose=True, alpha=0.5), {"data": (2, 3, 4)}),
    "potrf": (S.linalg.potrf(S.linalg.syrk(d) + S.eye(3) * 2), FLAT),
    "im2col": (
        S.im2col(d, kernel=(3, 2), stride=(2, 1), dilate=(1, 2), pad=(1, 0)),
        {"data": (2, 3, 6, 5)},
    ),
    "col2im": (
        S.col2im(d, output_size=(6, 5), kernel=(3, 2), stride=(1, 2), pad=(1, 1)),
        {"data": (2, 18, 18)},
    ),
    "round_ste": (S.contrib.round_ste(d * 3), FLAT),
    "sign_ste": (S.contrib.sign_ste(d), FLAT),
    "gradientmultiplier": (S.contrib.gradientmultiplier(d, scalar=-0.5) * d, FLAT),
    "det_and_slogdet": (
        S.Group([S.linalg.det(SQUARES), *S.linalg.slogdet(SQUARES)]),
        {"data": (2, 3, 3)},
    ),
    "inverse": (S.linalg.inverse(SQUARES), {"data": (2, 3, 3)}),
    "potri": (S.linalg.potri(SQUARES), {"data": (2, 3, 3)}),
    "sumlogdiag": (S.linalg.sumlogdiag(SQUARES), {"data": (3, 3)}),
    "trmm": (
        S.linalg.trmm(SQUARES, b, lower=False, rightside=True, alpha=2),
        {"data": (2, 3, 3), "b": (2, 4, 3)},
    ),
    "trsm": (
        S.linalg.trsm(SQUARES, b, transpose=True, alpha=0.5),
        {"data": (2, 3, 3), "b": (2, 3, 4)},
    ),
    "extractdiag": (S.linalg.extractdiag(d, offset=-1), {"data": (2, 4, 4)}),
    "makediag": (S.linalg.makediag(d, offset=1), {"data": (2, 3)}),
    "extracttrian": (S.linalg.extracttrian(d, lower=False), {"data": (2, 4, 4)}),
    "maketrian": (S.linalg.maketrian(d, offset=-1), {"data": (2, 6)}),
    # MXNet leaves the gradient of the labels as it finds it in memory, where a NaN may be
    "svm": (
        S.SVMOutput(d, S.BlockGrad(label * 0 + 1), margin=0.7, regularization_coefficient=2),
        {**FLAT, "label": (3,)},
    ),
    "svm_linear": (
        S.SVMOutput(d, S.BlockGrad(label * 0 + 1), use_linear=True),
        {**FLAT, "label": (3,)},
    ),
    "softmax_cross_entropy": (
        S.softmax_cross_entropy(d, S.BlockGrad(label * 0 + 2)),
        {**FLAT, "label": (3,)},
    ),
    "boolean_mask": (S.contrib.boolean_mask(d, S.BlockGrad(b > -9)), {**FLAT, "b": (3,)}),
    "mae_regression": (S.MAERegressionOutput(d, label), {**FLAT, "label": (3, 7)}),
    "make_loss": (S.MakeLoss(S.square(d), grad_scale=3, normalization="batch"), FLAT),
    "make_loss_valid": (S.MakeLoss(d, normalization="valid"), FLAT),
    "make_loss_simple": (S.make_loss(S.square(d)) * 5, FLAT),
    "adaptive_average": (S.contrib.AdaptiveAvgPooling2D(d, output_size=(2, 3)), X),
    "bilinear_resize": (S.contrib.BilinearResize2D(d, height=7, width=11), X),
    "constants": (
        S.broadcast_add(d, S.zeros((2, 1), dtype="float64") + S.ones((2, 1), dtype="float64") * 3),
        {"data": (2, 3)},
    ),
}


# MXNet computes these in float32, or refuses float64
ONLY_FLOAT32 = {
    *("amp_cast", "instance_norm", "leaky", "leaky_slope", "gelu", "selu", "prelu", "prelu_shared"),
    *("crop", "crop_like", "bilinear_resize", "batch_norm_v1", "sync_batch_norm"),
}
# these have no gradient; MXNet's selu has a wrong one: λ(α + y) in the place of λα + y
NO_GRADIENT = {"amp_cast", "one_hot", "selu", "sparse_embedding"}


@pytest.mark.parametrize("case", CASES)
def test_operator(case: str) -> None:
    symbol, shapes = CASES[case]
    dtype = "float32" if case in ONLY_FLOAT32 else "float64"
    compare(symbol, draw(shapes, seed=3), dtype, gradients=case not in NO_GRADIENT)


DOMAINS = {  # where the function is defined and its value moderate
    **dict.fromkeys(("arcsin", "arccos", "arctanh", "erfinv"), (-0.9, 0.9)),
    **dict.fromkeys(("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "rcbrt"), (0.2, 3.0)),
    "arccosh": (1.2, 4.0),
    "gammaln": (0.3, 5.0),
    "gamma": (-1.9, 4.5),
}
UNARY = """
abs sign round rint ceil floor trunc fix square sqrt rsqrt cbrt rcbrt exp expm1 log log10 log2 log1p
sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh degrees radians erf erfinv
gamma gammaln negative reciprocal relu sigmoid softsign
BlockGrad identity zeros_like ones_like logical_not
"""
FLAT_OR_CUT = "BlockGrad zeros_like ones_like logical_not round rint fix sign gamma"


@pytest.mark.parametrize("name", UNARY.split())
def test_unary(name: str) -> None:
    rng = np.random.default_rng(5)
    low, high = DOMAINS.get(name, (-3.0, 3.0))
    x = rng.uniform(low, high, (40,))
    if name in ("round", "rint", "fix", "floor", "ceil", "trunc"):
        x[:6] = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    # the constants and series of these gradients are good to float32 only
    float32 = name in FLOAT32_INSIDE or name in ("erf", "gammaln")
    compare(
        getattr(S, name)(d),
        {"data": x},
        "float32" if float32 else "float64",
        gradients=name not in FLAT_OR_CUT.split(),
    )


BINARY = ("add", "sub", "mul", "div", "mod", "power", "maximum", "minimum", "hypot")
COMPARE = (
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
    "lesser",
    "lesser_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
)


@pytest.mark.parametrize("name", BINARY + COMPARE)
def test_broadcast(name: str) -> None:
    steps = np.round(draw({"data": (3, 4)}, 1)["data"] * 2) / 2 + 3  # with ties
    arrays = {"data": steps, "b": np.arange(1, 5.0).reshape(1, 4)}
    symbol = getattr(S, f"broadcast_{name}")(d, b)
    compare(symbol, arrays, gradients=name in BINARY)


@pytest.mark.parametrize("name", ["elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div"])
def test_elementwise(name: str) -> None:
    compare(getattr(S, name)(d, b), draw(XY, 2, low=0.5))


SCALARS = """
_plus_scalar _minus_scalar _rminus_scalar _mul_scalar _div_scalar _rdiv_scalar _power_scalar
_rpower_scalar _mod_scalar _rmod_scalar _hypot_scalar _maximum_scalar _minimum_scalar
_equal_scalar _not_equal_scalar _greater_scalar _greater_equal_scalar _lesser_scalar
_lesser_equal_scalar _logical_and_scalar _logical_or_scalar _logical_xor_scalar
"""


@pytest.mark.parametrize("name", SCALARS.split())
@pytest.mark.parametrize("scalar", [1.5, 2])
def test_scalar(name: str, scalar: float) -> None:
    x = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.7])
    symbol = getattr(S._internal, name)(d, scalar=scalar)
    smooth = not any(word in name for word in ("equal", "greater", "lesser", "logical"))
    compare(symbol, {"data": x}, gradients=smooth)


REDUCTIONS = ("sum", "mean", "prod", "max", "min", "nansum", "nanprod")
AXES: list[dict[str, Any]] = [
    {},
    {"axis": 1},
    {"axis": (0, -1)},
    {"axis": 1, "keepdims": True},
    {"keepdims": True},
    {"axis": (1,), "exclude": True},
]


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name: str, axes: dict[str, Any]) -> None:
    arrays = {"data": np.round(draw({"data": (2, 3, 4)}, 9, low=0.4)["data"] * 4) / 4}  # with ties
    compare(getattr(S, name)(d, **axes), arrays)


@pytest.mark.parametrize("axes", [{}, {"axis": 1}, {"axis": (1, 2), "keepdims": True}], ids=str)
@pytest.mark.parametrize("order", [1, 2])
def test_norm(order: int, axes: dict[str, Any]) -> None:
    compare(S.norm(d, ord=order, **axes), draw({"data": (2, 3, 4)}, 9))


@pytest.mark.parametrize("axes", [{}, {"axis": 1}, {"axis": -1, "keepdims": True}], ids=str)
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_argument(name: str, axes: dict[str, Any]) -> None:
    arrays = {"data": np.round(draw({"data": (3, 5)}, 4)["data"])}  # ties: the first wins
    compare(getattr(S, name)(d, **axes), arrays, gradients=False)


@pytest.mark.parametrize("nsize", [1, 3, 5])
def test_lrn(nsize: int) -> None:
    arrays = draw({"data": (2, 7, 3, 2)}, 6)
    compare(S.LRN(d, nsize=nsize), arrays, "float32", gradients=False)
    compare(S.LRN(d, nsize=nsize, alpha=0.3, beta=0.6, knorm=1.5), arrays, "float32")


@pytest.mark.parametrize("mode", ["instance", "channel"])
def test_softmax_activation(mode: str) -> None:
    # beyond two axes MXNet goes forward along the last axis and backward along axis 1
    flat = mode == "instance"
    compare(S.SoftmaxActivation(d, mode=mode), draw(X, 6), "float32", gradients=not flat)
    if flat:
        compare(S.SoftmaxActivation(d), draw(FLAT, 6), "float32")


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "tanh", "softrelu", "softsign"])
def test_activation(kind: str) -> None:
    compare(S.Activation(d, act_type=kind), draw(X, 8, low=-30.0))


def test_rrelu_in_inference() -> None:
    compare(S.LeakyReLU(d, act_type="rrelu")[0], draw(X, 8), "float32", gradients=False)


def test_softmax_with_length() -> None:
    arrays = {"data": draw({"data": (3, 4)}, 1)["data"], "b": np.array([1, 4, 2], dtype=np.int32)}
    symbol = S.softmax(d, S.Cast(b, dtype="int32"), use_length=True, axis=1)
    compare(symbol, arrays, gradients=False)


@pytest.mark.parametrize("op", ["BatchNorm", "LayerNorm", "GroupNorm"])
def test_statistics_outputs(op: str) -> None:
    size = 2 if op == "GroupNorm" else 4
    shapes = {"data": (3, 4, 4), "gamma": (size,), "beta": (size,)}
    options: dict[str, Any] = {"num_groups": 2} if op == "GroupNorm" else {}
    states = (m, v) if op == "BatchNorm" else ()
    if states:
        shapes |= {"moving_mean": (4,), "moving_var": (4,)}
    symbol = getattr(S, op)(d, g, beta, *states, output_mean_var=True, **options)
    arrays = draw(shapes, 3)
    compare(symbol, arrays, gradients=False)


def test_statistics_send_no_gradient_back_in_training() -> None:
    arrays = draw({"data": (3, 4, 5), "gamma": (4,), "beta": (4,)}, 3)
    arrays |= {"moving_mean": np.zeros(4), "moving_var": np.ones(4)}
    symbol = S.BatchNorm(d, g, beta, m, v, fix_gamma=False, output_mean_var=True)
    given = {name: mx.nd.array(x, dtype="float64") for name, x in arrays.items()}
    states = {name: given.pop(name) for name in ("moving_mean", "moving_var")}
    places = {name: mx.nd.zeros_like(x) for name, x in given.items()}
    bound = symbol.bind(mx.cpu(), given, places, aux_states=states)
    outputs = bound.forward(is_train=True)
    rng = np.random.default_rng(0)
    heads = [rng.normal(size=y.shape) for y in outputs]
    bound.backward([mx.nd.array(head, dtype="float64") for head in heads])
    x = torch.tensor(arrays.pop("data"), dtype=torch.float64, requires_grad=True)
    module = import_symbol(json.loads(symbol.tojson()), arrays).double().train()
    found = module(x)
    sum((y * torch.tensor(head)).sum() for y, head in zip(found, heads, strict=True)).backward()
    for y, wanted in zip(found, outputs, strict=True):
        np.testing.assert_allclose(y.detach(), wanted.asnumpy(), rtol=1e-6, atol=1e-9)
    gradients: dict[str, Any] = {
        "data": x.grad,
        "gamma": module.gamma.grad,
        "beta": module.beta.grad,
    }
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, places[name].asnumpy(), rtol=1e-6, atol=1e-9)


LABELS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((4, 5), (4,), {}),
    "scaled_batch": ((4, 5), (4,), {"grad_scale": 3, "normalization": "batch"}),
    "ignore": ((4, 5), (4,), {"use_ignore": True, "ignore_label": 1}),
    "ignore_valid": (
        (4, 5),
        (4,),
        {"use_ignore": True, "ignore_label": 1, "normalization": "valid"},
    ),
    "valid_only": ((4, 5), (4,), {"ignore_label": 1, "normalization": "valid"}),
    "smooth": ((4, 5), (4,), {"smooth_alpha": 0.2}),
    "channel": ((2, 5, 3, 2), (2, 3, 2), {"multi_output": True}),
    "channel_batch": ((2, 5, 3), (2, 3), {"multi_output": True, "normalization": "batch"}),
    "channel_valid": (
        (2, 5, 3),
        (2, 3),
        {"multi_output": True, "normalization": "valid", "use_ignore": True, "ignore_label": 1},
    ),
    "channel_flat_label": ((2, 5, 3, 2), (2, 6), {"multi_output": True}),
    "last_axis": ((2, 3, 5), (2, 3), {"preserve_shape": True}),
    "last_axis_batch": ((2, 3, 5), (2, 3), {"preserve_shape": True, "normalization": "batch"}),
    "probabilities": ((4, 5), (4, 5), {"grad_scale": 2}),
}


@pytest.mark.parametrize("case", LABELS)
def test_softmax_output(case: str) -> None:
    shape, label_shape, options = LABELS[case]
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 5, label_shape).astype(float)
    labels.reshape(-1)[:2] = [1, 0]
    if shape == label_shape:
        labels = rng.dirichlet(np.ones(5), shape[0])
    symbol = S.SoftmaxOutput(d, label, **options)
    compare(symbol, {"data": rng.normal(size=shape), "label": labels})


# (kernel, stride, pad, size of the map)
WINDOWS = [
    ((2, 2), (2, 2), (0, 0), (5, 6)),
    ((3, 3), (2, 2), (1, 1), (7, 6)),
    ((4, 4), (4, 4), (2, 2), (9, 9)),
    ((3, 2), (1, 3), (1, 0), (4, 7)),
    ((2, 3), (1, 1), (0, 2), (4, 5)),
    ((9, 8), (2, 3), (2, 3), (21, 20)),
    # padded by more than half a kernel, which torch refuses to do itself
    ((3, 3), (2, 2), (2, 2), (6, 6)),
    ((4, 4), (2, 2), (3, 3), (6, 6)),
    ((7, 7), (4, 4), (4, 4), (6, 6)),
    ((3, 3), (3, 3), (2, 2), (1, 1)),
    *(
        ((kernel,) * 2, (stride,) * 2, (pad,) * 2, size)
        for kernel, stride, pad in (
            (3, 2, 2), (4, 3, 2), (7, 4, 4), (5, 2, 4), (3, 5, 2), (3, 1, 2),
        )
        for size in ((6, 7), (7, 8), (9, 5))
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["max", "avg", "sum", "lp"])
@pytest.mark.parametrize(("kernel", "stride", "pad", "size"), WINDOWS, ids=str)
def test_pooling(
    kind: str, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int],
    size: tuple[int, int],
) -> None:  # fmt: skip
    # an all-padding window has the lowest number as its maximum: finite, but no gradient
    gradients = not pad[0] == pad[1] > 1
    for convention, include in product(("valid", "full"), (True, False)):
        symbol = S.Pooling(
            d, kernel=kernel, stride=stride, pad=pad, pool_type=kind, p_value=2,
            pooling_convention=convention, count_include_pad=include,
        )  # fmt: skip
        compare(symbol, draw({"data": (2, 3, *size)}, 4, low=0.5), gradients=gradients)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(7, 9), (4, 5), (2, 3), (1, 1), (1, 7), (9, 1)])
def test_bilinear_resize(align: bool, size: tuple[int, int]) -> None:
    symbol = S.contrib.BilinearResize2D(d, height=size[0], width=size[1], align_corners=align)
    compare(symbol, draw({"data": (1, 2, 4, 5)}, 3), "float32", gradients=False)


def test_batch_norm_with_relu() -> None:
    """Of what there is in oneDNN alone: float32 in four axes."""
    states = {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_var": (3,)}
    symbol = S.contrib.BatchNormWithReLU(d, g, beta, m, v, fix_gamma=False, eps=1e-5)
    compare(symbol, draw({**X, **states}, 1, low=0.1), "float32", gradients=False)


@pytest.mark.parametrize("kind", ["max", "avg", "sum", "lp"])
@pytest.mark.parametrize("size", [(2, 3, 7), (2, 3, 4, 5), (1, 2, 3, 4, 3)])
def test_global_pooling(kind: str, size: tuple[int, ...]) -> None:
    symbol = S.Pooling(d, global_pool=True, pool_type=kind, p_value=2)
    compare(symbol, draw({"data": size}, 2, low=0.1))


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
@pytest.mark.parametrize("axes", [1, 3])
def test_pooling_of_other_ranks(kind: str, axes: int) -> None:
    options = {"kernel": (3,) * axes, "stride": (2,) * axes, "pad": (1,) * axes}
    arrays = draw({"data": (1, 2, *(6,) * axes)}, 2)
    for convention in ("valid", "full"):
        compare(S.Pooling(d, pool_type=kind, pooling_convention=convention, **options), arrays)


@pytest.mark.parametrize("kind", ["max", "avg", "sum"])
@pytest.mark.parametrize("convention", ["valid", "full"])
@pytest.mark.parametrize("window", [(2, 1, 1), (2, 2, 1), (2, 2, 0), (2, 3, 1)])
def test_pooling_v1(kind: str, convention: str, window: tuple[int, int, int]) -> None:
    kernel, stride, pad = window
    symbol = S.Pooling_v1(
        d,
        kernel=(kernel, kernel),
        stride=(stride, stride),
        pad=(pad, pad),
        pool_type=kind,
        pooling_convention=convention,
    )
    compare(symbol, {"data": -draw({"data": (1, 2, 3, 3)}, 2, low=0.5)["data"]}, gradients=False)


# (shape, codes, reverse); MXNet writes outside its arrays for some codes read in reverse: not here
CODES = [
    ((2, 3, 4, 5), (0, -1), False),
    ((2, 3, 4, 5), (0, -1), True),
    ((2, 3, 4, 5), (-1, 0), True),
    ((2, 3, 4, 5), (0, 0, -1), True),
    ((2, 3, 4, 5), (-2,), False),
    ((2, 3, 4, 5), (0, -2), False),
    ((2, 3, 4, 5), (-3, 0, 0), False),
    ((2, 3, 4, 5), (-3, -3), True),
    ((2, 3, 4, 5), (0, -3, -1), True),
    ((2, 3, 4, 5), (-4, 1, 2, -2), False),
    ((2, 3, 4, 5), (-4, -1, 2, 0, 0, 0), False),
    ((2, 3, 4, 5), (0, -4, 3, 1, -2), False),
    ((2, 3, 4, 5), (-3, -2), False),
    ((2, 3, 4, 5), (0, -3, -4, -1, 5), False),
    ((2, 3, 4, 5), (-2, 1, 1), False),
    ((2, 3, 4, 5), (6, 20), False),
    ((2, 3, 4, 5), (-1, 5, 1), False),
    ((8, 3), (-4, 2, -1, 0), False),
]


@pytest.mark.parametrize(("shape", "codes", "reverse"), CODES, ids=str)
def test_reshape(shape: tuple[int, ...], codes: tuple[int, ...], reverse: bool) -> None:
    compare(S.reshape(d, shape=codes, reverse=reverse), draw({"data": shape}, 1))


@pytest.mark.parametrize(
    ("target", "keep"), [((2, 0), False), ((0, 12), True), ((0, 3, 0), True), ((6, 0, 2), False)]
)
def test_reshape_of_old_files(target: tuple[int, ...], keep: bool) -> None:
    arrays = draw({"data": (2, 3, 4)}, 1)
    compare(S.reshape(d, target_shape=target, keep_highest=keep), arrays)


@pytest.mark.parametrize(("axes", "always"), [((), False), ((0, 2), False), ((), True)])
def test_dropout(axes: tuple[int, ...], always: bool) -> None:
    mode = "always" if always else "training"
    symbol = S.Dropout(d, p=0.4, axes=axes, mode=mode)
    x = np.ones((40, 30, 10))
    module = compare(symbol, {"data": x}, gradients=False) if not always else None
    module = module or import_symbol(json.loads(symbol.tojson()), {}).double()
    if not always:
        module.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # ten draws in all where two axes share theirs
        y = module(torch.tensor(x))
    assert {round(value, 6) for value in y.unique().tolist()} == {0.0, round(1 / 0.6, 6)}
    assert 0.45 < (y != 0).double().mean() < 0.75
    for axis in axes:
        assert bool((y == y.narrow(axis, 0, 1)).all())


WHOLE = (7, -7, 2, 0)


@pytest.mark.parametrize("scalar", [2, 2.5])
@pytest.mark.parametrize("name", ["_plus", "_mul", "_div", "_rdiv", "_maximum", "_greater"])
def test_integers_stay_integers(name: str, scalar: float) -> None:
    """The scalar loses its fraction, unless is_int says no; so does a quotient."""
    x = S.Cast(d, dtype="int32")
    y = getattr(S._internal, f"{name}_scalar")
    arrays = {"data": np.array(WHOLE if name != "_rdiv" else (7, -7, 2, 1), dtype=float)}
    compare(S.Cast(y(x, scalar=scalar), dtype="float64"), arrays, gradients=False)
    if name not in ("_maximum", "_greater"):  # refused by MXNet 1.9.1 itself, or not widened
        wide = S.Cast(y(x, scalar=scalar, is_int=False), dtype="float64")
        compare(wide, arrays, gradients=False)


def test_division_of_integer_arrays() -> None:
    whole = S.elemwise_div(S.Cast(d, dtype="int64"), S.Cast(b, dtype="int64"))
    arrays = {"data": np.array(WHOLE, dtype=float), "b": np.array([2.0, 2.0, 3.0, 5.0])}
    compare(S.Cast(whole, dtype="float64"), arrays, gradients=False)
    half = S.broadcast_div(S.shape_array(d), S.shape_array(d) + 1)
    compare(S.Cast(half * 3, dtype="float64"), draw(X, 1), gradients=False)


def test_shape_arrays() -> None:
    compare(S.Group([S.shape_array(d), S.size_array(d)]), draw(X, 1), gradients=False)


def test_argmax_channel() -> None:
    compare(S.argmax_channel(d), draw({"data": (3, 5)}, 1), gradients=False)


def test_split_v2() -> None:
    for options in ({"indices_or_sections": 2}, {"indices_or_sections": (1, 4)}):
        symbol = S.split_v2(d, axis=1, **options)
        compare(S.Group(list(symbol)), draw({"data": (2, 6)}, 1))


def test_softmax_output_scaled_by_the_incoming_gradient() -> None:
    """MXNet 1.9.1 multiplies by the output here; its documentation says the output's gradient."""
    symbol = S.SoftmaxOutput(d, label, out_grad=True)
    module = import_symbol(json.loads(symbol.tojson()), {}).double()
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    head = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    p = module(x, torch.tensor([1.0]))
    p.backward(head)
    expected = (p.detach() - torch.tensor([[0.0, 1.0, 0.0]])) * head
    torch.testing.assert_close(x.grad, expected)


def test_softmax_output_without_a_label_is_softmax() -> None:
    module = import_symbol(json.loads(S.SoftmaxOutput(d, label).tojson()), {})
    x = torch.randn(2, 3, requires_grad=True)
    module(x)[0, 1].backward()
    expected = torch.autograd.grad(torch.softmax(x, 1)[0, 1], x)[0]
    torch.testing.assert_close(x.grad, expected)


def test_factors_of_matrices() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 3))
    data = mx.sym.var("data")
    compare(mx.sym.Group(list(mx.sym.linalg.gelqf(data))), {"data": x})
    compare(mx.sym.linalg.det(data), {"data": x[0]})  # (1,)
    both = x + x.transpose(0, 2, 1) + np.diag([0.0, 20, 40])
    compare(mx.sym.Group(list(mx.sym.linalg.syevd(data))), {"data": both}, gradients=False)
    arrays = draw({"a": (2, 3), "b": (4, 3), "c": (1, 3)}, 1)
    compare(mx.sym.khatri_rao(*map(mx.sym.var, "abc")), arrays, gradients=False)
    compare(mx.sym.contrib.quadratic(data, a=1.5, b=-2, c=3), draw({"data": (2, 3)}, 1))


def test_every_operator_is_compared() -> None:
    """Each registered operator, or an alias of it, is named in a test of operators."""
    here = Path(__file__).parent
    source = "".join(path.read_text() for path in here.glob("test_*operators.py"))
    names: dict[str, list[str]] = {}
    for alias, operator in OPERATORS.items():
        short = alias.strip("_").removeprefix("contrib_").removeprefix("sparse_")
        names.setdefault(operator.name, []).append(short.removeprefix("linalg_"))
        if numpys := re.fullmatch(r"_np[ix]?_(r?)(.*?)(_scalar)?", alias):
            names[operator.name] += [numpys[2], numpys[1] + numpys[2]]
    missing = {
        name
        for name, aliases in names.items()
        if not any(re.search(rf"\b_?{re.escape(alias)}\b", source) for alias in aliases)
    }
    assert missing == set()
