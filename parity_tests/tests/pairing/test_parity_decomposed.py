"""One function computed in two ways: layers beside the steps they consist of, and faults in it."""

from __future__ import annotations

import itertools
import math
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
from parity_tests.backends.torch.tracing.trace import _attention as attention_in_steps
from parity_tests.levels import view
from parity_tests.pairing import segments
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Status
from parity_tests.tests.pairing.nets import (
    GluonNet,
    ImperativeNet,
    TorchNet,
    initialised,
    random_image,
)

RNG = np.random.default_rng(5)
SEQUENCES = RNG.standard_normal((2, 6, 8)).astype(np.float32)
IMAGE = random_image()  # (2, 4, 8, 8)

Pair = tuple[Callable[[], Any], Callable[[], Any], np.ndarray]


def dense(outputs: int, inputs: int) -> gnn.Dense:
    return gnn.Dense(outputs, flatten=False, in_units=inputs)


def norm_by_hand(eps: float = 1e-5, power: float = 0.5) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        normal: torch.Tensor = s.d(centred / (variance + eps) ** power * s.n.weight + s.n.bias)
        return normal

    return TorchNet(forward, n=nn.LayerNorm(8), d=nn.Linear(8, 3))


def norm_by_variance(unbiased: bool = False) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = (x.var(-1, keepdim=True, unbiased=unbiased) + 1e-5).sqrt()
        normal: torch.Tensor = s.d(centred / deviation * s.n.weight + s.n.bias)
        return normal

    return TorchNet(forward, n=nn.LayerNorm(8), d=nn.Linear(8, 3))


def layer_norm() -> GluonNet:
    norm = gnn.LayerNorm(in_channels=8)
    return GluonNet(lambda s, F, x: s.d(s.n(x)), n=norm, d=dense(3, 8))


def unrolled() -> GluonNet:
    cell = gluon.rnn.LSTMCell(5, input_size=8)

    def forward(s: Any, F: Any, x: Any) -> Any:
        return s.l.unroll(6, x, layout="NTC", merge_outputs=True)[0]

    return GluonNet(forward, l=cell)


def shuffled() -> GluonNet:
    shuffle = contrib.nn.PixelShuffle2D(2)
    conv = gnn.Conv2D(8, 1, in_channels=4)
    return GluonNet(lambda s, F, x: s.p(s.c(x)), c=conv, p=shuffle)


def pointwise_conv() -> GluonNet:
    return GluonNet(lambda s, F, x: s.c(x), c=gnn.Conv2D(5, 1, in_channels=4))


def sum_of_three() -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        return F.add_n(s.a(x), s.b(x), x)

    return GluonNet(forward, a=gnn.Conv2D(4, 1, in_channels=4), b=gnn.Conv2D(4, 1, in_channels=4))


def stacked(scale: float = 1.0) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([s.a(x), s.b(x) * scale, x]).sum(0)

    return TorchNet(forward, a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 1))


def grown(nested: bool) -> GluonNet:
    """A block as DenseNet's: each convolution reads the input and all before it."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        parts = [x]
        for layer in (s.a, s.b):
            parts.append(layer(F.concat(*parts, dim=1) if len(parts) > 1 else parts[0]))
            if nested:
                parts = [F.concat(*parts, dim=1)]
        return s.n(parts[0] if nested else F.concat(*parts, dim=1))

    return GluonNet(
        forward,
        a=gnn.Conv2D(4, 1, in_channels=4),
        b=gnn.Conv2D(4, 1, in_channels=8),
        n=gnn.BatchNorm(in_channels=12),
    )


def grown_in_torch(nested: bool, order: tuple[int, int, int] = (0, 1, 2)) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for layer in (s.a, s.b):
            parts.append(layer(torch.cat(parts, 1)))
            if nested:
                parts = [torch.cat(parts, 1)]
        return s.n(parts[0] if nested else torch.cat([parts[i] for i in order], 1))

    return TorchNet(forward, a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(8, 4, 1), n=nn.BatchNorm2d(12))


def joined_and_normed() -> GluonNet:
    return GluonNet(
        lambda s, F, x: s.n(F.concat(s.c(x), x, dim=1)),
        c=gnn.Conv2D(4, 1, in_channels=4),
        n=gnn.BatchNorm(in_channels=8),
    )


def padded_and_normed() -> TorchNet:
    return TorchNet(
        lambda s, x: s.n(F.pad(s.c(x), (0, 0, 0, 0, 0, 4)) + F.pad(x, (0, 0, 0, 0, 4, 0))),
        c=nn.Conv2d(4, 4, 1),
        n=nn.BatchNorm2d(8),
    )


def joined_and_split() -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        both = F.concat(s.a(x), s.b(x), dim=1)
        whole, parts = F.slice_axis(both, axis=1, begin=0, end=4), F.split(both, 4, axis=1)
        return s.c(F.relu(whole) + F.concat(*parts[2:], dim=1))

    return GluonNet(forward, **{name: gnn.Conv2D(4, 1, in_channels=4) for name in "abc"})


def never_joined(swapped: bool = False) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        a, b = (s.b, s.a) if swapped else (s.a, s.b)
        return s.c(F.relu(a(x)) + b(x))

    return TorchNet(forward, **{name: nn.Conv2d(4, 4, 1) for name in "abc"})


def attention(softmax: Callable[..., Any]) -> Callable[[], TorchNet]:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        attended: torch.Tensor = softmax(s.q(x), s.k(x), s.v(x))
        return attended

    layers = {name: nn.Linear(8, 8) for name in "qkv"}
    return lambda: TorchNet(forward, **layers)


def attention_by_hand() -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        scores = F.batch_dot(s.q(x), s.k(x), transpose_b=True) / math.sqrt(8)
        return F.batch_dot(F.softmax(scores), s.v(x))

    return GluonNet(forward, q=dense(8, 8), k=dense(8, 8), v=dense(8, 8))


def masked_by_hand(fill: float) -> GluonNet:
    """Causal attention, its mask a value in place of what may not be seen."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        scores = F.batch_dot(s.q(x), s.k(x), transpose_b=True)
        steps = F.arange(6)
        seen = F.broadcast_greater_equal(steps.expand_dims(1), steps.expand_dims(0))
        seen = F.broadcast_axis(seen.expand_dims(0), axis=0, size=2)
        scores = F.where(seen, scores, F.ones_like(scores) * fill)
        return F.batch_dot(F.softmax(scores), s.v(x))

    return GluonNet(forward, q=dense(8, 8), k=dense(8, 8), v=dense(8, 8))


def masked(fill: float, scale: float = 1.0, diagonal: int = 1) -> Callable[[], TorchNet]:
    def softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        hidden = torch.ones(6, 6).triu(diagonal).bool()
        return (q @ k.mT * scale).masked_fill(hidden, fill).softmax(-1) @ v

    return attention(softmax)


