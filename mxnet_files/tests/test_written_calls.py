"""What `model.py` calls: functions brought along, and the short forms of others."""

from __future__ import annotations

import builtins
import dis
import importlib
import pkgutil
import types
from collections import Counter
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import functions, layers
from mxnet_files.functions import mx_math, mx_numpy
from mxnet_files.tests.test_written_model import opened, outputs, written
from mxnet_files.writing import parts
from mxnet_files.writing.borrowed import IMPORTS, Borrowed

S = mx.sym
D = S.var("data")


def agree(
    folder: Path, symbol: Any, *inputs: np.ndarray, **arrays: np.ndarray
) -> tuple[str, list[torch.Tensor]]:
    """The file's text and results, which have the import's values, shapes and dtypes."""
    given = [torch.from_numpy(x) for x in inputs]
    made, module = written(symbol, arrays, *given)
    alone = opened(made, folder)
    found = outputs(alone, *given)
    for a, b in zip(found, outputs(module, *given), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    return made.text, found


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def brought(*wanted: Any) -> tuple[Borrowed, dict[str, Any]]:
    """The names that definitions get, and a module of nothing but their sources."""
    borrowed = Borrowed()
    for each in wanted:
        borrowed.name(each)
    sources, _ = borrowed.sources(wanted)
    scope: dict[str, Any] = {}
    exec("\n".join(["from __future__ import annotations", *IMPORTS.values()]), scope)
    exec("\n\n".join(sources.values()), scope)
    return borrowed, scope


def test_everything_of_ours_can_be_brought_along_at_once() -> None:
    modules = [
        importlib.import_module(f"{functions.__name__}.{found.name}")
        for found in pkgutil.iter_modules(functions.__path__)
    ]
    wanted = [getattr(module, name) for module in [*modules, parts] for name in module.__all__]
    wanted = [each for each in wanted if isinstance(each, (types.FunctionType, type))]
    wanted += [layers.BatchNorm, layers.Dropout, layers.LSTM, layers.GRU, layers.RNN]
    borrowed, scope = brought(*wanted)
    made = [borrowed.name(each) for each in wanted]
    assert max(Counter(made).values()) == 1
    known = scope.keys() | set(vars(builtins))
    for name in made:
        if isinstance(scope[name], types.FunctionType):
            read = [each.argval for each in dis.get_instructions(scope[name])
                    if each.opname == "LOAD_GLOBAL"]  # fmt: skip
            assert set(read) <= known


@pytest.mark.parametrize("first", [mx_numpy, mx_math])
def test_functions_of_one_name_stay_two(first: Any) -> None:
    second = mx_math if first is mx_numpy else mx_numpy
    borrowed, scope = brought(first.reduce_sum, second.reduce_sum, first.argmax, second.argmax)
    assert borrowed.name(first.reduce_sum) == "reduce_sum"
    for module in (first, second):
        x = torch.arange(4)
        for own in (module.reduce_sum, module.argmax):
            given = (x, [0], False) if own is module.reduce_sum else (x, 0, False)
            alone = scope[borrowed.name(own)](*given)
            assert (alone.shape, alone.dtype) == (own(*given).shape, own(*given).dtype)


def test_a_name_that_stands_alone_is_kept() -> None:
    borrowed, scope = brought(mx_math.smooth_l1, mx_math.square)
    assert borrowed.name(mx_math.smooth_l1) == "smooth_l1"
    x = torch.tensor([-2.0, 0.1])  # `square` is a variable there and a function elsewhere
    torch.testing.assert_close(scope["smooth_l1"](x, 2.0), mx_math.smooth_l1(x, 2.0))


NUMPY = D.as_np_ndarray()


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod", "argmax"])
@pytest.mark.parametrize("numpy_first", [True, False])
def test_numpy_beside_plain(name: str, numpy_first: bool, tmp_path: Path) -> None:
    plain = getattr(S, name)(D, axis=1).as_np_ndarray()
    other = getattr(mx.sym.np, name)(NUMPY, axis=1)
    pair = [other, plain] if numpy_first else [plain, other]
    agree(tmp_path, mx.sym.Group([each.as_nd_ndarray() for each in pair]), draw(3, 5))


def test_batch_norm_of_shared_weights_beside_one_of_its_own(tmp_path: Path) -> None:
    names = {"gamma": "g", "beta": "b", "moving_mean": "mm", "moving_var": "mv"}
    shared = {key: S.var(name) for key, name in names.items()}
    y = S.BatchNorm(D, name="p", fix_gamma=True, **shared)
    y = y + S.BatchNorm(S.tanh(D), name="q", fix_gamma=False, **shared)
    y = S.BatchNorm(y, name="r", fix_gamma=False)
    arrays = {name: draw(3) ** 2 + 0.5 for name in names.values()}
    arrays |= {f"r_{key}": draw(3) ** 2 + 0.5 for key in names}
    agree(tmp_path, y, draw(2, 3, 4, 4), **arrays)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_reductions_of_integers_keep_their_dtype(dtype: str, tmp_path: Path) -> None:
    x = S.Cast(D * 30, dtype=dtype)
    both = S.Group([S.sum(x, axis=1), S.mean(x, axis=1), S.sum(x, axis=0, keepdims=True)])
    _, found = agree(tmp_path, both, np.abs(draw(3, 5)))
    assert {y.dtype for y in found} == {getattr(torch, dtype)}


def test_blocks_of_two_dtypes_are_two(tmp_path: Path) -> None:
    def block(x: Any, dtype: str) -> Any:
        return S.sum(S.Cast(x, dtype=dtype), axis=1, keepdims=True) * 2

    text, _ = agree(tmp_path, S.Group([block(D, "int32"), block(D + 1, "int64")]), draw(3, 5))
    assert "dtype=torch.int32" in text


def test_one_axis_is_reshaped_to_two(tmp_path: Path) -> None:
    flat = S.reshape(S.mean(D, axis=(1, 2, 3)), shape=(0, -1))
    _, (y,) = agree(tmp_path, flat, draw(2, 3, 4, 4))
    assert y.shape == (2, 1)


RESHAPES: dict[tuple[int, ...], str] = {
    (0, -4, 2, -1, -2): "unflatten(1, (2, -1))",
    (0, -4, 2, 2, 0, 0): "unflatten(1, (2, 2))",
    (-4, 1, 2, -2): "unflatten(0, (1, 2))",
    (0, 0, -4, -1, 3, 0): "unflatten(2, (-1, 3))",
    (0, -3, -2): "flatten(1, 2)",
    (-3, 0, 0): "flatten(0, 1)",
    (0, 0, -3): "flatten(2)",
    (0, 0, -1): "flatten(2)",
    (0, 0, 0, -1): "flatten(3)",
    (0, -4, 2, -1, -3): "unflatten(1, (2, -1)).flatten(3)",
    (-3, -3): "flatten(0, 1).flatten(1)",
    (-1,): "reshape(-1)",
    (0, -1, 5): "reshape(",
    (0, -3, 5): "reshape(",
}


@pytest.mark.parametrize("codes", RESHAPES, ids=str)
def test_a_reshape_of_few_places_is_flatten_or_unflatten(
    codes: tuple[int, ...], tmp_path: Path
) -> None:
    text, _ = agree(tmp_path, S.reshape(S.exp(D), shape=codes), draw(2, 4, 3, 5))
    assert f".{RESHAPES[codes]}" in text


FORMS: dict[str, Any] = {
    "F.relu(x)[:, 1:]": lambda x: S.slice(x, begin=(None, 1), end=(None, None)),
    "F.relu(x)[:, -3:4:2]": lambda x: S.slice(x, begin=(0, -3), end=(None, 4), step=(1, 2)),
    "F.relu(x)[:]": lambda x: S.slice(x, begin=(0,), end=(None,)),
    "F.interpolate(x, scale_factor=2.0)": lambda x: S.UpSampling(x, scale=2, sample_type="nearest"),
    "F.relu(x).flip(2)": lambda x: S.reverse(x, axis=2),
    "F.relu(x).permute(3, 2, 1, 0)": S.transpose,
    "[:, :, : x.size(2)]": lambda x: S.slice_like(x, D, axes=(2,)),
    ".expand_as(x)": lambda x: S.broadcast_like(S.max(x, axis=1, keepdims=True), D),
    "F.relu(x).unbind(2)": lambda x: S.stack(
        *list(S.split(x, num_outputs=3, axis=2, squeeze_axis=True))[::-1]
    ),
    "F.adaptive_avg_pool3d(x, 1)": lambda x: S.Pooling(
        S.expand_dims(x, axis=2), global_pool=True, pool_type="avg", kernel=(1, 1, 1)
    ),
    ".squeeze((1, 4))": lambda x: S.squeeze(
        S.expand_dims(S.mean(x, axis=1, keepdims=True), axis=4), axis=(1, 4)
    ),
    ".flatten(0, 1)": lambda x: S.reshape(x, shape=(-1, 0, 0), reverse=True),
    ".unflatten(0, (-1, 2))": lambda x: S.reshape(x, shape=(-1, 2, 0, 0, 0), reverse=True),
    "reverse=True": lambda x: S.reshape(x, shape=(-1, 2, 0), reverse=True),
    "F.conv2d(": lambda x: S.Convolution(
        x, S.reshape(S.abs(D), shape=(2, 4, 3, 5)), num_filter=2, kernel=(3, 5), no_bias=True
    ),
    ", stride=(1, 2), padding=(1, 2), groups=2": lambda x: S.Convolution(
        x,
        S.slice_axis(S.abs(D), axis=1, begin=0, end=2),
        num_filter=2,
        kernel=(3, 5),
        stride=(1, 2),
        pad=(1, 2),
        num_group=2,
        no_bias=True,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_call_is_written_as_a_person_writes_it(form: str, tmp_path: Path) -> None:
    text, _ = agree(tmp_path, FORMS[form](S.relu(D)), draw(2, 4, 3, 5))
    assert form in text


CUTS = {
    "slice": lambda x: S.slice_axis(x, axis=-1, begin=1, end=5),
    "reshape": lambda x: S.reshape(x, shape=(-2, 1)),
    "sum": lambda x: S.sum(x, axis=1, keepdims=True),
}


@pytest.mark.parametrize("cut", CUTS)
def test_blocks_of_different_rank_are_two_classes(cut: str, tmp_path: Path) -> None:
    shapes, sizes = {"data": (2, 5), "y": (2, 3, 5)}, {}

    def block(name: str, start: str) -> Any:
        x = S.FullyConnected(S.var(name), num_hidden=6, flatten=False, name=f"{start}_d")
        x = CUTS[cut](S.relu(x))
        x = S.FullyConnected(x, num_hidden=6, flatten=False, name=f"{start}_e")
        return S.tanh(x)

    symbol = S.Group([block("data", "a"), block("y", "b")])
    found, _, _ = symbol.infer_shape(**shapes)
    sizes = dict(zip(symbol.list_arguments(), found, strict=True))
    arrays = {name: draw(*size) for name, size in sizes.items() if name not in shapes}
    agree(tmp_path, symbol, draw(2, 5), draw(2, 3, 5), **arrays)
