"""The two optimizers of a course: the same parameters and gradients, in either framework."""

from __future__ import annotations

from functools import cache
from typing import Protocol

import mxnet as mx
import numpy as np
import torch
from mxnet import gluon

from parity_tests.backends.gluon.runs import as_is
from parity_tests.backends.updaters import GluonUpdater, MakeGluon, MakeTorch, TorchUpdater, Updater
from parity_tests.numerics.update_rules import Rule
from parity_tests.reporting.verdicts import Side

__all__ = ["SHAPES", "GluonSide", "OptimizerSide", "TorchSide", "gradients"]

# More parameters than MXNet's SGD updates at once (4), of several ranks, one of a single value.
SHAPES = {
    "kernel": (7, 5, 3, 3),
    "kernel bias": (7,),
    "dense": (11, 9),
    "gamma": (131,),
    "scalar": (1,),
}


class OptimizerSide(Protocol):
    """Parameters of those shapes and an optimizer over them."""

    side: Side
    dtype: str
    updater: Updater

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """Slots and "weight" of each parameter."""
        ...

    def set_gradients(self, values: dict[str, np.ndarray]) -> None: ...


class GluonSide:
    """A Trainer over parameters of those shapes."""

    side = Side.GLUON

    def __init__(self, rule: Rule, dtype: str, make: MakeGluon) -> None:
        self.dtype, self._parameters = dtype, {}
        for name, value in _start(dtype).items():
            parameter = gluon.Parameter(name.replace(" ", "_"), shape=value.shape, dtype=dtype)
            parameter.initialize()
            parameter.set_data(mx.nd.array(value, dtype=dtype))
            self._parameters[name] = parameter
        self.updater: Updater = GluonUpdater(self._parameters, rule, make)

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        slots = self.updater.slots()
        return {n: {**slots[n], "weight": p.data().asnumpy()} for n, p in self._parameters.items()}

    def set_gradients(self, values: dict[str, np.ndarray]) -> None:
        for name, parameter in self._parameters.items():
            parameter.grad()[:] = as_is(values[name])
            parameter.data()._fresh_grad = True  # as backward leaves it: the Trainer asks


class TorchSide:
    """The other framework's optimizer over the same."""

    side = Side.TORCH

    def __init__(self, rule: Rule, dtype: str, make: MakeTorch) -> None:
        self.dtype = dtype
        self._parameters = {
            name: torch.nn.Parameter(torch.from_numpy(value))
            for name, value in _start(dtype).items()
        }
        self.updater: Updater = TorchUpdater(self._parameters, rule, make)

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        slots = self.updater.slots()
        return {
            n: {**slots[n], "weight": p.detach().numpy().copy()}
            for n, p in self._parameters.items()
        }

    def set_gradients(self, values: dict[str, np.ndarray]) -> None:
        for name, parameter in self._parameters.items():
            parameter.grad = torch.from_numpy(values[name].copy())


def _start(dtype: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(6)
    return {n: generator.normal(size=s).astype("float32").astype(dtype) for n, s in SHAPES.items()}


@cache
def gradients(step: int, dtype: str) -> dict[str, np.ndarray]:
    """Of many sizes, some exactly 0, equal in both dtypes; not to be written to."""
    generator = np.random.default_rng([5, step])
    found = {}
    for name, shape in SHAPES.items():
        values = generator.normal(size=shape) * 10 ** generator.uniform(-6, 1, shape)
        # the lone scalar never: a tensor of zeros alone would compare nothing
        values *= (generator.random(shape) > 0.1) | (values.size == 1)
        found[name] = values.astype("float32").astype(dtype)
    return found
