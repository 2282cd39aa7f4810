"""Order, choice by index, ranges and running sums, against MXNet."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import import_symbol
from mxnet_files.checking.check import Subject, compare_with_mxnet
from mxnet_files.errors import SymbolError
from mxnet_files.tests.test_symbol_operators import compare, draw

S = mx.sym
d, i = S.var("data"), S.var("indices")


def alike(node: Any, arrays: dict[str, np.ndarray]) -> None:
    """Values, shapes and dtypes as MXNet's, whatever the dtypes are."""
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    wanted = [y.asnumpy() for y in node.bind(mx.cpu(), given).forward()]
    module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays))
    found = module(*(torch.from_numpy(array) for array in arrays.values()))
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.numpy().dtype == b.dtype
        np.testing.assert_array_equal(a.numpy(), b)


def shuffled(size: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Different numbers in disorder; around 0 where the dtype has negative ones."""
    count = int(np.prod(size))
    values = np.random.default_rng(seed).permutation(count) - (
        0 if dtype == "uint8" else count // 2
    )
    return values.reshape(size).astype(dtype)


DTYPES = ["float32", "float64", "int32", "int64", "int8", "uint8"]
AXES: list[int | None] = [-1, 0, 1, None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", ["value", "indices", "mask", "both"])
def test_topk(kind: str, axis: int | None, dtype: str) -> None:
    x = {"data": shuffled((3, 5, 4), dtype)}
    for k, ascending, places in ((2, False, "float32"), (1, True, "int32"), (0, False, "int64")):
        node = S.topk(d, k=k, axis=axis, ret_typ=kind, is_ascend=ascending, dtype=places)
        alike(S.Group(list(node)), x)


@pytest.mark.parametrize("axis", AXES)
def test_topk_sends_gradients_to_what_it_chose(axis: int | None) -> None:
    arrays = draw({"data": (3, 5, 4)}, 2)
    compare(S.topk(d, k=2, axis=axis, ret_typ="value"), arrays)
    compare(S.sort(d, axis=axis), arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("ascending", [True, False])
def test_sort_and_argsort(axis: int | None, ascending: bool, dtype: str) -> None:
    x = {"data": shuffled((3, 5, 4), dtype)}
    alike(S.sort(d, axis=axis, is_ascend=ascending), x)
    for places in ("float32", "float64", "int32", "uint8"):
        alike(S.argsort(d, axis=axis, is_ascend=ascending, dtype=places), x)


def test_ties_keep_their_order() -> None:
    """So they do on MXNet's GPU, and up to 16 elements on its CPU."""
    x = {"data": np.array([[2, 1, 2, 0, 1, 2, 0, 1] * 2] * 2, dtype=np.float32)}
    alike(S.argsort(d), x)
    alike(S.topk(d, k=10, ret_typ="both"), x)
    module = import_symbol(json.loads(S.argsort(d, is_ascend=False).tojson()), {})
    assert module(torch.ones(40)).tolist() == list(range(40))


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint8"])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_gather_nd(shape: tuple[int, ...], axes: int, dtype: str) -> None:
    size = (3, 4, 5)
    rng = np.random.default_rng(1)
    chosen = np.stack([rng.integers(0, extent, shape) for extent in size[:axes]]).astype(dtype)
    alike(S.gather_nd(d, i), {"data": shuffled(size, "float32"), "indices": chosen})
    if dtype != "uint8":
        alike(S.gather_nd(d, i), {"data": shuffled(size, "int64"), "indices": chosen - 3})


def test_gather_nd_adds_up_gradients() -> None:
    arrays = draw({"data": (3, 4, 5)}, 1) | {"indices": np.array([[0, 2, 0], [1, 1, 1.0]])}
    compare(S.gather_nd(d, S.BlockGrad(i)), arrays)


@pytest.mark.parametrize("dtype", ["float32", "int32", "float64"])
def test_scatter_nd(dtype: str) -> None:
    chosen = np.array([[0, 2, 1], [3, 1, 0]], dtype=dtype)
    for size, rest in (((3, 4), ()), ((3, 4, 2), (2,)), ((5, 6), ())):
        x = shuffled((3, *rest), "float32") + 7
        alike(S.scatter_nd(d, i, shape=size), {"data": x, "indices": chosen})
    arrays = draw({"data": (3, 2)}, 1) | {"indices": chosen.astype(np.float64)}
    compare(S.scatter_nd(d, S.BlockGrad(i), shape=(3, 4, 2)), arrays)


@pytest.mark.parametrize("k", [-2, -1, 0, 1, 2])
def test_diag(k: int) -> None:
    for size in ((3,), (4, 5), (5, 4), (3, 4, 5)):
        compare(S.diag(d, k=k), draw({"data": size}, 1))
    for first, second in ((0, 2), (2, 1), (-1, 0), (1, 3)):
        node = S.diag(d, k=k, axis1=first, axis2=second)
        compare(node, draw({"data": (3, 4, 3, 5)}, 1))


@pytest.mark.parametrize("axis", [None, 0, 1, 2])  # MXNet's own refuses negative ones
@pytest.mark.parametrize("dtype", [None, "float64", "int32"])
def test_cumsum(axis: int | None, dtype: str | None) -> None:
    for kind in ("float32", "float64", "int32", "int64", "int8"):
        x = {"data": shuffled((3, 4, 5), kind)}
        alike(S.cumsum(d, axis=axis, dtype=dtype), x)
    if dtype is None:
        compare(S.cumsum(d, axis=axis), draw({"data": (3, 4, 5)}, 1))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, -1), (0, 1, 2)])
