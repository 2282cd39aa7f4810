"""`model.py`: it computes and trains what MXNet does, stands alone, and reads well."""

from __future__ import annotations

import ast
import builtins
import copy
import importlib.util
import json
import keyword
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn
from safetensors.torch import save_file

from mxnet_files import functions, layers
from mxnet_files.checking.oracle import Oracle
from mxnet_files.checking.recorded import RecordedCase, read
from mxnet_files.checking.supported import is_drawn
from mxnet_files.load import import_symbol
from mxnet_files.registry import OPERATORS
from mxnet_files.tests.test_symbol_alone import blocker
from mxnet_files.writing.borrowed import IMPORTS
from mxnet_files.writing.layout import Atom, Infix, literal, statement
from mxnet_files.writing.model_file import RESERVED, Written, write_model
from mxnet_files.writing.shapes import record_shapes, unrolled
from mxnet_files.writing.statements import NOUNS

S = mx.sym


class Residual(nn.HybridBlock):
    """x + f(x), projected where the channels change, ReLU after."""

    def __init__(self, channels: int, stride: int, project: bool, **names: Any) -> None:
        super().__init__(**names)
        with self.name_scope():
            self.body = nn.HybridSequential(prefix="")
            self.body.add(
                *(nn.Conv2D(channels, 3, stride, 1, use_bias=False), nn.BatchNorm()),
                *(nn.Activation("relu"), nn.Conv2D(channels, 3, padding=1), nn.BatchNorm()),
            )
            self.side = None
            if project:
                self.side = nn.HybridSequential(prefix="side_")
                self.side.add(nn.Conv2D(channels, 1, stride), nn.BatchNorm())

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return F.relu(self.body(x) + (x if self.side is None else self.side(x)))


