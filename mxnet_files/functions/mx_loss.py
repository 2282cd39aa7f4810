"""MXNet's output layers: they pass a prediction forward and send a loss's gradient back.

Whatever gradient arrives at their output is ignored (unless `out_grad`), so `out.sum().backward()`
trains as `Module.fit` does. Without a label, and in TorchScript, they are ordinary functions.
"""

from typing import Any

import torch
from torch import Tensor

from mxnet_files.functions import mx_math

__all__ = [
    "make_loss",
    "multiply_gradient",
    "regression_output",
    "round_straight",
    "sign_straight",
    "softmax_cross_entropy",
    "softmax_output",
    "svm_output",
]


class _OwnGradient(torch.autograd.Function):
    """value forward; `gradient` (times the incoming one, if `scaled`) back to x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor, scaled: bool) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.scaled = scaled
        return value.clone()

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * incoming if ctx.scaled else gradient), None, None, None


def _probabilities(x: Tensor, mode: str) -> Tensor:
    if mode == "channel":
        return torch.softmax(x, 1)
    if mode == "last":
        return torch.softmax(x, -1)
    return torch.softmax(x.reshape([x.size(0), -1]), 1).reshape(x.shape)


def _softmax_gradient(
    p: Tensor,
    label: Tensor,
    mode: str,
    normalization: str,
    scale: float,
    ignore: float | None,
    ignore_label: float,
    smooth: float,
) -> Tensor:
    if label.shape == p.shape:  # probabilities as labels
        return (p - label) * scale
    if mode == "channel":  # (N, K, rest) -> (N, rest, K)
        flat = p.flatten(2).transpose(1, 2) if p.dim() > 2 else p.unsqueeze(1)
    elif mode == "last":
        flat = p
    else:
        flat = p.reshape([p.size(0), -1])
    classes = flat.size(-1)
    wanted = label.reshape(flat.shape[:-1])
    hit = torch.arange(classes, device=p.device) == wanted.to(torch.int64).unsqueeze(-1)
    others = smooth / (classes - 1) if classes > 1 else 0.0
    target = torch.full_like(flat, _float32(others)).masked_fill(hit, 1.0 - smooth)
    gradient = flat - target
    if ignore is not None:
        gradient = gradient * (wanted != ignore).unsqueeze(-1).to(p.dtype)
    if normalization == "valid":
        scale = scale / max(int((wanted.to(torch.int64) != int(ignore_label)).sum()), 1)
    else:
        scale = scale / (flat.size(1) if mode == "channel" else 1)
        rows = p.size(0) if mode == "channel" else wanted.numel()
        scale = scale / (rows if normalization == "batch" else 1)
    gradient = gradient * _float32(scale)
    if mode == "channel":
        gradient = gradient.transpose(1, 2)
    return gradient.reshape(p.shape)


def _float32(value: float) -> float:
    """The number as MXNet holds it, in float64 nets too."""
    return float(torch.tensor(value, dtype=torch.float32, device="cpu"))


def softmax_output(
    x: Tensor,
    label: Tensor | None,
    mode: str,
    normalization: str,
    grad_scale: float,
    ignore: float | None,
    ignore_label: float,
    smooth_alpha: float,
    out_grad: bool,
) -> Tensor:
    """Softmax over axis 1 (`channel`), the last axis (`last`), or all but the batch (`all`).

    Backward is that of cross-entropy with `label`, (p - one_hot)·grad_scale, whatever arrives.
    `out_grad` multiplies it by what arrives (MXNet 1.9.1 multiplies by the output, by mistake).
    MXNet 1.9.1 on the CPU departs from its own rule for 4-D float32 arrays in mode `all`: oneDNN
    normalises the last axis there. This follows the rule, as its float64 and older versions do.
    """
    p = _probabilities(x, mode)
    if torch.jit.is_scripting() or label is None or not x.requires_grad:
        return p
    value = p.detach()
    gradient = _softmax_gradient(
        value, label, mode, normalization, grad_scale, ignore, ignore_label, smooth_alpha
    )
    return _OwnGradient.apply(x, value, gradient, out_grad)


def regression_output(x: Tensor, label: Tensor | None, kind: str, grad_scale: float) -> Tensor:
    """x, or its sigmoid for `logistic`.

    Backward is (value - label)·scale/outputs, or the sign of the difference for `mae`.
    """
    value = torch.sigmoid(x) if kind == "logistic" else x
    if torch.jit.is_scripting() or label is None or not x.requires_grad:
        return value
    value = value.detach()
    gradient = value - label.reshape(x.shape)
    if kind == "mae":
        gradient = torch.sign(gradient)
    outputs = label.numel() // label.size(0)
    return _OwnGradient.apply(x, value, gradient * _float32(grad_scale / outputs), False)


def make_loss(
    x: Tensor, grad_scale: float = 1.0, normalization: str = "null", threshold: float = 0.0
) -> Tensor:
    """x itself; backward is the constant grad_scale, over the batch or the elements > threshold."""
    if torch.jit.is_scripting() or not x.requires_grad:
        return x
    value = x.detach()
    gradient = torch.full_like(value, grad_scale)
    if normalization == "batch":
        gradient = gradient / x.size(0)
    elif normalization == "valid":
        gradient = gradient / (value > threshold).sum().clamp(min=1)
    return _OwnGradient.apply(x, value, gradient, False)


def multiply_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself; the gradient is multiplied by a number, below 0 to learn against it."""
    if torch.jit.is_scripting() or not x.requires_grad:
        return x
    value = x.detach()
    return _OwnGradient.apply(x, value, torch.full_like(value, factor), True)


