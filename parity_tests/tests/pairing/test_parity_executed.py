"""Nets that were not written leaf for leaf: what they execute aligns, and faults are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mxnet import gluon
from mxnet.gluon import contrib
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.base import backend
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.tracing import flatten
from parity_tests.levels.view import trace_pair, view_of
from parity_tests.pairing.dataflow import Alignment
from parity_tests.pairing.parameters import align_nets, map_parameters, transfer_parameters
from parity_tests.reporting.html import page
from parity_tests.reporting.verdicts import Level, Side
from parity_tests.tests.pairing.nets import (
    GluonNet,
    ImperativeNet,
    TorchNet,
    initialised,
    random_image,
)


def conv(outputs: int = 4, kernel: int = 1, inputs: int = 4, **options: Any) -> gnn.Conv2D:
    return gnn.Conv2D(outputs, kernel, in_channels=inputs, **options)


def tconv(outputs: int = 4, kernel: int = 1, inputs: int = 4, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, **options)


class OwnSwish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class MemoryEfficientSwish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradients[0] * (s + x * s * (1 - s))


class WrongSwish(MemoryEfficientSwish):
    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * torch.sigmoid(ctx.saved_tensors[0])


class Scaled(gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = self.params.get("gamma", shape=(1, 4, 1, 1), init="ones")

    def hybrid_forward(self, F: Any, x: Any, gamma: Any) -> Any:
        return F.broadcast_mul(x, gamma)


class TorchScaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale.view(1, -1, 1, 1) * x


MASK = np.eye(4, dtype=np.float32)[:, :, None, None]


class GluonMasked(gluon.HybridBlock):
    """A convolution whose weight is a parameter times a fixed one: no input reaches the product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.params.get("weight", shape=MASK.shape)
        self.mask = self.params.get(
            "mask", shape=MASK.shape, grad_req="null", init=mx.init.Constant(mx.nd.array(MASK))
        )

    def hybrid_forward(self, F: Any, x: Any, weight: Any, mask: Any) -> Any:
        return F.Convolution(x, weight * mask, no_bias=True, kernel=(1, 1), num_filter=4)