def test_moments(axes: tuple[int, ...], keepdims: bool) -> None:
    compare(S.Group(list(S.moments(d, axes=axes, keepdims=keepdims))), draw({"data": (3, 4, 5)}, 1))


RANGES = [
    {"start": 5, "stop": None},
    {"start": 2, "stop": 7},
    {"start": 0.5, "stop": 7.3, "step": 0.7},
    {"start": 9, "stop": -4, "step": -1.5},
    {"start": 1, "stop": 4, "repeat": 3},
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "int8", "uint8"])
@pytest.mark.parametrize("options", RANGES, ids=str)
def test_arange(options: dict[str, Any], dtype: str) -> None:
    if dtype == "uint8" and options.get("step", 1) < 0:
        options = {**options, "start": 200, "stop": 190}
    node = S._internal._arange(**options, dtype=dtype)
    alike(node, {})


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_linspace_and_eye(dtype: str) -> None:
    for options in ({"num": 7}, {"num": 5, "endpoint": False}, {"num": 1}):
        alike(S._internal._linspace(start=-3, stop=11, dtype=dtype, **options), {})
    for size in ({"N": 3}, {"N": 3, "M": 5}, {"N": 4, "M": 2, "k": -1}, {"N": 3, "k": 2}):
        alike(S._internal._eye(dtype=dtype, **size), {})


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("options", [{}, {"start": 2, "step": 3}, {"repeat": 2}], ids=str)
def test_arange_like(options: dict[str, Any], axis: int | None) -> None:
    for dtype in ("float32", "float64"):
        alike(S.contrib.arange_like(d, axis=axis, **options), {"data": shuffled((4, 6), dtype)})


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("kinds", ["16 32", "32 16", "16 16", "32 32"])
def test_amp_multicast(narrow: bool, kinds: str) -> None:
    """The dtypes that MXNet infers; its CPU has no float16 to compute the values with."""
    names = [f"float{bits}" for bits in kinds.split()]
    node = S.Group(list(S.amp_multicast(d, i, num_outputs=2, cast_narrow=narrow)))
    _, wanted, _ = node.infer_type(data=names[0], indices=names[1])
    module = import_symbol(json.loads(node.tojson()), {}, inputs=["data", "indices"])
    given = [torch.from_numpy(shuffled((2, 3), name)) for name in names]
    for found, x, kind in zip(module(*given), given, wanted, strict=True):
        assert found.numpy().dtype == kind
        assert torch.equal(found.double(), x.double())


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(4, 5), (5, 4), (1, 3), (7, 7)])
def test_bilinear_resize_by_rule(size: tuple[int, int], align: bool) -> None:
    arrays = draw({"data": (2, 3, *size)}, 3)
    resize = S.contrib.BilinearResize2D
    for rule in ("to_even_up", "to_odd_down", "to_odd_up", "to_even_down"):
        if min(size) == 1 and rule == "to_even_down":
            continue
        compare(resize(d, mode=rule, align_corners=align), arrays, "float32", gradients=False)
    for rule in ("size", "odd_scale"):
        for scales in ((2, 3), (0.7, 1.4), (1.5, 0.6)):
            options = {"scale_height": scales[0], "scale_width": scales[1]}
            if min(int(scale * extent) for scale, extent in zip(scales, size, strict=True)) < 1:
                continue
            node = resize(d, mode=rule, align_corners=align, **options)
            compare(node, arrays, "float32", gradients=False)
    like = {**arrays, "indices": np.ones((1, 1, 6, 2))}
    compare(resize(d, i, mode="like", align_corners=align), like, "float32", gradients=False)


