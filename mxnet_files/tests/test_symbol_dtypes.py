"""Results keep MXNet's dtypes and integer arithmetic: values, shapes and dtypes against MXNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import SymbolError, import_symbol, running
from mxnet_files.budget import rehearse
from mxnet_files.checking.check import Subject, compare_with_mxnet
from mxnet_files.functions import mx_dtype

S = mx.sym
WHOLE = np.array([[-7, -3, -2, -1], [1, 2, 3, 100]])
d = S.var("data")
as_int = S.Cast(d, dtype="int32")


def agrees(symbol: Any, x: np.ndarray, scripted: bool = True) -> None:
    """The same values, shape and dtype in MXNet, here, and here in TorchScript.

    On processors of Intel torch's square root of float64 is MKL's, which rounds by chance.
    """
    executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(x, dtype=x.dtype)}, grad_req="null")
    expected = executor.forward()[0].asnumpy()
    module = import_symbol(json.loads(symbol.tojson()), {})
    for run in (module, torch.jit.script(module)) if scripted else (module,):
        got = run(torch.tensor(x)).numpy()
        assert got.dtype == expected.dtype
        rounds = float(np.finfo(got.dtype).eps) if got.dtype.kind == "f" else 0.0
        np.testing.assert_allclose(got, expected, rtol=rounds, atol=0)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize(
    "build",
    [
        lambda x: x - 200,
        lambda x: x + 0.5,
        lambda x: x / 2,
        lambda x: 7 / x,
        lambda x: x % 5,
        lambda x: x**2,
        lambda x: x > 2.5,
        lambda x: S.sqrt(S.abs(x)) * 3,
        lambda x: S.sum(x, axis=1),
        lambda x: S.mean(x, axis=1) / 2,
        lambda x: S.clip(x, -2.5, 2.5),
        lambda x: S.where(x > 0, x, x * 2) / 2,
    ],
    ids=["minus", "plus", "half", "7over", "mod", "pow", "above", "sqrt", "sum", "mean", "clip",
         "where"],
)  # fmt: skip
def test_arithmetic_keeps_the_dtype(build: Callable[[Any], Any], dtype: str) -> None:
    agrees(build(S.var("data", dtype=dtype)), WHOLE.astype(dtype), scripted=dtype == "int8")


@pytest.mark.parametrize("name", ["mean", "sqrt", "sum", "exp", "norm", "max", "prod", "argmax"])
def test_what_follows_a_cast_to_integers(name: str) -> None:
    agrees(getattr(S, name)(as_int) / 2, WHOLE.astype("float32"))
    agrees(S.clip(as_int, -1.5, 50.5) / 2, WHOLE.astype("float32"))


def test_bool_beside_a_number_becomes_int64() -> None:
    agrees(S.Cast(d, dtype="bool") + 2.5, WHOLE.astype("float32"))
    agrees(S._internal._plus_scalar(as_int, scalar=2.5, is_int=False), WHOLE.astype("float32"))


@pytest.mark.parametrize("way", ["run", "rehearsed", "compared"])
def test_a_dtype_that_torch_lacks_is_told_with_the_node(way: str) -> None:
    """In MXNet's words, where sizes depend on values, too: a rehearsal runs each node on them."""
    half = S.Cast(d, dtype="float16")
    x = S.Pooling(half, kernel=(2, 2, 2), pool_type="avg", name="pooled")
    given = {"data": np.ones((1, 1, 2, 2, 2), np.float32)}
    if way == "rehearsed":
        x = S.contrib.boolean_mask(x, S.var("rows"))
        given["rows"] = np.ones(1, np.float32)
    module = import_symbol(json.loads(x.tojson()), {})
    inputs = [torch.from_numpy(each) for each in given.values()]
    ways: dict[str, Callable[[], Any]] = {
        "run": lambda: running.run(module, inputs),
        "rehearsed": lambda: rehearse(module, inputs),
        "compared": lambda: compare_with_mxnet(Subject(module, x.tojson(), {}, given)),
    }
    with pytest.raises(SymbolError) as told:
        ways[way]()
    assert str(told.value).startswith(
        "node 'pooled' (Pooling): torch cannot compute it in float16 here, expected float32: cast"
    )


def test_integers_are_refused_where_mxnet_refuses_them() -> None:
    module = import_symbol(json.loads(S.Activation(d, act_type="relu").tojson()), {})
    module(torch.ones(2))
    with pytest.raises(ValueError, match="Activation: got integers"):
        module(torch.ones(2, dtype=torch.int32))
    module = import_symbol(json.loads(S.sqrt(d).tojson()), {})
    with pytest.raises(ValueError, match="sqrt: got bool"):
        module(torch.ones(2, dtype=torch.bool))


def test_floating_point_gets_the_plain_operation() -> None:
    """What is computed from learned numbers is known to be floating point."""
    w = S.var("w")
    symbol = S.sqrt(S.exp(w * 2) / 3) + S.sum(w)
    module = import_symbol(json.loads(symbol.tojson()), {"w": np.ones((2, 3), "float32")})
    assert "mx_dtype" not in module.code
    assert "mx_dtype" in import_symbol(json.loads(symbol.tojson()), {}).code


def test_cut_is_a_conversion_in_c() -> None:
    x = torch.tensor([2.9, -2.9, 300.0, -1.0, 3e9, -3e9, 1e20, float("nan"), float("inf")])
    low, low64 = -(2**31), -(2**63)
    assert mx_dtype.cut(x, torch.int32).tolist() == [2, -2, 300, -1, low, low, low, low, low]
    assert mx_dtype.cut(x, torch.uint8).tolist() == [2, 254, 44, 255, 0, 0, 0, 0, 0]
    whole = [2, -2, 300, -1, 3_000_000_000, -3_000_000_000, low64, low64, low64]
    assert mx_dtype.cut(x.double(), torch.int64).tolist() == whole