class TorchMasked(nn.Module):
    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(MASK.shape))
        self.register_buffer("mask", torch.from_numpy(MASK.copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight * self.mask)


def _shuffle(x: Any) -> Any:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


@torch.jit.script
def _scripted(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) + x


def _filled(y: Any, value: Any) -> Any:
    y[:] = value
    return y


Pair = tuple[Callable[[], Any], Callable[[], nn.Module]]

EQUAL: dict[str, Pair] = {
    "relu module beside function": (
        lambda: GluonNet(lambda s, F, x: F.relu(s.c(x)), c=conv(5, 3)),
        lambda: TorchNet(lambda s, x: s.r(s.c(x)), c=tconv(5, 3), r=nn.ReLU(inplace=True)),
    ),
    "fused activation": (
        lambda: GluonNet(lambda s, F, x: s.c(x), c=conv(5, 3, activation="relu")),
        lambda: TorchNet(lambda s, x: F.relu(s.c(x)), c=tconv(5, 3)),
    ),
    "pool as function": (
        lambda: GluonNet(
            lambda s, F, x: s.c(F.contrib.AdaptiveAvgPooling2D(x, output_size=1)), c=conv(5)
        ),
        lambda: TorchNet(lambda s, x: s.c(s.p(x)), c=tconv(5), p=nn.AdaptiveAvgPool2d(1)),
    ),
    "pool as mean": (
        lambda: GluonNet(lambda s, F, x: s.d(s.p(x)), p=gnn.GlobalAvgPool2D(), d=gnn.Dense(3)),
        lambda: TorchNet(lambda s, x: s.d(x.mean([2, 3])), d=nn.Linear(4, 3)),
    ),
    "pool over the whole map": (
        lambda: GluonNet(lambda s, F, x: s.c(s.p(x)), p=gnn.AvgPool2D(8), c=conv(5)),
        lambda: TorchNet(lambda s, x: s.c(F.adaptive_avg_pool2d(x, 1)), c=tconv(5)),
    ),
    "batch norm over two values": (
        lambda: GluonNet(
            lambda s, F, x: F.relu(s.d(s.n(s.c(F.mean(x, axis=(2, 3), keepdims=True))))),
            c=conv(64), n=gnn.BatchNorm(in_channels=64), d=conv(5, inputs=64),
        ),
        lambda: TorchNet(
            lambda s, x: torch.relu(s.d(s.n(s.c(x.mean((2, 3), keepdim=True))))),
            c=tconv(64), n=nn.BatchNorm2d(64), d=tconv(5, inputs=64),
        ),
    ),
    "squeeze by convolutions": (
        lambda: GluonNet(
            lambda s, F, x: F.broadcast_mul(
                x, F.reshape(F.sigmoid(s.b(F.relu(s.a(s.p(x))))), (0, 0, 1, 1))
            ),
            p=gnn.GlobalAvgPool2D(), a=gnn.Dense(2, in_units=4), b=gnn.Dense(4, in_units=2),
        ),
        lambda: TorchNet(
            lambda s, x: x * s.b(s.a(x.mean((2, 3), keepdim=True)).relu()).sigmoid(),
            a=tconv(2), b=tconv(inputs=2),
        ),
    ),
    "module used twice": (
        lambda: GluonNet(
            lambda s, F, x: s.r2(s.c2(s.r1(s.c1(x)))),
            c1=conv(), r1=gnn.Activation("relu"), c2=conv(), r2=gnn.Activation("relu"),
        ),
        lambda: TorchNet(
            lambda s, x: s.r(s.c2(s.r(s.c1(x)))), c1=tconv(), r=nn.ReLU(), c2=tconv()
        ),
    ),
    "registration order": (
        lambda: GluonNet(lambda s, F, x: s.c2(s.c1(x)), c1=conv(), c2=conv()),
        lambda: TorchNet(lambda s, x: s.c2(s.c1(x)), c2=tconv(), c1=tconv()),
    ),
    "own swish": (
        lambda: GluonNet(lambda s, F, x: s.h(s.c(x)), c=conv(5, 3), h=gnn.Swish()),
        lambda: TorchNet(lambda s, x: s.h(s.c(x)), c=tconv(5, 3), h=OwnSwish()),
    ),
    "custom autograd function": (
        lambda: GluonNet(lambda s, F, x: s.h(s.c(x)), c=conv(5, 3), h=gnn.Swish()),
        lambda: TorchNet(lambda s, x: MemoryEfficientSwish.apply(s.c(x)), c=tconv(5, 3)),
    ),
    "hard swish spelt out": (
        lambda: GluonNet(lambda s, F, x: s.c(x * F.clip(x + 3, 0, 6) / 6), c=conv()),
        lambda: TorchNet(lambda s, x: s.c(F.hardswish(x)), c=tconv()),
    ),
    "hard sigmoid spelt out": (
        lambda: GluonNet(lambda s, F, x: s.c(x) * (F.clip(s.c(x) + 3, 0, 6) / 6), c=conv()),
        lambda: TorchNet(lambda s, x: s.c(x) * F.hardsigmoid(s.c(x)), c=tconv()),
    ),
    "pad as function": (
        lambda: GluonNet(
            lambda s, F, x: s.c(F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, 1, 0, 1))),
            c=conv(4, 3, strides=2),
        ),
        lambda: TorchNet(
            lambda s, x: s.c(s.p(x)), p=nn.ZeroPad2d((0, 1, 0, 1)), c=tconv(4, 3, stride=2)
        ),
    ),
    "bilinear resize": (
        lambda: GluonNet(
            lambda s, F, x: s.c(F.contrib.BilinearResize2D(x, height=16, width=16)), c=conv(4, 3)
        ),
        lambda: TorchNet(
            lambda s, x: s.c(
                F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=True)
            ),
            c=tconv(4, 3),
        ),
    ),
    "operators on arrays": (
        lambda: GluonNet(lambda s, F, x: s.c(F.relu(-F.abs(x) - 1)), c=conv()),
        lambda: TorchNet(lambda s, x: s.c(F.relu(-x.abs() - 1)), c=tconv()),
    ),
    "unused in both": (
        lambda: GluonNet(lambda s, F, x: s.c(x), c=conv(), z=gnn.Activation("tanh")),
        lambda: TorchNet(lambda s, x: s.c(x), c=tconv(), z=nn.Tanh()),
    ),
    "dense flattens": (
        lambda: GluonNet(lambda s, F, x: s.d(x), d=gnn.Dense(3, in_units=256)),
        lambda: TorchNet(lambda s, x: s.d(x.flatten(1)), d=nn.Linear(256, 3)),
    ),
    "batch norm on the last axis": (
        lambda: GluonNet(
            lambda s, F, x: s.b(F.transpose(x, (0, 2, 3, 1))), b=gnn.BatchNorm(axis=-1)
        ),
        lambda: TorchNet(lambda s, x: s.b(x).permute(0, 2, 3, 1), b=nn.BatchNorm2d(4)),
    ),
    "identities": (
        lambda: GluonNet(
            lambda s, F, x: s.i(s.c(x)), c=conv(), i=contrib.nn.Identity(), d=gnn.Dropout(0.5)
        ),
        lambda: TorchNet(
            lambda s, x: s.d(s.c(x.contiguous().clone())), c=tconv(), d=nn.Dropout(0.5)
        ),
    ),
    "identities in both modes": (
        lambda: GluonNet(
            lambda s, F, x: s.l(s.i(s.c(x))), c=conv(), i=contrib.nn.Identity(),
            l=gnn.HybridLambda("identity"),
        ),
        lambda: TorchNet(lambda s, x: s.j(s.i(s.c(x))), c=tconv(), i=nn.Identity(),
                         j=nn.Identity()),
    ),
    "halves of the channels": (
        lambda: GluonNet(
            lambda s, F, x: F.concat(s.a(F.split(x, 2, axis=1)[0]), F.split(x, 2, axis=1)[1]),
            a=conv(2, inputs=2),
        ),
        lambda: TorchNet(
            lambda s, x: torch.cat([s.a(x[:, :2]), x.chunk(2, 1)[1]], 1), a=tconv(2, inputs=2)
        ),
    ),
    "padded by zeros": (
        lambda: GluonNet(
            lambda s, F, x: F.concat(s.c(x), F.zeros_like(F.slice_axis(x, axis=1, begin=0, end=2))),
            c=conv(),
        ),
        lambda: TorchNet(lambda s, x: F.pad(s.c(x), (0, 0, 0, 0, 0, 2)), c=tconv()),
    ),
    "channel shuffle": (
        lambda: GluonNet(
            lambda s, F, x: s.c(
                F.reshape(F.swapaxes(F.reshape(x, (0, -4, 2, -1, -2)), 1, 2), (0, -3, -2))
            ),
            c=conv(),
        ),
        lambda: TorchNet(lambda s, x: s.c(_shuffle(x)), c=tconv()),
    ),
    "own parameter": (
        lambda: GluonNet(lambda s, F, x: s.p(s.c(x)), c=conv(), p=Scaled()),
        lambda: TorchNet(lambda s, x: s.p(s.c(x)), c=tconv(), p=TorchScaled()),
    ),
    "identical branches": (
        lambda: GluonNet(
            lambda s, F, x: F.concat(s.a(x), F.relu(s.b(x)) + s.d(x)), a=conv(), b=conv(), d=conv()
        ),
        lambda: TorchNet(
            lambda s, x: torch.cat((s.one(x), s.two(x) + s.three(x).relu()), 1),
            two=tconv(), three=tconv(), one=tconv(),
        ),
    ),
    "maxima among equal values that a ReLU made": (
        lambda: GluonNet(lambda s, F, x: _maxima(F, F.relu(s.c(x))), c=conv()),
        lambda: TorchNet(lambda s, x: _torch_maxima(s.c(x).relu()), c=tconv()),
    ),
    "tied weights": (
        lambda: GluonNet(lambda s, F, x: s.c(F.tanh(s.c(x))), c=conv()),
        lambda: TorchNet(lambda s, x: F.conv2d(s.c(x).tanh(), s.c.weight, s.c.bias), c=tconv()),
    ),
    "tuple output with the input": (
        lambda: GluonNet(lambda s, F, x: (s.c(x), x), c=conv()),
        lambda: TorchNet(lambda s, x: {"y": s.c(x), "none": None, "x": x}, c=tconv()),
    ),
    "nothing beside the output": (
        lambda: GluonNet(lambda s, F, x: (s.d(s.c(x)), None), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: {"none": None, "y": s.d(s.c(x))}, c=tconv(), d=tconv()),
    ),
    "imperative block": (
        lambda: ImperativeNet(
            lambda s, x: s.c(x[:, 1:3].reshape((0, -1)).relu()), c=gnn.Dense(3)
        ),
        lambda: TorchNet(lambda s, x: s.c(F.relu(x[:, 1:3].flatten(1))), c=nn.Linear(128, 3)),
    ),
    "an array that is filled": (
        lambda: ImperativeNet(
            lambda s, x: s.d(_filled(mx.nd.zeros(x.shape), s.c(x.copy()))), c=conv(), d=conv()
        ),
        lambda: TorchNet(
            lambda s, x: s.d(_filled(torch.zeros_like(x), s.c(x))), c=tconv(), d=tconv()
        ),
    ),
    "lambda blocks": (
        lambda: GluonNet(lambda s, F, x: s.l(s.c(x)), c=conv(), l=gnn.HybridLambda("tanh")),
        lambda: TorchNet(lambda s, x: s.c(x).tanh(), c=tconv()),
    ),
    "compiled function": (
        lambda: GluonNet(lambda s, F, x: (lambda y: F.tanh(y) + y)(s.c(x)), c=conv()),
        lambda: TorchNet(lambda s, x: _scripted(s.c(x)), c=tconv()),
    ),
    "data-dependent python": (
        lambda: GluonNet(lambda s, F, x: F.relu(s.c(x)), c=conv()),
        lambda: TorchNet(lambda s, x: F.relu(s.c(x)) if x.sum() > -1e9 else x, c=tconv()),
    ),
    "fixed mask on a weight": (
        lambda: GluonNet(lambda s, F, x: s.m(x), m=GluonMasked()),
        lambda: TorchNet(lambda s, x: s.m(x), m=TorchMasked()),
    ),
    "in place": (
        lambda: GluonNet(lambda s, F, x: F.relu(s.c(x) + x) * 2, c=conv()),
        lambda: TorchNet(lambda s, x: s.c(x).add_(x).relu_().mul_(2), c=tconv()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_equal_nets_align_completely(name: str) -> None:
    build_gluon, build_torch = EQUAL[name]
    x = random_image()
    gluon_net, torch_net = initialised(build_gluon(), x), build_torch()
    assert _aligned(gluon_net, torch_net, x).pairs


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    ("size", "smaller"), [((97, 131), (48, 65)), ((300, 200), (37, 29)), ((13, 17), (300, 111))]
)
def test_resizing_rounds_with_the_longer_side(
    size: tuple[int, int], smaller: tuple[int, int], corners: bool
) -> None:
    def forward(s: Any, F: Any, x: Any) -> Any:
        height, width = smaller
        options = {"height": height, "width": width, "align_corners": corners}
        return F.contrib.BilinearResize2D(s.c(x), **options)

    x = random_image(1, 2, *size)
    gluon_net = initialised(GluonNet(forward, c=gnn.Conv2D(2, 1, in_channels=2)), x)
    for align in (corners, not corners):
        torch_net = TorchNet(
            lambda s, x, align=align: F.interpolate(
                s.c(x), smaller, mode="bilinear", align_corners=align
            ),
            c=nn.Conv2d(2, 2, 1),
        )
        assert check_parity(gluon_net, torch_net, x, transfer=True).ok is (align == corners)


def _explain(alignment: Alignment) -> str:
    lines = [f"alone: {op}" for side in alignment.alone for op in side]
    lines += [f"{p.left} | {p.right}: {d}" for p in alignment.differing for d in p.differences]
    return "\n".join([*lines, *map(str, alignment.outputs), str(alignment.unmapped)])


def _aligned(gluon_net: Any, torch_net: nn.Module, x: np.ndarray) -> Alignment:
    """Require that both execute the same, and give the same with the weights of one."""
    alignment = align_nets(gluon_net, torch_net, [x])
    assert alignment.equal, _explain(alignment)
    transfer_parameters(gluon_net, torch_net, [x])
    np.testing.assert_allclose(_torch(torch_net, x), _gluon(gluon_net, x), rtol=1e-4, atol=1e-5)
    return alignment


def _gluon(net: Any, x: np.ndarray) -> np.ndarray:
    out = net(mx.nd.array(x))
    return (out[0] if isinstance(out, (tuple, list)) else out).asnumpy()


def _torch(net: nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        out = net.eval()(torch.from_numpy(x))
    return (out["y"] if isinstance(out, dict) else out).numpy()


@pytest.mark.parametrize("layer", ["LSTM", "GRU"])
def test_a_recurrent_layer_is_one_operation(layer: str) -> None:
    x = random_image(3, 2, 4)
    block = getattr(gluon.rnn, layer)(5, num_layers=2, bidirectional=True, input_size=4)
    gluon_net = initialised(GluonNet(lambda s, F, x: s.l(x), l=block), x)
    module = getattr(nn, layer)(4, 5, num_layers=2, bidirectional=True)
    torch_net = TorchNet(lambda s, x: s.l(x)[0], l=module)
    pairs = _aligned(gluon_net, torch_net, x).pairs
    assert [pair.left.kind for pair in pairs] == [layer.lower()]


def unrolled(s: Any, x: Any) -> Any:
    states = s.l.begin_state(2)
    for step in range(3):
        out, states = s.l(x[step], states)
    return out


def torch_unrolled(s: Any, x: torch.Tensor) -> torch.Tensor:
    state = None
    for step in x:
        state = s.l(step, state)
    return state if isinstance(state, torch.Tensor) else state[0]  # type: ignore[index]


def cells(cell: str) -> tuple[Any, TorchNet, np.ndarray]:
    x = random_image(3, 2, 4)
    block = getattr(gluon.rnn, cell)(5, input_size=4)
    gluon_net = initialised(ImperativeNet(unrolled, l=block), x)
    return gluon_net, TorchNet(torch_unrolled, l=getattr(nn, cell)(4, 5)), x


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_recurrent_cell_is_in_parity_with_a_cell(cell: str) -> None:
    gluon_net, torch_net, x = cells(cell)
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert report.ok, str(report)
    torch_net.function = lambda s, x: torch_unrolled(s, x * (1 + 1e-5))
    assert not check_parity(gluon_net, torch_net, x, levels=("structure",), transfer=True).ok


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell"])
def test_a_recurrent_cell_is_one_operation(cell: str) -> None:
    _aligned(*cells(cell))


def test_a_symbol_block_aligns_node_by_node(tmp_path: Any) -> None:
    x = random_image()
    net = gnn.HybridSequential()
    net.add(conv(5, 3, activation="relu"), gnn.BatchNorm(), gnn.Dense(3))
    initialised(net, x).hybridize()
    net(mx.nd.array(x))
    net.export(str(tmp_path / "net"))
    block = gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    torch_net = nn.Sequential(
        tconv(5, 3), nn.ReLU(), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(180, 3)
    )
    report = check_parity(block, torch_net, x, transfer=True)
    assert report.ok, str(report)
    _aligned(block, torch_net, x)


FAULTS: dict[str, tuple[*Pair, str]] = {
    "stride": (
        lambda: GluonNet(lambda s, F, x: F.relu(s.c(x)), c=conv(16, 3, padding=1)),
        lambda: TorchNet(lambda s, x: s.c(x).relu(), c=tconv(16, 3, stride=2, padding=1)),
        "stride",
    ),
    "align corners": (
        lambda: GluonNet(
            lambda s, F, x: s.c(F.contrib.BilinearResize2D(x, height=16, width=16)), c=conv(4, 3)
        ),
        lambda: TorchNet(
            lambda s, x: s.c(
                F.interpolate(x, size=(16, 16), mode="bilinear", align_corners=False)
            ),
            c=tconv(4, 3),
        ),
        "align_corners",
    ),
    "another function": (
        lambda: GluonNet(lambda s, F, x: s.d(F.relu(s.c(x))), c=conv(5, 3), d=conv(inputs=5)),
        lambda: TorchNet(lambda s, x: s.d(F.elu(s.c(x))), c=tconv(5, 3), d=tconv(inputs=5)),
        "kind",
    ),
    "shortcut taken behind the activation": (
        lambda: GluonNet(
            lambda s, F, x: (lambda y: s.d(F.relu(y) + y))(s.c(x)), c=conv(), d=conv()
        ),
        lambda: TorchNet(
            lambda s, x: (lambda z: s.d(z + z))(s.c(x).relu()), c=tconv(), d=tconv()
        ),
        "reads",
    ),
    "epsilon": (
        lambda: GluonNet(lambda s, F, x: s.b(s.c(x)), c=conv(), b=gnn.BatchNorm(epsilon=1e-3)),
        lambda: TorchNet(lambda s, x: s.b(s.c(x)), c=tconv(), b=nn.BatchNorm2d(4)),
        "eps",
    ),
    "dropout always on": (
        lambda: GluonNet(lambda s, F, x: s.d(s.c(x)), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: s.d(F.dropout(s.c(x), 0.3)), c=tconv(), d=tconv()),
        "alone dropout",
    ),
    "activation missing": (
        lambda: GluonNet(
            lambda s, F, x: s.e(F.relu(s.d(F.relu(s.c(x))))), c=conv(), d=conv(), e=conv()
        ),
        lambda: TorchNet(
            lambda s, x: s.e(s.d(s.c(x).relu())), c=tconv(), d=tconv(), e=tconv()
        ),
        "alone relu",
    ),
}  # fmt: skip


# What only the values show: `check_parity` must find it at this level and path
OF_VALUES: dict[str, tuple[*Pair, Level, str]] = {
    "wrong backward of a custom function": (
        lambda: GluonNet(lambda s, F, x: s.h(s.c(x)), c=conv(5, 3), h=gnn.Swish()),
        lambda: TorchNet(lambda s, x: WrongSwish.apply(s.c(x)), c=tconv(5, 3)),
        Level.BACKWARD, "mul",
    ),
    "equal maxima that no ReLU made": (
        lambda: GluonNet(lambda s, F, x: F.max(_doubled(F, F.tanh(s.c(x))), axis=1), c=conv()),
        lambda: TorchNet(lambda s, x: torch.cat((y := s.c(x).tanh(), y), 1).amax(1), c=tconv()),
        Level.BACKWARD, "amax",
    ),
    "gradient cut by detach": (
        lambda: GluonNet(lambda s, F, x: s.d(F.tanh(s.c(x))), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: s.d(s.c(x).tanh().detach()), c=tconv(), d=tconv()),
        Level.BACKWARD, "d",
    ),
    "gradient cut twice, first on the way back at d": (
        lambda: GluonNet(lambda s, F, x: s.d(F.tanh(s.c(F.sin(x)))), c=conv(), d=conv()),
        lambda: TorchNet(
            lambda s, x: s.d(s.c(x.sin().detach()).tanh().detach()), c=tconv(), d=tconv()
        ),
        Level.BACKWARD, "d",
    ),
    "gradient of a shortcut cut": (
        lambda: GluonNet(lambda s, F, x: s.d(_plus_itself(s.c(x))), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: s.d(_plus_detached(s.c(x))), c=tconv(), d=tconv()),
        Level.BACKWARD, "add",
    ),
    "gradient cut by BlockGrad": (
        lambda: GluonNet(lambda s, F, x: s.d(F.BlockGrad(F.tanh(s.c(x)))), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: s.d(s.c(x).tanh()), c=tconv(), d=tconv()),
        Level.BACKWARD, "d",
    ),
    "gradient cut by no_grad": (
        lambda: GluonNet(lambda s, F, x: s.d(F.tanh(s.c(x))), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: s.d(_without_gradient(s.c(x))), c=tconv(), d=tconv()),
        Level.BACKWARD, "tanh",
    ),
    "a factor that is nearly one": (
        lambda: GluonNet(lambda s, F, x: s.d(F.tanh(s.c(x))), c=conv(), d=conv()),
        lambda: TorchNet(lambda s, x: s.d(s.c(x).tanh() * (1 + 3e-6)), c=tconv(), d=tconv()),
        Level.STRUCTURE, "tanh",
    ),
}  # fmt: skip


def _plus_itself(x: Any) -> Any:
    return x * 0.5 + x


def _plus_detached(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 + x.detach()


def _doubled(F: Any, y: Any) -> Any:
    return F.concat(y, y, dim=1)


def _maxima(F: Any, y: Any) -> tuple[Any, ...]:
    ends = [F.slice_axis(y, axis=1, begin=i, end=i + 1) for i in (0, 3)]
    corner = F.slice(y, begin=(None, None, 0, 0), end=(None, None, 2, 2))
    return y, F.max(y, axis=1), F.max(F.concat(*ends, dim=1), axis=1), F.max(corner, axis=(2, 3))


def _torch_maxima(y: torch.Tensor) -> dict[str, torch.Tensor]:
    ends, corner = torch.cat((y[:, :1], y[:, 3:]), 1), y[:, :, :2, :2]
    return {"y": y, "max": y.amax(1), "of some": ends.max(1)[0], "of less": corner.amax((2, 3))}


def _without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return x.tanh()


# Not so in training, where only torch's net has a dropout that runs
IN_INFERENCE = ("identities",)


@pytest.mark.parametrize("name", [name for name in EQUAL if name not in IN_INFERENCE])
def test_equal_nets_are_in_parity(name: str) -> None:
    build_gluon, build_torch = EQUAL[name]
    x = random_image()
    report = check_parity(initialised(build_gluon(), x), build_torch(), x, transfer=True)
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}


# At which path some of them are named
PLACES = {"stride": "c", "align corners": "interpolate", "another function": "elu"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_first_divergence(name: str) -> None:
    build_gluon, build_torch, where = FAULTS[name]
    x = random_image()
    report = check_parity(initialised(build_gluon(), x), build_torch(), x, transfer=True)
    first = report.first_divergence
    assert first is not None
    assert first.level == Level.STRUCTURE
    assert where.removeprefix("alone ").replace("_", "") in str(first).replace("_", "")
    assert first.path == PLACES.get(name, first.path)


@pytest.mark.parametrize("name", OF_VALUES)
def test_what_only_values_show_is_found_at_its_operation(name: str) -> None:
    build_gluon, build_torch, level, path = OF_VALUES[name]
    x = random_image()
    report = check_parity(initialised(build_gluon(), x), build_torch(), x, transfer=True)
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path) == (level, path)


def test_what_follows_from_a_fault_is_not_counted_at_its_own_layer() -> None:
    layers = {name: (conv(), tconv()) for name in "abc"}
    gluon_net = GluonNet(
        lambda s, F, x: s.c(F.relu(s.b(F.relu(s.a(x))))), **{n: g for n, (g, _) in layers.items()}
    )
    torch_net = TorchNet(
        lambda s, x: s.c(s.b(nn.functional.elu(s.a(x))).relu()),
        **{n: t for n, (_, t) in layers.items()},
    )
    x = random_image()
    report = check_parity(initialised(gluon_net, x), torch_net, x, transfer=True)
    causes = [row for row in report.failures if id(row) not in report.consequences]
    assert {row.path for row in causes} == {"elu"}
    assert {row.path for row in report.failures} > {"elu", "b", "c", "(net)"}
    assert f"{len(report.consequences)} more comparisons differ only" in page([report])


@pytest.mark.parametrize("name", EQUAL)
def test_a_net_of_segments_computes_what_the_net_computes(name: str) -> None:
    build_gluon, build_torch = EQUAL[name]
    x = random_image()
    nets = {Side.GLUON: initialised(build_gluon(), x), Side.TORCH: build_torch().eval()}
    traced, refused = trace_pair(nets, (x,))
    assert not refused
    rebuilt = view_of(nets, traced[0], (x,)).nets
    for side, net in nets.items():
        ours = backend(side).run_net(rebuilt[side], (x,), "float32").outputs
        with torch.no_grad():
            whole = net(mx.nd.array(x) if side == Side.GLUON else torch.from_numpy(x))
        kind = mx.nd.NDArray if side == Side.GLUON else torch.Tensor
        theirs = [y.asnumpy() if side == Side.GLUON else y.numpy() for y in flatten(whole, kind)]
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_squeeze_is_cut_at_each_of_its_operations() -> None:
    def squeeze(F: Any) -> Callable[..., Any]:
        return lambda s, x: x * F.sigmoid(s.d(F.relu(s.c(s.p(x)))))

    x = random_image()
    nets = {
        Side.GLUON: initialised(
            GluonNet(lambda s, F, x: F.broadcast_mul(x, F.sigmoid(s.d(F.relu(s.c(s.p(x)))))),
                     p=gnn.GlobalAvgPool2D(), c=conv(2), d=conv(4, inputs=2)), x
        ),
        Side.TORCH: TorchNet(squeeze(torch), p=nn.AdaptiveAvgPool2d(1), c=tconv(2),
                             d=tconv(4, inputs=2)),
    }  # fmt: skip
    traced, _ = trace_pair(nets, (x,))
    kinds = [pair.torch.kind for pair in view_of(nets, traced[0], (x,)).pairing.pairs]
    assert kinds == ["global_avg_pool2d", "dense", "relu", "dense", "sigmoid", "mul"]


def test_indices_that_are_floats_have_no_gradient() -> None:
    gluon_net = GluonNet(lambda s, F, x: s.e(x), e=gnn.Embedding(10, 5))
    torch_net = TorchNet(lambda s, x: s.e(x.long()), e=nn.Embedding(10, 5))
    x = np.array([[1, 2], [3, 4]], np.float32)
    report = check_parity(initialised(gluon_net, x), torch_net, x, transfer=True)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.bfloat16(), "c.weight is bfloat16"),
        (lambda t: t.to("meta"), "meta device"),
        (lambda t: nn.Sequential(nn.LazyConv2d(4, 1)), "0.weight holds no values yet"),
        (lambda t: torch.jit.script(nn.Sequential(t.c)), "a ScriptModule"),
    ],
    ids=["bfloat16", "meta", "lazy", "script"],
)
def test_values_that_numpy_cannot_hold_are_refused(change: Any, words: str) -> None:
    x = random_image()
    gluon_net = initialised(GluonNet(lambda s, F, x: s.c(x), c=conv()), x)
    with pytest.raises(ParityError, match=words):
        check_parity(gluon_net, change(TorchNet(lambda s, x: s.c(x), c=tconv())), x)


