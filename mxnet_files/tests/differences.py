"""Cases that show the rows of `docs/mxnet-differences.md`, for `test_symbol_differential`."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import import_symbol
from mxnet_files.tests.spaces import Case

S = mx.sym
NAN, INF = float("nan"), float("inf")


def of(values: Any, dtype: str = "float32") -> np.ndarray:
    return np.asarray(values, dtype)


def ones(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


def case(
    operator: str, *inputs: np.ndarray, outputs: int = 1, stored: bool = False, **attributes: Any
) -> Case:
    """One operator on these arrays."""
    written = {name: str(value) for name, value in attributes.items()}
    slots = [f"data{place}" for place in range(len(inputs))]
    return Case(operator, written, list(inputs), slots, outputs, stored, halved=False)


def equal_scores() -> list[np.ndarray]:
    rng = np.random.default_rng(1)  # whose order `std::sort` shows
    scores = rng.choice([0.25, 0.5, 0.75], (1, 24, 3, 3))
    return [of(scores), of(rng.normal(size=(1, 48, 3, 3)) / 10), of([[48, 48, 1]])]


REFUSED, COMPUTED, DIES = "refused", "computed", "dies"
ANY = "by what is in memory, or by the CPU"
R, C, D = REFUSED, COMPUTED, DIES
# row: case, MXNet's end, the import's. Where both compute, what they compute is different
SHOWN = {
    "Arrays of bool.": (case("transpose", ones(2, 2, dtype="bool")), R, C),
    "Dtypes that MXNet's operator lacks on the CPU.": (
        case("FullyConnected", ones(2, 3, dtype="float16"), ones(4, 3, dtype="float16"),
             num_hidden=4, no_bias=True), R, C),
    "Numbers of axes that it lacks.": (
        case("Convolution_v1", ones(1, 1, 3), ones(1, 1, 1), kernel=(1,), num_filter=1,
             no_bias=True), R, C),
    "What oneDNN cannot do.": (
        case("_contrib_BatchNormWithReLU", ones(2, 3, 1, 1, dtype="float64"),
             *(ones(3, dtype="float64") for _ in range(4))), R, C),
    "Norms by singular values of matrices with more rows than columns.": (
        case("_npi_norm", ones(3, 2), ord=2, axis=(0, 1), flag=2), R, C),
    "Transposed vectors in `dot`.": (case("dot", ones(3), ones(3), transpose_a=True), R, C),
    "Labels of `SoftmaxOutput` without the axes of size 1.": (
        case("SoftmaxOutput", ones(3, 1, 1, 3), ones(3), preserve_shape=True), R, C),
    "Arrays of two dtypes in one operation.": (
        case("elemwise_add", ones(2), ones(2, dtype="float64")), R, C),
    "Arrays without elements, but for `mx.np`'s.": (case("relu", ones(0, 2)), R, C),
    "`prod` and `mean` of no elements in `mx.np`.": (case("_np_prod", ones(0)), C, C),
    "Extremes, percentiles, norms and edges of no elements in `mx.np`.": (
        case("_np_max", ones(0)), ANY, R),
    "A size of 0 in `mx.npx.reshape`.": (case("_npx_reshape", ones(0, 2), newshape=(2, 0)), C, R),
    "`mx.np.where` without elements.": (
        case("_npi_where", ones(0), ones(0), ones(0)), ANY, C),
    "Some arrays without elements in `mx.np`.": (
        case("_npi_var", ones(4, 1, 0), axis=(1, 2)), R, C),
    "Convolutions of integers.": (
        case("Convolution", ones(1, 1, 3, dtype="int32"), ones(1, 1, 1, dtype="int32"),
             kernel=(1,), num_filter=1, no_bias=True), ANY, R),
    "`Flatten` of one axis.": (case("Flatten", ones(3)), C, R),
    "Integers divided by zero.": (
        case("elemwise_div", ones(1, dtype="int32"), of([0], "int32")), D, R),
    "Order of equal elements in `sort`, `argsort` and `topk`.": (
        case("argsort", ones(40)), C, C),
    "NaN in `sort`, `argsort` and `topk`.": (
        case("sort", of([3.0, NAN, 1.0, NAN, 2.0, 0.0, 5.0])), C, C),
    "Order of equal scores in `Proposal` and `MultiProposal`.": (
        case("_contrib_Proposal", *equal_scores(), rpn_pre_nms_top_n=30, rpn_post_nms_top_n=20,
             threshold=0.9, rpn_min_size=0), ANY, C),  # alike on an Intel Xeon (Emerald Rapids)
    "Images larger than their feature map in `Proposal`.": (
        case("_contrib_Proposal", ones(1, 24, 1, 1), ones(1, 48, 1, 1), of([[160, 160, 1]]),
             rpn_post_nms_top_n=4), R, C),
    "`amp_cast` to integers.": (case("amp_cast", of([0.6]), dtype="int32"), C, R),
    "NaN and infinity in softmax and `SoftmaxOutput`.": (
        case("softmax", of([[1.0, INF, 2.0]])), C, C),
    "NaN and infinity in `BilinearResize2D` and `image.resize`.": (
        case("_contrib_BilinearResize2D",
             of([[[[INF, NAN, NAN, 2], [2, 1, 1, 1], [1, INF, NAN, INF]]]]), height=3, width=4),
        C, C),
    "`Activation` with `relu` of NaN.": (case("Activation", of([NAN] * 16), act_type="relu"), C, C),
    "`LeakyReLU` with `gelu` of +infinity in float32.": (
        case("LeakyReLU", of([INF] * 32), act_type="gelu"), ANY, C),  # alike without AVX-512
    "NaN and infinity in `PSROIPooling`.": (
        case("_contrib_PSROIPooling", of([[[[INF, 1.0], [2.0, 3.0]]]]), of([[0, 0, 0, 1, 1]]),
             spatial_scale=1.0, output_dim=1, pooled_size=2, group_size=1), C, C),
    "Max `Pooling` of NaN.": (
        case("Pooling", of([[[NAN, 1.0]]]), kernel=(2,), pool_type="max"), C, C),
    "Max `Pooling` of a window of −infinity alone.": (
        case("Pooling", of([[[-INF, -INF]]]), kernel=(2,), pool_type="max"), C, C),
    "`nansum`, L1 `norm`, `mx.np`'s `sum` and `mean` of infinities.": (
        case("nansum", of([INF, 1.0])), C, C),
    "`mx.np.linalg.norm` of infinities.": (
        case("_npi_norm", of([INF, INF, 1.0]), ord=2, axis=(0,), flag=-1), C, C),
    "NaN in `mx.np.pad` with `mode=maximum` or `minimum`.": (
        case("_npi_pad", of([[NAN, 1.0], [2.0, NAN]]), pad_width=((1, 1), (1, 1)), mode="maximum"),
        C, C),
    "Integers in `mx.np`'s arithmetic and reductions.": (
        case("_npi_true_divide", ones(2, dtype="int32"), ones(2, dtype="int32")), C, R),
    "Integers in `contrib.quadratic`.": (
        case("_contrib_quadratic", ones(2, dtype="int32"), a=1.0), C, R),
    "Integer `power` beyond 2²⁴, `gamma` from 13 on.": (case("gamma", of([13], "int32")), C, C),
    "Powers by the number 0.5 of −0 and −infinity.": (
        case("_power_scalar", of([-INF, -0.0]), stored=True, scalar=0.5), C, C),
    "L2 `norm` of integers where the lowest one or int64 beyond 2⁵³ takes part.": (
        case("norm", of([[0, -128]], "int8"), ord=2, axis=1), D, C),
    "Statistics (`output_mean_var`) of `BatchNorm_v1` and `SyncBatchNorm` in inference.": (
        case("BatchNorm_v1", ones(2, 3), *(ones(3) for _ in range(4)), outputs=3,
             output_mean_var=True), C, C),
    "`softrelu` in float32 below −5, as oneDNN computes it.": (
        case("Activation", of([-68.2] * 16), act_type="softrelu"), C, C),
    "`take` with `mode=raise`.": (case("take", ones(2), of([0]), mode="raise"), C, R),
    "Pooling of float16 in three axes.": (
        case("Pooling", ones(1, 1, 2, 2, 2, dtype="float16"), kernel=(2, 2, 2), pool_type="avg"),
        C, R),
    "`Deconvolution` of three axes with `target_shape`.": (
        case("Deconvolution", ones(1, 1, 2, 2, 2), ones(1, 1, 2, 2, 2), kernel=(2, 2, 2),
             num_filter=1, target_shape=(3, 3, 3)), ANY, C),
    "`Deconvolution` in float64 with `dilate` and `stride`.": (
        case("Deconvolution", of([[[[1, 2], [3, 4]]]], "float64"),
             of([[[[1, 2], [3, 4]]]], "float64"), kernel=(2, 2), stride=(2, 2), dilate=(2, 2),
             num_filter=1), C, C),
    "`RNN` with `use_sequence_length`.": (
        case("RNN", ones(2, 2, 1), ones(4), ones(1, 2, 1), of([1, 2]), mode="rnn_tanh",
             num_layers=1, state_size=1, use_sequence_length=True, state_outputs=False), ANY, C),
    "Rows of `linalg.syevd` for equal eigenvalues.": (
        case("_linalg_syevd", of(np.eye(3), "float64"), outputs=2), ANY, C),
    "`tile` with four `reps` or more.": (case("tile", ones(2, 3), reps=(1, 2, 1, 2)), ANY, C),
    "`amp_multicast` of float32 arrays alone.": (
        case("amp_multicast", ones(2), ones(2), outputs=2, num_outputs=2), ANY, C),
    "`image.flip_top_bottom` of an odd height, `flip_left_right` of an odd width.": (
        case("_image_flip_top_bottom", of([[[1.0]], [[2.0]], [[3.0]]])), C, C),
    "`image.resize` with `interp=0` of uint8 in five channels and more.": (
        case("_image_resize", of(np.arange(20).reshape(2, 2, 5) + 1, "uint8"), size=(4, 4),
             interp=0), C, C),
    "`image.resize` of int64, int8 and bool.": (
        case("_image_resize", ones(2, 2, 1, dtype="int64"), size=(4, 4)), ANY, R),
    "Labels of `softmax_cross_entropy` that are no class.": (
        case("softmax_cross_entropy", ones(1, 2), of([7])), ANY, R),
    "`Reshape` with `reverse` and codes other than 0 and -1.": (
        case("Reshape", ones(2, 3, 4), shape=(-3, 0), reverse=True), ANY, C),
    "`Pooling` with `pooling_convention=same`.": (
        case("Pooling", ones(1, 1, 5), kernel=(2,), pooling_convention="same"), ANY, R),
    "`Dropout` with `mode=always`.": (case("Dropout", ones(1000), mode="always"), C, C),
    "`cumsum` and `lcm` of bool.": (case("cumsum", ones(2, dtype="bool"), axis=0), C, R),
    "Casts to bfloat16.": (case("Cast", of([1 + 0.75 * 2.0**-7]), dtype="bfloat16"), C, C),
}  # fmt: skip


def over_loops() -> tuple[Any, list[str]]:
    """A loop of at most four turns whose rows are a state."""
    i, s = S.var("i"), S.var("s")
    rows, states = S.contrib.while_loop(
        lambda i, s: i < 2, lambda i, s: ([s], [i + 1, s * 2]), [i, s], 4
    )
    return S.Group([*rows, *states]), ["i", "s"]


def rows_after_the_last_turn() -> None:
    symbol, names = over_loops()
    module = import_symbol(json.loads(symbol.tojson()), {}, inputs=names)
    rows, *_ = module(torch.zeros(1), torch.ones(3))
    assert rows.tolist() == [[1.0] * 3, [2.0] * 3, [0.0] * 3, [0.0] * 3]
    arrays = {"i": mx.nd.zeros(1), "s": mx.nd.ones(3)}
    wanted = symbol.bind(mx.cpu(), arrays).forward()[0].asnumpy()
    np.testing.assert_array_equal(rows[:2].numpy(), wanted[:2])


def rows_without_a_turn() -> None:
    symbol, names = over_loops()
    module = import_symbol(json.loads(symbol.tojson()), {}, inputs=names)
    assert module(torch.full((1,), 9.0), torch.ones(3))[0].tolist() == [[0.0] * 3] * 4
    arrays = {"i": mx.nd.full((1,), 9), "s": mx.nd.ones(3)}
    with pytest.raises(mx.MXNetError):
        symbol.bind(mx.cpu(), arrays).forward()[0].asnumpy()


def gradients(symbol: Any, **arrays: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Of the sum of the outputs for `x`: MXNet's and the import's."""
    given = {name: mx.nd.array(values) for name, values in arrays.items()}
    slope = mx.nd.zeros(given["x"].shape)
    bound = symbol.bind(mx.cpu(), given, args_grad={"x": slope})
    bound.forward(is_train=True)
    bound.backward(mx.nd.ones(given["x"].shape))
    module = import_symbol(json.loads(symbol.tojson()), {}, inputs=list(arrays))
    tensors = {name: torch.tensor(values) for name, values in arrays.items()}
    x = tensors["x"].requires_grad_()
    module(*tensors.values()).sum().backward()
    assert x.grad is not None
    return slope.asnumpy(), x.grad.numpy()


