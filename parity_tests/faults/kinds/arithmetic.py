"""Faults in what an operator computes, forward or backward, while the net's listing is right.

Framework specific (mxnet, torch): each fault is a layer of one framework that computes wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.cases.pairs import Case, project_case
from parity_tests.faults.base import Fault
from parity_tests.faults.kinds.pairs import in_model, in_pair, plain_case, turned
from parity_tests.faults.kinds.weights import ten_bits
from parity_tests.reporting.verdicts import Level

functional = nn.functional


def _in_ten_bits(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(ten_bits(x.detach().numpy()))


class _TF32Conv(nn.Conv2d):
    """Rounds what the multiplication is given, in float32 only, as a tensor core does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.float32:
            return super().forward(input)
        x = input + (_in_ten_bits(input) - input).detach()
        weight = self.weight + (_in_ten_bits(self.weight) - self.weight).detach()
        return self._conv_forward(x, weight, self.bias)


class _HalfLinear(nn.Linear):
    """Computes in float16, adding up in single precision."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dtype != torch.float32:
            return super().forward(input)
        halves = [
            None if t is None else t + (t.half().to(t.dtype) - t).detach()
            for t in (input, self.weight, self.bias)
        ]
        y = functional.linear(halves[0], halves[1], halves[2])
        return y + (y.half().to(y.dtype) - y).detach()


def _computing(cls: type[nn.Module], forward: Callable[[Any, torch.Tensor], torch.Tensor]) -> Any:
    """A layer of a class, with a forward of its own."""
    return type(f"Faulty{cls.__name__}", (cls,), {"forward": forward})


def _repeated(x: torch.Tensor, axis: int) -> torch.Tensor:
    """The last but one in place of the last, along an axis."""
    most = x.shape[axis] - 1
    return torch.cat([x.narrow(axis, 0, most), x.narrow(axis, most - 1, 1)], dim=axis)


def _zeros_around(pool: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(functional.pad(x, (pool.padding,) * 4), 3, 2)


_FlippedKernel = _computing(
    nn.Conv2d, lambda conv, x: conv._conv_forward(x, conv.weight.flip(2, 3), conv.bias)
)
_NoBias = _computing(nn.Conv2d, lambda conv, x: conv._conv_forward(x, conv.weight, conv.bias * 0))
_DroppedWindow = _computing(
    nn.MaxPool2d, lambda pool, x: _repeated(nn.MaxPool2d.forward(pool, x), -1)
)
# Without the last windows where they begin in the padding, and the ones before repeated
_ClippedWindows = _computing(
    nn.MaxPool2d, lambda pool, x: _repeated(_repeated(nn.MaxPool2d.forward(pool, x), -1), -2)
)
_PaddedWithZeros = _computing(nn.MaxPool2d, _zeros_around)
_NotCounted = _computing(
    nn.AvgPool2d, lambda pool, x: functional.avg_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, count_include_pad=False
    ),
)  # fmt: skip
_MaximumHidden = _computing(
    nn.AvgPool2d,
    lambda pool, x: functional.max_pool2d(x, pool.kernel_size, pool.stride, pool.padding),
)
_CoarseSigmoid = _computing(nn.Sigmoid, lambda _, x: torch.sigmoid(x) * (1 + 2.0**-18))  # 64 u
_HardSigmoid = _computing(nn.Sigmoid, lambda _, x: functional.hardsigmoid(x))
_Linear = _computing(nn.ReLU, lambda _, x: x.clone())
_OverTheBatch = _computing(nn.Softmax, lambda _, x: functional.softmax(x, dim=0))
# As before 2014: nothing is scaled in training, or in inference what is not scaled in training
_DropsWithoutScale = _computing(
    nn.Dropout,
    lambda drop, x: nn.Dropout.forward(drop, x) * (1 - drop.p) if drop.training else x,
)
_DropsInInference = _computing(nn.Dropout, lambda drop, x: x * (1 - drop.p))


class Backward(torch.autograd.Function):
    """The identity, whose gradient is changed."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, change: Callable[..., Any]) -> torch.Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return ctx.change(gradients[0]), None


# Straight-through: forward is right, backward lets negative units through
_LeakyBackward = _computing(nn.ReLU, lambda _, x: torch.relu(x).detach() + x - x.detach())
_Detached = _computing(nn.Tanh, lambda _, x: torch.tanh(x.detach()) + 0 * x)


