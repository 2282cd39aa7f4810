"""Small nets written as one function over their children, for the tests of pairing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock
from torch import nn


class _Function:
    """A net of either framework that is one function over the children given by name."""

    def __init__(self, function: Callable[..., Any], **children: Any) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)


class GluonNet(_Function, HybridBlock):
    """`function(net, F, *inputs)`."""

    def hybrid_forward(self, F: Any, *inputs: Any) -> Any:
        return self.function(self, F, *inputs)


class ImperativeNet(_Function, Block):
    """The same on arrays alone: what it computes is no symbol."""

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


class TorchNet(_Function, nn.Module):
    """`function(net, *inputs)`."""

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def random_image(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(shape or (2, 4, 8, 8))
    return values.astype(np.float32)


def initialised(net: Block, *inputs: np.ndarray) -> Block:
    """The net with random weights and moving averages, and all shapes known."""
    mx.random.seed(0)
    net.initialize(mx.init.Xavier())
    with mx.autograd.pause():
        net(*map(mx.nd.array, inputs))
    generator = np.random.default_rng(1)
    for parameter in net.collect_params().values():
        if parameter.name.endswith(("gamma", "running_var")):
            parameter.set_data(mx.nd.array(generator.uniform(0.5, 1.5, parameter.shape)))
        elif parameter.name.endswith(("beta", "running_mean", "bias")):
            parameter.set_data(mx.nd.array(generator.uniform(-0.5, 0.5, parameter.shape)))
    return net
