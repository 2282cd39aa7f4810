"""Random small nets that are built twice, layer beside layer: clean pairs that must not alarm.

Every kind of layer that the models use takes part, and the ways in which people write the same net
differently: Gluon's activations inside Dense and Conv, its Dense that flattens by itself, a ReLU
that torch computes in place, hybridized nets, branches that meet again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mxnet.gluon import HybridBlock
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.cases.pairs import Case, set_equal_values

Shape = tuple[int, int, int]


class GluonResidual(HybridBlock):
    """x + body(x)."""

    def __init__(self, body: HybridBlock) -> None:
        super().__init__()
        self.body = body

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return x + self.body(x)


class TorchResidual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class _Builder:
    """Adds the same layer to two nets, and knows the shape that it has come to."""

    def __init__(self, generator: np.random.Generator, shape: Shape) -> None:
        self.generator = generator
        self.shape = shape
        self.gluon = gluon_nn.HybridSequential()
        self.torch: list[nn.Module] = []

    def pick(self, *options: Any) -> Any:
        return options[self.generator.integers(len(options))]

    def add(self, gluon: Any, *theirs: nn.Module) -> None:
        if gluon is not None:
            self.gluon.add(gluon)
        self.torch.extend(theirs)

    def conv(self) -> None:
        channels, height, width = self.shape
        groups = self.pick(1, 1, 2) if channels % 2 == 0 else 1
        kernel = self.pick(1, 3, 3, (3, 2), 5)
        rows, columns = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        pad, stride, dilation = self.pick(0, 1, 2), self.pick(1, 1, 2), self.pick(1, 1, 2)
        size = [
            (n + 2 * pad - dilation * (k - 1) - 1) // stride + 1
            for n, k in ((height, rows), (width, columns))
        ]
        if min(size) < 3:
            return
        out = int(self.pick(4, 6, 8))
        bias = self.pick(True, True, False)
        word, module = self.pick((None, None), ("relu", nn.ReLU), ("tanh", nn.Tanh))
        self.add(
            gluon_nn.Conv2D(
                out, kernel, stride, pad, dilation, groups,
                in_channels=channels, use_bias=bias, activation=word,
            ),
            nn.Conv2d(channels, out, kernel, stride, pad, dilation, groups, bias=bias),
            *([module()] if module else []),
        )  # fmt: skip
        self.shape = (out, *size)

    def pool(self) -> None:
        channels, height, width = self.shape
        kernel, stride = self.pick(2, 3), self.pick(1, 2)
        pad = self.pick(0, 1)
        size = tuple((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
        if min(size) < 2:
            return
        if self.pick(True, False):
            self.add(gluon_nn.MaxPool2D(kernel, stride, pad), nn.MaxPool2d(kernel, stride, pad))
        else:
            counted = self.pick(True, False)
            self.add(
                gluon_nn.AvgPool2D(kernel, stride, pad, count_include_pad=counted),
                nn.AvgPool2d(kernel, stride, pad, count_include_pad=counted),
            )
        self.shape = (channels, *size)

    def norm(self) -> None:
        channels, height, width = self.shape
        if height * width < 4:
            return
        eps, momentum = self.pick(1e-5, 1e-3), self.pick(0.9, 0.75)
        self.add(
            gluon_nn.BatchNorm(momentum=momentum, epsilon=eps, in_channels=channels),
            nn.BatchNorm2d(channels, eps=eps, momentum=1 - momentum),
        )

    def activation(self) -> None:
        pairs: list[Callable[[], tuple[Any, nn.Module]]] = [
            lambda: (gluon_nn.Activation("relu"), nn.ReLU(inplace=True)),
            lambda: (gluon_nn.Activation("sigmoid"), nn.Sigmoid()),
            lambda: (gluon_nn.Activation("tanh"), nn.Tanh()),
            lambda: (gluon_nn.LeakyReLU(0.1), nn.LeakyReLU(0.1)),
            lambda: (gluon_nn.Dropout(0.5), nn.Dropout(0.5)),
        ]
        self.add(*self.pick(*pairs)())

    def residual(self) -> None:
        channels = self.shape[0]
        ours, theirs = gluon_nn.HybridSequential(), nn.Sequential()
        ours.add(gluon_nn.Conv2D(channels, 3, padding=1, in_channels=channels))
        theirs.append(nn.Conv2d(channels, channels, 3, padding=1))
        ours.add(gluon_nn.Activation("tanh"))
        theirs.append(nn.Tanh())
        self.add(GluonResidual(ours), TorchResidual(theirs))

    def head(self) -> None:
        """From maps to logits: with or without a Flatten in Gluon, or through a global pool."""
        channels, height, width = self.shape
        features = channels * height * width
        style = self.pick("flatten", "dense flattens", "global")
        if style == "global":
            self.add(gluon_nn.GlobalAvgPool2D(), nn.AdaptiveAvgPool2d(1))
            features = channels
        self.add(gluon_nn.Flatten() if style == "flatten" else None, nn.Flatten())
        hidden = int(self.pick(24, 32))
        word, module = self.pick((None, nn.Identity), ("relu", nn.ReLU), ("sigmoid", nn.Sigmoid))
        dense = gluon_nn.Dense(hidden, in_units=features, activation=word)
        self.add(dense, nn.Linear(features, hidden), module())
        self.add(gluon_nn.Dense(10, in_units=hidden), nn.Linear(hidden, 10))


def random_case(seed: int) -> Case:
    """A random pair with equal weights; the same one for the same seed."""
    generator = np.random.default_rng(seed)
    shape = (int(generator.integers(1, 5)), 8, 8 + int(generator.integers(0, 5)))
    builder = _Builder(generator, shape)
    builder.conv()
    steps = (builder.conv, builder.pool, builder.norm, builder.activation, builder.residual)
    for _ in range(int(generator.integers(1, 5))):
        builder.pick(*steps)()
    builder.head()
    gluon_net, torch_net = builder.gluon, nn.Sequential(*builder.torch)
    set_equal_values(gluon_net, torch_net, seed)
    if generator.integers(2):
        gluon_net.hybridize()
    batch = int(generator.integers(1, 4))
    inputs = generator.standard_normal((batch, *shape)).astype(np.float32)
    labels = generator.integers(0, 10, batch) if generator.integers(2) else None
    return Case(f"random {seed}", gluon_net, torch_net, inputs, labels)
