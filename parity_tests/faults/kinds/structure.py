"""Faults in how a net is built: layers missing, moved, or with another hyper-parameter.

Some cannot be seen in the listing of modules, because they sit in a `forward` of its own.

Framework specific (mxnet, torch): each fault is in how one framework's net is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mxnet.gluon import HybridBlock
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.cases.pairs import Case
from parity_tests.faults.base import Fault
from parity_tests.faults.kinds.pairs import Plant, in_model, in_pair, plain_case, replaced
from parity_tests.reporting.verdicts import Level


def _with(**attributes: Any) -> Callable[[Any], nn.Module]:
    """The same layer with other attributes."""

    def change(module: Any) -> nn.Module:
        for name, value in attributes.items():
            setattr(module, name, value)
        return module

    return change


def _layers_exchanged(first: str, second: str) -> Plant:
    """Exchange two layers of the torch net."""

    def plant(case: Case) -> None:
        net = case.torch_net
        one, other = net.get_submodule(first), net.get_submodule(second)
        net.set_submodule(first, other)
        net.set_submodule(second, one)

    return plant


def _appended(path: str, make: Callable[[], nn.Module]) -> Plant:
    def plant(case: Case) -> None:
        part: Any = case.torch_net.get_submodule(path)
        part.append(make())

    return plant


def _conv_case(**options: Any) -> Callable[[], Case]:
    """conv, tanh, conv, on 4×9×10: the first convolution with these options of torch's."""

    def make() -> Case:
        named = {"dilation": "dilation", "stride": "strides", "padding": "padding"}
        theirs = {named.get(k, k): v for k, v in options.items()}
        kernel = theirs.pop("kernel_size", 3)
        torch_options = {k: v for k, v in options.items() if k != "kernel_size"}
        return plain_case(
            [
                gluon_nn.Conv2D(4, kernel, in_channels=4, **theirs),
                gluon_nn.Activation("tanh"),
                gluon_nn.Conv2D(4, 1, in_channels=4),
            ],
            [nn.Conv2d(4, 4, kernel, **torch_options), nn.Tanh(), nn.Conv2d(4, 4, 1)],
            (2, 4, 9, 10),
        )

    return make


def _pool_case() -> Case:
    return plain_case(
        [gluon_nn.Conv2D(4, 3, in_channels=3), gluon_nn.AvgPool2D(3, 2, 1)],
        [nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 2, 1)],
        (2, 3, 10, 9),
    )


def _head_case(ours: Any, theirs: nn.Module) -> Callable[[], Case]:
    """flatten, dense, and what is given."""
    return lambda: plain_case(
        [gluon_nn.Flatten(), gluon_nn.Dense(6, in_units=24), ours],
        [nn.Flatten(), nn.Linear(24, 6), theirs],
        (3, 2, 3, 4),
    )


class _GluonFunctional(HybridBlock):
    """Has a ReLU, a permutation and a sum in its forward, where no listing shows them."""

    def __init__(self) -> None:
        super().__init__(prefix="functional_")
        self.first = gluon_nn.Conv2D(3, 3, padding=1, in_channels=3)
        self.second = gluon_nn.Conv2D(3, 3, padding=1, in_channels=3)
        self.pool = gluon_nn.AvgPool2D(2)
        self.last = gluon_nn.Dense(5, in_units=2 * 3 * 4 * 3)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = F.relu(self.first(x))
        y = x + self.second(y)
        y = F.concat(self.pool(y), self.pool(x), dim=1)
        return self.last(y)


class _TorchFunctional(nn.Module):
    """Its twin."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.last = nn.Linear(2 * 3 * 4 * 3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.activated(self.first(self.entered(x)))
        y = self.joined(x, self.second(y))
        return self.ended(self.last(self.flattened(self.stacked(self.pool(y), self.pool(x)))))

    def entered(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def activated(self, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(y)

    def joined(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def stacked(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([y, x], dim=1)

    def flattened(self, y: torch.Tensor) -> torch.Tensor:
        return y.flatten(1)

    def ended(self, y: torch.Tensor) -> torch.Tensor:
        return y


def _functional_case() -> Case:
    theirs = _TorchFunctional()
    case = plain_case([_GluonFunctional()], [theirs], (2, 3, 8, 6))
    return Case(case.name, case.gluon_net[0], theirs, case.inputs)


def _hidden(**methods: Callable[..., torch.Tensor]) -> Plant:
    """Another way of computing one of the steps of the torch net's forward."""

    def plant(case: Case) -> None:
        case.torch_net.__class__ = type("Faulty", (_TorchFunctional,), methods)

    return plant