def skipping(again: bool) -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        first = s.d(x)
        low = F.Pooling(first, kernel=(2, 2), stride=(2, 2), pool_type="max")
        high = F.UpSampling(low, scale=2, sample_type="nearest")
        return s.o(F.concat(high, s.d(x) if again else first, dim=1))

    conv = gnn.Conv2D(4, 3, padding=1, in_channels=4)
    return GluonNet(forward, d=conv, o=gnn.Conv2D(2, 1, in_channels=8))


def skipped() -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        first = s.d(x)
        high = F.interpolate(F.max_pool2d(first, 2), scale_factor=2)
        result: torch.Tensor = s.o(torch.cat((high, first), 1))
        return result

    return TorchNet(forward, d=nn.Conv2d(4, 4, 3, padding=1), o=nn.Conv2d(8, 2, 1))


def dropping() -> GluonNet:
    drop, out = gnn.Dropout(0.5), gnn.Dense(5, in_units=256)
    return GluonNet(lambda s, F, x: s.d(s.p(x)), p=drop, d=out)


def dropped(always: bool) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = s.d(F.dropout(x.flatten(1), 0.5, always or s.training))
        return result

    return TorchNet(forward, d=nn.Linear(256, 5))


def by_linear(swapped: bool = False) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        rows = s.d(x.permute(0, 2, 3, 1))
        return rows.permute(0, 3, 2, 1) if swapped else rows.permute(0, 3, 1, 2)

    return TorchNet(forward, d=nn.Linear(4, 5))


def by_shuffle(swapped: bool = False) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        pixels = F.pixel_shuffle(s.c(x), 2)
        return pixels.transpose(2, 3) if swapped else pixels

    return TorchNet(forward, c=nn.Conv2d(4, 8, 1))


def lstm(scale: float = 1.0) -> TorchNet:
    layer = nn.LSTM(8, 5, batch_first=True)
    return TorchNet(lambda s, x: s.l(x * scale)[0], l=layer)


class Attention(gluon.HybridBlock):
    """What `nn.MultiheadAttention` computes with two heads, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.packed, self.out = dense(24, 8), dense(8, 8)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        packed = F.reshape(self.packed(x), (0, 0, 3, 2, 4))
        query, key, value = (
            F.transpose(F.slice_axis(packed, axis=2, begin=i, end=i + 1).reshape((2, 6, 2, 4)),
                        (0, 2, 1, 3)).reshape((4, 6, 4))
            for i in range(3)
        )  # fmt: skip
        scores = F.softmax(F.batch_dot(query, key, transpose_b=True) / 2)
        heads = F.batch_dot(scores, value).reshape((2, 2, 6, 4))
        return x + self.out(F.transpose(heads, (0, 2, 1, 3)).reshape((2, 6, 8)))


def multihead() -> TorchNet:
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    return TorchNet(lambda s, x: x + s.a(x, x, x)[0], a=layer)


def by_formulas(scale: float = 1.0) -> GluonNet:
    """Functions written out, on values up to 30 in size, in whose tails they cancel."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.c(8 * x)
        flat = y.reshape((0, 2, -1))
        centred = F.broadcast_sub(flat, F.mean(flat, axis=2, keepdims=True))
        deviation = F.sqrt(F.mean(centred * centred, axis=2, keepdims=True) + 1e-5)
        grouped = F.broadcast_div(centred, deviation)
        return (
            0.5 * y * (1 + F.erf(y / math.sqrt(2))),
            F.log(F.softmax(y, axis=1)) * scale,
            F.where(y > 0, y, F.exp(y) - 1),
            F.mean(y * y, axis=(2, 3)) - F.square(F.mean(y, axis=(2, 3))),
            F.reshape(grouped, (0, 4, 8, 8)),
        )

    return GluonNet(forward, c=gnn.Conv2D(4, 1, in_channels=4))


def by_functions() -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = s.c(8 * x)
        variance = y.var((2, 3), unbiased=False)
        return F.gelu(y), F.log_softmax(y, 1), F.elu(y), variance, F.group_norm(y, 2)

    return TorchNet(forward, c=nn.Conv2d(4, 4, 1))


def pooled(unbiased: bool = False) -> TorchNet:
    """The mean and the standard deviation of a sequence: Gluon's goes on with the mean it has."""

    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = s.d(x)
        return torch.cat([y.mean(1), (y.var(1, unbiased=unbiased) + 1e-6).sqrt()], 1)

    return TorchNet(forward, d=nn.Linear(8, 5))


def pooled_by_hand() -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.d(x)
        mean = F.mean(y, axis=1)
        centred = F.broadcast_sub(y, F.expand_dims(mean, 1))
        return F.concat(mean, F.sqrt(F.mean(F.square(centred), axis=1) + 1e-6), dim=1)

    return GluonNet(forward, d=dense(5, 8))


class Held(gluon.HybridBlock):
    """Numbers in constants, where the other way writes them."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.c = gnn.Conv2D(4, 1, in_channels=4)
        for name, number in (("gain", gain), ("base", 0.3)):
            setattr(self, name, self.params.get_constant(name, np.array([number], np.float32)))

    def hybrid_forward(self, F: Any, x: Any, gain: Any, base: Any) -> Any:
        y = F.broadcast_mul(self.c(x), gain)
        return F.broadcast_div(base, 1 + F.square(y)), F.broadcast_sub(y, gain)


def written(gain: float) -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.c(x) * gain
        return 0.3 / (1 + F.square(y)), y - gain

    return GluonNet(forward, c=gnn.Conv2D(4, 1, in_channels=4))


def held(gain: float | torch.Tensor, base: float | torch.Tensor = 0.3) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> Any:
        y = s.c(x) * s.gain
        return s.base / (1 + y * y), y - s.gain

    net = TorchNet(forward, c=nn.Conv2d(4, 4, 1))
    for name, number in {"gain": gain, "base": base}.items():
        if isinstance(number, torch.Tensor):
            net.register_buffer(name, number)
        else:
            setattr(net, name, number)
    return net


def widened(zeros: Callable[[Any, Any], Any]) -> GluonNet:
    """A shortcut widened by zeros of a shape that the other way has, in whatever way."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.m(s.d(F.relu(s.n(s.c(x)))))
        return y + F.concat(x, zeros(F, F.slice_axis(y, axis=1, begin=0, end=2)), dim=1)

    convolutions = {"c": gnn.Conv2D(6, 1, in_channels=4), "d": gnn.Conv2D(6, 1, in_channels=6)}
    return GluonNet(forward, **convolutions, n=gnn.BatchNorm(), m=gnn.BatchNorm())


def widened_in_torch(momentum: float = 0.1) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = s.m(s.d(F.relu(s.n(s.c(x)))))
        return y + F.pad(x, (0, 0, 0, 0, 0, 2))

    convolutions = {"c": nn.Conv2d(4, 6, 1), "d": nn.Conv2d(6, 6, 1)}
    norms = {"n": nn.BatchNorm2d(6), "m": nn.BatchNorm2d(6, momentum=momentum)}
    return TorchNet(forward, **convolutions, **norms)


