"""ONNX of graphs whose sizes or dtypes its exporter has to be helped with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import SymbolError, import_symbol
from mxnet_files.registry import OPERATORS
from mxnet_files.running import run
from mxnet_files.save import (
    IN_FLOAT64,
    OPSETS,
    TOLERANCE,
    newest_opset,
    onnx_bytes,
    program_bytes,
    run_onnx,
    same,
    tolerance,
)

S = mx.sym
D = S.var("data")
HALF = S.Cast(S.relu(S.Cast(S.FullyConnected(D, num_hidden=4, name="a"), dtype="float16") * 3 + 1),
              dtype="float32")  # fmt: skip
NETS = {
    "layer_norm": (S.LayerNorm(D, name="a"), (2, 5)),
    "resize_by_scale": (S.contrib.BilinearResize2D(D, scale_height=2, scale_width=1.5), (2, 3, 5, 6)),  # noqa: E501
    "float16": (HALF, (2, 5)),
    "from_the_end": (S.np.moveaxis(D.as_np_ndarray(), (-1, 1), (1, -1)), (2, 3, 4)),
    "split_in_one": (S.split(D, num_outputs=1, axis=0), (2, 3)),
    "infinite": (S.log(S.relu(D)), (2, 5)),
}  # fmt: skip


def opened(symbol: Any, shape: tuple[int, ...]) -> tuple[Any, torch.Tensor]:
    rng = np.random.default_rng(0)
    sizes, _, _ = symbol.infer_shape(data=shape)
    arrays = {
        name: rng.normal(size=size).astype(np.float32)
        for name, size in zip(symbol.list_arguments(), sizes, strict=True)
        if name != "data"
    }
    module = import_symbol(json.loads(symbol.tojson()), arrays)
    return module, torch.from_numpy(rng.normal(size=shape).astype(np.float32))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
def test_it_is_written_and_computes_the_same(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    symbol, shape = NETS[name]
    module, x = opened(symbol, shape)
    assert program_bytes(module, [x])[1].startswith("batch")
    data, _, verified = onnx_bytes(module, [x])
    assert "ONNX Runtime" in verified
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    more = torch.cat([x, x, x])
    (found,) = session.run(None, {"data": more.numpy()})
    with torch.no_grad():
        wanted = module(more)
    near = tolerance(module, [x])
    np.testing.assert_allclose(found, wanted.numpy(), rtol=near, atol=near)


def corners(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Boxes that overlap, on a grid of sixteenths."""
    low, size = rng.integers(0, 8, (*shape, 2)), rng.integers(1, 8, (*shape, 2))
    return np.concatenate([low, low + size], -1) / 16