class Mobile(nn.HybridBlock):
    """Expand, depthwise, squeeze and excite, project; joined where it can be."""

    def __init__(self, into: int, mid: int, out: int, stride: int, squeeze: bool, **names: Any):
        super().__init__(**names)
        self.joins = into == out and stride == 1
        with self.name_scope():
            self.expand = nn.HybridSequential(prefix="expand_")
            if mid != into:
                self.expand.add(nn.Conv2D(mid, 1, use_bias=False), nn.BatchNorm())
            self.wide = nn.HybridSequential(prefix="depth_")
            self.wide.add(nn.Conv2D(mid, 3, stride, 1, groups=mid), nn.BatchNorm())
            self.gate = None
            if squeeze:
                self.gate = nn.HybridSequential(prefix="gate_")
                self.gate.add(nn.GlobalAvgPool2D(), nn.Conv2D(mid // 2, 1, activation="relu"))
                self.gate.add(nn.Conv2D(mid, 1, activation="sigmoid"))
            self.narrow = nn.HybridSequential(prefix="narrow_")
            self.narrow.add(nn.Conv2D(out, 1), nn.BatchNorm())

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        def swish(y: Any) -> Any:
            return y * F.clip(y + 3, 0, 6) / 6

        y = swish(self.expand(x)) if len(self.expand) else x
        y = swish(self.wide(y))
        if self.gate is not None:
            y = F.broadcast_mul(y, self.gate(y))
        y = self.narrow(y)
        return x + y if self.joins else y


class Detector(nn.HybridBlock):
    """Predictions of class and box on features of three sizes."""

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        with self.name_scope():
            self.stem = nn.Conv2D(8, 3, 2, 1, activation="relu")
            self.stages = nn.HybridSequential()
            self.classes = nn.HybridSequential()
            self.boxes = nn.HybridSequential()
            for _ in range(3):
                self.stages.add(nn.Conv2D(8, 3, 2, 1, activation="relu"))
                self.classes.add(nn.Conv2D(6, 3, padding=1))
                self.boxes.add(nn.Conv2D(8, 3, padding=1))

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = self.stem(x)
        classes, boxes = [], []
        for stage, label, box in zip(self.stages, self.classes, self.boxes, strict=True):
            x = stage(x)
            classes.append(F.flatten(F.transpose(label(x), (0, 2, 3, 1))))
            boxes.append(F.flatten(F.transpose(box(x), (0, 2, 3, 1))))
        scores = F.reshape(F.concat(*classes, dim=1), (0, -1, 3))
        return F.softmax(scores), F.reshape(F.concat(*boxes, dim=1), (0, -1, 4))


class Language(nn.HybridBlock):
    """Embedding, two layers of LSTM, a decoder."""

    def __init__(self, **names: Any) -> None:
        super().__init__(**names)
        with self.name_scope():
            self.embedding = nn.Embedding(20, 6)
            self.lstm = mx.gluon.rnn.LSTM(5, 2, input_size=6)
            self.decoder = nn.Dense(20, flatten=False, in_units=5)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.decoder(self.lstm(self.embedding(F.BlockGrad(x))))


def sequence(*layers: Any) -> Any:
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(*layers)
    return net


def residual_net() -> Any:
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(4, 3, use_bias=False), nn.BatchNorm(), nn.Activation("relu"))
        for stage, (channels, stride) in enumerate(((4, 1), (6, 2), (6, 2)), 1):
            part = nn.HybridSequential(prefix=f"stage{stage}_")
            with part.name_scope():
                for number in range(3):
                    first = number == 0
                    wide = first and stage != 1
                    part.add(Residual(channels, stride if first else 1, wide, prefix=""))
            net.add(part)
        net.add(nn.GlobalAvgPool2D(), nn.Dense(5))
    return net


def mobile_net() -> Any:
    return sequence(
        nn.Conv2D(4, 3),
        *(Mobile(4, 4, 4, 1, False), Mobile(4, 8, 6, 2, False), Mobile(6, 12, 6, 1, True)),
        *(Mobile(6, 12, 6, 1, True), Mobile(6, 16, 8, 1, True), nn.GlobalAvgPool2D(), nn.Flatten()),
    )


def dense_net() -> Any:
    class Layer(nn.HybridBlock):
        def __init__(self, **names: Any) -> None:
            super().__init__(**names)
            with self.name_scope():
                self.body = nn.HybridSequential(prefix="")
                self.body.add(nn.BatchNorm(scale=False), nn.ELU(0.5), nn.Conv2D(3, 3, padding=1))

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return F.concat(x, self.body(x), dim=1)

    return sequence(
        nn.Conv2D(3, 1), *(Layer() for _ in range(4)), nn.MaxPool2D(3, 2, ceil_mode=True),
        nn.PReLU(), nn.LayerNorm(), nn.Dropout(0), nn.Dense(3, activation="tanh"),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "residual": (residual_net, (2, 3, 12, 12)),
    "mobile": (mobile_net, (2, 3, 11, 11)),
    "detector": (Detector, (2, 3, 24, 24)),
    "language": (Language, (5, 2)),
    "dense": (dense_net, (2, 3, 9, 9)),
}


def random_state(symbol: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes, _, states = symbol.infer_shape(data=shape)
    named = [*zip(symbol.list_arguments(), sizes, strict=True)]
    named += zip(symbol.list_auxiliary_states(), states, strict=True)
    arrays = {}
    for name, size in named:
        if name != "data":
            value = rng.normal(size=size) * 0.4
            value = value**2 + 0.5 if name.endswith(("var", "gamma")) else value
            arrays[name] = value.astype(np.float32)
    return arrays


def written(
    symbol: Any, arrays: dict[str, np.ndarray], *inputs: torch.Tensor
) -> tuple[Written, Any]:
    module = import_symbol(json.loads(symbol.tojson()), arrays)
    record_shapes(module.to(inputs[0].dtype), inputs)
    return write_model(module, "the_net"), module


def imported(text: str) -> set[str]:
    """The packages that a source imports."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(str(node.module))
    return {name.partition(".")[0] for name in names}


def opened(made: Written, folder: Path) -> Any:
    """The written module, from files."""
    assert imported(made.text) <= {"torch", "safetensors", *sys.stdlib_module_names}
    (folder / "model.py").write_text(made.text, "utf-8")
    state = {key: value.clone().contiguous() for key, value in made.state.items()}
    save_file(state, folder / "model.safetensors")
    spec = importlib.util.spec_from_file_location("written_model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def outputs(module: Any, *inputs: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        found = module(*inputs)
    return list(found) if isinstance(found, tuple) else [found]


def same(module: Any, other: Any, *inputs: torch.Tensor) -> None:
    for a, b in zip(outputs(module, *inputs), outputs(other, *inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Symbol, arrays, input, what was written, the import, and the written module, in float64."""
    return prepare(request.param, tmp_path)


def prepare(name: str, folder: Path) -> Any:
    make, shape = NETS[name]
    block = make()
    symbol = block(mx.sym.var("data"))
    symbol = mx.sym.Group(list(symbol)) if isinstance(symbol, (list, tuple)) else symbol
    arrays = random_state(symbol, shape)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 20, shape) if name == "language" else rng.normal(size=shape)
    data = torch.tensor(x, dtype=torch.float64)
    made, module = written(symbol, arrays, data)
    return symbol, arrays, data, made, module, opened(made, folder).double()


def test_it_computes_what_the_import_computes(net: Any) -> None:
    _, _, data, made, module, alone = net
    same(module, alone, data)
    assert set(alone.state_dict()) >= set(made.state)
    assert set(made.names.values()) <= set(module.state_dict()) | set(made.names.values())


def trained(module: Any, data: torch.Tensor, heads: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients and buffers after one step backward in training mode."""
    found = module.train()(data)
    found = list(found) if isinstance(found, tuple) else [found]
    torch.autograd.backward(found, [torch.tensor(head, dtype=data.dtype) for head in heads])
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {
        name: x.numpy().copy() for name, x in {**gradients, **dict(module.named_buffers())}.items()
    }


def test_it_trains_as_mxnet_does(net: Any) -> None:
    """In float64 as the import, in float32 as MXNet itself: gradients and running statistics."""
    symbol, arrays, data, made, module, alone = net
    rng = np.random.default_rng(2)
    heads = [rng.normal(size=tuple(y.shape)) for y in outputs(module, data)]
    oracle = Oracle(symbol.tojson(), arrays, {"data": data.numpy()}, "float32", backward=True)
    mxnet = {**oracle.gradients(heads), **oracle.auxiliary()}
    start = copy.deepcopy(alone)
    wanted, found = trained(module, data, heads), trained(alone, data, heads)
    single = trained(start.float(), data.float(), heads)
    for key, name in made.names.items():
        scale = np.abs(wanted[name]).max() + 1
        # eps and momentum are written with fewer digits than MXNet holds
        np.testing.assert_allclose(found[key], wanted[name], rtol=1e-7, atol=1e-7 * scale)
        if not name.endswith("alpha"):  # MXNet's own is wrong within a graph, right alone
            np.testing.assert_allclose(single[key], mxnet[name], rtol=1e-3, atol=2e-5 * scale)
    assert {name for name, _ in alone.named_parameters()} <= set(found)


def test_it_is_formatted_and_clean(net: Any, tmp_path: Path) -> None:
    net[3].text.encode("ascii")
    for words in (["format", "--diff"], ["check", "--select", "E,F,I,B,UP,N8", "--ignore", "N812"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "100"]
        done = subprocess.run(
            [*command, str(tmp_path / "model.py")], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["mobile", "language", *(pytest.param(n, marks=pytest.mark.slow) for n in
             ("residual", "detector", "dense"))],
)  # fmt: skip
def test_it_scripts_exports_and_compiles(name: str, tmp_path: Path) -> None:
    _, _, data, _, _, alone = prepare(name, tmp_path)
    same(alone, torch.jit.script(alone), data)
    same(alone, torch.export.export(alone, (data,)).module(), data)
    same(alone, torch.compile(alone, backend="aot_eager"), data)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", ["detector", "residual"])
def test_it_compiles_to_native_code(name: str, tmp_path: Path) -> None:
    _, _, data, _, _, alone = prepare(name, tmp_path)
    same(alone, torch.compile(alone, backend="inductor"), data)


ALONE = (
    blocker("model", "safetensors")
    + """
import model, torch
net = model.load().train()
net(torch.ones(4, 2, 3), torch.zeros(4)).sum().backward()
assert all(p.grad is not None for p in net.parameters()) and "numpy" not in sys.modules
print(type(net).__name__)
"""
)


def test_it_needs_torch_and_safetensors_alone(tmp_path: Path) -> None:
    """Where it brings functions and layers of this package along, too, and trains with them."""
    x = S.FullyConnected(S.var("data"), num_hidden=5, flatten=False, name="fc")
    x = S.BatchNorm(x, axis=2, fix_gamma=False, output_mean_var=True, name="bn")
    x = S.FullyConnected(x[0], num_hidden=3, name="last")
    symbol = S.SoftmaxOutput(x, smooth_alpha=0.1, grad_scale=0.3, name="softmax")
    arrays = random_state(symbol, (4, 2, 3))
    del arrays["softmax_label"]
    made, _ = written(symbol, arrays, torch.ones(4, 2, 3))
    assert "class BatchNorm(nn.Module):" in made.text
    assert "def _softmax_gradient(" in made.text
    opened(made, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "TheNet", done.stderr


def test_what_repeats_is_written_once(tmp_path: Path) -> None:
    """Stages as loops, one class of blocks with its options, no layer named by number alone."""
    symbol = residual_net()(mx.sym.var("data"))
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    text = written(symbol, random_state(symbol, (1, 3, 12, 12)), x)[0].text
    assert text.count("nn.Conv2d(") == 2  # the unit with an activation, and that without
    assert "*(ResidualBlock(6, 6) for _ in range(2))" in text
    assert re.findall(r"self\.(stage\d) = nn\.Sequential", text) == ["stage1", "stage2", "stage3"]
    assert "x = self.stage2(self.stage1(x))  # (N, 6, 5, 5)" in text


def test_branches_that_are_alike_are_a_loop(tmp_path: Path) -> None:
    """Heads on features of three sizes, which a loop makes, an anchor each; slices in a row."""
    x = S.var("data")
    heads, anchors = [], []
    for number in range(3):
        for half, size in (("a", 2), ("b", 1)):
            name = f"stage{number}_{half}"
            x = S.Convolution(x, num_filter=4, kernel=(size, size), name=name)
        y = S.Convolution(x, num_filter=2 * number + 2, kernel=(1, 1), name=f"predictor{number}")
        heads.append(S.flatten(S.transpose(y, axes=(0, 2, 3, 1))))
        anchor = S.slice_like(S.var(f"anchor{number}_weight", shape=(1, 1, 5, 5)), x * 0, axes=(2,))
        anchors.append(S.reshape(S.reshape(anchor, shape=(1, -1, 5)), shape=(1, -1)))
    scores = S.reshape(S.concat(*heads, dim=1), shape=(0, -1, 4))
    mask = S.broadcast_greater(scores, S.zeros((1, 1, 1)))
    scores = S.where(mask, scores, S.ones_like(scores) * -1.5)
    parts = [S.slice_axis(scores, axis=2, begin=i, end=i + 1) for i in range(4)]
    pairs = [S.concat(part, scores, dim=2) for part in parts]
    symbol = S.Group([S.concat(*pairs, dim=1), S.concat(*anchors, dim=1)])
    data = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    made, module = written(symbol, random_state(symbol, (2, 3, 6, 6)), data)
    for text in (
        "for stage in self.stages:\n            x = stage(x)  # (2, 4, 5, 5) to (2, 4, 3, 3)\n",
        "features = features + (x,)\n",
        "head(feature) for head, feature in zip(self.predictors, features, strict=True)",
        "anchor[:, :, : feature.size(2)].reshape(1, -1)",
        "torch.cat([x[:, :, i : i + 1], x], 2) for i in range(4)",
        "torch.full_like(predictors, -1.5)",
    ):
        assert text in made.text, made.text
    assert " * 0" not in made.text
    assert {"stages.0.0.weight", "stages.2.1.bias"} <= {*made.state}
    alone = opened(made, tmp_path).double()
    same(module, alone, data)
    same(module, torch.jit.script(alone), data)


def boxes_by_class() -> Any:
    """An SSD in small, as GluonCV writes one: heads of scores and boxes, which it decodes."""
    x, heads, boxes, anchors = S.var("data"), [], [], []
    for number in range(3):
        x = S.Convolution(x, num_filter=4, kernel=(2, 2), name=f"ssd0_extra{number}_conv")
        name = f"ssd0_predictor{number}_conv"
        y = S.Convolution(x, num_filter=4, kernel=(1, 1), name=f"{name}0")
        heads.append(S.flatten(S.transpose(y, axes=(0, 2, 3, 1))))
        y = S.Convolution(x, num_filter=4, kernel=(1, 1), name=f"{name}1")
        boxes.append(S.flatten(S.transpose(y, axes=(0, 2, 3, 1))))
        anchor = S.var(f"ssd0_anchor{number}_weight", shape=(1, 1, 5, 5, 4))
        anchor = S.slice_like(anchor, x * 0, axes=(2, 3))
        anchors.append(S.reshape(S.reshape(anchor, shape=(1, -1, 4)), shape=(1, -1)))
    scores = S.softmax(S.reshape(S.concat(*heads, dim=1), shape=(0, -1, 4)), axis=-1)
    best = S.slice_axis(scores, axis=-1, begin=1, end=None)
    zeros = S.zeros_like(S.slice_axis(scores, axis=-1, begin=0, end=1))
    ids = S.broadcast_add(zeros, S.reshape(S.arange(3, name="ssd0_arange"), shape=(1, 1, 3)))
    mask = best > 0.3
    ids = S.where(mask, ids, S.ones_like(ids) * -1)
    best = S.where(mask, best, S.zeros_like(best))
    offsets = S.reshape(S.concat(*boxes, dim=1), shape=(0, -1, 4))
    anchors = S.reshape(S.concat(*anchors, dim=1), shape=(1, -1, 4))
    corners = S.contrib.box_decode(offsets, anchors)
    rows = []
    for i in range(3):
        pair = (S.slice_axis(each, axis=-1, begin=i, end=i + 1) for each in (ids, best))
        rows.append(S.concat(*pair, corners, dim=-1))
    found = S.contrib.box_nms(S.concat(*rows, dim=1), overlap_thresh=0.4, id_index=0, topk=9)
    return S.Group(
        [S.slice_axis(found, axis=2, begin=i, end=j) for i, j in ((0, 1), (1, 2), (2, 6))]
    )


def test_boxes_are_decoded_in_a_method(tmp_path: Path) -> None:
    """Behind the last layer; the columns of what box_nms reads have their names."""
    symbol, data = boxes_by_class(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    made, module = written(symbol, random_state(symbol, (2, 3, 6, 6)), data)
    forward, method = made.text.split("    def forward")[-1].split("    def detect")
    assert "return self.detect(scores, offsets, features)" in forward, made.text
    assert "softmax" not in forward
    assert "for extra in self.extras:" in forward
    for text in (
        'kept."""',
        "class_ids = torch.zeros_like(scores[:, :, :1])",
        "class_ids = class_ids + self.arange.reshape(1, 1, 3)",
        "class_ids = torch.where(mask, class_ids, torch.full_like(class_ids, -1.0))",
        "scores = torch.where(mask, scores_2, torch.zeros_like(scores_2))",
        "torch.cat([class_ids[:, :, i : i + 1], scores[:, :, i : i + 1], x], -1)",
    ):
        assert text in method, made.text
    alone = opened(made, tmp_path).double()
    same(module, alone, data)
    same(module, torch.jit.script(alone), data)


def regions_and_boxes() -> Any:
    """A Faster R-CNN in small: regions, of the best of which a layer makes boxes."""
    x = S.Convolution(S.var("data"), num_filter=4, kernel=(1, 1), name="rcnn0_conv0")
    rows = []
    for name, size in (("score", 1), ("box", 4)):
        y = S.Convolution(x, num_filter=size, kernel=(1, 1), name=f"rcnn0_{name}")
        rows.append(S.reshape(S.transpose(y, axes=(0, 2, 3, 1)), shape=(0, -1, size)))
    boxes = S.contrib.box_decode(rows[1], S.var("rcnn0_anchor", shape=(1, 36, 4)))
    found = S.concat(S.sigmoid(rows[0]), boxes, dim=-1)
    found = S.contrib.box_nms(found, overlap_thresh=0.4, coord_start=1, score_index=0)
    found = S.slice_axis(S.slice_axis(found, axis=1, begin=0, end=5), axis=-1, begin=1, end=5)
    y = S.FullyConnected(found, num_hidden=12, name="rcnn0_dense0")
    return S.contrib.box_nms(S.reshape(y, shape=(0, 2, 6)), id_index=0)[0]


def test_regions_are_proposed_in_a_method(tmp_path: Path) -> None:
    """Before the layers that read them; what is short stays in the forward."""
    symbol, data = regions_and_boxes(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    made, module = written(symbol, random_state(symbol, (2, 3, 6, 6)), data)
    assert "x = self.propose(rcnn_score, self.rcnn_box(rcnn_conv))" in made.text, made.text
    assert "def detect" not in made.text
    alone = opened(made, tmp_path).double()
    same(module, alone, data)
    same(module, torch.jit.script(alone), data)


def heads_that_decode() -> Any:
    """Each with an array of its own, a constant, and a number that differs, as YOLO's strides."""
    x, found = S.var("data"), []
    for place in range(3):
        x = S.Convolution(x, num_filter=2, kernel=(2, 2), name=f"yolov30_conv{place}")
        name = f"yolov30_yolooutputv3{place}"
        anchor = S.var(f"{name}_anchor_{place}", shape=(1, 2, 1, 1))
        offset = S.var(f"{name}_offset_{place}", shape=(1, 1, 5, 5))
        with mx.name.Prefix(f"{name}_"):
            y = S.Convolution(x, num_filter=2, kernel=(1, 1), name="conv0")
            middle = S.broadcast_add(S.sigmoid(y), S.slice_like(offset, x * 0, axes=(2, 3)))
            middle, half = middle * (2.0 * 2**place), S.broadcast_mul(S.exp(y), anchor)
            ids = S.broadcast_add(y * 0, S.reshape(S.arange(2), shape=(1, 2, 1, 1)))
            found.append(S.concat(ids, middle - half, middle + half, dim=1))
    return S.Group(found)


def test_heads_that_decode_are_one_class(tmp_path: Path) -> None:
    symbol, data = heads_that_decode(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    made, module = written(symbol, random_state(symbol, (2, 3, 6, 6)), data)
    assert made.text.count("class Output(nn.Module):") == 1, made.text
    assert "torch.sigmoid(" not in made.text.split("class TheNet")[1]
    assert "Output(8.0)" in made.text
    assert {"output0.anchor", "output2.anchor"} <= {*made.state}
    alone = opened(made, tmp_path).double()
    same(module, alone, data)
    same(module, torch.jit.script(alone), data)


def extractor() -> Any:
    """Convolutions under a prefix of most layers, two of other sizes of one name; a head alone."""
    x = S.Convolution(S.var("data"), num_filter=2, kernel=(1, 1), name="net0_vgg0_conv0")
    for place in range(4):
        name = f"net0_vgg0_extra{place // 2}_seq-{place}_conv{place % 2}_conv2d"
        size = {"kernel": (1 + place % 2,) * 2, "num_filter": 2}
        x = S.relu(S.Convolution(x, **size, name=name), name=f"{name}_relu")
    return S.FullyConnected(x, num_hidden=3, name="net0_head0_rnn0")


def structural() -> Any:
    """As the nets of this package are called, whose weights are found by these names."""
    x = S.Convolution(S.var("data"), num_filter=2, kernel=(1, 1), name="features_0_fwd")
    x = S.Convolution(S.relu(x), num_filter=2, kernel=(2, 2), name="features_2_fwd")
    return S.FullyConnected(x, num_hidden=3, name="classifier_1_fwd")


def by_class() -> Any:
    """Most layers in one net; those of another, whose blocks are called by it, have a tensor."""
    x, found = S.var("data"), []
    for place in range(9):
        x = S.Convolution(x, num_filter=2, kernel=(1, 1), name=f"mobilenet0_conv{place}")
    for place in range(2):
        x = S.Convolution(x, num_filter=2, kernel=(1, 1), name=f"yolov30_conv{place}")
        name = f"yolov30_yolooutputv3{place}"
        y = S.Convolution(x, num_filter=2, kernel=(1, 1), name=f"{name}_conv0")
        found.append(S.broadcast_mul(y, S.var(f"{name}_anchor_{place}", shape=(1, 2, 1, 1))))
    return S.Group(found)


NAMED = {
    "by_class": (by_class, [
        *(f"conv{place}" for place in range(9)), "yolov3_conv0", "output0", "output0_anchor_0",
        "yolov3_conv1", "output1", "output1_anchor_1",
    ]),
    "extractor": (extractor, ["conv0", "extra0.0.conv", "extra0.1.conv", "extra1.0.conv",
                              "extra1.1.conv", "head"]),
    "structural": (structural, ["features_0", "features_2", "classifier_1"]),
    "detector": (Detector, ["conv0.conv", *(f"stages.{i}.conv" for i in range(3)),
                            *(f"{kind}_heads.{i}.conv" for kind in ("score", "box")
                              for i in range(3)), "anchor"]),
    "language": (Language, ["embedding", "lstm", "dense"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_names_leave_out_what_says_nothing(name: str) -> None:
    """The prefix of most layers, containers, the number of what is alone; and no more."""
    make, wanted = NAMED[name]
    made = make()
    symbol = made if isinstance(made, S.Symbol) else made(S.var("data"))
    if isinstance(symbol, tuple):
        scores, boxes = S.transpose(symbol[0], axes=(0, 2, 1)), S.flatten(symbol[1])
        anchor = S.var("anchor", shape=(1, 98, 4))
        symbol = S.contrib.MultiBoxDetection(scores, boxes, anchor, nms_threshold=0.4)
    shape = NETS[name][1] if name in NETS else (2, 3, 6, 6)
    data = torch.zeros(shape, dtype=torch.float64)
    file, _ = written(symbol, random_state(symbol, shape), data)
    found = list(dict.fromkeys(key.rpartition(".")[0] or key for key in file.state))
    assert found == wanted, file.text
    if name == "detector":
        assert file.text.index("class TheNet") < file.text.index("def _rows")


def test_residual_blocks_of_any_depth_are_one_class() -> None:
    """A block with squeeze and excitation beside one without; activations are an argument."""
    symbol = mobile_net()(mx.sym.var("data"))
    x = torch.randn(2, 3, 11, 11, dtype=torch.float64)
    text = written(symbol, random_state(symbol, (2, 3, 11, 11)), x)[0].text
    assert re.findall(r"class (\w*Residual\w*)", text) == ["ResidualBlock"], text
    assert "x * relu6(x + 3.0) / 6.0" in text


def test_an_activation_is_never_left_out_of_a_block(tmp_path: Path) -> None:
    """Two residual blocks are one class but for a tanh at the beginning of the first alone."""
    x = S.Convolution(S.var("data"), num_filter=3, kernel=(1, 1), name="stem")
    for number, begin in enumerate((True, True, False, False)):
        y = S.tanh(x) if begin else x
        for half in "ab":
            y = S.Convolution(y, num_filter=3, kernel=(1, 1), name=f"block{number}_{half}")
            y = S.relu(y, name=f"block{number}_{half}_relu")
        x = x + S.Convolution(y, num_filter=3, kernel=(1, 1), name=f"block{number}_c")
    data = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    made, module = written(x, random_state(x, (2, 3, 4, 4)), data)
    same(module, opened(made, tmp_path).double(), data)


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_limits_pass_the_gradient_as_mxnet_does(kind: str, tmp_path: Path) -> None:
    """At 0 and 6 exactly; and integers, whose clip is a function of ours that calls others."""
    x = S.clip(S.clip(S.Cast(S.var("data"), dtype=kind), 0, 6), -1, 5.5)
    values = torch.tensor([[-1.0, 0, 3, 5.5, 6, 7]])
    made, module = written(x, {}, values)
    alone = opened(made, tmp_path)
    same(module, alone, values)
    if kind == "float32":
        oracle = Oracle(x.tojson(), {}, {"data": values.numpy()}, "float32", backward=True)
        wanted = oracle.gradients([np.ones((1, 6), np.float32)])["data"]
        values.requires_grad_()
        alone(values).sum().backward()
        assert values.grad is not None
        np.testing.assert_array_equal(values.grad.numpy(), wanted)


def test_shared_weights_stay_shared(tmp_path: Path) -> None:
    """One convolution called twice is one layer; one weight of two kinds of layers a parameter."""
    w, b = S.var("w_weight"), S.var("w_bias")
    x = S.Convolution(S.var("data"), w, b, num_filter=3, kernel=(1, 1), name="first")
    x = S.Convolution(S.relu(x), w, b, num_filter=3, kernel=(1, 1), name="second")
    e = S.var("tied_weight")
    x = S.FullyConnected(S.flatten(x), e, num_hidden=4, no_bias=True, name="inner")
    x = S.dot(x, e, name="outer")
    data = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    made, module = written(x, random_state(x, (2, 3, 2, 2)), data)
    assert made.text.count("nn.Conv2d(") == 1
    assert sorted(made.names.values()) == ["tied_weight", "w_bias", "w_weight"]
    same(module, opened(made, tmp_path).double(), data)


@pytest.mark.parametrize("projection", [3, 4, None])
def test_recurrent_layers_that_torch_lacks_are_brought_along(
    projection: int | None, tmp_path: Path
) -> None:
    """A projection to as many as the state has, and to more; sequences of several lengths."""
    size, lengths = projection or 3, [] if projection else [S.var("lengths")]
    node = S.RNN(
        *map(S.var, ("data", "weights", "state", "cell")), *lengths, mode="lstm", state_size=3,
        num_layers=1, projection_size=projection, use_sequence_length=not projection,
        state_outputs=True, name="rnn",
    )  # fmt: skip
    count = 12 * (2 + size + 2) + (projection or 0) * 3
    arrays = {"weights": np.random.default_rng(0).normal(size=count)}
    given = [torch.randn(*shape).double() for shape in ((4, 2, 2), (1, 2, size), (1, 2, 3))]
    given += [torch.tensor([2, 4])] * len(lengths)
    module = import_symbol(json.loads(S.Group(list(node)).tojson()), arrays)
    record_shapes(module.double(), given)
    made = write_model(module, "the_net")
    assert "nn.LSTM(" not in made.text
    same(module, opened(made, tmp_path).double(), *given)


def test_labels_and_losses_stay(tmp_path: Path) -> None:
    """A training symbol: the label is optional, its gradient MXNet's."""
    x = S.FullyConnected(S.var("data"), num_hidden=3, name="fc")
    symbol = S.SoftmaxOutput(x, name="softmax")
    arrays = {"fc_weight": np.ones((3, 4)), "fc_bias": np.arange(3.0)}
    data, label = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0.0, 1, 2, 0, 1])
    made, module = written(symbol, arrays, data)
    alone = opened(made, tmp_path).double()
    same(module, alone, data)
    for each in (module, alone):
        each(data, label.double()).sum().backward()
    key = {name: key for key, name in made.names.items()}["fc_weight"]
    found = dict(alone.named_parameters())[key].grad
    torch.testing.assert_close(found, module.fc_weight.grad)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.10000000149011612, "0.1"), (0.0010000000474974513, "0.001"), (1e-5, "1e-5"), (0.1, "0.1"),
     (0.12345678901, "0.12345678901"), (1e300, "1e+300"), (0.44999998807907104, "0.45"),
     (16777217.0, "16777217.0"), (0.3333333432674408, "0.3333333432674408")],
)  # fmt: skip
def test_numbers_are_as_short_as_float32_takes_them(value: float, text: str) -> None:
    assert literal(value).flat() == text
    assert np.float32(float(text)) == np.float32(value)


def test_a_long_sum_is_in_brackets() -> None:
    total = Infix(Atom("a" * 40), "+", Atom("b" * 40))
    lines = statement(f"{'c' * 20} = ", total, "(N, 3)", indent=1)
    assert lines == [f"    {'c' * 20} = (", f"        {total.flat()}", "    )  # (N, 3)"]
    assert len(statement("c = ", total)) == 1


WORDS = [
    *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *dir(torch.nn.Module()),
    *("self", "torch", "nn", "F", "Tensor", "Path", "load", "load_file", "np", "math", "x", "y"),
    *("ConvRelu", "ConvNorm", "BatchNorm", "residual", "project", "shortcut", "activation"),
    "TheNet",
    *("channels", "kernel_size", "swish", "model", "super", "", " ", "\n", '"""', "é", "#", "a\nb"),
    *("__class__", "__init__", "x" * 900, "self.x", "1", "_", "__", "\\", "{x}", "%s", "\x1b[31m"),
]  # fmt: skip


FILES = [
    importlib.import_module(f"mxnet_files.functions.{each.name}")
    for each in pkgutil.iter_modules(functions.__path__)
]
BROUGHT = {  # what a file may bring along
    name
    for module in (layers, *FILES)
    for name, thing in vars(module).items()
    if getattr(thing, "__module__", "") == module.__name__
}
MORE = sorted(
    {*dir(torch.Tensor), *RESERVED, *IMPORTS, *NOUNS, *NOUNS.values(), *BROUGHT} - {*WORDS}
)
EVERY = [*dict.fromkeys(WORDS), *MORE]
PARTS, GROUPS = 16, 128  # the default tests take the first of each


@pytest.mark.parametrize(
    "names",
    [
        *(pytest.param(WORDS[n::4], id=str(n)) for n in range(4)),
        *(
            pytest.param(MORE[n::PARTS], id=f"more-{n}", marks=[pytest.mark.slow] * (n > 0))
            for n in range(PARTS)
        ),
    ],
)
def test_no_name_of_a_file_meets_the_code(names: list[str], tmp_path: Path) -> None:
    """Every word as an operator's and a parameter's name, in blocks that become classes."""
    rows: list[dict[str, Any]] = [{"op": "null", "name": "data", "inputs": []}]
    arrays: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    last = 0
    conv = {"kernel": "(1, 1)", "num_filter": "2", "no_bias": "True"}
    for place in range(0, len(names) - 2, 3):
        entry = last
        for word, act in ((names[place], "relu"), (names[place + 1], "")):
            weight = f"{word}.w{place}{act}"
            arrays[weight] = rng.normal(size=(2, 2, 1, 1)).astype(np.float32)
            rows.append({"op": "null", "name": weight, "inputs": []})
            inputs = [[last, 0, 0], [len(rows) - 1, 0, 0]]
            rows.append({"op": "Convolution", "name": word, "inputs": inputs, "attrs": conv})
            last = len(rows) - 1
            if act:
                rows.append({"op": "relu", "name": names[place + 2], "inputs": [[last, 0, 0]]})
                last = len(rows) - 1
        both = [[entry, 0, 0], [last, 0, 0]]
        rows.append({"op": "elemwise_add", "name": names[place + 2], "inputs": both})
        last = len(rows) - 1
        rows.append({"op": "tanh", "name": names[place], "inputs": [[last, 0, 0]]})
        last = len(rows) - 1
    document = {"nodes": rows, "arg_nodes": [0], "heads": [[last, 0, 0]]}
    module = import_symbol(document, arrays).double()
    data = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    record_shapes(module, [data])
    made = write_model(module, "the_net")
    made.text.encode("ascii")
    same(module, opened(made, tmp_path).double(), data)


def split_and_loop() -> dict[str, Any]:
    """Two inputs; half of their sum goes through a loop, beside a state and a parameter."""
    a, b, s, w = (S.var(name) for name in "absw")
    halves = S.SliceChannel(S.tanh(S.broadcast_add(a, b)), num_outputs=2, axis=1)
    outs, states = S.contrib.foreach(
        lambda x, state: (x * state[0], [S.sigmoid(x - w)]), halves[0], [s]
    )
    return json.loads(S.Group([outs, *states, halves[1]]).tojson())


def rename(graph: dict[str, Any], words: Iterator[str]) -> dict[str, str]:
    """Call every node by the next word, within its graphs too; the new names by the old."""
    names = {}
    for node in graph["nodes"]:
        for inner in node.get("subgraphs", []):
            rename(inner, words)
        names[node["name"]] = node["name"] = next(words)
    return names


@pytest.mark.parametrize(
    "group",
    [pytest.param(n, marks=[pytest.mark.slow] * (n > 0)) for n in range(GROUPS)],
)
def test_no_name_of_an_input_meets_the_code(group: int, tmp_path: Path) -> None:
    """Every word as one of two inputs, beside others as names within and around a loop."""
    given = torch.randn(3, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)
    for place in range(2 * group, len(EVERY), 2 * GROUPS):
        document = split_and_loop()
        names = rename(document, iter(EVERY[place:] + EVERY))
        arrays = {names[key]: np.array([0.5, -1.5], np.float32) for key in "sw"}
        module = import_symbol(document, arrays, inputs=[names["a"], names["b"]]).double()
        plain = unrolled(module, given)
        record_shapes(plain, given)
        same(module, opened(write_model(plain, "the_net"), tmp_path).double(), *given)


def words_of(text: str) -> list[str]:
    """Every name in a source."""
    found: dict[str, None] = {}
    for node in ast.walk(ast.parse(text)):
        for key in ("id", "arg", "attr", "name", "asname"):
            if isinstance(word := getattr(node, key, None), str):
                found[word] = None
    return list(found)


def written_by(case: RecordedCase, words: list[str]) -> tuple[Written, Any, list[torch.Tensor]]:
    """A recorded graph whose nodes are called by these words, with a chain behind it of those left.

    All of the chain is returned, so that every word would be the name of a value.
    """
    document, left = copy.deepcopy(dict(case.document)), iter(words)
    names = {node["name"]: next(left, node["name"]) for node in document["nodes"]}
    for node in document["nodes"]:
        node["name"] = names[node["name"]]
    end = len(case.arrays)  # the first output of the operator
    for place, word in enumerate(left):
        step = {"op": "abs"} if place % 2 else {"op": "_plus_scalar", "attrs": {"scalar": "1"}}
        document["nodes"].append({**step, "name": word, "inputs": [[end, 0, 0]]})
        end = len(document["nodes"]) - 1
        document["heads"].append([end, 0, 0])
    arrays = {names[name]: array for name, array in case.arrays.items()}
    first = list(arrays)[: 1 if case.stored else None]
    stored = {name: array for name, array in arrays.items() if name not in first}
    module = import_symbol(document, stored, inputs=first)
    given = [torch.from_numpy(arrays[name]) for name in first]
    plain = unrolled(module, given)
    record_shapes(plain, given)
    return write_model(plain, "the_net"), module, given


# tried by default
SAMPLE = ("SequenceMask", "_foreach", "_npx_reshape")


@pytest.mark.parametrize(
    "operator",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in SAMPLE))
        for name in sorted({operator.name for operator in OPERATORS.values()})
        if is_drawn(name)
    ],
)
def test_no_name_of_a_file_meets_what_its_operators_bring(operator: str, tmp_path: Path) -> None:
    """Every name that the text says, as the name of an input, a parameter and a value."""
    _, cases = read([operator])
    case = next(cases)
    if not case.arrays:
        pytest.skip("an array alone is no model")
    words = words_of(written_by(case, [f"plain{place}" for place in range(9)])[0].text)
    for order in (words, words[::-1]):
        made, module, given = written_by(case, order)
        alone = opened(made, tmp_path)
        for a, b in zip(outputs(module, *given), outputs(alone, *given), strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)