class FrozenNorm(nn.Module):
    """A batch norm of four buffers: as torchvision writes it, or as its definition has it."""

    def __init__(self, folded: bool, eps: float) -> None:
        super().__init__()
        self.folded, self.eps = folded, eps
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(4))

    def forward(self, x: torch.Tensor) -> Any:
        weight, bias, mean, var = (buffer.reshape(1, -1, 1, 1) for buffer in self.buffers())
        if self.folded:
            scale = weight * (var + self.eps).rsqrt()
            return x * scale + (bias - mean * scale)
        return bias + weight * ((x - mean) / (self.eps + var).sqrt())


def frozen_by_hand(folded: bool, eps: float = 1e-5) -> TorchNet:
    layers = {"c": nn.Conv2d(4, 4, 1), "n": FrozenNorm(folded, eps), "o": nn.Conv2d(4, 4, 1)}
    return TorchNet(lambda s, x: s.o(s.n(s.c(x))), **layers)


def frozen(trained: str = "null") -> GluonNet:
    norm = gnn.BatchNorm(in_channels=4, use_global_stats=True, epsilon=1e-5)
    for parameter in (norm.gamma, norm.beta):
        parameter.grad_req = trained
    layers = {name: gnn.Conv2D(4, 1, in_channels=4) for name in "co"}
    return GluonNet(lambda s, F, x: s.o(s.n(s.c(x))), n=norm, **layers)


def between_convs() -> GluonNet:
    convs = {name: gnn.Conv2D(4, 3, padding=1, in_channels=4) for name in "ab"}
    return GluonNet(lambda s, F, x: s.b(s.d(s.a(x))), d=dense(6, 8), **convs)


def between_convs_by(product: Callable[[Any, torch.Tensor], torch.Tensor]) -> TorchNet:
    convs = {name: nn.Conv2d(4, 4, 3, padding=1) for name in "ab"}
    return TorchNet(lambda s, x: s.b(product(s.d, s.a(x))), d=nn.Linear(8, 6), **convs)


def normed_channels() -> GluonNet:
    norm = gnn.LayerNorm(axis=1, in_channels=4)
    return GluonNet(lambda s, F, x: s.d(s.n(x)), n=norm, d=gnn.Dense(3, in_units=256))


def normed_channels_by(eps: float) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = s.d(s.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).flatten(1))
        return normal

    return TorchNet(forward, n=nn.LayerNorm(4, eps=eps), d=nn.Linear(256, 3))


def largest(choose: Callable[[Any, Any], Any]) -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        return s.o(choose(F, F.tanh(F.relu(s.c(x) - 1.5)) * F.sigmoid(x)))

    return GluonNet(forward, **{name: gnn.Conv2D(4, 1, in_channels=4) for name in "co"})


def largest_by(choose: Callable[[torch.Tensor], torch.Tensor]) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        chosen: torch.Tensor = s.o(choose((s.c(x) - 1.5).relu().tanh() * x.sigmoid()))
        return chosen

    return TorchNet(forward, **{name: nn.Conv2d(4, 4, 1) for name in "co"})


def divided() -> GluonNet:
    layer = gnn.Dense(3, flatten=False, in_units=8)
    return GluonNet(lambda s, F, x: s.d(x / (F.ones_like(x) * (1 / 3))), d=layer)


def times_reciprocals(number: float) -> TorchNet:
    return TorchNet(
        lambda s, x: s.d(x * torch.full_like(x, number).reciprocal()), d=nn.Linear(8, 3)
    )


EQUAL: dict[str, Pair] = {
    "a frozen batch norm, folded": (frozen, lambda: frozen_by_hand(True), IMAGE),
    "a frozen batch norm, step by step": (frozen, lambda: frozen_by_hand(False), IMAGE),
    "attention in one module": (Attention, multihead, SEQUENCES),
    "formulas": (by_formulas, by_functions, IMAGE),
    "a mean that one side goes on with": (pooled_by_hand, pooled, SEQUENCES),
    "layer norm by hand": (layer_norm, norm_by_hand, SEQUENCES),
    "layer norm by a variance": (layer_norm, norm_by_variance, SEQUENCES),
    "LSTM unrolled": (unrolled, lstm, SEQUENCES),
    "pixel shuffle": (shuffled, by_shuffle, IMAGE),
    "convolution of pixels as a linear layer": (pointwise_conv, by_linear, IMAGE),
    "a sum as a stack": (sum_of_three, stacked, IMAGE),
    "attention in one call": (
        attention_by_hand, attention(F.scaled_dot_product_attention), SEQUENCES,
    ),
    "a mask of −∞": (lambda: masked_by_hand(-1e9), masked(-math.inf), SEQUENCES),
    "a mask of −∞ in Gluon": (lambda: masked_by_hand(-math.inf), masked(-1e9), SEQUENCES),
    "parts joined one by one in Gluon": (lambda: grown(True), lambda: grown_in_torch(False), IMAGE),
    "parts joined one by one in torch": (lambda: grown(False), lambda: grown_in_torch(True), IMAGE),
    "what is normalised made in two ways": (joined_and_normed, padded_and_normed, IMAGE),
    "numbers in buffers": (
        lambda: written(0.1), lambda: held(torch.tensor(0.1), torch.full((1, 1, 1, 1), 0.3)), IMAGE,
    ),
    "numbers in buffers that float32 does not hold": (
        lambda: written(1 / 255), lambda: held(torch.tensor(1 / 255)), IMAGE,
    ),
    "numbers in constants": (lambda: Held(0.1), lambda: held(0.1), IMAGE),
    "numbers in arrays on both sides": (
        lambda: Held(0.1), lambda: held(torch.tensor([0.1]), torch.tensor([0.3])), IMAGE,
    ),
    "a number in a constant, another in a buffer": (
        lambda: Held(0.1), lambda: held(torch.tensor([0.1])), IMAGE,
    ),
    "a quotient by an array, and a product with its reciprocals": (
        divided, lambda: times_reciprocals(1 / 3), SEQUENCES,
    ),
    "zeros like another value": (
        lambda: widened(lambda F, z: F.zeros_like(z)), widened_in_torch, IMAGE,
    ),
    "zeros of another value": (lambda: widened(lambda F, z: z * 0), widened_in_torch, IMAGE),
    "joined and split again": (joined_and_split, never_joined, IMAGE),
    "computed twice": (lambda: skipping(True), skipped, IMAGE),
    "dropout behind a reshape": (dropping, lambda: dropped(False), IMAGE),
    "rows times the transpose of a matrix": (
        between_convs, lambda: between_convs_by(lambda d, x: x @ d.weight.t() + d.bias), IMAGE,
    ),
    "a product as a sum over indices": (
        lambda: dense(3, 8),
        lambda: TorchNet(
            lambda s, x: torch.einsum("...i,oi->...o", x, s.d.weight) + s.d.bias, d=nn.Linear(8, 3)
        ),
        SEQUENCES,
    ),
    "layer norm over channels": (normed_channels, lambda: normed_channels_by(1e-5), IMAGE),
    "the largest behind a ReLU and a gate": (
        lambda: largest(lambda F, y: F.max(y, axis=(2, 3), keepdims=True)),
        lambda: largest_by(lambda y: y.amax((2, 3), keepdim=True)),
        IMAGE,
    ),
    "one number comes out": (
        lambda: GluonNet(lambda s, F, x: (s.c(x), F.mean(x)), c=gnn.Conv2D(4, 1, in_channels=4)),
        lambda: TorchNet(lambda s, x: (s.c(x), x.mean()), c=nn.Conv2d(4, 4, 1)),
        IMAGE,
    ),
}  # fmt: skip