def detectors() -> dict[str, tuple[Any, list[np.ndarray]]]:
    """What sorts, on elements and scores that tie; arrays of which only the sizes matter."""
    rng = np.random.default_rng(0)
    ties = rng.integers(0, 4, (3, 40))
    rows = np.concatenate(
        [rng.integers(0, 3, (2, 12, 1)), rng.integers(1, 4, (2, 12, 1)) / 4, corners(rng, 2, 12)],
        -1,
    )
    scores = rng.integers(0, 4, (2, 3, 8)) / 4
    anchors = corners(rng, 1, 8)
    offsets = rng.integers(-2, 3, (2, 32)) / 4
    labels = np.concatenate([rng.integers(0, 2, (2, 3, 1)), corners(rng, 2, 3)], -1)
    regions = [rng.integers(0, 4, (1, 4, 3, 3)) / 4, rng.integers(-1, 2, (1, 8, 3, 3)) / 4]
    a, b, c = (S.var(name) for name in "abc")
    box = S.contrib
    return {
        "argsort": (S.argsort(a, axis=1), [ties]),
        "falling": (S.argsort(a, axis=-1, is_ascend=False, dtype="int32"), [ties]),
        "integers": (S.argsort(S.Cast(a, dtype="uint8"), axis=0), [ties]),
        "sort": (S.sort(a, axis=None), [ties]),
        "topk": (S.topk(a, k=17, ret_typ="both"), [ties]),
        "least": (S.topk(a, k=17, ret_typ="mask", is_ascend=True), [ties]),
        "nms": (box.box_nms(a, overlap_thresh=0.3, id_index=0), [rows]),
        "best": (box.box_nms(a, topk=7, valid_thresh=0.3, out_format="center"), [rows]),
        "pairs": (S.Group(list(box.bipartite_matching(a, threshold=0.1))), [scores]),
        "detection": (box.MultiBoxDetection(a, b, c), [scores, offsets, anchors]),
        "target": (
            S.Group(list(box.MultiBoxTarget(a, b, c, negative_mining_ratio=3))),
            [anchors, labels, scores],
        ),
        "unmined": (S.Group(list(box.MultiBoxTarget(a, b, c))), [anchors, labels, scores]),
        "prior": (box.MultiBoxPrior(a, sizes=(0.5, 0.25)), [np.zeros((1, 2, 3, 4))]),
        "proposal": (
            box.Proposal(a, b, c, rpn_pre_nms_top_n=9, rpn_post_nms_top_n=5, scales=(2, 1),
                         ratios=(1,), rpn_min_size=2, output_score=True),
            [*regions, np.array([[48, 48, 1]])],
        ),
    }  # fmt: skip


DETECTORS = detectors()
NAN = [
    "argsort",
    "falling",
    "sort",
    "topk",
    "least",
    "nms",
    "best",
    "pairs",
    "detection",
    "proposal",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DETECTORS)