def test_scaled_sizes_are_those_of_float32() -> None:
    """0.7 · 10 is 7 in float32, 6.9999998 where the factor alone was rounded."""
    node = S.contrib.BilinearResize2D(d, scale_height=0.7, scale_width=0.7)
    compare(node, draw({"data": (1, 1, 10, 30)}, 1), "float32", gradients=False)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (S._internal._arange(start=0, stop=1e9), "elements, expected 0 to 2"),
        (S._internal._arange(start=0, stop=3, step=0), "no range"),
        (S._internal._arange(start=0, infer_range=True), "infer_range=True"),
        (S._internal._linspace(start=0, stop=1, num=10**9), "elements, expected 0 to 2"),
        (S._internal._eye(N=10**6), "elements, expected 0 to 2"),
        (S.scatter_nd(d, i, shape=(10**6, 10**6)), "at most 2"),
        (S.moments(d), "axes is empty"),
        (S.contrib.BilinearResize2D(d, scale_height=2), "expected two numbers"),
        (S.SequenceMask(d, axis=3), "axis=3, expected 0 or 1"),
        (S.SequenceReverse(d, axis=1), "axis=1, expected 0"),
    ],
)
def test_what_has_no_meaning_is_refused(node: Any, message: str) -> None:
    with pytest.raises(SymbolError, match=message):
        import_symbol(json.loads(node.tojson()), {})


def test_a_step_without_meaning_is_refused() -> None:
    with pytest.raises(SymbolError, match="repeat=0, expected at least 1"):
        import_symbol(json.loads(S.contrib.arange_like(d, repeat=0).tojson()), {})


ORDERED = {
    "argsort": lambda x, **more: S.argsort(x, name="order", **more),
    "topk indices": lambda x, **more: S.topk(x, k=15, name="order", **more),
    "topk both": lambda x, **more: S.topk(x, k=15, ret_typ="both", name="order", **more)[1],
    "topk mask": lambda x, **more: S.topk(x, k=15, ret_typ="mask", name="order", **more),
}


@pytest.mark.parametrize("axis", [1, None])
@pytest.mark.parametrize("kind", ORDERED)
def test_check_tells_another_order_of_equal_elements_from_a_wrong_one(
    kind: str, axis: int | None
) -> None:
    """Of 40 signs MXNet's CPU has its C++ library's order; what follows it is held to ours."""
    given = {"data": np.random.default_rng(0).normal(size=(3, 40))}
    order = ORDERED[kind](S.sign(d, name="sign"), axis=axis)
    net = S.exp(0.1 * order)
    module = import_symbol(json.loads(net.tojson()), {})
    report = compare_with_mxnet(Subject(module, net.tojson(), {}, given))
    assert report.failures == ()
    # without an axis MXNet's own mask is that of the first ones, as ours
    assert report.tied == ([] if kind == "topk mask" and axis is None else ["order"])
    assert report.mxnet_error < 1e-6 > report.import_error
    ascending = kind != "argsort"  # not the default of either
    other = S.exp(0.1 * ORDERED[kind](S.sign(d, name="sign"), axis=axis, is_ascend=ascending))
    report = compare_with_mxnet(Subject(module, other.tojson(), {}, given))
    assert not report.ok
    assert report.tied == []


