"""Faults in a fake "new version": each changes one operator of MXNet or of torch, under its nets.

`planted(shim)` stands for the import of the changed version: inside it the framework says another
version of itself, and computes one thing otherwise. A gate must say which framework moved, and
where.

Framework specific (mxnet, torch): each fault is in an operator of one framework.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import mxnet as mx
import numpy as np
import torch
from mxnet.optimizer import optimizer as mx_optimizers
from torch.nn import functional

from parity_tests.gate.change import Change
from parity_tests.reporting.verdicts import Level

Operator = Callable[..., Any]


@dataclass(frozen=True)
class Shim:
    """`change` makes the new operator of the old one; the gate must name `path` and `level` first.

    `module.name` is the operator as the framework's own layers look it up.
    """

    name: str
    side: str
    module: Any
    operator: str
    change: Callable[[Operator], Operator]
    level: Level
    path: str
    rules: bool = False  # an update rule: no net is needed
    verdict: Change = Change.SEMANTICS


@contextmanager
def planted(shim: Shim) -> Iterator[None]:
    """The framework with one operator changed."""
    library: Any = mx if shim.side == "gluon" else torch
    with ExitStack() as stack:
        changed = shim.change(getattr(shim.module, shim.operator))
        stack.enter_context(patch.object(shim.module, shim.operator, changed))
        stack.enter_context(patch.object(library, "__version__", f"{library.__version__}.shim"))
        yield


def _result(edit: Callable[[Any], Any], when: Callable[..., bool] = lambda *a, **k: True) -> Any:
    """The operator, its result edited."""

    def change(old: Operator) -> Operator:
        def new(*args: Any, **options: Any) -> Any:
            out = old(*args, **options)
            return edit(out) if when(*args, **options) else out

        return new

    return change


def _options(**changed: Any) -> Any:
    """The operator with other options than it is given; a callable makes one of the old."""

    def change(old: Operator) -> Operator:
        def new(*args: Any, **options: Any) -> Any:
            for name, value in changed.items():
                options[name] = value(options.get(name)) if callable(value) else value
            return old(*args, **options)

        return new

    return change


def _pool(kind: str) -> Callable[..., bool]:
    return lambda *args, **options: options.get("pool_type") == kind


def _activation(kind: str) -> Callable[..., bool]:
    return lambda *args, **options: options.get("act_type") == kind


class _MXGradient(mx.autograd.Function):
    """The identity, whose gradient is multiplied."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, x: Any) -> Any:
        return x.copy()

    def backward(self, dy: Any) -> Any:
        return dy * self._factor


class _TorchGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, factor: float) -> Any:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


def _weight_gradient(side: str, factor: float) -> Any:
    """The operator's second argument, the weight, gets another gradient."""

    def change(old: Operator) -> Operator:
        def new(x: Any, weight: Any, *args: Any, **options: Any) -> Any:
            if side == "torch":
                weight = _TorchGradient.apply(weight, factor)
            else:
                weight = _MXGradient(factor)(weight)
            return old(x, weight, *args, **options)

        return new

    return change


def _coarse(x: Any) -> Any:
    """float32 through bfloat16: half of the bits are gone; float64 stays."""
    if isinstance(x, torch.Tensor):
        return x.to(torch.bfloat16).to(x.dtype) if x.dtype == torch.float32 else x
    if x.dtype != np.float32:
        return x
    # The identity's gradient keeps the graph of the operator whole
    kept = torch.from_numpy(x.asnumpy()).to(torch.bfloat16).to(torch.float32).numpy()
    return x + (mx.nd.array(kept) - x.detach())


def _inputs_coarse(old: Operator) -> Operator:
    def new(x: Any, weight: Any, *args: Any, **options: Any) -> Any:
        return old(_coarse(x), _coarse(weight), *args, **options)

    return new


def _mx_last_window(y: Any) -> Any:
    """The last column of a pooled map is its neighbour's."""
    return mx.nd.concat(y[:, :, :, :-1], y[:, :, :, -2:-1], dim=3)


def _torch_last_window(y: Any) -> Any:
    return torch.cat([y[..., :-1], y[..., -2:-1]], dim=-1)


def _summed_otherwise(old: Operator) -> Operator:
    """A fully connected layer that adds its two halves: the same sum in another order."""

    def new(x: Any, weight: Any, bias: Any = None) -> Any:
        half = x.shape[-1] // 2
        return old(x[..., :half], weight[:, :half], bias) + old(x[..., half:], weight[:, half:])

    return new


_FN: Any = functional
_OPT: Any = mx_optimizers
_ND: Any = mx.nd
# torch.optim hides the modules behind the classes of the same names
_ADAM: Any = importlib.import_module("torch.optim.adam")
_SGD: Any = importlib.import_module("torch.optim.sgd")

