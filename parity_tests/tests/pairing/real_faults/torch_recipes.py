"""Faults at any operation of a torch net.

Framework specific (torch): each changes what a call of torch does, or a parameter of a module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from parity_tests.faults.kinds.arithmetic import Backward
from parity_tests.numerics.rounding import mantissa
from parity_tests.pairing.graph import Operation
from parity_tests.reporting.verdicts import Level, Side
from parity_tests.tests.pairing.real_faults.planting import Call, NotHere, Site
from parity_tests.tests.pairing.real_faults.recipes import Plant, Recipe, at_call, following, table

_NORMS = ("batch_norm",)


def _kernel(op: Operation) -> tuple[int, ...]:
    return tuple(op.parameters["weight"].shape[2:]) if "weight" in op.parameters else ()


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _same_3(op: Operation) -> bool:
    """A convolution of 3 × 3 that keeps the map's size or halves it."""
    return _kernel(op) == (3, 3) and _pair(op.attributes["padding"]) == (1, 1)


def _moved_stride(site: Site, net: Any) -> None:
    op = site.op
    behind = following(site, ("conv2d",), (*_NORMS, "relu", "hardtanh", "relu6"))
    if _pair(op.attributes["stride"]) != (2, 2) or _pair(behind.attributes["stride"]) != (1, 1):
        raise NotHere("no stride to move")
    site.plant(net, lambda call: call.again(stride=1))
    site.plant(net, lambda call: call.again(stride=2), behind)


def _padded(**how: Any) -> Callable[[Call], Any]:
    def change(call: Call) -> Any:
        return call.again(input=functional.pad(call.first, **how), padding=0)

    return change


def _norm_exchanged(site: Site, net: Any) -> None:
    """Normalised after the activation instead of before it."""
    behind = following(site, ("relu",), ())
    site.plant(net, lambda call: call.again(input=functional.relu(call.first)))
    site.plant(net, lambda call: call.first, behind)


def _activated_before_sum(site: Site, net: Any) -> None:
    behind = following(site, ("relu",), ())
    site.plant(net, lambda call: functional.relu(call.args[0]) + call.args[1])
    site.plant(net, lambda call: call.first, behind)


def _two_maps(op: Operation) -> bool:
    return len(op.reads) == 2 and len(op.shapes[0]) == 4


def _is_residual(op: Operation) -> bool:
    return _two_maps(op) and len({x.shape for x in op.inputs}) == 1


def _is_gate(op: Operation) -> bool:
    """A map times one number for each channel."""
    return _two_maps(op) and {x.shape[2:] for x in op.inputs} >= {(1, 1)}


def _gated(call: Call) -> Any:
    return max(call.args[:2], key=torch.numel)


def _detached_gate(call: Call) -> Any:
    x, w = sorted(call.args[:2], key=torch.numel, reverse=True)
    return x * w.detach()


def _only_before(*kinds: str) -> Callable[[Callable[[Call], Any]], Plant]:
    """Planted only where nothing but these reads the output."""

    def plant_with(change: Callable[[Call], Any]) -> Plant:
        def plant(site: Site, net: Any) -> None:
            if not site.readers() or any(op.kind not in kinds for op in site.readers()):
                raise NotHere("read by others")
            site.plant(net, change)

        return plant

    return plant_with


def _at_start(change: Callable[[Call], Any]) -> Plant:
    return at_call(change, lambda op: not op.index)


def _at_end(change: Callable[[Call], Any]) -> Plant:
    def plant(site: Site, net: Any) -> None:
        if site.op.index != len(site.graph) - 1:
            raise NotHere("not the last")
        site.plant(net, change)

    return plant


def _inner(change: Callable[[Call], Any]) -> Plant:
    """Planted where a map is made that goes on to one reader, so that gradients come from there."""

    def plant(site: Site, net: Any) -> None:
        if len(site.op.shapes[0]) != 4 or not site.sources():
            raise NotHere("no map inside the net")
        site.plant(net, change)

    return plant