# Faults in one of the two ways, and a word of what is said of it
FAULTS: dict[str, tuple[*Pair, str]] = {
    "eps of a frozen batch norm": (
        frozen, lambda: frozen_by_hand(True, 1e-3), IMAGE, "Gluon has batch_norm in n",
    ),
    "trained in Gluon alone": (
        lambda: frozen("write"), lambda: frozen_by_hand(True), IMAGE,
        "n.gamma is trained, and its partner n.weight is not",
    ),
    "another number in a buffer": (
        lambda: written(0.1), lambda: held(torch.tensor(0.1 + 1e-6)), IMAGE,
        "Gluon has 0.1, torch has 0.100001",
    ),
    "another number in a constant": (
        lambda: Held(0.1 + 1e-6), lambda: held(0.1), IMAGE, "Gluon has 0.100001, torch has 0.1",
    ),
    "reciprocals of another number": (
        divided, lambda: times_reciprocals((1 + 1e-6) / 3), SEQUENCES,
        "torch's are 0.999999 times Gluon's",
    ),
    "another momentum of a norm whose shape zeros have": (
        lambda: widened(lambda F, z: F.zeros_like(z)),
        lambda: widened_in_torch(momentum=0.2), IMAGE,
        "m Gluon has 0.9, torch has 0.8 momentum",
    ),
    "another eps": (layer_norm, lambda: norm_by_hand(eps=1e-3), SEQUENCES, "layer_norm"),
    "an unbiased variance": (layer_norm, lambda: norm_by_variance(True), SEQUENCES, "layer_norm"),
    "not the root": (layer_norm, lambda: norm_by_hand(power=0.51), SEQUENCES, "layer_norm"),
    "an input scaled": (unrolled, lambda: lstm(1 + 3e-6), SEQUENCES, "lstm"),
    "pixels turned": (shuffled, lambda: by_shuffle(swapped=True), IMAGE, "transposed"),
    "maps turned": (pointwise_conv, lambda: by_linear(swapped=True), IMAGE, "linear"),
    "a term scaled": (sum_of_three, lambda: stacked(1 + 3e-6), IMAGE, "mul"),
    "not scaled": (
        attention_by_hand, attention(lambda q, k, v: (q @ k.mT).softmax(-1) @ v), SEQUENCES, "mul",
    ),
    "scaled before a mask of −∞": (
        lambda: masked_by_hand(-1e9), masked(-math.inf, 1 + 3e-4), SEQUENCES, "softmax",
    ),
    "another mask of −∞": (
        lambda: masked_by_hand(-1e9), masked(-math.inf, diagonal=2), SEQUENCES, "softmax",
    ),
    "two layers in another order": (
        lambda: GluonNet(
            lambda s, F, x: s.n(F.relu(s.c(x))),
            c=gnn.Conv2D(4, 1, in_channels=4),
            n=gnn.BatchNorm(in_channels=4),
        ),
        lambda: TorchNet(
            lambda s, x: F.relu(s.n(s.c(x))), c=nn.Conv2d(4, 4, 1), n=nn.BatchNorm2d(4)
        ),
        IMAGE, "another order: relu comes before batch_norm in Gluon, behind it in torch",
    ),
    "parts joined in another order": (
        lambda: grown(True), lambda: grown_in_torch(False, (0, 2, 1)), IMAGE, "cat",
    ),
    "a formula scaled": (lambda: by_formulas(1 + 3e-6), by_functions, IMAGE, "log_softmax"),
    "the unbiased variance": (pooled_by_hand, lambda: pooled(True), SEQUENCES, "var"),
    "another matrix": (
        between_convs,
        lambda: between_convs_by(lambda d, x: x @ (1.01 * d.weight).t() + d.bias),
        IMAGE,
        "mul (/",
    ),
    "a number that is nearly another": (
        lambda: largest(lambda F, y: F.maximum(y, 0.1)),
        lambda: largest_by(lambda y: y.clamp(min=0.1 * (1 + 3e-6))),
        IMAGE,
        "torch has 0.1000003",
    ),
    "another norm over channels": (
        normed_channels, lambda: normed_channels_by(1e-3), IMAGE, "torch has 0.001",
    ),
    "the smallest behind a ReLU": (
        lambda: largest(lambda F, y: F.max(y, axis=(2, 3), keepdims=True)),
        lambda: largest_by(lambda y: y.amin((2, 3), keepdim=True)),
        IMAGE,
        "min",
    ),
    "dropout always on": (dropping, lambda: dropped(True), IMAGE, "additional dropout"),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_the_same_function_in_two_ways_is_in_parity(name: str) -> None:
    build_gluon, build_torch, x = EQUAL[name]
    report = check_parity(initialised(build_gluon(), x), build_torch(), x, transfer=True)
    assert report.ok, str(report)
    assert set(report.coverage.percent().values()) == {100.0}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_one_of_two_ways_is_found(name: str) -> None:
    build_gluon, build_torch, x, words = FAULTS[name]
    report = check_parity(initialised(build_gluon(), x), build_torch(), x, transfer=True)
    assert not report.ok
    said = " ".join(f"{row.path} {row.detail} {row.diagnosis}" for row in report.failures)
    assert words in said, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "diagonal", "right"), [(1.0, 1, True), (1 + 3e-4, 1, False), (1.0, 2, False)]
)
def test_a_mask_of_infinity_on_both_sides_is_part_of_what_follows(
    scale: float, diagonal: int, right: bool
) -> None:
    gluon_net = initialised(masked_by_hand(-math.inf), SEQUENCES)
    torch_net = masked(-math.inf, scale, diagonal)()
    report = check_parity(gluon_net, torch_net, SEQUENCES, transfer=True)
    assert report.ok == right, str(report)
    assert right or any("softmax" in row.path for row in report.failures)


def dropping_attention() -> GluonNet:
    def forward(s: Any, F: Any, x: Any) -> Any:
        scores = F.batch_dot(s.q(x), s.k(x), transpose_b=True) / math.sqrt(8)
        return F.batch_dot(F.Dropout(F.softmax(scores), p=0.1), s.v(x))

    return GluonNet(forward, q=dense(8, 8), k=dense(8, 8), v=dense(8, 8))


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_what_attention_in_one_call_drops_is_seen(rate: float) -> None:
    def forward(s: Any, x: torch.Tensor) -> Any:
        drops = rate if s.training else 0.0
        return F.scaled_dot_product_attention(s.q(x), s.k(x), s.v(x), dropout_p=drops)

    torch_net = TorchNet(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 8), v=nn.Linear(8, 8))
    net = initialised(dropping_attention(), SEQUENCES)
    first = check_parity(net, torch_net, SEQUENCES, transfer=True).first_divergence
    assert (first is None) == (rate == 0.1), str(first)
    assert first is None or "dropout rate: 0.1 in Gluon, 0.3 in torch" in str(first)