def _fault(
    name: str, where: str, run: Any, path: str, diagnosis: str, imitates: str, source: str,
    level: Level = Level.STRUCTURE,
) -> Fault:  # fmt: skip
    return Fault(name, where, run, level, path, diagnosis, imitates, source, group="structure")


_OPERATOR = "an operator's default taken for the layer's"

STRUCTURE: tuple[Fault, ...] = (
    _fault("missing activation", "torch lenet, features.1",
           in_model("lenet", replaced("features.1", lambda m: nn.Identity())), "features.1",
           "missing activation", "a ReLU forgotten after a convolution",
           "lenet_linear of doc-3 has none, lenet of doc-2 has four"),
    _fault("activation on the logits", "torch cifar_cnn, after classifier.3",
           in_model("cifar_cnn", _appended("classifier", nn.ReLU)), "classifier.4",
           "additional activation", "a ReLU after the last layer, which stops learning",
           "doc-1's classifier"),
    _fault("activation moved behind the pooling", "torch lenet_sigmoid, features.4 and 5",
           in_model("lenet_sigmoid", _layers_exchanged("features.4", "features.5")), "features.4",
           "moved layer", "pool, then squash, as LeNet-5 does, for squash, then pool",
           "LeCun et al. 1998, section II.B, beside doc-0's stand-in"),
    _fault("another activation", "torch lenet_sigmoid, features.1",
           in_model("lenet_sigmoid", replaced("features.1", lambda m: nn.Tanh())), "features.1",
           "another activation", "tanh for sigmoid",
           "doc-0 says sigmoid where the paper says tanh"),
    _fault("average for maximum pooling", "torch lenet, features.2",
           in_model("lenet", replaced("features.2", lambda m: nn.AvgPool2d(2))), "features.2",
           "average for maximum pooling", "the other LeNet's pooling", "doc-0 beside doc-2"),
    _fault("pooling rounds up", "torch cifar_cnn, features.5",
           in_model("cifar_cnn", replaced("features.5", lambda m: nn.MaxPool2d(2, ceil_mode=True))),
           "features.5", "pooling rounds up", "pooling_convention=full for valid",
           "Caffe pools so: MTLab/onnx2caffe issues 3 and 10"),
    _fault("padding not counted", "plain pair, 1",
           in_pair(_pool_case, replaced("1", _with(count_include_pad=False))), "1",
           "padding counted", "an average over the values that are there only",
           "TensorFlow's SAME average pooling; count_include_pad is True in Gluon and torch"),
    _fault("stride of one", "plain pair, 0",
           in_pair(_conv_case(stride=2), replaced("0", _with(stride=(1, 1)))), "0", "stride",
           "a stride left at its default", "nn.Conv2d(…, 3, 2) beside keyword arguments"),
    _fault("padding of one", "plain pair, 0",
           in_pair(_conv_case(), replaced("0", _with(padding=(1, 1)))), "0", "padding",
           "same padding for valid", "doc-1: p = (f − 1)/2"),
    _fault("no dilation", "plain pair, 0",
           in_pair(_conv_case(dilation=2, padding=2), replaced("0", _with(dilation=(1, 1)))), "0",
           "dilation", "an atrous convolution built dense", "Yu and Koltun 2016; DeepLab ports"),
    _fault("groups lost", "plain pair, 0",
           in_pair(_conv_case(groups=2), replaced("0", lambda m: nn.Conv2d(4, 4, 3))), "0",
           "groups", "the two towers of AlexNet joined",
           "Krizhevsky 2012 beside his one-column variant of 2014"),
    _fault("asymmetric padding", "plain pair, 0",
           in_pair(_conv_case(kernel_size=4, padding=2), replaced("0", _with(padding="same"))), "0",
           "asymmetric padding", "one more row at the bottom and at the right than on top and left",
           "TensorFlow's SAME with an even kernel or a stride"),
    _fault("softmax over the batch", "plain pair, 2",
           in_pair(_head_case(gluon_nn.HybridLambda("softmax"), nn.Softmax(dim=1)),
                   replaced("2", lambda m: nn.Softmax(dim=0))), "2", "softmax axis",
           "an axis left to chance",
           "torch's deprecated implicit dim; MXNet's default is the last"),
    _fault("slope of the operator", "plain pair, 2",
           in_pair(_head_case(gluon_nn.LeakyReLU(0.25), nn.LeakyReLU(0.25)),
                   replaced("2", lambda m: nn.LeakyReLU())), "2", "slope value", _OPERATOR,
           "LeakyReLU: 0.25 in MXNet's operator, 0.01 in torch"),
    _fault("approximate GELU", "plain pair, 2",
           in_pair(_head_case(gluon_nn.GELU(), nn.GELU()),
                   replaced("2", lambda m: nn.GELU(approximate="tanh"))), "2",
           "GELU approximation", "GPT-2's tanh for the error function",
           "Hendrycks and Gimpel 2016; torch.nn.GELU(approximate=…)"),
    _fault("dropout at another rate", "torch alexnet, classifier.1",
           in_model("alexnet", replaced("classifier.1", _with(p=0.2))), "classifier.1",
           "dropout rate", "the share that is kept for the share that is dropped, or a typo",
           "TensorFlow 1's keep_prob"),
    _fault("dropout behind the dense layer", "torch alexnet, classifier.1 and 2",
           in_model("alexnet", _layers_exchanged("classifier.1", "classifier.2")), "classifier.1",
           "moved layer", "dropout before and after a layer are not the same",
           "torchvision's AlexNet drops before its dense layers, its VGG after"),
    _fault("epsilon of the operator", "torch mnist_bn_cnn, features.1",
           in_model("mnist_bn_cnn", replaced("features.1", _with(eps=1e-3))), "features.1",
           "eps value", _OPERATOR, "BatchNorm: 1e-3 in MXNet's operator and Keras, 1e-5 elsewhere"),
    _fault("momentum complement", "torch mnist_bn_cnn, features.4",
           in_model("mnist_bn_cnn", replaced("features.4", _with(momentum=0.9))), "features.4",
           "momentum complement", "MXNet's momentum handed to torch as it is",
           "torch.nn.BatchNorm2d's documentation: its momentum is 1 − MXNet's"),
    _fault("functional activation missing", "forward of a torch net, before second",
           in_pair(_functional_case, _hidden(activated=lambda self, y: y)), "second",
           "missing activation", "F.relu forgotten in a forward", "hand-written ports"),
    _fault("shortcut missing", "forward of a torch net, before pool",
           in_pair(_functional_case, _hidden(joined=lambda self, x, y: y)), "pool",
           "missing shortcut", "a residual block that returns its body", "He et al. 2016"),
    _fault("branches joined in the other order", "forward of a torch net, before last",
           in_pair(_functional_case,
                   _hidden(stacked=lambda self, y, x: torch.cat([x, y], dim=1))), "cat",
           "branches in another order", "torch.cat([b, a]) for F.concat(a, b)",
           "Inception and DenseNet ports"),
    _fault("flatten with channels last", "forward of a torch net, before last",
           in_pair(_functional_case,
                   _hidden(flattened=lambda self, y: y.permute(0, 2, 3, 1).flatten(1))), "last",
           "NHWC flatten order", "a permutation kept from a channels-last net",
           "TensorFlow ports"),
    _fault("colours reversed in the net", "forward of a torch net, before first",
           in_pair(_functional_case, _hidden(entered=lambda self, x: x.flip(1))), "first",
           "BGR channels", "a net that turns RGB into BGR by itself",
           "Caffe ports: x[:, [2, 1, 0]]"),
    _fault("softmax inside the net", "forward of a torch net, at the end",
           in_pair(_functional_case, _hidden(ended=lambda self, y: y.softmax(1))), "softmax",
           "softmax on the output", "probabilities where the other net gives logits",
           "doc-2: the loss applies log-softmax itself"),
    _fault("maps mirrored in the net", "forward of a torch net, before pool",
           in_pair(_functional_case, _hidden(joined=lambda self, x, y: (x + y).flip(3))), "add",
           "mirrored", "an augmentation left in a forward", "kornia layers inside a model"),
)  # fmt: skip