def _pooled(change: Callable[[Call], Any]) -> Plant:
    return at_call(change, lambda op: _window(op) > 1)


def _window(op: Operation) -> int:
    size = _pair(op.attributes.get("kernel_size", 0))
    return int(np.prod(size))


def _as_average(call: Call) -> Any:
    names = ("kernel_size", "stride", "padding", "ceil_mode")
    return functional.avg_pool2d(call.first, **{name: call.argument(name) for name in names})


def _as_maximum(call: Call) -> Any:
    names = ("kernel_size", "stride", "padding", "ceil_mode")
    return functional.max_pool2d(call.first, **{name: call.argument(name) for name in names})


def _unshuffled(call: Call) -> Any:
    """The channels of as many groups as there were in each, shuffled back."""
    x = call.first
    return x.reshape(x.shape[0], x.shape[2], x.shape[1], *x.shape[3:])


def _shuffles(op: Operation) -> bool:
    return len(op.shapes[0]) == 5


def _halves_exchanged(call: Call) -> Any:
    first, second = call.run()
    return second, first


def _doubled(call: Call) -> Any:
    parts = list(call.args[0])
    return torch.cat([parts[0], parts[0], *parts[2:]], dim=1)


def _same_parts(op: Operation) -> bool:
    return len(op.inputs) > 1 and op.inputs[0].shape == op.inputs[1].shape


def _noisy(call: Call) -> Any:
    return call.run() + 1e-3 * torch.randn_like(call.first)


def _frozen_weight(call: Call) -> Any:
    return call.again(weight=call.argument("weight").detach())


def _weight_gradient(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Call], Any]:
    return lambda call: call.again(weight=Backward.apply(call.argument("weight"), change))


def _input_gradient(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Call], Any]:
    return lambda call: Backward.apply(call.run(), change)


class _StraightThrough(torch.autograd.Function):
    """A ReLU, whose gradient passes where it is 0."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0]


def _stale_statistics(call: Call) -> Any:
    kept = {name: call.argument(name).clone() for name in ("running_mean", "running_var")}
    return call.again(**kept)


_MAPS = "conv2d batch_norm relu hardtanh"
_ACTIVATIONS = "relu hardtanh relu6"


def _edited(
    role: str, change: Callable[[np.ndarray], np.ndarray], fits: Callable[[np.ndarray], bool]
) -> Plant:
    """Planted into a parameter, after the weights were transferred."""

    def plant(site: Site, net: Any) -> None:
        parameter = site.op.parameters.get(role)
        if parameter is None:
            raise NotHere(f"no {role}")
        tensor = net.state_dict()[parameter.name]
        before = tensor.numpy().copy()
        if not fits(before):
            raise NotHere(f"its {role} does not fit")
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(change(before).astype(np.float32))))

    return plant


def _any(value: np.ndarray) -> bool:
    return value.size > 8


def _is_square(value: np.ndarray) -> bool:
    return value.ndim > 1 and value.shape[0] == value.shape[1] > 1


def _has_window(value: np.ndarray) -> bool:
    return value.ndim == 4 and value.shape[2] == value.shape[3] > 1


def _jitter(value: np.ndarray) -> np.ndarray:
    signs = np.random.default_rng(0).choice((-1.0, 1.0), value.shape)
    return value * (1 + 3e-6 * signs)


def _one_changed(value: np.ndarray) -> np.ndarray:
    value.reshape(-1)[value.size // 2] *= 1.01
    return value


def _in_eight_bits(value: np.ndarray) -> np.ndarray:
    step = np.float32(np.abs(value).max() / 127)
    return np.round(value / step) * step


def _swapped(site: Site, net: Any) -> None:
    """Two layers of one shape have each other's weights."""
    weight = site.op.parameters.get("weight")
    others = [
        op.parameters["weight"]
        for op in site.graph
        if op.index > site.op.index and op.kind == site.op.kind and "weight" in op.parameters
    ]
    if weight is None or all(other.shape != weight.shape for other in others):
        raise NotHere("no other of that shape")
    name = next(other.name for other in others if other.shape == weight.shape)
    one, two = (net.state_dict()[n] for n in (weight.name, name))
    value = one.clone()
    one.copy_(two)
    two.copy_(value)


