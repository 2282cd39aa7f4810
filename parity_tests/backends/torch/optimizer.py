"""The mirror's and torch.optim's optimizers over named parameters, and parameters of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch._dynamo  # else a first optimizer imports it, in frames that stay with the weights

from parity_tests.backends.optimizers import Numbers, Slots, Updater
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side
from torch_ref import optim

MakeTorch = Callable[[list[torch.nn.Parameter], Rule], torch.optim.Optimizer]


def torch_optimizer(parameters: list[torch.nn.Parameter], rule: Rule) -> torch.optim.Optimizer:
    """The mirror's optimizer, `torch_ref.optim`."""
    if rule.name == "adam":
        return optim.Adam(
            parameters,
            beta1=rule.beta1,
            beta2=rule.beta2,
            epsilon=rule.epsilon,
            wd=rule.wd,
            clip_gradient=rule.clip,
        )
    return optim.SGD(
        parameters,
        lr=0.0,
        momentum=rule.momentum,
        wd=rule.wd,
        nesterov=rule.name == "nag",
        clip_gradient=rule.clip,
    )


def torchs_own(parameters: list[torch.nn.Parameter], rule: Rule) -> torch.optim.Optimizer:
    """torch.optim's optimizer of that name, which has rules of its own and clips nothing."""
    if rule.name == "adam":
        return torch.optim.Adam(
            parameters, betas=(rule.beta1, rule.beta2), eps=rule.epsilon, weight_decay=rule.wd
        )
    return torch.optim.SGD(
        parameters,
        lr=0.0,
        momentum=rule.momentum,
        weight_decay=rule.wd,
        nesterov=rule.name == "nag",
    )


def named_optimizer(
    net: torch.nn.Module, name: str, numbers: Mapping[str, float]
) -> torch.optim.Optimizer:
    """torch's own optimizer over a net, by MXNet's names of the rule and of its numbers."""
    rate, wd = numbers["rate"], numbers.get("wd", 0.0)
    if name == "adam":
        betas = numbers.get("beta1", 0.9), numbers.get("beta2", 0.999)
        eps = numbers.get("epsilon", 1e-8)
        return torch.optim.Adam(net.parameters(), rate, betas, eps, weight_decay=wd)
    momentum = numbers.get("momentum", 0.0)
    nesterov = name == "nag" and momentum > 0
    return torch.optim.SGD(net.parameters(), rate, momentum, weight_decay=wd, nesterov=nesterov)