def test_sorts_and_detectors_are_written(name: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    symbol, arrays = DETECTORS[name]
    module = import_symbol(json.loads(symbol.tojson()), {})
    inputs = {
        key: torch.tensor(x, dtype=torch.float32) for key, x in zip("abc", arrays, strict=False)
    }
    given = [inputs[key] for key in module.meta["mxnet_inputs"]]
    session = ort.InferenceSession(onnx_bytes(module, given)[0])
    for nan in (False, True) if name in NAN and ort.__version__ >= "1.32" else (False,):
        if nan:  # of which ONNX says nothing
            inputs["a"].view(-1)[[1, 9, 19]] = float("nan")
        found = session.run(None, {key: x.numpy() for key, x in inputs.items()})
        for y, z in zip(found, run(module, given), strict=True):
            assert len(np.unique(y)) > 1
            np.testing.assert_allclose(y, z.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", ["", "raises", "another number"])
def test_the_opset_is_the_newest_that_computes_the_same(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from onnx import load_from_string, numpy_helper, version_converter

    convert = version_converter.convert_version

    def converted(model: Any, opset: int) -> Any:
        if wrong == "raises":
            raise RuntimeError("no adapter")
        newer = convert(model, opset)
        if wrong:
            weight = newer.graph.initializer[0]
            values = numpy_helper.to_array(weight) * np.float32(1 + 1e-6)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        return newer

    monkeypatch.setattr(version_converter, "convert_version", converted)
    module, x = opened(S.FullyConnected(D, num_hidden=4, name="a"), (2, 5))
    data, opset, verified = onnx_bytes(module, [x])
    assert "ONNX Runtime" in verified
    assert opset == (OPSETS[0] if wrong else newest_opset())
    assert load_from_string(data).opset_import[0].version == opset


def test_the_tolerance_is_that_of_the_dtypes_that_are_computed_in() -> None:
    module, x = opened(*NETS["layer_norm"])
    assert tolerance(module, [x]) == TOLERANCE == 1e-4
    assert tolerance(module.half(), [x]) == 2.0**-8
    assert tolerance(module.double(), [x]) == TOLERANCE
    assert tolerance(module.double(), [x.double()]) == IN_FLOAT64 == 1e-10
    module, x = opened(*NETS["float16"])
    assert tolerance(module, [x]) == 2.0**-8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_truths_and_single_numbers_are_written(shape: tuple[int, ...]) -> None:
    symbol = S.np.isnan(S.np.sqrt(D.as_np_ndarray()))
    module = import_symbol(json.loads(symbol.tojson()), {})
    x = torch.full(shape, -1.0)
    assert program_bytes(module, [x])
    assert onnx_bytes(module, [x])[0]
    with pytest.raises(SymbolError, match="does not compute what"):
        same([torch.tensor([True, False])], [torch.tensor([True, True])], "copy")


def test_another_dtype_or_infinity_is_not_the_same() -> None:
    x = torch.tensor([1.0, float("inf"), float("nan")])
    same([x], [x.clone()], "copy")
    for other in (x.double(), -x, x[:2], torch.tensor([2.0, float("inf"), float("nan")])):
        with pytest.raises(SymbolError, match="does not compute what"):
            same([x], [other], "copy")
    whole = torch.tensor([-(2**63), 2**40])  # the lowest has no absolute value
    same([whole], [whole.clone()], "copy")
    with pytest.raises(SymbolError, match="does not compute what"):
        same([whole], [whole + torch.tensor([0, 1])], "copy")


def by_the_first(x: torch.Tensor) -> torch.Tensor:
    return x * float(x.flatten()[0])


@pytest.mark.filterwarnings("ignore")
def test_what_a_file_would_keep_of_its_example_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch twice over does not show it: other values do."""
    pytest.importorskip("onnxruntime")
    wrong = replace(OPERATORS["square"], build=lambda w, a, x: w.call(by_the_first, x))
    monkeypatch.setitem(OPERATORS, "square", wrong)
    module, x = opened(S.square(D), (2, 5))
    with pytest.raises(SymbolError, match="ONNX file does not compute what"):
        onnx_bytes(module, [x])


def test_an_operator_without_onnx_is_named() -> None:
    module, x = opened(S.relu(S.sinh(D, name="wave")), (2, 5))
    with pytest.raises(SymbolError, match=r"^no ONNX form of sinh \(wave\): torch's exporter"):
        onnx_bytes(module, [x])


@pytest.mark.filterwarnings("ignore")
def test_what_torch_cannot_write_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    """Its exporter prints the graph, on standard output."""
    module, x = opened(S.gamma(D), (2, 5))
    with pytest.raises(SymbolError, match="torch cannot write this graph as ONNX") as told:
        onnx_bytes(module, [x])
    assert "\n" not in str(told.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore")
def test_an_input_of_which_only_the_size_counts_is_kept() -> None:
    pytest.importorskip("onnxruntime")
    module, x = opened(S.shape_array(D), (3, 5))
    data, _, _ = onnx_bytes(module, [x])
    assert run_onnx(data, {"data": x})[0].tolist() == [3, 5]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["self", "_guards_fn", "_in_spec", "_out_spec", "0", "torch"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    symbol = S.broadcast_add(D, S.var(name, shape=(5,)))
    module, x = opened(symbol, (2, 5))
    assert list(module.meta["mxnet_names"].values()) == [name]
    assert program_bytes(module, [x])
    assert onnx_bytes(module, [x])[0]


def test_onnx_runtime_writes_no_line_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    """A scale that is computed has two axes, which it refuses while it runs."""
    x = S.FullyConnected(S.var("data"), num_hidden=1, no_bias=True, name="f")
    norm = S.BatchNorm(x, gamma=x, fix_gamma=False, name="b")
    one = np.ones(1, np.float32)
    arrays = {"f_weight": np.ones((1, 2), np.float32), "b_beta": one}
    arrays |= {"b_moving_mean": one, "b_moving_var": one}
    module = import_symbol(json.loads(norm.tojson()), arrays)
    with pytest.raises(SymbolError, match="ONNX"):
        onnx_bytes(module, [torch.ones(1, 2)])
    assert capfd.readouterr().err == ""
