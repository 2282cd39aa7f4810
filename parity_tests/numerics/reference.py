"""A third writing of the common operators, in float64, right or with one named fault.

Where the two frameworks disagree about a leaf, this says which of them computes it as its listing
says, and which fault, if any, makes what the other one computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun, named, rounded
from parity_tests.levels.diagnosis.hypotheses import mantissa

__all__ = ["FAULTS_OF", "knobs_of", "oracle"]

functional = torch.nn.functional


@dataclass
class _Case:
    x: torch.Tensor
    tensors: dict[str, torch.Tensor]
    hyper: Mapping[str, Any]
    train: bool
    knob: str
    buffers: dict[str, np.ndarray] = field(default_factory=dict)


_ACTIVATIONS: dict[str, Callable[[_Case], torch.Tensor]] = {
    "relu": lambda c: torch.relu(c.x),
    "sigmoid": lambda c: torch.sigmoid(c.x),
    "tanh": lambda c: torch.tanh(c.x),
    "gelu": lambda c: functional.gelu(c.x, approximate=c.hyper.get("approximate", "none")),
    "leaky_relu": lambda c: functional.leaky_relu(c.x, float(np.float32(c.hyper["slope"]))),
    "softplus": lambda c: functional.softplus(c.x),
}
_ROUNDED = ("TF32 rounding", "float16 rounding")


def _rounding(value: torch.Tensor, knob: str) -> torch.Tensor:
    single = value.detach().numpy().astype(np.float32)
    made = mantissa(single, 10, away=True) if knob == "TF32 rounding" else single.astype(np.float16)
    return value + (torch.from_numpy(made.astype(np.float64)) - value).detach()


def _given(c: _Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    bias = None if c.knob == "bias ignored" else c.tensors.get("bias")
    if c.knob in _ROUNDED:
        return _rounding(c.x, c.knob), _rounding(c.tensors["weight"], c.knob), bias
    return c.x, c.tensors["weight"], bias


def _convolved(c: _Case) -> torch.Tensor:
    x, weight, bias = _given(c)
    pad = c.hyper["pad"]
    how = (c.hyper["stride"], "same" if isinstance(pad, str) else pad, c.hyper["dilation"],
           c.hyper["groups"])  # fmt: skip
    if c.knob == "flipped kernel":
        return functional.conv2d(x, weight.flip(2, 3), bias, *how)
    if c.knob == "flipped kernel backward":
        exact = functional.conv2d(x.detach(), weight, bias, *how)
        wrong = functional.conv2d(x, weight.detach().flip(2, 3), None, *how)
        return exact + wrong - wrong.detach()
    return functional.conv2d(x, weight, bias, *how)


def _dense(c: _Case) -> torch.Tensor:
    x, weight, bias = _given(c)
    y = functional.linear(x.flatten(1), weight, bias)
    return y


def _maximum(c: _Case) -> torch.Tensor:
    h = c.hyper
    rows, columns = h["pad"]
    if c.knob == "average for maximum pooling":
        return functional.avg_pool2d(c.x, h["kernel"], h["stride"], h["pad"], bool(h["ceil"]))
    if c.knob == "padded with zeros":
        x = functional.pad(c.x, (columns, columns, rows, rows))
        return functional.max_pool2d(x, h["kernel"], h["stride"], 0, h["dilation"], bool(h["ceil"]))
    y = functional.max_pool2d(
        c.x, h["kernel"], h["stride"], h["pad"], h["dilation"], bool(h["ceil"])
    )
    if c.knob in ("last column missing", "last windows missing"):
        y = torch.cat([y[..., :-1], y[..., -2:-1]], dim=-1)
    if c.knob in ("last row missing", "last windows missing"):
        y = torch.cat([y[..., :-1, :], y[..., -2:-1, :]], dim=-2)
    return y


def _average(c: _Case) -> torch.Tensor:
    h = c.hyper
    if c.knob == "maximum for average pooling":
        return functional.max_pool2d(c.x, h["kernel"], h["stride"], h["pad"], 1, bool(h["ceil"]))
    counted = bool(h["count_include_pad"]) != (c.knob == "padding counted")
    return functional.avg_pool2d(
        c.x, h["kernel"], h["stride"], h["pad"], bool(h["ceil"]), counted, h["divisor"]
    )


def _softmax(c: _Case) -> torch.Tensor:
    axis = int(c.hyper["axis"]) % c.x.ndim
    if c.knob == "softmax axis":
        axis = 0 if axis else 1
    return functional.softmax(c.x, dim=axis)


def _activated(kind: str) -> Callable[[_Case], torch.Tensor]:
    def run(c: _Case) -> torch.Tensor:
        if c.knob == "missing activation":
            return c.x * 1
        if c.knob == "hard sigmoid":
            return functional.hardsigmoid(c.x)
        if c.knob == "hard sigmoid, slope 0.2":
            return (c.x * 0.2 + 0.5).clamp(0, 1)
        y = _ACTIVATIONS[kind](c)
        if c.knob == "straight-through gradient":
            return y.detach() + c.x - c.x.detach()
        if c.knob == "stopped gradient":
            return y.detach() + 0 * c.x
        return y

    return run


def _normalised(c: _Case) -> torch.Tensor:
    def spread(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(1, -1, *(1,) * (c.x.ndim - 2))

    axes = (0, *range(2, c.x.ndim))
    eps, kept = float(c.hyper["eps"]), float(np.float32(c.hyper["kept"]))
    old_mean, old_variance = c.tensors["running_mean"], c.tensors["running_var"]
    count = c.x.numel() // c.x.shape[1]
    batch = c.train and not c.hyper["global_stats"]
    batch = batch or c.knob == "batch statistics in inference"
    batch = batch and c.knob != "running statistics in training"
    mean, variance = old_mean, old_variance
    if batch:
        mean, variance = c.x.mean(axes), c.x.var(axes, unbiased=False)
    stored = [mean.detach(), variance.detach()]
    ratio = count / max(1, count - 1)
    if c.knob == "variance ratio n/(n−1) stored":
        stored[1] = stored[1] * ratio
    if c.knob == "momentum complement":
        kept = 1 - kept
    times = {"update missed": 0, "update made twice": 2}.get(c.knob, 1 if batch and c.train else 0)
    for name, old, new in zip(
        ("running_mean", "running_var"), (old_mean, old_variance), stored, strict=True
    ):
        for _ in range(times):
            old = old * kept + new * (1 - kept)
        c.buffers[name] = old.detach().numpy().copy()
    if c.knob == "variance ratio n/(n−1)" and batch:
        variance = variance * ratio
    if c.knob == "statistics held constant":
        mean, variance = mean.detach(), variance.detach()
    deviation = variance.sqrt() + eps if c.knob == "eps placement" else (variance + eps).sqrt()
    y = (c.x - spread(mean)) / spread(deviation)
    if "weight" in c.tensors:
        gamma = c.tensors["weight"]
        y = y * spread(gamma * 0 + 1 if c.knob == "gamma ≡ 1" else gamma)
    if "bias" in c.tensors:
        beta = c.tensors["bias"]
        y = y + spread(beta * 0 if c.knob == "bias ignored" else beta)
    return y


_OPERATORS: dict[str, Callable[[_Case], torch.Tensor]] = {
    "conv2d": _convolved,
    "dense": _dense,
    "max_pool2d": _maximum,
    "avg_pool2d": _average,
    "softmax": _softmax,
    "batchnorm": _normalised,
    **{kind: _activated(kind) for kind in _ACTIVATIONS},
}

# The faults that an operator may have. Two knobs of one name are two ways of one fault.
FAULTS_OF: dict[str, tuple[tuple[str, str], ...]] = {
    "conv2d": (("flipped kernel", "flipped kernel"), ("bias ignored", "bias ignored"),
               ("flipped kernel backward", "flipped kernel"),
               *((knob, knob) for knob in _ROUNDED)),
    "dense": (("bias ignored", "bias ignored"), *((knob, knob) for knob in _ROUNDED)),
    "max_pool2d": (("last column missing", "missing last pooling window"),
                   ("last row missing", "missing last pooling window"),
                   ("last windows missing", "missing last pooling window"),
                   ("padded with zeros", "padded with zeros"),
                   ("average for maximum pooling", "average for maximum pooling")),
    "avg_pool2d": (("padding counted", "padding counted"),
                   ("maximum for average pooling", "maximum for average pooling")),
    "softmax": (("softmax axis", "softmax axis"),),
    "batchnorm": (("variance ratio n/(n−1) stored", "variance ratio n/(n−1)"), *(
        (knob, knob) for knob in (
            "eps placement", "variance ratio n/(n−1)", "gamma ≡ 1", "bias ignored",
            "batch statistics in inference", "running statistics in training",
            "momentum complement", "update missed", "update made twice",
            "statistics held constant"))),
    "sigmoid": (("hard sigmoid", "hard sigmoid"), ("hard sigmoid, slope 0.2", "hard sigmoid")),
}  # fmt: skip
_OF_ACTIVATIONS = ("missing activation", "straight-through gradient", "stopped gradient")


def knobs_of(kind: str) -> Iterator[tuple[str, str]]:
    """(knob, name of the fault) for a kind of leaf; none for a kind that is not written here."""
    yield from FAULTS_OF.get(kind, ())
    if kind in _ACTIVATIONS:
        yield from ((knob, knob) for knob in _OF_ACTIVATIONS)


def oracle(
    leaf: Leaf, inputs: Arrays, *, train: bool, upstream: Arrays | None = None, knob: str = ""
) -> LeafRun | None:
    """What the leaf gives in float64, by the names that reports use; None for an unknown kind."""
    if leaf.kind not in _OPERATORS or len(inputs) != 1:
        return None
    tensors = {
        role: torch.from_numpy(rounded(t.read(), "float64")).requires_grad_(t.trainable)
        for role, t in leaf.tensors.items()
    }
    x = torch.from_numpy(rounded(inputs[0], "float64").copy()).requires_grad_()
    case = _Case(x, tensors, leaf.hyper, train, knob)
    y = _OPERATORS[leaf.kind](case)
    if knob == "float16 rounding":
        y = y.detach().to(torch.float16).to(torch.float64) + (y - y.detach())
    if upstream is None:
        return named((y.detach().numpy(),), buffers=case.buffers)
    if y.shape != upstream[0].shape:
        return None
    y.backward(torch.from_numpy(rounded(upstream[0], "float64")))
    gradients = {r: t.grad.numpy() for r, t in tensors.items() if t.grad is not None}
    gradient = None if x.grad is None else x.grad.numpy()
    return named((y.detach().numpy(),), [gradient], gradients, case.buffers)