class TorchUpdater:
    """A torch optimizer over named parameters: the mirror's, or torch.optim's SGD or Adam."""

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        rule: Rule,
        make: MakeTorch = torch_optimizer,
    ) -> None:
        self._parameters, self._rule = dict(parameters), rule
        self.optimizer = make(list(self._parameters.values()), rule)
        self._rate = 0.0  # of the last update
        self._foreign = not isinstance(self.optimizer, (optim.SGD, optim.Adam))

    def update(self, rate: float, batch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
            if not self._foreign:
                group["rescale_grad"] = 1.0 / batch
        if self._foreign:  # torch's loops average the loss instead
            self._average_gradients(batch)
        self.optimizer.step()
        self._rate = rate

    def _average_gradients(self, batch: int) -> None:
        for parameter in set(self._parameters.values()):  # one may have several names
            if parameter.grad is not None:
                parameter.grad.div_(batch)

    def numbers(self, name: str) -> Numbers:
        """Of torch.optim's SGD and Adam by MXNet's names; others say their class and rate."""
        parameter = self._parameters[name]
        for group in self.optimizer.param_groups:
            if any(each is parameter for each in group["params"]):
                return _numbers(self.optimizer, group)
        return {"rule": "none"}

    def slots(self) -> Slots:
        return {name: self.slots_of(name) for name in self._parameters}

    def slots_of(self, name: str, *, common_units: bool = True) -> dict[str, np.ndarray]:
        parameter = self._parameters[name]
        state = self.optimizer.state.get(parameter, {})
        slots = {}
        for kind in self._rule.slots:
            value = state.get(self._name(kind))
            array = (torch.zeros_like(parameter) if value is None else value).detach().numpy()
            slots[kind] = array * array.dtype.type(self._unit(kind, name) if common_units else 1.0)
        return slots

    def load(self, slots: Slots, count: int) -> None:
        for name, parameter in self._parameters.items():
            state = self.optimizer.state[parameter]
            for kind in self._rule.slots:
                value = slots[name][kind] / self._unit(kind, name)
                state[self._name(kind)] = torch.from_numpy(np.array(value)).to(parameter.dtype)
            if self._rule.name == "adam":
                state["step"] = torch.tensor(float(count)) if self._foreign else count

    def _name(self, kind: str) -> str:
        """The slot's own name."""
        theirs = {"mom": "momentum_buffer", "mean": "exp_avg", "var": "exp_avg_sq"}
        return theirs[kind] if self._foreign else kind

    def _unit(self, kind: str, name: str) -> float:
        """What the slot is multiplied with to be in MXNet's units."""
        return -self._rate if self._foreign and kind == "mom" and self._rate else 1.0


# Whose 1 − β MXNet forms in float32, and torch in float64; and what a rule of torch's may not have
_PLAIN = {"dampening": 0, "amsgrad": False, "maximize": False, "decoupled_weight_decay": False}


def _numbers(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> Numbers:
    numbers: Numbers = {"rate": float(group["lr"]), "wd": float(group.get("weight_decay", 0.0))}
    numbers |= {"clip": -1.0, "gradient scale": 1.0}
    plain = all(group.get(name, value) == value for name, value in _PLAIN.items())
    if type(optimizer) is torch.optim.SGD and plain:
        momentum = float(group["momentum"])
        rule = "nag" if group["nesterov"] and momentum else "sgd"
        return {"rule": rule, "momentum": momentum, **numbers}
    if type(optimizer) is torch.optim.Adam and plain:
        beta1, beta2 = group["betas"]
        own = {"beta1": float(beta1), "beta2": float(beta2), "epsilon": float(group["eps"])}
        return {"rule": "adam", **own, **numbers}
    odd = [f" {name}" for name, value in _PLAIN.items() if group.get(name, value) != value]
    return {"rule": type(optimizer).__name__.lower() + "".join(odd), **numbers}


class OwnTorchUpdater(TorchUpdater):
    """A user's torch optimizer, over a clone of the user's net.

    Its numbers are rounded to float32, as MXNet's are. Unless `strict`, Adam's eps is added where
    MXNet adds it, before the bias correction: torch's is divided by √(1 − β2ᵗ) in step t.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.nn.Parameter],
        rule: Rule,
        optimizer: torch.optim.Optimizer,
        *,
        strict: bool,
    ) -> None:
        super().__init__(parameters, rule, lambda *_: optimizer)
        self._foreign, self._count = True, 0
        self._moved_eps = type(optimizer) is torch.optim.Adam and not strict
        for group in optimizer.param_groups:
            for name in ("lr", "weight_decay", "momentum", "eps"):
                if isinstance(group.get(name), float):
                    group[name] = float(np.float32(group[name]))

    def update(self, rate: float, batch: int) -> None:
        self._count += 1
        self._average_gradients(batch)
        own = [group.get("eps") for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups if self._moved_eps else ():
            group["eps"] /= math.sqrt(1 - group["betas"][1] ** self._count)
        self.optimizer.step()
        for group, eps in zip(self.optimizer.param_groups, own, strict=True):
            if eps is not None:
                group["eps"] = eps

    def load(self, slots: Slots, count: int) -> None:
        self._count = count
        if self._rule.slots:
            super().load(slots, count)

    def _unit(self, kind: str, name: str) -> float:
        return -float(self.numbers(name).get("rate", 0.0)) or 1.0 if kind == "mom" else 1.0


class TorchParameters:
    """Named parameters of given values and an optimizer over them."""

    side = Side.TORCH

    def __init__(
        self, values: Mapping[str, np.ndarray], rule: Rule, make: MakeTorch | None = None
    ) -> None:
        self._parameters = {
            name: torch.nn.Parameter(torch.from_numpy(value.copy()))
            for name, value in values.items()
        }
        self.updater: Updater = TorchUpdater(self._parameters, rule, make or torch_optimizer)

    def state(self) -> Slots:
        slots = self.updater.slots()
        return {
            n: {**slots[n], "weight": p.detach().numpy().copy()}
            for n, p in self._parameters.items()
        }

    def set_gradients(self, values: Mapping[str, np.ndarray]) -> None:
        for name, parameter in self._parameters.items():
            parameter.grad = torch.from_numpy(values[name].copy())