SHIMS = (
    Shim("max pooling clips its last window", "gluon", _ND, "Pooling",
         _result(_mx_last_window, _pool("max")), Level.FORWARD, "3"),
    Shim("average pooling divides by one more", "gluon", _ND, "Pooling",
         _result(lambda y: y * 0.8, _pool("avg")), Level.FORWARD, "6"),
    Shim("BatchNorm's eps is the operator's", "gluon", _ND, "BatchNorm",
         _options(eps=1e-3), Level.FORWARD, "1"),
    Shim("BatchNorm fixes gamma", "gluon", _ND, "BatchNorm",
         _options(fix_gamma=True), Level.FORWARD, "1"),
    Shim("BatchNorm keeps another share", "gluon", _ND, "BatchNorm",
         _options(momentum=0.99), Level.BACKWARD, "1"),
    Shim("ReLU leaks", "gluon", _ND, "Activation",
         _result(lambda y: y + 1e-6, _activation("relu")), Level.FORWARD, "2"),
    Shim("a fast sigmoid", "gluon", _ND, "Activation",
         _result(lambda y: y * (1 + 2.0**-18), _activation("sigmoid")), Level.FORWARD, "5"),
    Shim("tanh is negated", "gluon", _ND, "Activation",
         _result(lambda y: -y, _activation("tanh")), Level.FORWARD, "9"),
    Shim("convolution in bfloat16", "gluon", _ND, "Convolution",
         _inputs_coarse, Level.FORWARD, "0"),
    Shim("convolution without its bias", "gluon", _ND, "Convolution",
         lambda old: lambda x, w, b, **o: old(x, w, b * 0, **o), Level.FORWARD, "0"),
    Shim("convolution's weight gradient is off by 256 u", "gluon", _ND, "Convolution",
         _weight_gradient("gluon", 1 + 2.0**-16), Level.BACKWARD, "0"),
    Shim("a dense layer scales by one part in a million", "gluon", _ND, "FullyConnected",
         _result(lambda y: y * (1 + 1e-6)), Level.FORWARD, "8"),
    Shim("log-softmax is coarse", "gluon", _ND, "log_softmax",
         _result(lambda y: y * (1 + 1e-4)), Level.LOSS, "(loss)"),
    Shim("Adam's eps is outside", "gluon", _OPT, "adam_update",
         _options(epsilon=1e-3), Level.OPTIMIZER, "adam", rules=True),
    Shim("Adam without decay", "gluon", _OPT, "adam_update",
         _options(wd=0.0), Level.OPTIMIZER, "adam wd=0.01", rules=True),
    Shim("NAG is plain momentum", "gluon", _OPT, "nag_mom_update",
         lambda old: _OPT.sgd_mom_update, Level.OPTIMIZER, "nag momentum=0.9 wd=0.01", rules=True),
    Shim("SGD's rate doubles", "gluon", _OPT, "multi_sgd_mom_update",
         _options(lrs=lambda lrs: [2 * lr for lr in lrs]), Level.OPTIMIZER, "sgd momentum=0.9",
         rules=True),
    Shim("max pooling clips its last window", "torch", _FN, "max_pool2d",
         _result(_torch_last_window), Level.FORWARD, "3"),
    Shim("average pooling divides by one more", "torch", _FN, "avg_pool2d",
         _result(lambda y: y * 0.8), Level.FORWARD, "6"),
    Shim("BatchNorm's eps is another", "torch", torch, "batch_norm",
         lambda old: lambda *a: old(*a[:7], 1e-3, a[8]), Level.FORWARD, "1"),
    Shim("BatchNorm in inference has another eps", "torch", _FN, "batch_norm",
         lambda old: lambda *a, **o: old(*a[:-1], 1e-3), Level.FORWARD, "1"),
    Shim("running variance is unbiased", "torch", torch, "var_mean",
         _options(unbiased=True), Level.BACKWARD, "1"),
    Shim("ReLU passes small negatives", "torch", _FN, "relu",
         lambda old: lambda x, inplace=False: old(x + 1e-4), Level.FORWARD, "2"),
    Shim("a fast sigmoid", "torch", torch, "sigmoid",
         _result(lambda y: y * (1 + 2.0**-18)), Level.FORWARD, "5"),
    Shim("convolution in bfloat16", "torch", _FN, "conv2d", _inputs_coarse, Level.FORWARD, "0"),
    Shim("convolution's weight gradient is off by 256 u", "torch", _FN, "conv2d",
         _weight_gradient("torch", 1 + 2.0**-16), Level.BACKWARD, "0"),
    Shim("a dense layer's input gradient doubles", "torch", _FN, "linear",
         lambda old: lambda x, *a: old(_TorchGradient.apply(x, 2.0), *a), Level.BACKWARD, "8"),
    Shim("cross-entropy smooths its labels", "torch", _FN, "cross_entropy",
         _options(label_smoothing=0.01), Level.LOSS, "(loss)"),
    Shim("Adam's eps is another", "torch", _ADAM, "adam",
         _options(eps=1e-4), Level.OPTIMIZER, "torch.optim adam", rules=True),
    Shim("SGD damps its momentum", "torch", _SGD, "sgd",
         _options(dampening=0.1), Level.OPTIMIZER, "torch.optim sgd momentum=0.9", rules=True),
    Shim("SGD with Nesterov", "torch", _SGD, "sgd",
         _options(nesterov=True, momentum=lambda m: m or 0.9), Level.OPTIMIZER, "torch.optim sgd",
         rules=True),
    Shim("a dense layer adds in another order", "torch", _FN, "linear",
         _summed_otherwise, Level.FORWARD, "8", verdict=Change.ROUNDING),
)  # fmt: skip