@pytest.mark.parametrize("options", [{"is_causal": True}, {"scale": 0.3}, {"attn_mask": "sum"},
                                     {"attn_mask": "mask"}, {"enable_gqa": True}])  # fmt: skip
def test_attention_in_steps_is_what_torch_computes(options: dict[str, Any]) -> None:
    key = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(0))
    masks = {"sum": torch.randn(6, 5), "mask": torch.randn(6, 5) > -1}
    given: dict[str, Any] = {n: masks.get(x, x) for n, x in options.items()}
    query = torch.linspace(-2, 2, 192).reshape(2, 4, 6, 4)
    key = key if options.get("enable_gqa") else key.expand(2, 4, 5, 4)
    expected = F.scaled_dot_product_attention(query, key, key + 1, **given)
    torch.testing.assert_close(attention_in_steps(query, key, key + 1, **given), expected)


@pytest.mark.parametrize("mode", ["channel", "instance"])
@pytest.mark.parametrize("scale", [1, 1e6])
def test_the_divisor_of_a_normalisation_is_named(scale: float, mode: str) -> None:
    """MXNet adds its 1e-10 to the sum, torch takes 1e-12 at least: alike where the sum is large."""
    x = SEQUENCES if mode == "channel" else SEQUENCES[0]
    net = GluonNet(lambda s, F, x: F.L2Normalization(s.d(x) * scale, mode=mode), d=dense(6, 8))
    torch_net = TorchNet(lambda s, x: F.normalize(s.d(x) * scale, dim=1), d=nn.Linear(8, 6))
    report = check_parity(initialised(net, x), torch_net, x, transfer=True)
    assert report.ok == (scale > 1), str(report)
    divisors = "Gluon has √(‖x‖² + 1e-10), torch has max(‖x‖, 1e-12) (divisor)"
    assert scale > 1 or divisors in str(report.first_divergence)


def test_other_weights_of_two_ways_are_other_weights() -> None:
    """What is computed otherwise is judged with equal weights: no difference of structure."""
    first = check_parity(initialised(unrolled(), SEQUENCES), lstm(), SEQUENCES).first_divergence
    assert first is not None
    assert first.level == "weights"


@pytest.mark.parametrize("momentum", [0.1, 0.2])
def test_norms_in_one_segment_keep_variances_of_their_own(
    monkeypatch: pytest.MonkeyPatch, momentum: float
) -> None:
    """torch's n/(n−1) is known of each, by its own n, as it is where a norm is a segment."""

    def whole(alignment: Any, executed: Any, normalised: Any, _: Any, *rest: Any) -> segments.Cut:
        inner = {pair.right.index for pair in alignment.pairs if pair.right.kind != "linear"}
        return segments.cut(alignment, executed, normalised, inner, *rest)

    monkeypatch.setattr(view, "cut", whole)
    gluon_net = GluonNet(
        lambda s, F, x: s.d(s.m(F.Pooling(s.n(x), kernel=(2, 2), stride=(2, 2)))),
        n=gnn.BatchNorm(), m=gnn.BatchNorm(), d=gnn.Dense(3),
    )  # fmt: skip
    torch_net = TorchNet(
        lambda s, x: s.d(s.m(F.max_pool2d(s.n(x), 2)).flatten(1)),
        n=nn.BatchNorm2d(4), m=nn.BatchNorm2d(4, momentum=momentum), d=nn.Linear(64, 3),
    )  # fmt: skip
    report = check_parity(initialised(gluon_net, IMAGE), torch_net, IMAGE, transfer=True)
    assert report.ok is (momentum == 0.1), str(report)
    notes = [f"{row.quantity} {row.diagnosis}" for row in report.rows if row.status == Status.NOTE]
    assert any("running_var variance" in note and "128/127" in note for note in notes)
    same = any("running_var_2 variance" in note and "32/31" in note for note in notes)
    assert same is (momentum == 0.1)


MASK = (np.random.default_rng(3).random((2, 6, 6)) > 0.4).astype(np.float32)
MASK[..., 0] = 1

# Ways of masking scores s by m, which is 1 where they count; the framework's `where` is given
MASKED: dict[str, Callable[[Any, Any, Any], Any]] = {
    "chosen": lambda where, s, m: where(m, s, s * 0 - 1e9),
    "added": lambda where, s, m: s + (1 - m) * -1e9,
    "gated": lambda where, s, m: s * m + (1 - m) * -3e38,
}
UNMASKED: dict[str, Callable[[Any, Any], Any]] = {
    "the other way round": lambda s, m: s + m * -1e9,
    "too little": lambda s, m: s + (1 - m) * -3,
    "transposed": lambda s, m: s + (1 - m.mT) * -1e9,
    "stopped": lambda s, m: s.detach() + (1 - m) * -1e9,
}


def masked_as(way: str) -> Any:
    def forward(s: Any, F: Any, x: Any, mask: Any) -> Any:
        scores = F.batch_dot(s.q(x), s.k(x), transpose_b=True)
        return F.batch_dot(F.softmax(MASKED[way](F.where, scores, mask)), x)

    return initialised(GluonNet(forward, q=dense(8, 8), k=dense(8, 8)), SEQUENCES, MASK)


def masked_in_torch(mask_scores: Callable[[Any, Any], Any]) -> TorchNet:
    def forward(s: Any, x: torch.Tensor, mask: torch.Tensor) -> Any:
        return mask_scores(s.q(x) @ s.k(x).mT, mask).softmax(-1) @ x

    return TorchNet(forward, q=nn.Linear(8, 8), k=nn.Linear(8, 8))


def where(mask: torch.Tensor, scores: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
    return torch.where(mask != 0, scores, fill)


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.permutations(MASKED, 2)))
def test_two_ways_of_masking_are_in_parity(ours: str, theirs: str) -> None:
    torch_net = masked_in_torch(lambda s, m: MASKED[theirs](where, s, m))
    report = check_parity(masked_as(ours), torch_net, (SEQUENCES, MASK), transfer=True)
    assert report.ok, str(report)
    notes = [row.detail for row in report.rows if row.status == Status.NOTE]
    assert any("both give the same values" in detail for detail in notes)


@pytest.mark.parametrize("ours", MASKED)
@pytest.mark.parametrize("fault", UNMASKED)
def test_a_wrong_mask_is_found(ours: str, fault: str) -> None:
    torch_net = masked_in_torch(UNMASKED[fault])
    assert not check_parity(masked_as(ours), torch_net, (SEQUENCES, MASK), transfer=True).ok


