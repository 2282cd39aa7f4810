"""Nets as MXNet 0.8 to 0.12 wrote them, beside MXNet 1.9.1, which still reads such files.

RetinaFace, ArcFace and MTCNN were published like this: PReLU, `Crop`, softmax over channels,
`fix_gamma`, Deconvolution that enlarges, L2Normalization, SoftmaxOutput.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from mxnet_files import import_symbol
from mxnet_files.checking.check import Subject, compare_with_mxnet

S = mx.sym
EPS = 2e-5


def prelu(x: Any, name: str) -> Any:
    return S.LeakyReLU(x, act_type="prelu", name=name)


def unit(x: Any, name: str, count: int, *, relu: bool = True, **options: Any) -> Any:
    """Convolution and BatchNorm whose gamma counts as 1."""
    options = {"kernel": (3, 3), "pad": (1, 1), **options}
    x = S.Convolution(x, num_filter=count, no_bias=True, name=f"{name}_conv2d", **options)
    x = S.BatchNorm(x, fix_gamma=True, eps=EPS, momentum=0.9, name=f"{name}_batchnorm")
    return S.Activation(x, act_type="relu", name=f"{name}_relu") if relu else x


def retinaface() -> Any:
    """Two levels of features, the coarse one enlarged and cropped to the fine one; three heads."""
    x = unit(S.var("data"), "stem", 8, stride=(2, 2))
    fine = unit(x, "depthwise", 8, num_group=8)
    coarse = unit(fine, "down", 16, stride=(2, 2))
    lateral = unit(fine, "lateral", 16, kernel=(1, 1), pad=(0, 0))
    up = S.Deconvolution(
        coarse, kernel=(4, 4), stride=(2, 2), pad=(1, 1), num_filter=16, num_group=16,
        no_bias=True, name="up",
    )  # fmt: skip
    up = S.Crop(up, lateral, num_args=2, name="crop")
    merged = unit(lateral + up, "merged", 16)
    left, right = unit(merged, "left", 8, relu=False), unit(merged, "context", 8, relu=False)
    head = S.Activation(S.Concat(left, right, dim=1), act_type="relu", name="head")
    scores = S.Convolution(head, kernel=(1, 1), num_filter=4, name="scores")
    scores = S.Reshape(scores, shape=(0, 2, -1, 0), name="by_anchor")
    scores = S.SoftmaxActivation(scores, mode="channel", name="probabilities")
    scores = S.Reshape(scores, shape=(0, 4, -1, 0), name="by_channel")
    boxes = S.Convolution(head, kernel=(1, 1), num_filter=8, name="boxes")
    nearest = S.UpSampling(coarse, scale=2, sample_type="nearest", num_args=1, name="nearest")
    return S.Group([scores, boxes, S.Crop(nearest, fine, num_args=2, name="cropped")])


def arcface() -> Any:
    """A residual unit with BatchNorm before and PReLU within, and a normalised embedding."""
    x = (S.var("data") - 127.5) * 0.0078125
    x = prelu(unit(x, "conv0", 8, relu=False), "relu0")
    y = S.BatchNorm(x, fix_gamma=False, eps=EPS, name="unit1_bn1")
    y = prelu(unit(y, "unit1_a", 8, relu=False), "unit1_relu1")
    y = unit(y, "unit1_b", 8, relu=False, stride=(2, 2))
    x = y + unit(x, "unit1_sc", 8, relu=False, kernel=(1, 1), pad=(0, 0), stride=(2, 2))
    x = S.BatchNorm(x, fix_gamma=False, eps=EPS, name="bn1")
    x = S.FullyConnected(S.Dropout(x, p=0.4, name="dropout0"), num_hidden=16, name="pre_fc1")
    x = S.BatchNorm(x, fix_gamma=True, eps=EPS, name="fc1")
    return S.L2Normalization(x, mode="instance", eps=1e-10, name="fc1n")


def mtcnn() -> Any:
    """The first net of the cascade: a map of faces and of boxes; pooling rounds up."""
    x = prelu(S.Convolution(S.var("data"), kernel=(3, 3), num_filter=10, name="conv1"), "prelu1")
    x = S.Pooling(
        x, kernel=(2, 2), stride=(2, 2), pool_type="max", pooling_convention="full", name="pool1"
    )
    x = prelu(S.Convolution(x, kernel=(3, 3), num_filter=16, name="conv2"), "prelu2")
    faces = S.Convolution(x, kernel=(1, 1), num_filter=2, name="conv4_1")
    faces = S.SoftmaxOutput(faces, S.var("prob1_label"), multi_output=True, name="prob1")
    return S.Group([faces, S.Convolution(x, kernel=(1, 1), num_filter=4, name="conv4_2")])


NETS: dict[str, Callable[[], Any]] = {"retinaface": retinaface, "arcface": arcface, "mtcnn": mtcnn}


def aged(text: str, version: int) -> dict[str, Any]:
    """A symbol as an older MXNet wrote it.

    8: `param` beside the user's `attr`, BatchNorm without its statistics, entries of two numbers,
    no version; 9 and 12: `attr`, and the version.
    """
    document = json.loads(text)
    nodes = document["nodes"]
    states: set[int] = set()
    for node in nodes:
        attributes = node.pop("attrs", {})
        if node["op"] == "BatchNorm" and version == 8:
            states.update(entry[0] for entry in node["inputs"][3:])
            del node["inputs"][3:]
        if version == 8:
            node |= {"param": attributes, "attr": {"ctx_group": "dev1"}, "backward_source_id": -1}
        elif attributes:
            node["attr"] = attributes
    kept = [number for number in range(len(nodes)) if number not in states]
    moved = {number: place for place, number in enumerate(kept)}
    entry = 2 if version == 8 else 3
    for node in nodes:
        node["inputs"] = [[moved[e[0]], *e[1:entry]] for e in node["inputs"]]
    return {
        "nodes": [nodes[number] for number in kept],
        "arg_nodes": [moved[number] for number in document["arg_nodes"] if number in moved],
        "heads": [[moved[head[0]], *head[1:entry]] for head in document["heads"]],
        **({} if version == 8 else {"attrs": {"mxnet_version": ["int", 100 * version + 1]}}),
    }


def parameters(symbol: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Random, with gammas other than 1, which `fix_gamma` does not heed."""
    rng = np.random.default_rng(0)
    shapes, _, states = symbol.infer_shape(data=shape)
    arrays: dict[str, np.ndarray] = {}
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    for name, size in zip(names, [*shapes, *states], strict=True):
        positive = name.endswith(("gamma", "var"))
        value = rng.uniform(0.5, 1.5, size) if positive else rng.normal(size=size) * 0.4
        if name != "data" and not name.endswith("label"):
            arrays[name] = value.astype(np.float32)
    return arrays


