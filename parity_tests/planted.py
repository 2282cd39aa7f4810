"""Faults planted into a clean pair, and where each must be caught.

Each imitates one that existing checkers let through: values compared by their means, `abs`
forgotten, weights of one shape exchanged, gradients read from the wrong pass, a graph that is not
the net. `plant` changes the pair in place; the report must then name `level` and `path` first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.cases import Case

__all__ = ["PLANTED", "Fault"]


@dataclass(frozen=True)
class Fault:
    """`model` is the clean pair; `source` says where the fault was met."""

    name: str
    model: str
    level: str
    path: str
    plant: Callable[[Case], None]
    source: str


def _replace(path: str, make: Callable[[nn.Module], nn.Module]) -> Callable[[Case], None]:
    def plant(case: Case) -> None:
        case.torch_net.set_submodule(path, make(case.torch_net.get_submodule(path)))

    return plant


def _weights(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Case], None]:
    def plant(case: Case) -> None:
        parameter = case.torch_net.get_parameter(path)
        changed = change(parameter.detach().numpy().copy())
        assert not np.array_equal(changed, parameter.detach().numpy())
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(changed))

    return plant


def _exchange(first: str, second: str) -> Callable[[Case], None]:
    def plant(case: Case) -> None:
        one, other = (case.torch_net.get_parameter(path) for path in (first, second))
        assert one.shape == other.shape
        with torch.no_grad():
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)

    return plant


def _turn(path: str, cls: type[nn.Module]) -> Callable[[Case], None]:
    """Let a layer compute something else while it looks the same: a faulty operator, not a net."""

    def plant(case: Case) -> None:
        case.torch_net.get_submodule(path).__class__ = cls

    return plant


def _step_ulps(array: np.ndarray, count: int) -> np.ndarray:
    value = array.reshape(-1)[array.size // 2 :][:1]
    for _ in range(count):
        value[:] = np.nextafter(value, np.float32(np.inf))
    return array


class _FlippedKernel(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.weight.flip(2, 3), self.bias)


class _DroppedWindow(nn.MaxPool2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pooled = super().forward(input)
        return torch.cat([pooled[..., :-1], pooled[..., -2:-1]], dim=-1)


class _CoarseSigmoid(nn.Sigmoid):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * (1 + 2.0**-18)  # 64 u: a fast exponential


class _Backward(torch.autograd.Function):
    """The identity, whose gradient is changed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, change: Callable[..., Any]) -> torch.Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.change(gradients[0]), None


class _LeakyBackward(nn.ReLU):
    """A straight-through ReLU: forward is right, backward lets negative units through."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).detach() + input - input.detach()


class _ScaledWeightGradient(nn.Conv2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = _Backward.apply(self.weight, lambda g: g * (1 + 2.0**-16))
        return self._conv_forward(input, weight, self.bias)


class _NegatedBias(nn.Linear):
    """`abs` hides a sign, and so does a comparison of squares."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(input, self.weight, _Backward.apply(self.bias, torch.neg))


class _OtherGraph(gluon_nn.Activation):
    """Imperative it is a ReLU, hybridized something else: a graph that went stale."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = F.relu(x)
        return y if F.__name__.endswith("ndarray") else self.graph(F, x, y)

    def graph(self, F: Any, x: Any, y: Any) -> Any:
        raise NotImplementedError


class _NoActivation(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return F.identity(x)


class _HalfPrecision(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return F.cast(F.cast(y, dtype="float16"), dtype="float32")


class _NoGradient(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return F.BlockGrad(y)


def _graph(part: str, index: int, cls: type[_OtherGraph]) -> Callable[[Case], None]:
    def plant(case: Case) -> None:
        getattr(case.gluon_net, part)[index].__class__ = cls

    return plant


PLANTED = (
    Fault("missing activation", "lenet", "structure", "features.1",
          _replace("features.1", lambda m: nn.Identity()), "doc-1's spare ReLU, reversed"),
    Fault("average for maximum pooling", "lenet", "structure", "features.2",
          _replace("features.2", lambda m: nn.AvgPool2d(2)), "doc-0 beside doc-2"),
    Fault("pooling rounds up", "cifar_cnn", "structure", "features.5",
          _replace("features.5", lambda m: nn.MaxPool2d(2, ceil_mode=True)),
          "MXNet's pooling_convention=full"),
    Fault("BatchNorm eps of the operator", "mnist_bn_cnn", "structure", "features.1",
          _replace("features.1", lambda m: _with_eps(m, 1e-3)), "BatchNorm operator's default"),
    Fault("exchanged weights of one shape", "vgg11", "weights", "features.16",
          _exchange("features.16.weight", "features.18.weight"), "weights moved by position"),
    Fault("one weight off by 64 ulp", "lenet", "weights", "classifier.3",
          _weights("classifier.3.weight", lambda a: _step_ulps(a, 64)), "checkers that use means"),
    Fault("one layer through float16", "alexnet", "weights", "features.6",
          _weights("features.6.weight", lambda a: a.astype(np.float16).astype(np.float32)),
          "a checkpoint stored in half precision"),
    Fault("beta negated", "mnist_bn_cnn", "weights", "features.4",
          _weights("features.4.bias", lambda a: -a), "abs on one side only"),
    Fault("convolution with a flipped kernel", "lenet", "forward", "features.3",
          _turn("features.3", _FlippedKernel), "convolution for cross-correlation, doc-4"),
    Fault("last pooling window repeated", "lenet", "forward", "features.5",
          _turn("features.5", _DroppedWindow), "pooling that clips its windows"),
    Fault("sigmoid off by 64 u", "lenet_sigmoid", "forward", "features.4",
          _turn("features.4", _CoarseSigmoid), "an approximate exponential"),
    Fault("gradient passes a dead ReLU", "lenet", "backward", "features.4",
          _turn("features.4", _LeakyBackward), "a checker whose backward reads forward"),
    Fault("weight gradient off by 256 u", "lenet", "backward", "features.3",
          _turn("features.3", _ScaledWeightGradient), "TF32 in backward only"),
    Fault("bias gradient negated", "lenet", "backward", "classifier.3",
          _turn("classifier.3", _NegatedBias), "abs of both sides compared"),
    Fault("graph without an activation", "lenet", "artefacts", "features.4",
          _graph("features", 4, _NoActivation), "a stale hybridized graph"),
    Fault("graph in half precision", "lenet", "artefacts", "classifier.2",
          _graph("classifier", 2, _HalfPrecision), "an AMP pass left on"),
    Fault("graph that stops gradients", "lenet", "artefacts", "features.1",
          _graph("features", 1, _NoGradient), "BlockGrad left in a graph"),
)  # fmt: skip


def _with_eps(module: nn.Module, eps: float) -> nn.Module:
    module.eps = eps  # type: ignore[assignment]
    return module