# What masks weights of attention once more behind the softmax, on one side alone
MASKED_AGAIN: dict[str, Callable[..., Any]] = {
    "before dropout": lambda s, F, a, m: s.d(F.broadcast_mul(a, m)),
    "behind dropout": lambda s, F, a, m: F.broadcast_mul(s.d(a), m),
    "dropout between two": lambda s, F, a, m: F.broadcast_mul(s.d(F.broadcast_mul(a, m)), m),
}
NOT_MASKED: dict[str, Callable[..., Any]] = {
    "": lambda s, a: s.d(a),
    "another factor": lambda s, a: s.d(a * 1.001),
    "gradient stopped": lambda s, a: s.d(a.detach()),
}


@pytest.mark.parametrize("ours", MASKED_AGAIN)
@pytest.mark.parametrize("fault", [*NOT_MASKED, "soft"])
def test_what_a_softmax_leaves_0_may_be_masked_again(ours: str, fault: str) -> None:
    def forward(s: Any, F: Any, x: Any, mask: Any) -> Any:
        scores = F.batch_dot(s.q(x), x, transpose_b=True)
        weights = F.softmax(F.where(mask, scores, F.ones_like(scores) * -1e9))
        return F.batch_dot(MASKED_AGAIN[ours](s, F, weights, mask), x)

    def forward_in_torch(s: Any, x: torch.Tensor, mask: torch.Tensor) -> Any:
        filled = -5.0 if fault == "soft" else -1e9
        weights = (s.q(x) @ x.mT).masked_fill(mask == 0, filled).softmax(-1)
        return NOT_MASKED.get(fault, NOT_MASKED[""])(s, weights) @ x

    gluon_net = GluonNet(forward, q=dense(8, 8), d=gnn.Dropout(0.1))
    torch_net = TorchNet(forward_in_torch, q=nn.Linear(8, 8), d=nn.Dropout(0.1))
    net = initialised(gluon_net, SEQUENCES, MASK)
    report = check_parity(net, torch_net, (SEQUENCES, MASK), transfer=True)
    assert report.ok == (not fault), str(report)


@pytest.mark.parametrize("in_front", [True, False])
def test_a_convolution_whose_last_results_are_cut_off_pads_in_front_alone(in_front: bool) -> None:
    """Two residual blocks of a temporal convolution, and a transposed one cut off at both ends."""

    def causal(s: Any, x: torch.Tensor) -> Any:
        for layers, pad in ((s.one, 2), (s.two, 4)):
            y = x
            for layer in layers:
                y = s.d(torch.relu(layer(F.pad(y, (pad, 0) if in_front else (0, pad)))))
            x = torch.relu(y + x)
        return s.out(x)

    def chomped(s: Any, F: Any, x: Any) -> Any:
        for layers, pad in ((s.one, 2), (s.two, 4)):
            y = x
            for layer in layers:
                y = s.d(F.relu(F.slice_axis(layer(y), axis=2, begin=0, end=-pad)))
            x = F.relu(y + x)
        return F.slice_axis(s.out(x), axis=2, begin=1, end=-1)

    ours: dict[str, Any] = {"d": gnn.Dropout(0.1)}
    theirs: dict[str, Any] = {"d": nn.Dropout(0.1)}
    for dilation, name in enumerate(("one", "two"), 1):
        ours[name] = gnn.HybridSequential()
        for _ in range(2):
            options = {"padding": 2 * dilation, "dilation": dilation}
            ours[name].add(gnn.Conv1D(3, 3, in_channels=3, **options))
        theirs[name] = nn.Sequential(*(nn.Conv1d(3, 3, 3, dilation=dilation) for _ in range(2)))
    net = GluonNet(chomped, **ours, out=gnn.Conv1DTranspose(2, 4, 2, in_channels=3))
    torch_net = TorchNet(causal, **theirs, out=nn.ConvTranspose1d(3, 2, 4, 2, 1))
    series = random_image(2, 3, 8)
    report = check_parity(initialised(net, series), torch_net, series, transfer=True)
    first = report.first_divergence
    assert (first is None) == in_front, str(report)
    assert first is None or first.path == "one.0", str(report)


@pytest.mark.parametrize("offset", [1, 0])
def test_a_crop_of_what_another_layer_reads_too_stays_a_crop(offset: int) -> None:
    def forward(s: Any, F: Any, x: Any) -> Any:
        y = s.a(x)
        crop = F.slice(y, begin=(None, None, 1, 1), end=(None, None, -1, -1))
        return F.concat(F.relu(crop), F.relu(s.b(y)), dim=1)

    def forward_in_torch(s: Any, x: torch.Tensor) -> Any:
        y = s.a(x)
        crop = y.narrow(2, offset, 6).narrow(3, 1, 6)
        return torch.cat((torch.relu(crop), torch.relu(s.b(y))), 1)

    ours = {"a": gnn.Conv2D(4, 3, 1, 1, in_channels=4), "b": gnn.Conv2D(2, 3, in_channels=4)}
    theirs = {"a": nn.Conv2d(4, 4, 3, 1, 1), "b": nn.Conv2d(4, 2, 3)}
    image = random_image()
    net = initialised(GluonNet(forward, **ours), image)
    report = check_parity(net, TorchNet(forward_in_torch, **theirs), image, transfer=True)
    assert report.ok == (offset == 1), str(report)
    assert report.ok or str(report.first_divergence).startswith("narrow "), str(report)


def heads_apart(product: str) -> GluonNet:
    """Attention of two heads, which are samples of their own for `batch_dot`."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        def split(y: Any) -> Any:
            y = F.transpose(F.reshape(y, (0, 0, 2, -1)), (0, 2, 1, 3))
            return F.reshape(y, (-3, -2)) if product == "batch_dot" else y

        multiply = F.linalg_gemm2 if product == "linalg_gemm2" else F.batch_dot
        scores = multiply(split(s.q(x)), split(s.k(x)), transpose_b=True) * 0.5
        mixed = F.reshape(multiply(F.softmax(scores), split(s.v(x))), (2, 2, 6, 4))
        return s.o(F.reshape(F.transpose(mixed, (0, 2, 1, 3)), (0, 0, -1)))

    return GluonNet(forward, **{name: dense(8, 8) for name in "qkvo"})


def heads(fault: str) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> Any:
        def split(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(2, 6, 2, 4).transpose(1, 2)

        q, k, v = (
            layer(x) * (2 if name == fault else 1)
            for name, layer in zip("qkv", (s.q, s.k, s.v), strict=True)
        )
        scores = split(q) @ split(k).mT * (0.4 if fault == "scale" else 0.5)
        mixed = scores.softmax(-2 if fault == "axis" else -1) @ split(v)
        return s.o(mixed.transpose(1, 2).reshape(2, 6, 8))

    return TorchNet(forward, **{name: nn.Linear(8, 8) for name in "qkvo"})


# A fault in attention of several heads, and a word of each way in which it may be named
HEADS = {
    "": [""],
    **{name: ["mul", "constant factor: torch's are 2 times Gluon's"] for name in "qkv"},
    "scale": ["mul"],
    "axis": ["softmax"],
}


@pytest.mark.parametrize("product", ["batch_dot", "linalg_gemm2"])
@pytest.mark.parametrize("fault", HEADS)
def test_a_fault_among_heads_is_named_at_its_operation(fault: str, product: str) -> None:
    net = initialised(heads_apart(product), SEQUENCES)
    first = check_parity(net, heads(fault), SEQUENCES, transfer=True).first_divergence
    assert (first is None) == (not fault), str(first)
    assert any(words in str(first) for words in HEADS[fault]), str(first)


class Block(nn.Module):
    """A residual block with a convolution in its shortcut, as it is and with a fault."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.body, self.side = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, shortcut = self.body(x), self.side(x)
        if self.fault == "missing shortcut":
            return torch.relu(y)
        if self.fault.startswith("shortcut on"):
            return torch.relu(y) + shortcut
        return torch.relu(y + shortcut)