_EXTRA = ("additional activation",)
_MISSING = ("missing activation",)
_OTHER = ("another activation",)

TORCH: tuple[Recipe, ...] = (
    *table(
        Side.TORCH, Level.STRUCTURE,
        ("stride moved", "conv2d", ("stride",), _moved_stride),
        ("asymmetric padding", "conv2d", ("asymmetric padding",),
         at_call(_padded(pad=(2, 0, 2, 0)), _same_3)),
        ("edges repeated", "conv2d", ("padding",),
         at_call(_padded(pad=(1, 1, 1, 1), mode="replicate"), _same_3)),
        ("dilation", "conv2d", ("dilation", "padding"),
         at_call(lambda call: call.again(dilation=2, padding=2), _same_3)),
        ("kernel flipped in the forward", "conv2d", ("flipped kernel",),
         at_call(lambda call: call.again(weight=call.argument("weight").flip(2, 3)),
                 lambda op: _kernel(op) > (1, 1))),
        ("bias dropped", "conv2d linear", ("bias ignored",),
         at_call(lambda call: call.again(bias=None), lambda op: "bias" in op.parameters)),
        ("epsilon", "batch_norm", ("eps value",), at_call(lambda call: call.again(eps=1e-3))),
        ("momentum complement", "batch_norm", ("momentum complement",),
         at_call(lambda call: call.again(momentum=1 - call.argument("momentum")))),
        ("momentum", "batch_norm", ("momentum value",),
         at_call(lambda call: call.again(momentum=0.01))),
        ("gamma ignored", "batch_norm", ("gamma ≡ 1",),
         at_call(lambda call: call.again(weight=None))),
        ("normalised behind the activation", "batch_norm", ("another order",), _norm_exchanged),
        ("another activation: leaky ReLU", _ACTIVATIONS, _OTHER,
         at_call(lambda call: functional.leaky_relu(call.first, 0.01))),
        ("another activation: SiLU", _ACTIVATIONS, _OTHER,
         at_call(lambda call: functional.silu(call.first))),
        ("another activation: ELU", _ACTIVATIONS, _OTHER,
         at_call(lambda call: functional.elu(call.first))),
        ("another activation: ReLU6", "relu", _OTHER,
         at_call(lambda call: functional.relu6(call.first))),
        ("another activation: ReLU", "hardtanh relu6", _OTHER,
         at_call(lambda call: functional.relu(call.first))),
        ("clip bound", "hardtanh", (), at_call(lambda call: call.again(max_val=4.0))),
        ("hard sigmoid", "sigmoid", (*_OTHER, "hard sigmoid"),
         at_call(lambda call: functional.hardsigmoid(call.first))),
        ("slope of the sigmoid", "sigmoid", (),
         at_call(lambda call: torch.sigmoid(1.702 * call.first))),
        ("average for maximum pooling", "max_pool2d", ("average for maximum pooling",),
         _pooled(_as_average)),
        ("maximum for average pooling", "avg_pool2d", ("maximum for average pooling",),
         _pooled(_as_maximum)),
        ("maximum for global average", "adaptive_avg_pool2d", ("maximum for average pooling",),
         at_call(lambda call: call.first.amax((2, 3), keepdim=True))),
        ("pooling rounds up", "max_pool2d avg_pool2d", ("pooling rounds up",),
         at_call(lambda call: call.again(ceil_mode=not call.argument("ceil_mode")))),
        ("padding counted", "avg_pool2d", ("padding counted",), at_call(
            lambda call: call.again(count_include_pad=not call.argument("count_include_pad")))),
        ("product for sum", "add", (),
         at_call(lambda call: call.args[0] * call.args[1], _is_residual)),
        ("difference for sum", "add", (),
         at_call(lambda call: call.args[0] - call.args[1], _is_residual)),
        ("shortcut scaled", "add", (),
         at_call(lambda call: call.args[0] + 0.5 * call.args[1], _is_residual)),
        ("shortcut behind the activation", "add",
         ("shortcut on the other side of the next operation",), _activated_before_sum),
        ("branches in another order", "cat", ("branches in another order",), at_call(
            lambda call: torch.cat(list(call.args[0])[::-1], dim=1),
            lambda op: len(op.inputs) == 2)),
        ("one branch twice", "cat", (), at_call(_doubled, _same_parts)),
        ("dropout rate", "dropout", ("dropout rate",), at_call(lambda call: call.again(p=0.75))),
        ("shuffled back", "transpose", (), at_call(
            lambda call: _unshuffled(call).transpose(1, 2).reshape(call.run().shape), _shuffles)),
        ("halves exchanged", "chunk", (),
         at_call(_halves_exchanged, lambda op: len(op.shapes) == 2)),
        ("normalised over the sum", "local_response_norm", (),
         at_call(lambda call: call.again(alpha=call.argument("alpha") * call.argument("size")))),
        ("LRN's k", "local_response_norm", (), at_call(lambda call: call.again(k=1.0))),
        ("bilinear for nearest", "interpolate", (),
         at_call(lambda call: call.again(mode="bilinear"))),
        ("aligned corners", "interpolate", (), at_call(
            lambda call: call.again(align_corners=not call.argument("align_corners")),
            lambda op: op.attributes.get("mode") == "bilinear")),
    ),
    *table(
        Side.TORCH, Level.STRUCTURE,
        ("missing activation", f"{_ACTIVATIONS} sigmoid", _MISSING,
         at_call(lambda call: call.first)),
        ("missing normalisation", "batch_norm", (), at_call(lambda call: call.first)),
        ("additional activation", "batch_norm conv2d", _EXTRA,
         _only_before("add", "conv2d", "mul")(lambda call: functional.relu(call.run()))),
        ("activation on the logits", "linear view", _EXTRA,
         _at_end(lambda call: functional.relu(call.run()))),
        ("softmax on the output", "linear view", ("softmax on the output",),
         _at_end(lambda call: call.run().softmax(1))),
        ("colours reversed", "conv2d", ("BGR channels",),
         _at_start(lambda call: call.again(input=call.first.flip(1)))),
        ("maps mirrored", _MAPS, ("mirrored",), _inner(lambda call: call.run().flip(3))),
        ("maps transposed", _MAPS, ("transposed",),
         _inner(lambda call: call.run().transpose(2, 3))),
        ("additional dropout", "relu hardtanh linear", ("additional dropout",),
         at_call(lambda call: functional.dropout(call.run(), 0.1, training=True))),
        ("dropout in inference", "dropout", ("additional dropout",),
         at_call(lambda call: call.again(training=True))),
        ("additional shortcut", "conv2d batch_norm", ("additional shortcut",), at_call(
            lambda call: call.run() + call.first,
            lambda op: bool(op.inputs) and op.inputs[0].shape == op.shapes[0])),
        ("constant factor", _MAPS, ("constant factor",),
         _inner(lambda call: call.run() * (1 + 3e-6))),
        ("noise", _MAPS, ("additional noise",), _inner(_noisy)),
        ("computed in float16", "conv2d linear", ("float16 rounding",),
         at_call(lambda call: call.run().half().to(call.first.dtype))),
        ("shortcut missing", "add", ("missing shortcut",),
         at_call(lambda call: call.args[0], _is_residual)),
        ("body missing", "add", ("missing shortcut",),
         at_call(lambda call: call.args[1], _is_residual)),
        ("gate missing", "mul", (), at_call(_gated, _is_gate)),
        ("dropout missing", "dropout", ("missing dropout",), at_call(lambda call: call.first)),
        behind=True,
    ),
    *table(
        Side.TORCH, Level.WEIGHTS,
        ("weights off by a factor", "conv2d linear", ("constant factor",),
         _edited("weight", lambda w: w * (1 + 3e-6), _any)),
        ("weights off by 3e-6", "conv2d linear", (), _edited("weight", _jitter, _any)),
        ("one weight", "conv2d linear", ("single value",), _edited("weight", _one_changed, _any)),
        ("transposed weight", "conv2d linear", ("transposed weight",),
         _edited("weight", lambda w: w.swapaxes(0, 1), _is_square)),
        ("transposed kernel", "conv2d", ("transposed kernel",),
         _edited("weight", lambda w: w.swapaxes(2, 3), _has_window)),
        ("flipped kernel", "conv2d", ("flipped kernel",),
         _edited("weight", lambda w: w[:, :, ::-1, ::-1], _has_window)),
        ("rolled filters", "conv2d linear", ("rolled rows",),
         _edited("weight", lambda w: np.roll(w, 1, axis=0), _any)),
        ("weights in float16", "conv2d linear", ("float16 rounding", "float16 or TF32 rounding"),
         _edited("weight", lambda w: w.astype(np.float16), _any)),
        ("weights in bfloat16", "conv2d linear", ("bfloat16 rounding",),
         _edited("weight", lambda w: mantissa(w, 7), _any)),
        ("weights in int8", "conv2d linear", ("int8 rounding",),
         _edited("weight", _in_eight_bits, _any)),
        ("weights of another layer", "conv2d batch_norm", ("swapped tensors",), _swapped),
        ("gamma of 1", "batch_norm", ("gamma ≡ 1",),
         _edited("weight", lambda w: np.ones_like(w), _any)),
        ("bias of 0", "batch_norm linear conv2d", ("zeroed tensor",),
         _edited("bias", lambda b: b * 0, _any)),
        ("fresh statistics", "batch_norm", ("fresh statistics",),
         _edited("running_var", lambda v: np.ones_like(v), _any)),
        ("variance of n − 1", "batch_norm", ("variance ratio n/(n−1)",),
         _edited("running_var", lambda v: v * np.float32(64 / 63), _any)),
    ),
    *table(
        Side.TORCH, Level.FORWARD,
        ("batch statistics in inference", "batch_norm", ("batch statistics in inference",),
         at_call(lambda call: call.again(training=True))),
        ("moving averages in training", "batch_norm", ("running statistics in training",),
         at_call(lambda call: call.again(training=False))),
    ),
    *table(
        Side.TORCH, Level.BACKWARD,
        ("statistics never updated", "batch_norm", ("update missed",),
         at_call(_stale_statistics)),
        ("weight frozen", "conv2d linear", ("stopped gradient",), at_call(_frozen_weight)),
        ("weight gradient halved", "conv2d linear", ("constant factor",),
         at_call(_weight_gradient(lambda g: g / 2))),
        ("gradient of a dead unit", "relu", ("straight-through gradient",),
         at_call(lambda call: _StraightThrough.apply(call.first))),
    ),
    *table(
        Side.TORCH, Level.BACKWARD,
        ("gradient stopped", _MAPS, ("stopped gradient",),
         _inner(lambda call: call.run().detach())),
        ("gradient reversed", _MAPS, ("negated",), _inner(_input_gradient(torch.neg))),
        ("gradient off by 256 u", _MAPS, ("constant factor",),
         _inner(_input_gradient(lambda g: g * (1 + 2.0**-16)))),
        ("shortcut detached", "add", ("stopped gradient",),
         at_call(lambda call: call.args[0] + call.args[1].detach(), _is_residual)),
        ("gate detached", "mul", ("stopped gradient",), at_call(_detached_gate, _is_gate)),
        behind=True,
    ),
)  # fmt: skip