@pytest.mark.parametrize("version", [8, 9, 12])
@pytest.mark.parametrize("net", NETS)
def test_nodes_agree_with_mxnet(net: str, version: int) -> None:
    symbol = NETS[net]()
    shape = (2, 3, 13, 17) if net != "arcface" else (2, 3, 16, 16)
    arrays = parameters(symbol, shape)
    document = aged(symbol.tojson(), version)
    assert ("BatchNorm" in symbol.tojson()) <= (version != 8 or "moving_mean" not in str(document))
    module = import_symbol(document, arrays)
    x = np.random.default_rng(1).uniform(0, 255, shape)
    report = compare_with_mxnet(Subject(module, json.dumps(document), arrays, {"data": x / 64}))
    assert report.failures == ()
    assert report.default_ok
    assert report.nodes >= 8


def test_a_gamma_that_is_not_fixed_would_be_noticed() -> None:
    """What these tests hold: that 0.x BatchNorm takes gamma for 1 where `fix_gamma` is left out."""
    symbol = arcface()
    arrays = parameters(symbol, (2, 3, 16, 16))
    document = aged(symbol.tojson(), 8)
    text = json.dumps(document)
    for node in document["nodes"]:
        if node["op"] == "BatchNorm":
            node["param"]["fix_gamma"] = "False"
    module = import_symbol(document, arrays)
    x = {"data": np.random.default_rng(1).uniform(-1, 1, (2, 3, 16, 16))}
    assert not compare_with_mxnet(Subject(module, text, arrays, x)).ok
