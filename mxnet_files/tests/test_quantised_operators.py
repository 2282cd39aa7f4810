"""int8 graphs by `quantize_model` and `quantize_net`, against MXNet: integers equal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.contrib.quantization import quantize_model, quantize_net, quantize_net_v2
from mxnet.gluon import nn

from mxnet_files import import_symbol, load_symbol
from mxnet_files.checking.apart import check_files
from mxnet_files.checking.check import Subject, compare_with_mxnet
from mxnet_files.errors import SymbolError
from mxnet_files.reading.params_file import read_params, strip_prefixes

S = mx.sym
RNG = np.random.default_rng(0)
CPUINFO = Path("/proc/cpuinfo")
needs_vnni = pytest.mark.skipif(
    CPUINFO.exists() and "vnni" not in CPUINFO.read_text(),
    reason="without VNNI oneDNN's int8 sums saturate: they are not those of the import",
)


def same(node: Any, arrays: dict[str, np.ndarray]) -> None:
    """Integers equal, float32 ranges and values within two units."""
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    states = {name: given.pop(name) for name in node.list_auxiliary_states()}
    bound = node.bind(mx.cpu(), given, aux_states=states or None)
    wanted = [y.asnumpy() for y in bound.forward()]
    module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays))
    found = module(*(torch.from_numpy(array) for array in arrays.values()))
    found = found if isinstance(found, tuple) else (found,)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.numpy().dtype == b.dtype
        if b.dtype == np.float32:
            np.testing.assert_allclose(a.numpy(), b, rtol=2.0**-22)
        else:
            np.testing.assert_array_equal(a.numpy(), b)


def var(*names: str) -> list[Any]:
    return [S.var(name) for name in names]


def ends(**limits: tuple[float, float]) -> dict[str, np.ndarray]:
    """The ranges of arrays by name."""
    return {
        f"{end}_{name}": np.array([value], np.float32)
        for name, pair in limits.items()
        for end, value in zip(("min", "max"), pair, strict=True)
    }


def eight(dtype: str, *shape: int, most: int = 127, seed: int = 0) -> np.ndarray:
    low = 0 if dtype == "uint8" else -most
    return np.random.default_rng(seed).integers(low, most + 1, shape).astype(dtype)


CALIBRATED: list[dict[str, Any]] = [
    {},
    {"min_calib_range": -0.7, "max_calib_range": 0.5},
    {"min_calib_range": 0.0, "max_calib_range": 0.9},
]


@pytest.mark.parametrize("options", CALIBRATED, ids=str)
@pytest.mark.parametrize("kind", ["int8", "uint8", "auto"])
def test_quantize_and_requantize(kind: str, options: dict[str, Any]) -> None:
    for shape in ((2, 3, 5, 5), (4, 7)):
        x = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
        if kind == "uint8":
            x = np.abs(x)
        node = S.contrib.quantize_v2(S.var("data"), out_type=kind, **options)
        same(S.Group(list(node)), {"data": x})
        wide = np.random.default_rng(2).integers(-(2**24), 2**24, shape).astype(np.int32)
        node = S.contrib.requantize(*var("data", "min_data", "max_data"), out_type=kind, **options)
        same(S.Group(list(node)), {"data": wide, **ends(data=(-500.0, 400.0))})


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantize_by_the_range_of_other_nodes(kind: str) -> None:
    """As int8 files of MXNet 1.2 to 1.4 do it."""
    x = S.var("data")
    node = S.contrib.quantize(x, S.min(x), S.max(x), out_type=kind)
    for shape in ((2, 3, 5, 5), (4, 7)):
        data = np.random.default_rng(1).uniform(-1, 2, shape).astype(np.float32)
        same(S.Group(list(node)), {"data": data})


@pytest.mark.parametrize("options", [*CALIBRATED, {"enable_float_output": True}], ids=str)
def test_quantized_elemwise_mul(options: dict[str, Any]) -> None:
    arrays = {"x": eight("int8", 2, 3, 4), "y": eight("int8", 2, 3, 4, seed=1)}
    arrays |= ends(x=(-1.5, 1.2), y=(-0.3, 0.7))
    node = S.contrib.quantized_elemwise_mul(*var(*arrays), **options)
    same(S.Group(list(node)), arrays)


def test_quantized_embedding() -> None:
    arrays = {"data": np.array([[0, 4, 9], [-1, 2, 2]], np.float32), "weight": eight("int8", 5, 3)}
    arrays |= ends(weight=(-0.4, 0.6))
    node = S.contrib.quantized_embedding(*var(*arrays), input_dim=5, output_dim=3)
    same(S.Group(list(node)), arrays)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_dequantize_and_what_keeps_the_range(kind: str) -> None:
    arrays = {"data": eight(kind, 2, 3, 5, 6), **ends(data=(-1.5 if kind == "int8" else 0, 1.2))}
    inputs = var("data", "min_data", "max_data")
    same(S.contrib.dequantize(*inputs), arrays)
    same(S.Group(list(S.contrib.quantized_flatten(*inputs))), arrays)
    same(S.Group(list(S.contrib.quantized_act(*inputs, act_type="relu"))), arrays)
    for options in (
        {"pool_type": "max", "kernel": (2, 2), "stride": (2, 2)},
        {"pool_type": "max", "kernel": (3, 3), "pad": (1, 1)},
        {"pool_type": "avg", "kernel": (2, 2), "stride": (2, 2)},
        {"pool_type": "avg", "kernel": (1, 1), "global_pool": True},
        {"pool_type": "avg", "kernel": (3, 3), "stride": (2, 2), "pooling_convention": "full"},
    ):
        same(S.Group(list(S.contrib.quantized_pooling(*inputs, **options))), arrays)


@pytest.mark.parametrize("bias", [False, True])
def test_quantized_conv(bias: bool) -> None:
    """MXNet's CPU takes uint8 alone; values small enough for oneDNN's sums of 16 bits."""
    names = ["data", "weight", *(["bias"] if bias else [])]
    arrays = {
        "data": eight("uint8", 2, 4, 6, 5, most=60),
        "weight": eight("int8", 6, 4, 3, 3, most=60),
        **({"bias": eight("int8", 6)} if bias else {}),
        **ends(data=(0, 2), weight=(-0.5, 0.4), **({"bias": (-0.2, 0.3)} if bias else {})),
    }
    limits = [f"{end}_{name}" for name in names for end in ("min", "max")]
    node = S.contrib.quantized_conv(
        **{name: S.var(name) for name in (*names, *limits)},
        kernel=(3, 3), num_filter=6, stride=(1, 2), pad=(1, 0), no_bias=not bias,
        layout="NCHW",
    )  # fmt: skip
    same(S.Group(list(node)), arrays)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
@pytest.mark.parametrize("bias", [False, True])
def test_quantized_fully_connected(bias: bool, kind: str) -> None:
    names = ["data", "weight", *(["bias"] if bias else [])]
    arrays = {
        "data": eight(kind, 3, 2, 5, most=60),
        "weight": eight("int8", 4, 10, most=60),
        **({"bias": eight("int8", 4)} if bias else {}),
        **ends(data=(0, 2), weight=(-0.5, 0.4), **({"bias": (-0.2, 0.3)} if bias else {})),
    }
    limits = [f"{end}_{name}" for name in names for end in ("min", "max")]
    node = S.contrib.quantized_fully_connected(
        **{name: S.var(name) for name in (*names, *limits)}, num_hidden=4, no_bias=not bias
    )
    same(S.Group(list(node)), arrays)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_quantized_batch_norm(kind: str) -> None:
    arrays = {
        "data": eight(kind, 2, 3, 4, 5),
        "gamma": RNG.uniform(0.5, 1.5, 3).astype(np.float32),
        "beta": RNG.uniform(-1, 1, 3).astype(np.float32),
        "moving_mean": RNG.uniform(-1, 1, 3).astype(np.float32),
        "moving_var": RNG.uniform(0.5, 1.5, 3).astype(np.float32),
        **ends(data=(-1.5, 1.2)),
    }
    node = S.contrib.quantized_batch_norm(
        *(S.var(name) for name in arrays), min_calib_range=-3.0, max_calib_range=2.5, eps=1e-3
    )
    same(S.Group(list(node)), arrays)


@pytest.mark.parametrize("kinds", ["int8 int8", "uint8 uint8", "int8 uint8", "uint8 int8"])
def test_quantized_concat_and_add(kinds: str) -> None:
    left, right = kinds.split()
    arrays = {
        "a": eight(left, 2, 3, 4, 5),
        "b": eight(right, 2, 3, 4, 5, seed=1),
        **ends(
            a=(0.0 if left == "uint8" else -1.5, 1.2), b=(0.0 if right == "uint8" else -0.4, 0.9)
        ),
    }
    inputs = {name: S.var(name) for name in arrays}
    joined = S.contrib.quantized_concat(*inputs.values(), dim=1, num_args=2)
    same(S.Group(list(joined)), arrays)
    named = {"lhs": "a", "rhs": "b", "lhs_min": "min_a", "lhs_max": "max_a",
             "rhs_min": "min_b", "rhs_max": "max_b"}  # fmt: skip
    for options in ({}, {"min_calib_range": -1.1, "max_calib_range": 1.7}):
        total = S.contrib.quantized_elemwise_add(
            **{key: inputs[name] for key, name in named.items()}, **options
        )
        same(S.Group(list(total)), arrays)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_ranges_of_nothing_and_what_is_no_number(kind: str) -> None:
    """Zeros in a range of zeros are 127, 255 or 0 in MXNet, by the primitive of oneDNN."""
    zero, nothing = {"min_calib_range": 0.0, "max_calib_range": 0.0}, (0.0, 0.0)
    reals = ([0, 0, -0.0], [np.nan, 1, -1], [np.nan, np.nan], [np.inf, 1], [-np.inf], [1e-40, 0])
    for options in ({}, zero):
        for row in reals:
            node = S.contrib.quantize_v2(S.var("data"), out_type=kind, **options)
            same(S.Group(list(node)), {"data": np.array([row], np.float32)})
        node = S.contrib.requantize(*var("data", "min_data", "max_data"), out_type=kind, **options)
        for whole in ([0, 0], [3, -7, -(2**31)]):
            for limits in (nothing, (-5.0, 4.0), (1.0, np.nan)):
                arrays = {"data": np.array([whole], np.int32), **ends(data=limits)}
                same(S.Group(list(node)), arrays)
    arrays = {name: eight(kind, 1, 2, 3, 4, seed=seed) for seed, name in enumerate("ab")}
    arrays |= ends(a=nothing, b=nothing)
    inputs = {name: S.var(name) for name in arrays}
    same(S.Group(list(S.contrib.quantized_concat(*inputs.values(), dim=1, num_args=2))), arrays)
    total = S.contrib.quantized_elemwise_add(**dict(zip(
        ("lhs", "rhs", "lhs_min", "lhs_max", "rhs_min", "rhs_max"), inputs.values(), strict=True
    )), **zero)  # fmt: skip
    same(S.Group(list(total)), {**arrays, **ends(b=(-1.5, 1.2))})
    ones = {name: np.ones(2, np.float32) for name in ("gamma", "beta", "mean", "var")}
    arrays = {"data": eight(kind, 1, 2, 3, 4), **ones, **ends(data=(-1.5, 1.2))}
    norm = S.contrib.quantized_batch_norm(*map(S.var, arrays), **zero)
    same(S.Group(list(norm)), arrays)


@pytest.mark.parametrize("bias", [None, (-0.2, 0.3), (-1000.0, 10.0), (-1e7, 1.0)], ids=str)
def test_sums_beyond_what_float32_counts(bias: tuple[float, float] | None) -> None:
    """oneDNN goes through float32 where it convolves, and where it adds a bias."""
    rng = np.random.default_rng(1)
    x, weight = rng.integers(0, 125, (2, 9216)), rng.integers(0, 125, (3, 9216))
    names = ["data", "weight", *(["bias"] if bias else [])]
    arrays = {"data": x.astype(np.uint8), "weight": weight.astype(np.int8)}
    limits = {"data": (0.0, 2.0), "weight": (-0.5, 0.4)}
    if bias is not None:
        arrays |= {"bias": np.array([127, -90, 5], np.int8)}
        limits |= {"bias": bias}
    arrays |= ends(**limits)
    inputs = {name: S.var(name) for name in arrays}
    assert len(inputs) == 3 * len(names)
    node = S.contrib.quantized_fully_connected(**inputs, num_hidden=3, no_bias=not bias)
    same(S.Group(list(node)), arrays)
    arrays["data"] = arrays["data"].reshape(2, 1024, 3, 3)
    arrays["weight"] = arrays["weight"].reshape(3, 1024, 3, 3)
    node = S.contrib.quantized_conv(
        **inputs, kernel=(3, 3), num_filter=3, no_bias=not bias, layout="NCHW"
    )
    same(S.Group(list(node)), arrays)


@needs_vnni
def test_a_graph_by_quantize_model() -> None:
    """A net of positive inputs, which MXNet's CPU can run; every integer on the way is equal."""
    d = S.var("data")
    x = S.Convolution(d, kernel=(3, 3), num_filter=8, pad=(1, 1), no_bias=True, name="c1")
    x = S.Activation(x, act_type="relu", name="r1")
    x = S.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="p1")
    x = S.FullyConnected(S.Flatten(x), num_hidden=5, name="f1")
    shapes, _, _ = x.infer_shape(data=(4, 3, 8, 8))
    args = {
        name: mx.nd.array(RNG.uniform(-0.2, 0.2, shape))
        for name, shape in zip(x.list_arguments(), shapes, strict=True)
    }
    data = np.abs(args.pop("data").asnumpy()) * 4
    graph, arrays, _ = quantize_model(
        x, args, {}, calib_mode="naive", quantized_dtype="auto", num_calib_examples=4,
        calib_data=mx.io.NDArrayIter(data, batch_size=4), label_names=None, ctx=mx.cpu(),
    )  # fmt: skip
    inner = graph.get_internals()
    used = {node["op"] for node in json.loads(graph.tojson())["nodes"]}
    assert {"_contrib_quantized_conv", "_contrib_requantize", "_contrib_dequantize"} <= used
    stored = {name: value.asnumpy() for name, value in arrays.items()}
    bound = {**arrays, "data": mx.nd.array(data)}
    wanted = inner.bind(mx.cpu(), bound).forward()
    module = import_symbol(json.loads(inner.tojson()), stored, inputs=["data"])
    found = module(torch.from_numpy(data))
    assert len(found) == len(wanted) > 20
    for a, b in zip(found, wanted, strict=True):
        if b.dtype == np.float32:
            np.testing.assert_allclose(a.detach().numpy(), b.asnumpy(), rtol=2.0**-21, atol=1e-7)
        else:
            np.testing.assert_array_equal(a.numpy(), b.asnumpy())


