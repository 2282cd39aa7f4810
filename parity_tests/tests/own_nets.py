"""Nets as a user has them, for the tests of `gluon-parity check --gluon …`; written to a file."""

NETS = """
import mxnet as mx
import torch
import torch.nn.functional as F
from mxnet.gluon import HybridBlock, nn as gnn
from torch import nn


class Gluon(HybridBlock):
    def __init__(self, classes=5, width=4):
        super().__init__()
        with self.name_scope():
            self.stem = gnn.Conv2D(width, 3, in_channels=3)
            self.bn = gnn.BatchNorm(in_channels=width)
            self.fc = gnn.Dense(classes, in_units=width)

    def hybrid_forward(self, F, x):
        return self.fc(F.mean(F.relu(self.bn(self.stem(x))), axis=(2, 3)))


def ours(**options):
    net = Gluon(**options)
    mx.random.seed(1)
    net.initialize(mx.init.Xavier(magnitude=6))
    return net


class Theirs(nn.Module):
    def __init__(self, classes=5, width=4, slope=0.0):
        super().__init__()
        torch.manual_seed(2)
        self.head = nn.Linear(width, classes)
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.slope = slope

    def forward(self, x):
        x = self.norm(self.conv(x))
        x = F.leaky_relu(x, self.slope) if self.slope else F.relu(x)
        return self.head(x.mean((2, 3)))


class TwoInputs(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.words = gnn.Embedding(20, 3)
            self.fc = gnn.Dense(4, in_units=5)

    def hybrid_forward(self, F, words, more):
        return self.fc(F.concat(F.mean(self.words(words), axis=1), more, dim=1))


def two():
    net = TwoInputs()
    net.initialize(mx.init.Normal(1))
    return net


class TheirTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.out, self.table = nn.Linear(5, 4), nn.Embedding(20, 3)

    def forward(self, words, more):
        return self.out(torch.cat([self.table(words).mean(1), more], 1))


class Branches(HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.a = gnn.Dense(4, in_units=4)
            self.b = gnn.Dense(4, in_units=4)

    def hybrid_forward(self, F, x):
        return F.elemwise_add(self.a(x), self.b(x))


def branches():
    net = Branches()
    mx.random.seed(1)
    net.initialize(mx.init.Normal(1))
    return net


class TheirBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.left(x) + self.right(x)


def half_mse(y, t):
    return 0.5 * F.mse_loss(y, t)


def mse(y, t):
    return F.mse_loss(y, t)


def half_ce(y, t):
    return 0.5 * F.cross_entropy(y, t)


def sgd(net):
    return mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9,
                                                          "wd": 0.01})


def sgd_without_decay_of_biases(net):
    for name, parameter in net.collect_params().items():
        if name.endswith("bias"):
            parameter.wd_mult = 0.0
    return sgd(net)


def their_sgd(net, momentum=0.9):
    return torch.optim.SGD(net.parameters(), 0.1, momentum, weight_decay=0.01)


def slower(net):
    return their_sgd(net, 0.5)


def their_sgd_without_decay_of_biases(net):
    biases = [net.head.bias, net.conv.bias]
    others = [p for p in net.parameters() if all(p is not bias for bias in biases)]
    groups = [{"params": others}, {"params": biases, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, 0.1, 0.9, weight_decay=0.01)


class Shrinking(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.mul_(1 - 1e-5)


def shrinking(net):
    return Shrinking(net.parameters(), 0.1, 0.9, weight_decay=0.01)


def rmsprop(net):
    return mx.gluon.Trainer(net.collect_params(), "rmsprop", {"learning_rate": 0.01})


def no_optimizer(net):
    return net


def raises(**options):
    return {}["weights"]
"""