@pytest.mark.parametrize("cast", [True, False], ids=["cast", "autocast"])
def test_bfloat16_inside_a_forward_is_refused_in_words(cast: bool) -> None:
    def forward(s: Any, x: torch.Tensor) -> Any:
        if cast:
            return s.c(x).bfloat16().relu().float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return s.c(x).relu().float()

    x = random_image()
    gluon_net = GluonNet(lambda s, F, x: F.relu(s.c(x)), c=gnn.Conv2D(4, 1, in_channels=4))
    torch_net = TorchNet(forward, c=nn.Conv2d(4, 4, 1))
    with pytest.raises(ParityError, match=r"torch gives bfloat16 in .* is not compared"):
        check_parity(initialised(gluon_net, x), torch_net, x)


def test_compiled_code_is_compared_by_the_module_it_was_made_of() -> None:
    x = random_image()
    gluon_net = initialised(GluonNet(lambda s, F, x: s.c(x), c=conv()), x)
    compiled = torch.compile(TorchNet(lambda s, x: s.c(x), c=tconv()), backend="eager")
    assert check_parity(gluon_net, compiled, x, transfer=True, levels=["weights"]).ok


def test_a_value_that_is_a_bound_exactly_passes_its_gradient_in_mxnet_alone() -> None:
    """1 + 2⁻³⁰ − 1 is 0 in float32: MXNet's clip passes its gradient there, torch's relu6 not."""
    x = random_image()
    x[0, :, 2, 2] = 1, 2.0**-30, 1, 0
    gluon_net = initialised(GluonNet(lambda s, F, x: F.clip(s.c(x), 0, 6), c=conv()), x)
    gluon_net.c.weight.set_data(mx.nd.array([[1, 1, -1, 0]] * 4).reshape((4, 4, 1, 1)))
    gluon_net.c.bias.set_data(mx.nd.zeros(4))
    torch_net = TorchNet(lambda s, x: F.relu6(s.c(x)), c=tconv())
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert report.ok, str(report)