class Net(nn.HybridSequential):
    """What oneDNN's passes join: BatchNorm, activations and sums behind a convolution, and so on.

    `groups` of several filters have scales that only MXNet would choose.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        with self.name_scope():
            self.add(nn.Conv2D(8, 3, padding=1), Shortcut("relu", 1))
            self.add(
                nn.Conv2D(8, 3, groups=8, padding=1, use_bias=False), nn.BatchNorm(scale=False)
            )
            self.add(nn.HybridLambda(lambda F, x: F.clip(x, 0, 6)), Shortcut("", groups))
            self.add(nn.Conv2D(6, 3, dilation=2, padding=2, strides=2), nn.LeakyReLU(0.3))
            self.add(nn.AvgPool2D(2), nn.Dense(7), nn.ELU(0.7), nn.Dense(6), nn.GELU())
            self.add(nn.Dense(5), nn.HybridLambda("abs"), nn.Dense(9, use_bias=False))
            self.add(nn.HybridLambda(lambda F, x: F.clip(x, 0, 6)), nn.Dense(3))


class Shortcut(nn.HybridBlock):
    """conv + BatchNorm, and another convolution beside it, and perhaps an activation behind."""

    def __init__(self, activation: str, groups: int) -> None:
        super().__init__()
        self.activation = activation
        with self.name_scope():
            self.left = nn.Conv2D(8, 3, padding=1, groups=groups)
            self.norm = nn.BatchNorm()
            self.right = nn.Conv2D(8, 1, use_bias=False)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        total = self.norm(self.left(x)) + self.right(x)
        return F.Activation(total, act_type="relu") if self.activation else total


def joined_net(groups: int = 2) -> tuple[Any, Any]:
    """The net with numbers that no layer begins with, and a batch for it."""
    mx.random.seed(1)
    net = Net(groups)
    net.initialize(mx.init.Xavier(magnitude=3))
    net.hybridize()
    x = mx.nd.array(np.random.default_rng(0).uniform(-1, 1, (4, 3, 16, 16)))
    net(x)
    for name, parameter in net.collect_params().items():
        if name.endswith(("bias", "beta", "mean")):
            parameter.set_data(mx.nd.random.uniform(-0.5, 0.5, shape=parameter.shape))
        elif name.endswith(("gamma", "var")):
            parameter.set_data(mx.nd.random.uniform(0.5, 1.5, shape=parameter.shape))
    return net, x


def every_node(symbol: Any, stored: dict[str, np.ndarray], data: np.ndarray) -> list[Any]:
    """(operator, output, MXNet's) of all nodes."""
    inner = symbol.get_internals()
    bound = {name: mx.nd.array(array, dtype=array.dtype) for name, array in stored.items()}
    states = {name: bound.pop(name) for name in inner.list_auxiliary_states()}
    bound["data"] = mx.nd.array(data)
    wanted = inner.bind(mx.cpu(), bound, aux_states=states).forward()
    document = json.loads(inner.tojson())
    module = import_symbol(document, stored, inputs=["data"])
    with torch.no_grad():
        found = module(torch.from_numpy(data))
    kinds = [document["nodes"][head[0]]["op"] for head in document["heads"]]
    return [
        (kind, a.detach().numpy(), b.asnumpy())
        for kind, a, b in zip(kinds, found, wanted, strict=True)
    ]


@needs_vnni
@pytest.mark.parametrize(
    ("mode", "granularity"),
    [("naive", "tensor-wise"), ("naive", "channel-wise"), ("none", "tensor-wise")],
)
def test_the_fused_layers_of_quantize_net(mode: str, granularity: str, tmp_path: Path) -> None:
    """Integers equal bit for bit, the scales of groups and the sums included; floats too."""
    net, x = joined_net()
    data = mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(x, mx.nd.zeros(4)), 4)
    given: dict[str, Any] = {"calib_data": data, "num_calib_examples": 4}
    if mode == "none":
        given = {"data_shapes": [mx.io.DataDesc("data", x.shape)]}
    quantised = quantize_net_v2(
        net, quantized_dtype="auto", quantize_granularity=granularity, calib_mode=mode,
        ctx=mx.cpu(), logger=None, **given,
    )  # fmt: skip
    quantised(x)
    quantised.export(str(tmp_path / "net"))
    symbol = mx.sym.load(str(tmp_path / "net-symbol.json"))
    stored = strip_prefixes(read_params(tmp_path / "net-0000.params"))[0]
    rows = every_node(symbol, stored, x.asnumpy())
    kinds = [kind for kind, _, _ in rows]
    assert kinds.count("_sg_mkldnn_conv") == 3 * 7
    assert kinds.count("_sg_mkldnn_fully_connected") >= 5
    for kind, a, b in rows:
        assert a.dtype == b.dtype, kind
        if kind in ("_contrib_dequantize", "_contrib_quantize_v2", "_contrib_requantize"):
            np.testing.assert_allclose(a, b, rtol=2.0**-22, err_msg=kind)
        else:
            np.testing.assert_array_equal(a, b, err_msg=kind)
    report = check_files(
        tmp_path / "net-symbol.json",
        tmp_path / "net-0000.params",
        {"data": RNG.standard_normal(x.shape)},
    )
    assert report.failures == ()
    assert report.dtype == "float32"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*quantize_net_v2")