def _weight_gradient(cls: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A convolution or dense layer whose weight's gradient is changed."""

    class Faulty(cls):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            weight = Backward.apply(self.weight, change)
            if cls is nn.Linear:
                return functional.linear(input, weight, self.bias)
            return self._conv_forward(input, weight, self.bias)

    return Faulty


_NegatedBias = _computing(
    nn.Linear,
    lambda dense, x: functional.linear(x, dense.weight, Backward.apply(dense.bias, torch.neg)),
)


class _InputUnscaled(nn.Conv2d):
    """Sends its input the gradient of the flipped kernel: a correlation both ways."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        exact = self._conv_forward(input.detach(), self.weight, self.bias)
        wrong = self._conv_forward(input, self.weight.detach().flip(2, 3), None)
        return exact + wrong - wrong.detach()


def _pools(ours: Any, theirs: nn.Module) -> Callable[[], Case]:
    """A convolution, and a pooling behind it whose inputs are mostly negative."""

    def make() -> Case:
        first = gluon_nn.Conv2D(3, 3, in_channels=2)
        case = plain_case([first, ours], [nn.Conv2d(2, 3, 3), theirs], (2, 2, 11, 10))
        case.gluon_net[0].bias.set_data(case.gluon_net[0].bias.data() - 2)
        case.torch_net.get_parameter("0.bias").data.sub_(2)
        return case

    return make


def _average(case_pad: int = 1) -> Callable[[], Case]:
    return _pools(gluon_nn.AvgPool2D(3, 2, case_pad), nn.AvgPool2d(3, 2, case_pad))


def _head() -> Case:
    return plain_case(
        [
            gluon_nn.Dense(16, in_units=12),
            gluon_nn.Activation("tanh"),
            gluon_nn.Dense(6, in_units=16),
            gluon_nn.HybridLambda("softmax"),
        ],
        [nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 6), nn.Softmax(dim=1)],
        (5, 12),
    )


def _dropped() -> Case:
    return plain_case(
        [gluon_nn.Dense(16, in_units=12), gluon_nn.Dropout(0.25), gluon_nn.Dense(6, in_units=16)],
        [nn.Linear(12, 16), nn.Dropout(0.25), nn.Linear(16, 6)],
        (5, 12),
    )


_MASKS = {"1": np.random.default_rng(4).random((5, 16)) >= 0.25}


_fault = partial(Fault, group="arithmetic")

ARITHMETIC: tuple[Fault, ...] = (
    _fault("convolution with a flipped kernel", "torch lenet, features.3",
           in_model("lenet", turned("features.3", _FlippedKernel)), Level.FORWARD, "features.3",
           "flipped kernel", "a true convolution for a cross-correlation",
           "doc-4; Theano's conv2d flips its filters by default"),
    _fault("convolution in TF32", "torch lenet, features.3, float32 only",
           in_model("lenet", turned("features.3", _TF32Conv)), Level.FORWARD, "features.3",
           "TF32 rounding", "a GPU's default for float32 convolutions",
           "torch.backends.cudnn.allow_tf32 is True by default; NVIDIA's A100 whitepaper"),
    _fault("dense layer in float16", "torch lenet, classifier.3, float32 only",
           in_model("lenet", turned("classifier.3", _HalfLinear)), Level.FORWARD, "classifier.3",
           "float16 rounding", "autocast left on for one layer",
           "torch.autocast, MXNet's amp.init"),
    _fault("bias not added", "torch lenet, features.0",
           in_model("lenet", turned("features.0", _NoBias)), Level.FORWARD, "features.0",
           "bias ignored", "no_bias=True with a bias in the file",
           "MXNet's Convolution(no_bias=…)"),
    _fault("last pooling window repeated", "torch lenet, features.5",
           in_model("lenet", turned("features.5", _DroppedWindow)), Level.FORWARD, "features.5",
           "missing last pooling window", "pooling that clips its windows",
           "torch's ceil_mode drops a window that begins in the padding, MXNet's full keeps it"),
    _fault("last windows in both directions missing", "plain pair, 1",
           in_pair(_pools(gluon_nn.MaxPool2D(3, 2, 1), nn.MaxPool2d(3, 2, 1)),
                   turned("1", _ClippedWindows)), Level.FORWARD, "1", "missing last pooling window",
           "the same by rows and columns", "MTLab/onnx2caffe issue 10: 129 gives 65 or 64"),
    _fault("maximum over zeros of the padding", "plain pair, 1",
           in_pair(_pools(gluon_nn.MaxPool2D(3, 2, 1), nn.MaxPool2d(3, 2, 1)),
                   turned("1", _PaddedWithZeros)), Level.FORWARD, "1", "padded with zeros",
           "a pad layer before a pooling layer", "Keras' ZeroPadding2D before MaxPooling2D"),
    _fault("average over what is there", "plain pair, 1",
           in_pair(_average(), turned("1", _NotCounted)), Level.FORWARD, "1", "padding counted",
           "a kernel that divides by the window inside the image",
           "TensorFlow's SAME; cuDNN has a mode for each"),
    _fault("maximum under the name of average", "plain pair, 1",
           in_pair(_average(0), turned("1", _MaximumHidden)), Level.FORWARD, "1",
           "maximum for average pooling", "an operator that ignores pool_type",
           "Pooling's default pool_type is max in MXNet's symbol files, where it is left out"),
    _fault("sigmoid off by 64 u", "torch lenet_sigmoid, features.4",
           in_model("lenet_sigmoid", turned("features.4", _CoarseSigmoid)), Level.FORWARD,
           "features.4", "constant factor", "an approximate exponential",
           "fast-math builds; vectorised exponentials of a few bits less"),
    _fault("hard sigmoid", "torch lenet_sigmoid, features.1",
           in_model("lenet_sigmoid", turned("features.1", _HardSigmoid)), Level.FORWARD,
           "features.1", "hard sigmoid", "a piecewise linear sigmoid",
           "Keras' hard_sigmoid; MXNet's hard_sigmoid"),
    _fault("activation that does nothing", "torch lenet, features.4",
           in_model("lenet", turned("features.4", _Linear)), Level.FORWARD, "features.4",
           "missing activation", "an activation fused away and never applied",
           "subgraph fusions, as MXNet's optimize_for('MKLDNN')"),
    _fault("softmax over the batch inside", "plain pair, 3",
           in_pair(_head, turned("3", _OverTheBatch)), Level.FORWARD, "3", "softmax axis",
           "an operator that ignores its axis", "ONNX's softmax flattened to two dimensions "
           "before opset 13"),
    _fault("dropout without scale", "plain pair, 1, with a mask",
           in_pair(_dropped, turned("1", _DropsWithoutScale), masks=_MASKS), Level.FORWARD, "1",
           "dropout scale", "what is kept is not divided by 1 − p",
           "Srivastava et al. 2014 beside inverted dropout"),
    _fault("dropout scales in inference", "plain pair, 1",
           in_pair(_dropped, turned("1", _DropsInInference)), Level.FORWARD, "1",
           "constant factor", "p·W at test time", "Caffe before inverted dropout"),
    _fault("gradient passes a dead ReLU", "torch lenet, features.4",
           in_model("lenet", turned("features.4", _LeakyBackward)), Level.BACKWARD, "features.4",
           "straight-through gradient", "a checker whose backward reads forward",
           "Bengio et al. 2013, straight-through estimators"),
    _fault("gradient stopped", "plain pair, 1",
           in_pair(_head, turned("1", _Detached)), Level.BACKWARD, "1", "stopped gradient",
           "a detach or a no_grad left in", "torch's detach, MXNet's BlockGrad"),
    _fault("weight gradient off by 256 u", "torch lenet, features.3",
           in_model("lenet", turned("features.3", _weight_gradient(
               nn.Conv2d, lambda g: g * (1 + 2.0**-16)))), Level.BACKWARD, "features.3",
           "constant factor", "reduced precision in backward only",
           "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction"),
    _fault("bias gradient negated", "torch lenet, classifier.3",
           in_model("lenet", turned("classifier.3", _NegatedBias)), Level.BACKWARD, "classifier.3",
           "negated", "a sign that a comparison of absolute values passes",
           "abs of both sides compared"),
    _fault("weight gradient averaged over the batch", "torch lenet, classifier.1",
           in_pair(lambda: project_case("lenet", batch=3), turned("classifier.1", _weight_gradient(
               nn.Linear, lambda g: g / 3))), Level.BACKWARD, "classifier.1", "factor of B",
           "an average where the other side sums", "Gluon's Trainer.step(B) divides, torch's "
           "mean reduction has divided"),
    _fault("weight gradient transposed", "torch alexnet, classifier.5",
           in_model("alexnet", turned("classifier.5", _weight_gradient(
               nn.Linear, lambda g: g.T.contiguous()))), Level.BACKWARD, "classifier.5",
           "transposed weight", "xᵀ·g for gᵀ·x in a square layer", "hand-written backward passes"),
    _fault("input gradient by a correlation", "torch lenet, features.3",
           in_model("lenet", turned("features.3", _InputUnscaled)), Level.BACKWARD, "features.3",
           "flipped kernel", "a backward pass that does not flip the kernel back",
           "hand-written backward passes; doc-4"),
)  # fmt: skip