class Normalised(gluon.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.scale = self.params.get_constant("scale", mx.nd.array([[[[0.3]]]]))

    def hybrid_forward(self, F: Any, x: Any, scale: Any) -> Any:
        return F.broadcast_div(x, scale)


class NormalisedTorch(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((1, 1, 1, 1), scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x / self.get_buffer("scale")
        return y


def test_constants_are_compared_and_not_transferred() -> None:
    x, gluon_net = random_image(), initialised(Normalised(), random_image())
    levels = ["weights", "forward"]
    same, other = (
        check_parity(gluon_net, NormalisedTorch(scale), x, transfer=True, levels=levels)
        for scale in (0.3, 0.31)
    )
    assert same.ok, str(same)
    first = other.first_divergence
    assert first is not None
    assert (first.level, first.quantity) == ("weights", "parameter")
    assert first.diagnosis.startswith("another constant scale: 1 of 1 values differ, by up to 0.01")


ROW = (1, 4)


def _halves(y: Any, left: float, right: float) -> Any:
    y[:, :2] = left
    y[:, 2:] = right
    return y


# What both nets make of no array, and what torch makes otherwise
MADE: dict[str, tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]] = {
    "zeros": (
        lambda: mx.nd.zeros(ROW),
        lambda: torch.zeros(ROW),
        lambda: torch.full(ROW, 0.01),
    ),
    "ones": (
        lambda: mx.nd.ones(ROW, ctx=mx.cpu()),
        lambda: torch.ones(ROW, dtype=torch.float32),
        lambda: torch.ones(ROW) * 1.01,
    ),
    "whole numbers": (
        lambda: mx.nd.ones(ROW, dtype="int32").astype("float32"),
        lambda: torch.ones(ROW, dtype=torch.int64),
        lambda: torch.full(ROW, 2),
    ),
    "full": (
        lambda: mx.nd.full(ROW, 0.1),
        lambda: torch.full(ROW, 0.1),
        lambda: torch.full(ROW, 0.11),
    ),
    "arange": (
        lambda: mx.nd.arange(0, 0.4, 0.1).reshape(ROW),
        lambda: torch.arange(0, 0.4, 0.1).view(ROW),
        lambda: torch.arange(0, 0.8, 0.2).view(ROW),
    ),
    "linspace": (
        lambda: mx.nd.linspace(0, 1, 4).reshape(ROW),
        lambda: torch.linspace(0, 1, 4).view(ROW),
        lambda: torch.linspace(0, 2, 4).view(ROW),
    ),
    "eye": (
        lambda: mx.nd.eye(2, 4, dtype="float32"),
        lambda: torch.eye(2, 4),
        lambda: torch.eye(4)[2:],
    ),
    "assigned": (
        lambda: _halves(mx.nd.zeros(ROW), 0.1, 0.2),
        lambda: _halves(torch.zeros(ROW), 0.1, 0.2),
        lambda: _halves(torch.zeros(ROW), 0.1, 0.1),
    ),
    "array": (
        lambda: mx.nd.array([[0.1, 2, 3.3, 4]]),
        lambda: torch.tensor([[0.1, 2, 3.3, 4]]),
        lambda: torch.tensor([[0.1, 2, 3.3, 5]]),
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_what_a_forward_makes_of_no_array_is_of_the_net_s_dtype(name: str) -> None:
    ours, *both = MADE[name]
    x = random_image(2, 4)
    dense = {"c": gnn.Dense(4, in_units=4), "d": gnn.Dense(3, in_units=4)}
    net = initialised(ImperativeNet(lambda s, x: s.d(s.c(x) + ours()), **dense), x)
    for theirs, right in zip(both, (True, False), strict=True):
        linear = {"c": nn.Linear(4, 4), "d": nn.Linear(4, 3)}
        other = TorchNet(lambda s, x, made=theirs: s.d(s.c(x) + made()), **linear)
        report = check_parity(net, other, x, transfer=True)
        assert report.ok == right, str(report)


@pytest.mark.parametrize(("scale", "right"), [(1.0, True), (1 + 3e-4, False)])
def test_what_mxnet_computes_in_float32_has_its_bound(scale: float, right: bool) -> None:
    """RNN's mode relu, alone of its modes, and the slope of 1/6 of a hard swish in two steps."""
    x = random_image(5, 2, 4)
    layer = gluon.rnn.RNN(3, activation="relu", input_size=4)
    torch_net = TorchNet(lambda s, x: s.r(x * scale)[0], r=nn.RNN(4, 3, nonlinearity="relu"))
    gluon_net = initialised(GluonNet(lambda s, F, x: s.r(x), r=layer), x)
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert report.ok == right, str(report)

    x = random_image()
    gluon_net = GluonNet(
        lambda s, F, x: (lambda y: y * F.hard_sigmoid(y, alpha=1 / 6))(s.c(x)), c=conv()
    )
    torch_net = TorchNet(lambda s, x: F.hardswish(s.c(x)) * scale, c=tconv())
    report = check_parity(initialised(gluon_net, x), torch_net, x, transfer=True)
    assert report.ok == right, str(report)


@pytest.mark.parametrize(
    "cast",
    [lambda y: y.float(), lambda y: y.to(torch.float32), lambda y: y.type(torch.float32)],
    ids=["float", "to", "type"],
)
def test_a_cast_that_changes_nothing_in_float32_changes_nothing_in_float64(cast: Any) -> None:
    x = random_image()
    gluon_net = initialised(GluonNet(lambda s, F, x: s.d(s.c(x)), c=conv(), d=conv()), x)
    for scale, right in ((1.0, True), (1 + 3e-6, False)):
        torch_net = TorchNet(
            lambda s, x, scale=scale: s.d(cast(s.c(x)) * scale), c=tconv(), d=tconv()
        )
        if right:
            torch_net.function = lambda s, x: s.d(cast(s.c(x)))
        report = check_parity(gluon_net, torch_net, x, transfer=True)
        assert report.ok == right, str(report)


def test_a_projection_has_its_partner() -> None:
    x = random_image(5, 2, 4)
    layer = gluon.rnn.LSTM(5, projection_size=3, input_size=4)
    gluon_net = initialised(GluonNet(lambda s, F, x: s.r(x), r=layer), x)
    torch_net = TorchNet(lambda s, x: s.r(x)[0], r=nn.LSTM(4, 5, proj_size=3))
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert not [row for row in report.rows if row.status == "diverged"], str(report)
    # MXNet's CPU has no training of it, which is said
    assert {row.detail.partition(":")[0] for row in report.failures} == {"gluon did not run"}
    other = check_parity(gluon_net, torch_net, x, levels=("weights",))
    assert "weight_hr_l0" in {row.quantity for row in other.failures}, str(other)


class Frozen(nn.BatchNorm2d):
    """Its statistics are never those of a batch."""

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)


@pytest.mark.parametrize(("frozen", "right"), [(True, True), (False, False)])
def test_a_batch_norm_that_refuses_to_train_has_its_own_statistics(
    frozen: bool, right: bool
) -> None:
    x = random_image()
    norm = gnn.BatchNorm(in_channels=4, use_global_stats=frozen)
    gluon_net = initialised(GluonNet(lambda s, F, x: s.m(s.c(x)), c=conv(), m=norm), x)
    torch_net = TorchNet(lambda s, x: s.m(s.c(x)), c=tconv(), m=Frozen(4))
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    assert report.ok == right, str(report)


class HeldNormalised(nn.Module):
    """The scale as an attribute that is no buffer."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = torch.full((1, 1, 1, 1), scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / self.scale.to(x.dtype)


@pytest.mark.parametrize(("scale", "right"), [(0.3, True), (0.31, False)])
def test_a_constant_may_be_an_attribute_of_the_other_net(scale: float, right: bool) -> None:
    x, gluon_net = random_image(), initialised(Normalised(), random_image())
    report = check_parity(gluon_net, HeldNormalised(scale), x, transfer=True)
    assert report.ok == right, str(report)
    assert (Level.WEIGHTS in {row.level for row in report.failures}) != right, str(report)


@pytest.mark.parametrize(("first", "words"), [(1, ""), (0, "key")])
def test_an_assignment_to_a_part_is_compared_where_mxnet_computes_it(
    first: int, words: str
) -> None:
    def shifted(y: Any, value: Any, first: int = 1) -> Any:
        y[:, first : first + 3, 0] = value[:, :3, 0]
        y[..., -1] = 0.5
        return y

    x = random_image()
    gluon_net = initialised(
        ImperativeNet(lambda s, x: s.d(shifted(x.copy(), s.c(x))), c=conv(), d=conv()), x
    )
    torch_net = TorchNet(lambda s, x: s.d(shifted(x.clone(), s.c(x), first)), c=tconv(), d=tconv())
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    failed = {row.level: row for row in reversed(report.failures)}
    assert words == (failed[Level.STRUCTURE].quantity if Level.STRUCTURE in failed else "")
    assert (Level.FORWARD in failed) == bool(words)
    # MXNet assigns to a part of no array that it will differentiate
    assert failed[Level.BACKWARD].detail.startswith("gluon did not run: MXNetError")


def test_what_may_differ_is_allowed_by_name_and_shown() -> None:
    build_gluon, build_torch, _ = FAULTS["another function"]
    x = random_image()
    gluon_net, torch_net = initialised(build_gluon(), x), build_torch()
    options: dict[str, Any] = {"transfer": True, "levels": ("structure",)}
    report = check_parity(gluon_net, torch_net, x, allow={"elu": "it was meant so"}, **options)
    assert report.ok, str(report)
    assert "allowed, it was meant so: " in report.notes[0].detail
    with pytest.raises(ParityError, match="no path of this pair"):
        check_parity(gluon_net, torch_net, x, allow={"nowhere": "a reason"}, **options)
    with pytest.raises(ParityError, match="no reason"):
        check_parity(gluon_net, torch_net, x, allow={"elu": " "}, **options)


def test_weights_that_were_initialised_separately_are_recognised() -> None:
    build_gluon, build_torch, _ = FAULTS["activation missing"]
    x = random_image()
    report = check_parity(initialised(build_gluon(), x), build_torch(), x, levels=("weights",))
    assert report.first_divergence is not None
    assert "--transfer" in report.first_divergence.diagnosis


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_at_its_operation_and_nowhere_else(name: str) -> None:
    build_gluon, build_torch, where = FAULTS[name]
    x = random_image()
    alignment = align_nets(initialised(build_gluon(), x), build_torch(), [x])
    alone = [f"alone {op.kind}" for side in alignment.alone for op in side]
    differing = {d.what for p in alignment.differing for d in p.differences}
    assert not alignment.equal
    assert where in alone or any(what.startswith(where) for what in differing), _explain(alignment)
    assert len(alone) <= 1
    assert len(alignment.differing) == (0 if alone else 1), _explain(alignment)
    assert alignment.total


def test_an_operation_that_only_libraries_call_says_its_path_and_not_who_checks() -> None:
    ours = gnn.HybridSequential()
    ours.add(gnn.Conv2D(4, 3), gnn.Activation("relu"), gnn.Conv2D(2, 3))
    x = random_image()
    theirs = nn.Sequential(nn.Conv2d(x.shape[1], 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3))
    alignment = align_nets(initialised(ours, x), theirs, [x])
    (pair,) = alignment.differing
    assert [(op.kind, op.path, op.source) for op in pair] == [("relu", "1", ""), ("tanh", "1", "")]


def test_an_operation_says_where_it_was_called() -> None:
    x = random_image()
    build_gluon, build_torch, _ = FAULTS["another function"]
    alignment = align_nets(initialised(build_gluon(), x), build_torch(), [x])
    (pair,) = alignment.differing
    assert (pair.left.kind, pair.right.kind) == ("relu", "elu")
    for op in pair:
        assert op.source.rpartition(":")[0] == __file__
        assert op.path == ""
    assert {p.right.path for p in alignment.pairs} == {"c", "", "d"}


def test_values_decide_between_branches_that_are_alike() -> None:
    def gluon_forward(s: Any, F: Any, x: Any) -> Any:
        return s.a(x) + s.b(x)

    x = random_image()
    gluon_net = initialised(GluonNet(gluon_forward, a=conv(), b=conv()), x)
    torch_net = TorchNet(lambda s, x: s.b(x) + s.a(x), a=tconv(), b=tconv())
    for name in ("a", "b"):
        block, module = getattr(gluon_net, name), getattr(torch_net, name)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(block.weight.data().asnumpy()))
            module.bias.copy_(torch.from_numpy(block.bias.data().asnumpy()))
    alignment = align_nets(gluon_net, torch_net, [x], values=True)
    assert alignment.equal
    assert alignment.parameters == {n: n for n in ("a.weight", "a.bias", "b.weight", "b.bias")}


def test_training_keeps_dropout_and_inference_drops_it() -> None:
    x = random_image()
    gluon_net = initialised(GluonNet(lambda s, F, x: s.d(x), d=gnn.Dropout(0.25)), x)
    torch_net = TorchNet(lambda s, x: s.d(x), d=nn.Dropout2d(0.25))
    assert align_nets(gluon_net, torch_net, [x]).equal
    (pair,) = align_nets(gluon_net, torch_net, [x], train=True).differing
    assert [d.what for d in pair.differences] == ["axes"]


def test_a_parameter_without_a_partner_is_an_error() -> None:
    x = random_image()
    gluon_net = initialised(GluonNet(lambda s, F, x: s.c(x), c=conv()), x)
    torch_net = TorchNet(lambda s, x: s.d(s.c(x)), c=tconv(), d=nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"torch alone has d\.weight"):
        map_parameters(gluon_net, torch_net, [x])


def test_tracing_leaves_both_nets_as_they_were() -> None:
    x = random_image()
    gluon_net = initialised(
        GluonNet(lambda s, F, x: s.d(s.b(x)), b=gnn.BatchNorm(), d=gnn.Dropout(0.5)), x
    )
    gluon_net.hybridize()
    expected = _gluon(gluon_net, x)
    torch_net = TorchNet(lambda s, x: s.d(s.b(x)), b=nn.BatchNorm2d(4), d=nn.Dropout())
    state = {k: v.clone() for k, v in torch_net.state_dict().items()}
    before = torch.random.get_rng_state()
    align_nets(gluon_net, torch_net, [x], train=True)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(module.training for module in torch_net.modules())
    for name, value in torch_net.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert gluon_net._active
    np.testing.assert_array_equal(_gluon(gluon_net, x), expected)
