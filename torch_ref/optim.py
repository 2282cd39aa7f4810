"""MXNet 1.9.1's update rules as torch optimizers: SGD, Nesterov (MXNet's NAG) and Adam.

They round as MXNet's CPU operators do, so from equal weights, slots and gradients both come out
bit-equal in float32 and in float64. That takes two habits of MXNet's:

* the operators' numbers (lr, wd, momentum, betas, epsilon, rescale_grad, clip_gradient) are float32
  whatever the weights are: lr 0.1 acts as 0.10000000149. Products of them are formed in the
  weights' dtype;
* the order of the operations, which the formulas below give from left to right. Each product and
  sum is rounded on its own, so none of torch's fused `add(alpha=…)` or `addcdiv` is used.

g is the gradient as `backward` left it. The numbers are read from `param_groups` at every step, so
a schedule sets `group["lr"]`, and a training loop that sums its loss sets
`group["rescale_grad"] = 1 / batch_size`, which is what Gluon's `Trainer.step(batch_size)` does.
Every parameter decays, biases included, as in Gluon; put those that should not into a group with
`wd=0`. Slots keep MXNet's names in `state`: `mom`; `mean`, `var` and the count `step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

__all__ = ["SGD", "Adam"]

_SCALARS = {torch.float32: np.float32, torch.float64: np.float64}

Params = Iterable[torch.Tensor] | Iterable[dict[str, Any]]


class _MXOptimizer(torch.optim.Optimizer):
    """The walk over the parameters, and the numbers in MXNet's rounding."""

    def __init__(self, params: Params, numbers: dict[str, Any]) -> None:
        _check(numbers)
        super().__init__(params, numbers)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` returned, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check(group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _slot(self, w: torch.Tensor, name: str) -> torch.Tensor:
        """The parameter's slot of that name, at first zeros."""
        state = self.state[w]
        if name not in state:
            state[name] = torch.zeros_like(w)
        return state[name]


class SGD(_MXOptimizer):
    """MXNet's SGD; with momentum the learning rate is folded into the slot:

        mom ← μ·mom − (lr·wd)·w − (lr·rescale)·g;    w ← w + mom

    `nesterov=True` is MXNet's NAG:

        mom' = μ·mom − lr·(rescale·g + wd·w);    w ← w − μ·mom + (μ+1)·mom'
        mom ← μ·mom − lr·(rescale·g + wd·w)      with the *new* w

    The last line is a fault of MXNet 1.9.1, whose kernel computes the slot a second time after it
    has overwritten w; it is kept, since training with weight decay differs without it. MXNet's
    documentation writes NAG with the learning rate outside the slot, which is not what it does.

    Without momentum there is no slot:

        w ← w + (−(lr·wd)·w − (lr·rescale)·g)       as the Trainer's aggregated update rounds it
        w ← (1 − lr·wd)·w − (lr·rescale)·g          NAG's

    With `clip_gradient` c, `(lr·rescale)·g` becomes `lr·clip(rescale·g, −c, c)`: weight decay is
    added after clipping.

    Args:
        params: parameters, float32 or float64, or groups of them, as for any torch optimizer.
        lr: learning rate.
        momentum: μ.
        wd: weight decay, of every parameter.
        nesterov: MXNet's NAG.
        rescale_grad: what gradients are multiplied by, such as 1 / batch size.
        clip_gradient: c; None does not clip.

    Raises:
        ValueError: a number out of range, or parameters that are neither float32 nor float64.

    Examples:
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> w.grad = torch.ones(1)
        >>> optimizer = SGD([w], lr=0.5, momentum=0.5)
        >>> _ = optimizer.step(), optimizer.step()
        >>> w.data, optimizer.state[w]["mom"]
        (tensor([-0.2500]), tensor([-0.7500]))
    """

    def __init__(
        self,
        params: Params,
        lr: float,
        momentum: float = 0.0,
        wd: float = 0.0,
        *,
        nesterov: bool = False,
        rescale_grad: float = 1.0,
        clip_gradient: float | None = None,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "wd": wd, "nesterov": nesterov,
            "rescale_grad": rescale_grad, "clip_gradient": clip_gradient,
        })  # fmt: skip

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        number = _rounding(w, g)
        lr, wd, mu = (number(group[name]) for name in ("lr", "wd", "momentum"))
        rescale, clip = number(group["rescale_grad"]), group["clip_gradient"]
        if group["nesterov"] and mu:
            g = _clipped(g * float(rescale), clip)
            mom = self._slot(w, "mom").mul_(float(mu))
            ahead = mom - (w * float(wd)).add_(g).mul_(float(lr))
            w.sub_(mom).add_(ahead.mul_(float(mu + 1)))
            mom.sub_((w * float(wd)).add_(g).mul_(float(lr)))
            return
        if clip is None:
            pull = g * float(lr * rescale)
        else:
            pull = _clipped(g * float(rescale), clip).mul_(float(lr))
        if mu:
            mom = self._slot(w, "mom").mul_(float(mu))
            w.add_(mom.sub_(w * float(lr * wd)).sub_(pull))
        elif group["nesterov"]:
            w.mul_(float(1 - lr * wd)).sub_(pull)
        else:
            w.add_((w * float(-(lr * wd))).sub_(pull))


class Adam(_MXOptimizer):
    """MXNet's Adam, which adds epsilon before it corrects the bias:

        g ← clip(rescale·g + wd·w, −c, c)           weight decay is added before clipping
        mean ← β1·mean + (1−β1)·g
        var ← β2·var + ((1−β2)·g)·g
        w ← w − (lrₜ·mean) / (√var + epsilon),      lrₜ = lr·√(1−β2ᵗ) / (1−β1ᵗ)

    lrₜ is formed in double from the betas as given, and rounded to float32 once; 1−β is formed from
    the rounded β. t counts the parameter's own updates, from 1. Kingma and Ba, 2014, end of section
    2, has this form with an epsilon of its own.

    Args:
        params: parameters, float32 or float64, or groups of them, as for any torch optimizer.
        lr: learning rate.
        beta1: β1, of the mean.
        beta2: β2, of the variance.
        epsilon: added to √var before the bias is corrected.
        wd: weight decay, of every parameter.
        rescale_grad: what gradients are multiplied by, such as 1 / batch size.
        clip_gradient: c; None does not clip.

    Raises:
        ValueError: a number out of range, or parameters that are neither float32 nor float64.

    Examples:
        A gradient as large as epsilon: torch's own Adam moves the weight by 0.05.

        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> w.grad = torch.tensor([0.001])
        >>> Adam([w], lr=0.1, epsilon=1e-3).step()
        >>> w.data
        tensor([0.9969])
    """

    def __init__(
        self,
        params: Params,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        wd: float = 0.0,
        *,
        rescale_grad: float = 1.0,
        clip_gradient: float | None = None,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "beta1": beta1, "beta2": beta2, "epsilon": epsilon, "wd": wd,
            "rescale_grad": rescale_grad, "clip_gradient": clip_gradient,
        })  # fmt: skip

    def _update(self, w: torch.Tensor, g: torch.Tensor, group: dict[str, Any]) -> None:
        number = _rounding(w, g)
        mean, var = self._slot(w, "mean"), self._slot(w, "var")
        t = self.state[w]["step"] = self.state[w].get("step", 0) + 1
        warm = math.sqrt(1 - group["beta2"] ** t) / (1 - group["beta1"] ** t)
        lr = number(group["lr"] * warm)
        wd, epsilon = number(group["wd"]), number(group["epsilon"])
        beta1, beta2 = number(group["beta1"]), number(group["beta2"])
        g = (g * float(number(group["rescale_grad"]))).add_(w * float(wd))
        g = _clipped(g, group["clip_gradient"])
        mean.mul_(float(beta1)).add_(g * float(1 - beta1))
        var.mul_(float(beta2)).add_((g * float(1 - beta2)).mul_(g))
        w.sub_((mean * float(lr)).div_(_root(var).add_(float(epsilon))))


def _root(x: torch.Tensor) -> torch.Tensor:
    """√x rounded correctly, as MXNet's is.

    torch's own root on a CPU goes through MKL's vector library, which is a unit off in the last
    place for 1 value in 150; numpy's is the processor's.
    """
    if x.device.type != "cpu":
        return x.sqrt()
    return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))


def _rounding(w: torch.Tensor, g: torch.Tensor) -> Callable[[float], Any]:
    """A number as MXNet's operator holds it: rounded to float32, then of the weights' dtype."""
    if w.dtype not in _SCALARS or g.layout != torch.strided:
        raise ValueError(
            f"a parameter is {w.dtype} and its gradient {g.layout}: expected float32 or float64"
            " and a dense gradient"
        )
    scalar = _SCALARS[w.dtype]
    return lambda value: scalar(np.float32(value))


def _clipped(g: torch.Tensor, clip: float | None) -> torch.Tensor:
    """`g` clipped in place."""
    if clip is None:
        return g
    bound = float(np.float32(clip))
    return g.clamp_(-bound, bound)


_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "lr": ("at least 0", lambda v: v >= 0),
    "momentum": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "beta1": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "beta2": ("at least 0 and below 1", lambda v: 0 <= v < 1),
    "epsilon": ("at least 0", lambda v: v >= 0),
    "wd": ("at least 0", lambda v: v >= 0),
    "rescale_grad": ("above 0", lambda v: v > 0),
    "clip_gradient": ("above 0, or None", lambda v: v > 0),
}


def _check(numbers: dict[str, Any]) -> None:
    for name, (expected, fits) in _RANGES.items():
        value = numbers.get(name)
        if value is not None and not (math.isfinite(value) and fits(value)):
            raise ValueError(f"{name} is {value!r}, expected a finite number {expected}")
