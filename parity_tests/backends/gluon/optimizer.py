"""Gluon's Trainer over named parameters, and parameters of its own that it updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from parity_tests.backends.gluon.clones import as_is
from parity_tests.backends.optimizers import Numbers, Slots, Updater
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side

MakeGluon = Callable[[list[gluon.Parameter], Rule], gluon.Trainer]


def gluon_trainer(parameters: list[gluon.Parameter], rule: Rule) -> gluon.Trainer:
    """A Trainer as `gluon_cnn.train` makes it for one device."""
    return gluon.Trainer(parameters, rule.name, rule.mxnet_options(), kvstore=None)


def named_optimizer(net: Any, name: str, numbers: Mapping[str, float]) -> gluon.Trainer:
    """A Trainer over a net, by the name of its rule and the rule's numbers, "rate" among them."""
    options = {("learning_rate" if k == "rate" else k): value for k, value in numbers.items()}
    return gluon.Trainer(net.collect_params(), name, options)


class GluonUpdater:
    """A Gluon Trainer over named parameters on the CPU."""

    def __init__(
        self,
        parameters: Mapping[str, gluon.Parameter],
        rule: Rule,
        make: MakeGluon = gluon_trainer,
        *,
        own: bool = False,
    ) -> None:
        self._own = own  # a user's, with its own rate
        self._parameters, self._rule = dict(parameters), rule
        self.trainer = make(list(self._parameters.values()), rule)
        indices = {id(p): index for index, p in enumerate(self.trainer._params)}
        self._index = {name: indices.get(id(p)) for name, p in self._parameters.items()}

    def update(self, rate: float, batch: int) -> None:
        if self._own:  # beside parameters that no operation reads
            self.trainer.step(batch, ignore_stale_grad=True)
        else:
            self.trainer.set_learning_rate(rate)
            self.trainer.step(batch)

    def numbers(self, name: str) -> Numbers:
        index, optimizer = self._index[name], self.trainer._optimizer
        if index is None:
            return {"rule": "none"}
        numbers: Numbers = {
            "rule": type(optimizer).__name__.lower(),
            "rate": float(optimizer._get_lr(index)),
            "wd": float(optimizer._get_wd(index)),
            "clip": float(optimizer.clip_gradient or -1.0),
            "gradient scale": float(self.trainer._scale),
        }
        for number in ("momentum", "beta1", "beta2", "epsilon"):
            if hasattr(optimizer, number):
                numbers[number] = float(getattr(optimizer, number))
        return numbers

    def slots(self) -> Slots:
        return {name: self.slots_of(name) for name in self._parameters}

    def slots_of(self, name: str, *, common_units: bool = True) -> dict[str, np.ndarray]:
        """MXNet's own units are the common ones."""
        if not self._rule.slots:
            return {}
        states = self.trainer._updaters[0].states if self.trainer._kv_initialized else {}
        arrays = [slot.asnumpy() for slot in _as_tuple(states.get(self._index[name]))]
        parameter = self._parameters[name]
        zeros = [np.zeros(parameter.shape, parameter.dtype) for _ in self._rule.slots]
        return dict(zip(self._rule.slots, arrays or zeros, strict=True))

    def load(self, slots: Slots, count: int) -> None:
        trainer, optimizer = self.trainer, self.trainer._optimizer
        if not trainer._kv_initialized:
            trainer._init_kvstore()
        updater = trainer._updaters[0]
        for name, parameter in self._parameters.items():
            index = self._index[name]
            if index is None or not self._rule.slots:
                continue
            state = optimizer.create_state_multi_precision(index, parameter.data())
            for slot, kind in zip(_as_tuple(state), self._rule.slots, strict=True):
                slot[:] = mx.nd.array(slots[name][kind], dtype=slot.dtype)
            updater.states[index] = state
            updater.states_synced[index] = True
        counts = dict.fromkeys(range(len(trainer._params)), count)
        optimizer._all_index_update_counts[0] = counts
        optimizer._index_update_count = counts
        optimizer.num_update = count


def _as_tuple(slots: Any) -> tuple[mx.nd.NDArray, ...]:
    if slots is None:
        return ()
    return slots if isinstance(slots, tuple) else (slots,)


class GluonParameters:
    """Named parameters of given values and a Trainer over them."""

    side = Side.GLUON

    def __init__(
        self, values: Mapping[str, np.ndarray], rule: Rule, make: MakeGluon | None = None
    ) -> None:
        self._parameters: dict[str, gluon.Parameter] = {}
        for name, value in values.items():
            parameter = gluon.Parameter(
                name.replace(" ", "_"), shape=value.shape, dtype=value.dtype.name
            )
            parameter.initialize(ctx=mx.cpu())
            parameter.set_data(as_is(value))
            self._parameters[name] = parameter
        self.updater: Updater = GluonUpdater(self._parameters, rule, make or gluon_trainer)

    def state(self) -> Slots:
        slots = self.updater.slots()
        return {n: {**slots[n], "weight": p.data().asnumpy()} for n, p in self._parameters.items()}

    def set_gradients(self, values: Mapping[str, np.ndarray]) -> None:
        for name, parameter in self._parameters.items():
            parameter.grad()[:] = as_is(values[name])
            parameter.data()._fresh_grad = True  # as backward leaves it: the Trainer asks