def gradients_of_what_is_not_taken() -> None:
    a, x = S.var("a"), S.var("x")
    branch = S.contrib.cond(a < 1, lambda: x * 2, lambda: S.log(x))
    theirs, ours = gradients(branch, a=[0.0], x=[0.0])
    assert theirs == 2
    assert np.isnan(ours)


def gradient_of_selu() -> None:
    theirs, ours = gradients(S.LeakyReLU(S.var("x"), act_type="selu"), x=[-1.0])
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    y = scale * alpha * (np.exp(-1.0) - 1)
    np.testing.assert_allclose(ours, scale * alpha + y, rtol=1e-6)
    np.testing.assert_allclose(theirs, scale * (alpha + y), rtol=1e-6)


BY_HAND = {
    "Gradient of `LeakyReLU` with `selu` below 0.": gradient_of_selu,
    "Rows of `while_loop` after its last turn.": rows_after_the_last_turn,
    "`while_loop` with rows and no turn.": rows_without_a_turn,
    "Gradients of `cond` and `while_loop` where the side that is not taken, or a turn after the"
    " last, is not finite.": gradients_of_what_is_not_taken,
}


def bits(array: Any) -> tuple[Any, ...]:
    """Shape, dtype and bits, those of every NaN alike; of bfloat16 the bits alone."""
    if isinstance(array, torch.Tensor):
        array = (array.view(torch.int16) if array.dtype == torch.bfloat16 else array).numpy()
    array = array.view("<i2") if array.dtype.names else array
    array = np.where(array != array, NAN, array).astype(array.dtype)
    return array.shape, array.dtype.name, array.tobytes()