def test_a_net_by_quantize_net(tmp_path: Path) -> None:
    """Every node: integers equal, floats within the bound that `check` derives for them."""
    mx.random.seed(2)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(6, 3), nn.BatchNorm(), nn.Activation("relu"), nn.Flatten(), nn.Dense(4))
    net.initialize(mx.init.Xavier(magnitude=3))
    net.hybridize()
    x = mx.nd.array(np.random.default_rng(1).uniform(-1, 1, (4, 3, 6, 6)))
    net(x)
    data = mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(x, mx.nd.zeros(4)), 4)
    quantised = quantize_net(
        net, calib_mode="naive", calib_data=data, num_calib_examples=4, ctx=mx.cpu()
    )
    wanted = quantised(x).asnumpy()
    files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0000.params")]
    quantised.export(str(tmp_path / "net"))
    stored = strip_prefixes(read_params(files[1]))[0]
    rows = every_node(mx.sym.load(files[0]), stored, x.asnumpy())
    kinds = {kind for kind, _, b in rows if b.dtype != np.float32}
    assert kinds >= {"_contrib_quantize_v2", "_sg_mkldnn_conv"}
    for kind, a, b in rows:
        assert a.dtype == b.dtype, kind
        if b.dtype != np.float32:
            np.testing.assert_array_equal(a, b, err_msg=kind)
    given = torch.from_numpy(x.asnumpy())
    module = load_symbol(*files)
    text = Path(files[0]).read_text()
    report = compare_with_mxnet(Subject(module, text, stored, {"data": x.asnumpy()}))
    assert report.failures == ()
    np.testing.assert_allclose(module(given).detach().numpy(), wanted, rtol=2.0**-22)


