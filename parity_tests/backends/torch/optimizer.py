"""The mirror's and torch.optim's optimizers over named parameters, and parameters of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch._dynamo  # else a first optimizer imports it, in frames that stay with the weights

from parity_tests.backends.optimizers import Slots, Updater
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side
from torch_ref import optim

__all__ = ["MakeTorch", "TorchParameters", "TorchUpdater", "torch_optimizer", "torchs_own"]

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
            for parameter in self._parameters.values():
                if parameter.grad is not None:
                    parameter.grad.div_(batch)
        self.optimizer.step()
        self._rate = rate

    def slots(self) -> Slots:
        return {name: self.slots_of(name) for name in self._parameters}

    def slots_of(self, name: str, *, common_units: bool = True) -> dict[str, np.ndarray]:
        parameter = self._parameters[name]
        state = self.optimizer.state.get(parameter, {})
        slots = {}
        for kind in self._rule.slots:
            value = state.get(self._name(kind))
            array = (torch.zeros_like(parameter) if value is None else value).detach().numpy()
            slots[kind] = array * array.dtype.type(self._unit(kind) if common_units else 1.0)
        return slots

    def load(self, slots: Slots, count: int) -> None:
        for name, parameter in self._parameters.items():
            state = self.optimizer.state[parameter]
            for kind in self._rule.slots:
                value = slots[name][kind] / self._unit(kind)
                state[self._name(kind)] = torch.from_numpy(np.array(value)).to(parameter.dtype)
            if self._rule.name == "adam":
                state["step"] = torch.tensor(float(count)) if self._foreign else count

    def _name(self, kind: str) -> str:
        """The slot's own name."""
        theirs = {"mom": "momentum_buffer", "mean": "exp_avg", "var": "exp_avg_sq"}
        return theirs[kind] if self._foreign else kind

    def _unit(self, kind: str) -> float:
        """What the slot is multiplied with to be in MXNet's units."""
        return -self._rate if self._foreign and kind == "mom" and self._rate else 1.0


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
