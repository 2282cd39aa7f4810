"""Drives an optimizer of either framework one update at a time, its slots in common units.

The units are MXNet's. Its momentum holds the learning rate, `mom = μ·mom − lr·g`, and torch.optim's
does not, `buf = μ·buf + g`: while the rate is constant mom is −lr·buf, so a foreign buffer is
converted with the rate of its last update. Adam's two slots mean the same in all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import mxnet as mx
import numpy as np
import torch
from mxnet import gluon

from parity_tests.numerics.update_rules import Rule
from torch_ref import optim

__all__ = [
    "GluonUpdater",
    "MakeGluon",
    "MakeTorch",
    "Slots",
    "TorchUpdater",
    "Updater",
    "gluon_trainer",
    "torch_optimizer",
    "torchs_own",
]

# Slots of each parameter: its name, then the slot's, in MXNet's units and the parameter's dtype.
Slots = dict[str, dict[str, np.ndarray]]

MakeGluon = Callable[[list[gluon.Parameter], Rule], gluon.Trainer]
MakeTorch = Callable[[list[torch.nn.Parameter], Rule], torch.optim.Optimizer]


def gluon_trainer(parameters: list[gluon.Parameter], rule: Rule) -> gluon.Trainer:
    """A Trainer as `gluon_cnn.train` makes it for one device."""
    return gluon.Trainer(parameters, rule.name, rule.mxnet_options(), kvstore=None)


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


class Updater(Protocol):
    """An optimizer over named parameters, whichever framework it is of."""

    def update(self, rate: float, batch: int) -> None:
        """One update with the gradients that `backward` left, divided by `batch`."""

    def slots(self) -> Slots: ...

    def load(self, slots: Slots, count: int) -> None:
        """Put slots back, as they were after `count` updates."""


class GluonUpdater:
    """A Gluon Trainer over named parameters on the CPU."""

    def __init__(
        self, parameters: Mapping[str, gluon.Parameter], rule: Rule, make: MakeGluon = gluon_trainer
    ) -> None:
        self._parameters, self._rule = dict(parameters), rule
        self.trainer = make(list(self._parameters.values()), rule)

    def update(self, rate: float, batch: int) -> None:
        self.trainer.set_learning_rate(rate)
        self.trainer.step(batch)

    def slots(self) -> Slots:
        states = self.trainer._updaters[0].states if self.trainer._kv_initialized else {}
        found: Slots = {}
        for index, (name, parameter) in enumerate(self._parameters.items()):
            arrays = [slot.asnumpy() for slot in _as_tuple(states.get(index))]
            zeros = [np.zeros(parameter.shape, parameter.dtype) for _ in self._rule.slots]
            found[name] = dict(zip(self._rule.slots, arrays or zeros, strict=True))
        return found

    def load(self, slots: Slots, count: int) -> None:
        trainer, optimizer = self.trainer, self.trainer._optimizer
        if not trainer._kv_initialized:
            trainer._init_kvstore()
        updater = trainer._updaters[0]
        for index, (name, parameter) in enumerate(self._parameters.items()):
            state = optimizer.create_state_multi_precision(index, parameter.data())
            for slot, kind in zip(_as_tuple(state), self._rule.slots, strict=True):
                slot[:] = mx.nd.array(slots[name][kind], dtype=slot.dtype)
            updater.states[index] = state
            updater.states_synced[index] = True
        counts = dict.fromkeys(range(len(self._parameters)), count)
        optimizer._all_index_update_counts[0] = counts
        optimizer._index_update_count = counts
        optimizer.num_update = count


def _as_tuple(slots: Any) -> tuple[mx.nd.NDArray, ...]:
    if slots is None:
        return ()
    return slots if isinstance(slots, tuple) else (slots,)


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
        return {name: self._slots_of(p) for name, p in self._parameters.items()}

    def _slots_of(self, parameter: torch.nn.Parameter) -> dict[str, np.ndarray]:
        state = self.optimizer.state.get(parameter, {})
        found = {}
        for kind in self._rule.slots:
            value = state.get(self._name(kind))
            array = (torch.zeros_like(parameter) if value is None else value).detach().numpy()
            found[kind] = array * array.dtype.type(self._unit(kind))
        return found

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