def test_layers_that_are_joined_and_not_quantised(tmp_path: Path) -> None:
    net, x = joined_net()
    net.export(str(tmp_path / "net"))
    symbol, args, states = mx.model.load_checkpoint(str(tmp_path / "net"), 0)
    joined = symbol.optimize_for("MKLDNN", args={**args, "data": x}, aux=states)
    assert "_sg_mkldnn_fully_connected" in joined.tojson()
    stored = {name: array.asnumpy() for name, array in {**args, **states}.items()}
    for kind, a, b in every_node(joined, stored, x.asnumpy()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=4e-6, err_msg=kind)


def spoiled(**more: Any) -> dict[str, Any]:
    """A joined convolution of which something is changed."""
    inner = S.Activation(
        S.Convolution(S.var("x"), S.var("w"), kernel=(1, 1), num_filter=2, no_bias=True),
        act_type=more.pop("act_type", "relu"),
    )
    graph = json.loads(inner.tojson())
    graph["nodes"] += more.pop("nodes", [])
    names = ["data", "weight", "low", "high"]
    attributes = {"quantized": "true", "with_act": "true", **more.pop("attrs", {})}
    node = {"op": "_sg_mkldnn_conv", "name": "joined", "attrs": attributes,
            "inputs": [[i, 0, 0] for i in range(4)], "subgraphs": [graph], **more}  # fmt: skip
    variables = [{"op": "null", "name": name, "inputs": []} for name in names]
    return {"nodes": [*variables, node], "arg_nodes": [0, 1, 2, 3], "heads": [[4, 0, 0]],
            "attrs": {"mxnet_version": ["int", 10901]}}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"subgraphs": []}, "has no subgraph"),
        ({"subgraphs": [{}, {}]}, "2 subgraphs, expected one"),
        ({"subgraphs": [{}]}, "expected an object with 'nodes' and 'heads'"),
        ({"subgraphs": 3}, "expected a list"),
        ({"op": "relu"}, "joins no others"),
        ({"act_type": "tanh"}, "which MXNet computes on scaled numbers"),
        ({"inputs": [[0, 0, 0]]}, "1 inputs, expected 4"),
        ({"attrs": {"quantized": "false"}}, "4 inputs, expected 2"),
    ],
    ids=str,
)
def test_a_joined_layer_that_mxnet_would_not_write_is_refused(
    more: dict[str, Any], said: str
) -> None:
    with pytest.raises(SymbolError, match=said):
        import_symbol(spoiled(**more), {}, inputs=["data", "weight", "low", "high"])