def test_check_of_choices_among_numbers_that_nearly_tie() -> None:
    """Numbers that differ in float64 alone, in the very order that MXNet's CPU gives equal ones."""
    place = mx.nd.argsort(mx.nd.ones((1, 40)), is_ascend=False).asnumpy().astype(int)[0]
    data = np.empty((1, 40))
    data[0, place] = 1 - 1e-12 * np.arange(40)
    arrays = {"table": np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)}
    net = S.take(S.var("table"), S.argsort(d, is_ascend=False, name="order"), name="chosen")
    module = import_symbol(json.loads(net.tojson()), arrays)
    report = compare_with_mxnet(Subject(module, net.tojson(), arrays, {"data": data}))
    assert report.failures == ()
    assert report.steered
    assert report.tied == []
    off = {"table": arrays["table"] * np.float32(1.01)}  # steered, and wrong all the same
    module = import_symbol(json.loads(net.tojson()), off)
    assert not compare_with_mxnet(Subject(module, net.tojson(), arrays, {"data": data})).ok


def test_places_in_an_array_and_their_numbers() -> None:
    flat = np.array([0, 7, 23, 11], np.int32)
    alike(S.unravel_index(d, shape=(2, 3, 4)), {"data": flat})
    places = np.stack(np.unravel_index(flat, (2, 3, 4))).astype(np.int32)
    alike(S.ravel_multi_index(d, shape=(2, 3, 4)), {"data": places})
    alike(S.contrib.index_array(d), {"data": np.zeros((2, 3), np.float32)})
    alike(S.contrib.index_array(d, axes=(1, 0)), {"data": np.zeros((2, 3, 4), np.float32)})


def test_batch_take_and_cast_storage() -> None:
    rows = shuffled((4, 3), "float32")
    places = np.array([0, 2, -1, 5], np.int32)
    alike(S.batch_take(d, S.var("x")), {"data": rows, "x": places})
    alike(S.cast_storage(d, stype="default") * 2, {"data": rows})


@pytest.mark.parametrize(
    ("ends", "part"),
    [
        ({"begin": (1,), "end": (3,)}, (2, 5)),
        ({"begin": (None, 1), "end": (None, None), "step": (1, 2)}, (4, 2)),
        ({"begin": (3, 4), "end": (0, 1), "step": (-2, -1)}, (2, 3)),
    ],
)
def test_assigning_a_slice(ends: dict[str, Any], part: tuple[int, ...]) -> None:
    arrays = draw({"data": (4, 5), "part": part}, 3)
    node = S._internal._slice_assign(d, S.var("part"), **ends)
    module = compare(node, arrays, gradients=False)  # of which MXNet has none
    x, y = (torch.tensor(arrays[name], requires_grad=True) for name in arrays)
    module(x, y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert (int(x.grad.sum()), int(y.grad.sum())) == (20 - y.numel(), y.numel())
    number = S._internal._slice_assign_scalar(d, scalar=2.5, **ends)
    compare(number, {"data": arrays["data"]}, gradients=False)


def test_assigning_a_slice_of_another_shape_is_refused() -> None:
    node = S._internal._slice_assign(d, S.var("part"), begin=(0,), end=(1,))
    module = import_symbol(json.loads(node.tojson()), {})
    with pytest.raises(ValueError, match="different shapes"):
        module(torch.zeros(4, 5), torch.zeros(3, 5))


def test_index_copy() -> None:
    node = S.contrib.index_copy(d, i, S.var("rows"))
    given = {"data": shuffled((4, 3), "float32"), "indices": np.array([2, 0], "int32")}
    alike(node, {**given, "rows": shuffled((2, 3), "float32", 1)})
    module = import_symbol(json.loads(node.tojson()), {}, inputs=["data", "indices", "rows"])
    x, rows = torch.ones(4, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    module(x, torch.tensor([2, 0]), rows).sum().backward()
    np.testing.assert_array_equal(x.grad.sum(1), [0, 3, 0, 3])  # type: ignore[union-attr]
    assert bool((rows.grad == 1).all())  # type: ignore[union-attr]