def residual() -> GluonNet:
    body, side = gnn.Conv2D(4, 3, padding=1, in_channels=4), gnn.Conv2D(4, 1, in_channels=4)
    return GluonNet(lambda s, F, x: F.relu(s.body(x) + s.side(x)), body=body, side=side)


@pytest.mark.parametrize(
    "fault", ["", "missing shortcut", "shortcut on the other side of the next operation"]
)
def test_a_fault_of_a_shortcut_is_named(fault: str) -> None:
    report = check_parity(initialised(residual(), IMAGE), Block(fault), IMAGE, transfer=True)
    assert report.ok == (not fault)
    first = report.first_divergence
    assert fault in (first.diagnosis if first else ""), str(first)


def test_a_net_that_runs_otherwise_in_training_is_compared_in_both_modes() -> None:
    def ours(s: Any, F: Any, x: Any) -> Any:
        return s.c(x) * (2 if mx.autograd.is_training() else 1)

    def theirs(factor: float) -> Callable[..., Any]:
        return lambda s, x: s.c(x) * factor if s.training else s.c(x)

    def report(factor: float) -> Any:
        gluon_net = initialised(GluonNet(ours, c=gnn.Conv2D(4, 1, in_channels=4)), IMAGE)
        torch_net = TorchNet(theirs(factor), c=nn.Conv2d(4, 4, 1))
        return check_parity(gluon_net, torch_net, IMAGE, transfer=True)

    equal, other = report(2), report(2.5)
    assert equal.ok, str(equal)
    assert other.first_divergence is not None
    assert "constant factor" in other.first_divergence.diagnosis


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_a_scale_that_nothing_trains_may_be_missing_where_it_is_one(gamma: float) -> None:
    norm = gnn.InstanceNorm(in_channels=4, center=False, scale=False)
    conv = gnn.Conv2D(4, 1, in_channels=4)
    gluon_net = GluonNet(lambda s, F, x: s.c(s.n(x)), n=norm, c=conv)
    gluon_net.initialize()
    norm.gamma.set_data(mx.nd.full((4,), gamma))
    torch_net = TorchNet(lambda s, x: s.c(F.instance_norm(x)), c=nn.Conv2d(4, 4, 1))
    report = check_parity(gluon_net, torch_net, IMAGE, transfer=True)
    assert report.ok == (gamma == 1.0), str(report)