def test_what_is_not_calibrated_is_refused() -> None:
    names = ["data", "gamma", "beta", "moving_mean", "moving_var", "min_data", "max_data"]
    node = S.contrib.quantized_batch_norm(*var(*names))
    with pytest.raises(SymbolError, match="not calibrated"):
        import_symbol(json.loads(node.tojson()), {}, inputs=names)


def convolve(weights: int) -> tuple[Any, dict[str, np.ndarray]]:
    """A quantised convolution of 16 channels, its weights up to a size, its data up to 255."""
    names = ["data", "weight", "min_data", "max_data", "min_weight", "max_weight"]
    inputs = {name: S.var(name) for name in names}
    options = {"kernel": (3, 3), "num_filter": 8, "no_bias": True, "layout": "NCHW"}
    data = eight("uint8", 1, 16, 7, 7, most=255)
    arrays = {"data": data, "weight": eight("int8", 8, 16, 3, 3, most=weights)}
    arrays |= ends(data=(0, 1), weight=(-1, 1))
    return S.contrib.quantized_conv(**inputs, **options), arrays


SUMS_APART = """
import sys
import numpy as np
from mxnet_files.tests.test_quantised_operators import convolve, mx
for weights in (64, 127):
    node, arrays = convolve(weights)
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    np.save(f"{sys.argv[1]}/{weights}.npy", node.bind(mx.cpu(), given).forward()[0].asnumpy())
"""


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["AVX2", "AVX512_CORE"])
def test_sums_of_a_cpu_without_vnni_are_within_their_bound(cpu: str, tmp_path: Path) -> None:
    """oneDNN adds pairs of products in 16 bits: by no more than 2·|x|·|w| - 32767 off, each."""
    environment = {**os.environ, "DNNL_MAX_CPU_ISA": cpu}
    command = [sys.executable, "-c", SUMS_APART, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, timeout=300)
    for weights, exact in ((64, True), (127, False)):
        node, arrays = convolve(weights)
        module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays))
        ours = module(*map(torch.from_numpy, arrays.values()))[0].numpy().astype(np.int64)
        off = np.abs(np.load(tmp_path / f"{weights}.npy") - ours)
        pairs = 16 * 3 * 3 / 2
        assert off.max() <= pairs * max(2 * 255 * weights - 32767, 0)
        assert (off.max() == 0) == exact  # it does saturate
