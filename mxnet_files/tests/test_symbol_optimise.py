"""The inference copy computes what the module computes, and the module stays as it was."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import SymbolError, freeze, import_symbol, optimise
from mxnet_files.layers import BatchNorm
from mxnet_files.save import onnx_bytes, run_onnx

S = mx.sym


def conv(x: Any, name: str, filters: int = 8, kernel: int = 3, bias: bool = False) -> Any:
    return S.Convolution(
        x,
        num_filter=filters,
        kernel=(kernel, kernel),
        pad=(kernel // 2, kernel // 2),
        no_bias=not bias,
        name=name,
    )


def bn(x: Any, name: str, **options: Any) -> Any:
    return S.BatchNorm(x, name=name, **options)


def residual() -> Any:
    x = S.var("data")
    y = S.relu(bn(conv(x, "c1"), "b1", fix_gamma=False))
    z = bn(conv(y, "c2"), "b2")
    y = S.Activation(z + y, act_type="relu")
    y = S.elemwise_add(y, bn(conv(y, "c3", bias=True), "b3", fix_gamma=False))
    y = S.clip(bn(conv(y, "c4", kernel=1), "b4"), 0, 6)
    return S.FullyConnected(S.Dropout(y), num_hidden=3, name="fc")


def awkward() -> Any:
    """What must not be folded or fused."""
    x = bn(S.var("data"), "first")  # no convolution before it
    y = conv(x, "c1")
    y = bn(y, "b1") + y  # the convolution's own result is used too
    z = conv(y, "c2", filters=1)
    y = S.broadcast_add(z, y)  # not of one shape
    y = S.clip(conv(y, "c3"), 0, 5)
    y = bn(conv(y, "c4"), "b4", axis=2)
    w = S.var("c5_weight")
    y = S.Convolution(y, w, num_filter=8, kernel=(1, 1), no_bias=True, name="c5")
    y = bn(S.Convolution(y, w, num_filter=8, kernel=(1, 1), no_bias=True, name="c6"), "b6")
    y = S.elemwise_add(conv(y, "c7"), conv(y, "c8"))
    t = conv(y, "c9")
    return S.sigmoid(S.elemwise_add(t, t))


def dense_and_1d() -> Any:
    x = S.Reshape(S.var("data"), shape=(0, 3, -1))
    y = S.Convolution(x, num_filter=4, kernel=(3,), name="c1")
    y = bn(y, "b1", fix_gamma=False)
    return bn(S.FullyConnected(y, num_hidden=5, name="fc"), "b2", fix_gamma=False)


BUILDS = {"residual": residual, "awkward": awkward, "dense_and_1d": dense_and_1d}
SHAPE = (2, 3, 8, 6)


def build(name: str) -> torch.fx.GraphModule:
    symbol = BUILDS[name]()
    shapes, _, states = symbol.infer_shape(data=SHAPE)
    rng = np.random.default_rng(0)
    arrays = {
        key: rng.uniform(0.5, 1.5, size) * rng.choice([-1, 1], size)
        for key, size in zip(symbol.list_arguments(), shapes, strict=True)
        if key != "data"
    }
    for key, size in zip(symbol.list_auxiliary_states(), states, strict=True):
        arrays[key] = rng.uniform(0.5, 3, size)
    return import_symbol(json.loads(symbol.tojson()), arrays).float()


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BUILDS)
def test_same_function(name: str, dtype: torch.dtype, fuse: bool) -> None:
    module = build(name).to(dtype)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    code = module.code
    fast = optimise(module, fuse=fuse)
    x = torch.randn(SHAPE, dtype=dtype, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = module.double()(x.double()), fast(x)
    unit = 2.0**-24 if dtype == torch.float32 else 2.0**-53
    assert found.dtype == dtype
    assert float((found - expected).abs().max() / expected.abs().max()) < 256 * unit
    assert module.code == code
    module.to(dtype)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("name", BUILDS)
def test_frozen_is_the_same_function_at_any_batch(name: str, batch: int) -> None:
    module = build(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    frozen = freeze(module, torch.randn(SHAPE))
    x = torch.randn((batch, *SHAPE[1:]), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = frozen(x)
        for key, value in module.state_dict().items():
            assert torch.equal(value, before[key])
        expected = module.double()(x.double())
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max() / expected.abs().max()) < 256 * 2.0**-24
    assert float(found.std()) > 0


def test_batch_norm_is_gone_where_it_can_be() -> None:
    def norms(module: torch.nn.Module) -> int:
        return sum(isinstance(layer, BatchNorm) for layer in module.modules())

    assert (norms(build("residual")), norms(optimise(build("residual")))) == (4, 0)
    # the first, the one whose convolution has a second user, and the one over axis 2 stay
    assert (norms(build("awkward")), norms(optimise(build("awkward")))) == (4, 3)
    assert norms(optimise(build("dense_and_1d"))) == 0


def test_fused_operations() -> None:
    """Four convolutions: with ReLU, with sum and ReLU, with a sum, with a clip at 6."""
    fast = optimise(build("residual"))
    targets = [node.target for node in fast.graph.nodes if node.op == "call_function"]
    kernels = torch.ops.mkldnn._convolution_pointwise
    assert targets.count(kernels.default) == 2
    assert targets.count(kernels.binary) == 2
    assert torch.relu not in targets
    assert torch.clamp not in targets


def test_leftovers_are_dropped() -> None:
    fast = optimise(build("residual"), fuse=False)
    assert not any(name.startswith("b1") for name in fast.state_dict())
    assert not any(isinstance(layer, torch.nn.Dropout) for layer in fast.modules())
    assert not any(value.requires_grad for value in fast.state_dict(keep_vars=True).values())


def test_unfused_copy_can_be_exported_and_scripted() -> None:
    fast = optimise(build("residual"), fuse=False)
    x = torch.randn(SHAPE)
    expected = fast(x)
    torch.testing.assert_close(torch.export.export(fast, (x,)).module()(x), expected)
    torch.testing.assert_close(torch.jit.script(fast)(x), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 2), (4, 2, 3), (7, 4, 4)])
def test_windows_in_the_padding_alone_are_those_of_mxnet(
    kernel: int, stride: int, pad: int
) -> None:
    """Its lowest number, where `pooling_convention=full` puts a window behind the data."""
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype(np.float32)
    symbol = S.Pooling(
        S.var("data"), kernel=(kernel,) * 2, stride=(stride,) * 2, pad=(pad,) * 2,
        pool_type="max", pooling_convention="full",
    )  # fmt: skip
    (wanted,) = symbol.bind(mx.cpu(), {"data": mx.nd.array(x)}).forward()
    module, given = imported(symbol), torch.from_numpy(x)
    found = [optimise(module)(given), freeze(module, given)(given)]
    found += map(torch.from_numpy, run_onnx(onnx_bytes(module, [given])[0], {"data": given}))
    assert (wanted.asnumpy().min() < -1e38) == (kernel == 3)
    for y in found:
        np.testing.assert_array_equal(y.numpy(), wanted.asnumpy())


@pytest.mark.filterwarnings("ignore")
def test_what_a_trace_would_keep_is_refused() -> None:
    """As many samples as a region has pixels: a graph made for small regions would hold few."""
    attributes = {"pooled_size": (1, 1), "spatial_scale": 1.0, "sample_ratio": -1}
    module = imported(S.contrib.ROIAlign(S.var("data"), S.var("rois"), **attributes))
    data, small = torch.randn(1, 1, 8, 8), torch.tensor([[0.0, 1, 1, 2, 2]])
    for write in (freeze, lambda *given: onnx_bytes(given[0], given[1:])):
        with pytest.raises(SymbolError, match="samples as a region has pixels"):
            write(module, data, small)
    fixed = {**attributes, "sample_ratio": 2}
    module = imported(S.contrib.ROIAlign(S.var("data"), S.var("rois"), **fixed))
    large = torch.tensor([[0.0, 0, 0, 7, 7]])
    torch.testing.assert_close(freeze(module, data, small)(data, large), module(data, large))


def test_dropout_that_is_always_on_stays() -> None:
    symbol = S.Dropout(S.var("data"), p=0.5, mode="always")
    fast = optimise(import_symbol(json.loads(symbol.tojson()), {}))
    assert 0 < int((fast(torch.ones(1000)) == 0).sum()) < 1000


def test_a_changed_weight_would_be_noticed() -> None:
    module = build("residual")
    fast = optimise(module, fuse=False)
    with torch.no_grad():
        module.get_parameter("c1_weight").mul_(1.0001)
        x = torch.randn(SHAPE)
        gap = (fast(x) - module(x)).abs().max() / module(x).abs().max()
    assert float(gap) > 256 * 2.0**-24


def imported(symbol: Any, **arrays: np.ndarray) -> Any:
    return import_symbol(json.loads(symbol.tojson()), arrays)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_frozen_refuses_the_sizes_that_it_would_answer_wrongly() -> None:
    data = S.var("data")
    batch = S.Cast(S.slice_axis(S.shape_array(data), axis=0, begin=0, end=1), dtype="float32")
    frozen = freeze(imported(S.broadcast_div(S.sum(data, axis=0), batch)), torch.ones(2, 4))
    torch.testing.assert_close(frozen(torch.ones(2, 4)), torch.ones(4))
    with pytest.raises(SymbolError, match=r"shape \[\(2, 4\)\], got \[\(3, 4\)\]"):
        frozen(torch.ones(3, 4))
    frozen = freeze(imported(S.relu(data)), torch.ones(2, 3, 4, 4))
    assert frozen(torch.ones(5, 3, 4, 4)).shape == (5, 3, 4, 4)
    with pytest.raises(SymbolError, match=r"\(any batch\), got"):
        frozen(torch.ones(2, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_onednn_cannot_compute_is_frozen_without() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    y = S.Convolution(S.var("data"), S.var("w"), kernel=(3, 3), num_filter=4, no_bias=True)
    module = imported(S.contrib.AdaptiveAvgPooling2D(y, output_size=(2, 3)), w=weight)
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(freeze(module, x)(x), module(x), rtol=1e-5, atol=1e-5)