class Reversed(torch.autograd.Function):
    """The identity, whose gradient is not."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return -gradients[0]


def layered(stops: bool = False) -> GluonNet:
    """Convolution, ReLU, convolution, the mean of each map, and a convolution of that."""

    def forward(s: Any, F: Any, x: Any) -> Any:
        y = F.relu(s.a(x))
        y = s.b(F.BlockGrad(y) if stops else y)
        return s.c(F.Pooling(y, kernel=(1, 1), pool_type="avg", global_pool=True))

    layers = {"a": 3, "b": 3, "c": 1}
    convs = {k: gnn.Conv2D(4, v, padding=v // 2, in_channels=4) for k, v in layers.items()}
    return GluonNet(forward, **convs)


def _layered(
    relu: Callable[..., Any] = torch.relu,
    pool: Callable[..., Any] = F.adaptive_avg_pool2d,
    bias: bool = True,
) -> TorchNet:
    def forward(s: Any, x: torch.Tensor) -> torch.Tensor:
        y = pool(s.b(relu(s.a(x))), 1)
        return F.conv2d(y, s.c.weight, s.c.bias if bias else None)

    layers = {"a": 3, "b": 3, "c": 1}
    return TorchNet(forward, **{k: nn.Conv2d(4, 4, v, padding=v // 2) for k, v in layers.items()})


# What torch does, where it is seen, and what it is called
NAMED: dict[str, tuple[Callable[[], TorchNet], str, str]] = {
    "a gradient of its own": (
        lambda: _layered(relu=lambda y: Reversed.apply(torch.relu(y))), "b", "negated",
    ),
    "a gradient that stops": (lambda: _layered(relu=lambda y: y.relu().detach()), "b", "stopped"),
    "noise": (
        lambda: _layered(relu=lambda y: y.relu() + 1e-3 * torch.randn_like(y)), "relu",
        "additional noise",
    ),
    # its trace is less than a ten-thousandth of the output
    "a few digits": (
        lambda: _layered(relu=lambda y: y.half().float().relu()), "relu", "float16 rounding",
    ),
    "the largest of a map": (
        lambda: _layered(pool=F.adaptive_max_pool2d), "adaptive_max_pool2d",
        "maximum for average pooling",
    ),
    "no bias behind single values": (lambda: _layered(bias=False), "conv2d", "bias ignored"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_fault_is_named_where_it_is(name: str) -> None:
    build_torch, path, words = NAMED[name]
    report = check_parity(initialised(layered(), IMAGE), build_torch(), IMAGE, transfer=True)
    first = report.first_divergence
    assert first is not None
    assert (first.path, first.diagnosis[: len(words)]) == (path, words), str(first)


def test_a_gradient_that_gluon_stops_is_named() -> None:
    report = check_parity(initialised(layered(True), IMAGE), _layered(), IMAGE, transfer=True)
    first = report.first_divergence
    assert first is not None
    assert (first.path, first.diagnosis[:16]) == ("b", "stopped gradient"), str(first)


# What one framework has an operator for: Gluon's way, torch's, and one that is wrong
WORDS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "roll": (
        lambda F, x: F.concat(
            F.slice_axis(x, axis=3, begin=3, end=None), F.slice_axis(x, axis=3, begin=0, end=3),
            dim=3,
        ),
        lambda x: x.roll(-3, 3),
        lambda x: x.roll(3, 3),
    ),
    "roll over two axes": (
        lambda F, x: mx.np.roll(x.as_np_ndarray(), (2, -1), axis=(2, 3)).as_nd_ndarray(),
        lambda x: torch.roll(x, (-1, 2), (-1, -2)),
        lambda x: torch.roll(x, (2, -1), (-1, -2)),
    ),
    "roll of all values": (
        lambda F, x: mx.np.roll(x.as_np_ndarray(), 5).as_nd_ndarray(),
        lambda x: x.roll(5),
        lambda x: x.roll(-5),
    ),
    "space to depth": (
        lambda F, x: F.space_to_depth(x, 2),
        lambda x: F.pixel_unshuffle(x, 2).reshape(2, 4, 4, 4, 4).transpose(1, 2).flatten(1, 2),
        lambda x: F.pixel_unshuffle(x, 2),
    ),
    "depth to space": (
        lambda F, x: F.depth_to_space(x, 2),
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.pixel_shuffle(x, 2).mT,
    ),
    "blocks that lie otherwise": (
        lambda F, x: F.depth_to_space(F.concat(x, x * 2, dim=1), 2),
        lambda x: F.pixel_shuffle(F.channel_shuffle(torch.cat([x, x * 2], 1), 4), 2),
        lambda x: F.pixel_shuffle(torch.cat([x, x * 2], 1), 2),
    ),
    "by the root of their length": (
        lambda F, x: mx.nd.contrib.div_sqrt_dim(x),
        lambda x: x / math.sqrt(8),
        lambda x: x * 8**-0.5 * (1 + 1e-6),
    ),
    "sums so far": (
        lambda F, x: F.cumsum(x, axis=2),
        lambda x: x.cumsum(-2),
        lambda x: x.cumsum(-1),
    ),
    "einsum of heads": (
        lambda F, x: F.batch_dot(*[x.reshape((8, 8, 8))] * 2, transpose_b=True).reshape(x.shape),
        lambda x: torch.einsum("bhid, bhjd -> bhij", x, x),
        lambda x: torch.einsum("bhid, bhdj -> bhij", x, x),
    ),
    "einsum of one array": (
        lambda F, x: F.transpose(F.sum(x, axis=3), (2, 0, 1)),
        lambda x: torch.einsum("nchw->hnc", x),
        lambda x: torch.einsum("nchw->wnc", x),
    ),
    "einsum of three, with an ellipsis": (
        lambda F, x: F.batch_dot(
            F.batch_dot(*[x.reshape((8, 8, 8))] * 2), x.reshape((8, 8, 8))
        ).reshape(x.shape),
        lambda x: torch.einsum("...ij,...jk,...kl", x, x, x),
        lambda x: torch.einsum("...ij,...jk,...lk", x, x, x),
    ),
    "einsum that adds nothing up": (
        lambda F, x: F.broadcast_mul(x, F.mean(x, axis=(2, 3), keepdims=True)),
        lambda x: torch.einsum("nchw,nc->nchw", [x, x.mean((2, 3))]),
        lambda x: torch.einsum("nchw,nc->nchw", [x, x.mean((2, 3)) * (1 + 1e-6)]),
    ),
    "einsum of numpy": (
        lambda F, x: mx.np.einsum("nchw,nkwh->nckh", *[x.as_np_ndarray()] * 2).as_nd_ndarray(),
        lambda x: torch.einsum("nchw, nkwh -> nckh", x, x),
        lambda x: torch.einsum("nchw, nkhw -> nckh", x, x),
    ),
    "axes in other places": (
        lambda F, x: mx.np.moveaxis(x.as_np_ndarray(), 1, -1).as_nd_ndarray(),
        lambda x: x.movedim((1, 0), (-1, 0)),
        lambda x: x.movedim(1, 2).mT.mT,
    ),
    "side by side": (
        lambda F, x: F.concat(x, 2 * x, dim=1),
        lambda x: torch.hstack((x, 2 * x)),
        lambda x: torch.hstack((2 * x, x)),
    ),
    "rows on rows": (
        lambda F, x: mx.np.vstack([y.as_np_ndarray() for y in (x, 2 * x)]).as_nd_ndarray(),
        lambda x: torch.vstack((x, 2 * x)),
        lambda x: torch.vstack((2 * x, x)),
    ),
    "parts": (
        lambda F, x: F.split_v2(x, (1,), axis=1)[1] * 2,
        lambda x: torch.hsplit(x, [1])[1] * 2,
        lambda x: torch.hsplit(x, [3])[0] * 2,
    ),
    "gated": (
        lambda F, x: F.slice_axis(x, axis=1, begin=0, end=2)
        * F.sigmoid(F.slice_axis(x, axis=1, begin=2, end=4)),
        lambda x: F.glu(x, 1),
        lambda x: F.glu(x.roll(2, 1), 1),
    ),
    "with a product": (
        lambda F, x: x + 0.3 * (x * x) + (x / (F.abs(x) + 1)) * -0.7,
        lambda x: torch.addcdiv(torch.addcmul(x, x, x, value=0.3), x, x.abs() + 1, value=-0.7),
        lambda x: torch.addcdiv(torch.addcmul(x, x, x, value=0.3), x, x.abs() + 1, value=-0.7001),
    ),
    "of vectors": (
        lambda F, x: F.broadcast_mul(
            F.mean(x, axis=(0, 1, 2)).reshape((8, 1)), F.max(x, axis=(0, 1, 2)).reshape((1, 8))
        ) * F.dot(F.mean(x, axis=(0, 1)), F.max(x, axis=(0, 1, 2)).reshape((8, 1))),
        lambda x: torch.outer(x.mean((0, 1, 2)), x.amax((0, 1, 2)))
        * torch.mv(x.mean((0, 1)), x.amax((0, 1, 2)))[:, None],
        lambda x: torch.outer(x.amax((0, 1, 2)), x.mean((0, 1, 2)))
        * torch.mv(x.mean((0, 1)), x.amax((0, 1, 2)))[:, None],
    ),
    "by other names": (
        lambda F, x: -(F.abs(x.reshape((-1,))) - 1),
        lambda x: torch.subtract(x.ravel().absolute(), 1).negative(),
        lambda x: torch.subtract(x.mT.ravel().absolute(), 1).negative(),
    ),
    "the shape of another": (
        lambda F, x: F.reshape_like(x.reshape((0, -1)), x) * 2,
        lambda x: x * 2,
        lambda x: x.mT * 2,
    ),
}  # fmt: skip


def test_a_call_with_another_output_is_compared_backward() -> None:
    def ours(s: Any, F: Any, x: Any) -> Any:
        centred = F.broadcast_sub(x, F.mean(x, axis=1, keepdims=True))
        return F.sqrt(F.mean(centred * centred, axis=1) * (4 / 3)), F.sigmoid(F.mean(x, axis=1))

    def theirs(s: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        deviation, mean = torch.std_mean(x, 1)
        return deviation, mean.sigmoid()

    report = check_parity(initialised(GluonNet(ours), IMAGE), TorchNet(theirs), IMAGE)
    assert report.ok, str(report)


@pytest.mark.parametrize("name", WORDS)
def test_what_one_framework_has_an_operator_for_is_the_same_in_parts(name: str) -> None:
    ours, theirs, wrong = WORDS[name]

    def compared(function: Callable[..., Any]) -> Report:
        gluon_net = ImperativeNet(lambda s, x: ours(mx.nd, s.c(x)), c=gnn.Conv2D(4, 1))
        torch_net = TorchNet(lambda s, x: function(s.c(x)), c=nn.Conv2d(4, 4, 1))
        return check_parity(initialised(gluon_net, IMAGE), torch_net, IMAGE, transfer=True)

    report = compared(theirs)
    assert report.ok, str(report)
    assert not [row for row in report.rows if "both give" in row.detail]
    assert not compared(wrong).ok