def _straight(x: Tensor, value: Tensor) -> Tensor:
    """The value; its gradient goes on to x as it comes."""
    if torch.jit.is_scripting() or not x.requires_grad:
        return value
    return _OwnGradient.apply(x, value.detach(), torch.ones_like(value), True)


def round_straight(x: Tensor) -> Tensor:
    """The nearest integer, halves away from zero, with the gradient of x."""
    return _straight(x, mx_math.round_half_away(x))


def sign_straight(x: Tensor) -> Tensor:
    """The sign with the gradient of x."""
    return _straight(x, torch.sign(x))


def svm_output(
    x: Tensor, label: Tensor | None, margin: float, regularization: float, linear: bool
) -> Tensor:
    """x (N, K) itself; backward is that of the squared hinge loss against label (N,), or `linear`.

    The label's score shall be above the margin, every other one below its negative.
    """
    if torch.jit.is_scripting() or label is None or not x.requires_grad:
        return x
    value = x.detach()
    if value.dim() != 2:
        raise ValueError("SVMOutput: expected scores (N, K)")
    classes = torch.arange(value.size(1), device=x.device)
    sign = torch.where(classes == label.to(torch.int64).reshape([-1, 1]), -1.0, 1.0).to(x.dtype)
    short = margin + sign * value  # by how much a score fails
    slope = torch.ones_like(short) if linear else 2 * short
    gradient = torch.where(short > 0, sign * slope, torch.zeros_like(short)) * regularization
    return _OwnGradient.apply(x, value, gradient, False)


def softmax_cross_entropy(x: Tensor, label: Tensor) -> Tensor:
    """Sum over the batch of -log of the label's share, of at least 1e-8; x (N, K), label (N,)."""
    if x.dim() != 2 or label.dim() != 1:
        raise ValueError("softmax_cross_entropy: expected scores (N, K) and labels (N,)")
    place = label.to(torch.int64).unsqueeze(1)
    p = torch.softmax(x, 1)
    least = 9.99999993922529e-09  # 1e-8 as MXNet holds it
    value = -torch.log(p.gather(1, place).clamp(min=least)).sum().reshape([1])
    if torch.jit.is_scripting() or not x.requires_grad:
        return value
    p = p.detach()
    gradient = p.scatter_add(1, place, torch.full_like(p, -1.0))
    return _OwnGradient.apply(x, value.detach(), gradient, True)
