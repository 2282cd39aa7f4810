"""A Gluon net and its Trainer; methods may be overridden to plant a fault."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd

from parity_tests.backends.gluon import clones, runs
from parity_tests.backends.gluon.leaves import leaves
from parity_tests.backends.gluon.numpy_mode import call, like
from parity_tests.backends.gluon.optimizer import GluonUpdater
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.optimizers import Updater
from parity_tests.backends.runs import Arrays, Call
from parity_tests.backends.training import Key, Owned, Trainee
from parity_tests.reporting.verdicts import Side


class GluonTrainee(Trainee):
    """Trains a clone of a Gluon net."""

    leaves_of = staticmethod(leaves)

    def _copied(self, net: Any, dtype: str) -> Any:
        copied = clones.clone(net, dtype)
        self._named = copied._collect_params_with_prefix()
        return copied

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        return GluonUpdater(parameters, self.rule)

    def parameter(self, key: Key) -> mx.gluon.Parameter:
        return self._named[self.tensors[key].name]

    def differentiate(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        x = clones.ndarray(images, self.dtype)
        with autograd.record():
            logits = self.forward(x)
            zeros = mx.nd.zeros(logits.shape, dtype=self.dtype)
            zeros.attach_grad()  # MXNet keeps no gradient of the logits themselves
            logits = logits + zeros
            each = self.loss(logits, labels)
        each.backward()
        return logits.asnumpy(), each.asnumpy(), zeros.grad.asnumpy()

    def gradient(self, key: Key) -> np.ndarray:
        return self.parameter(key).grad().asnumpy()

    def forward(self, x: mx.nd.NDArray) -> mx.nd.NDArray:
        """Logits (N, classes)."""
        return call(self.net, [x])[0]

    def loss(self, logits: mx.nd.NDArray, labels: np.ndarray) -> mx.nd.NDArray:
        """One loss a sample, (N,)."""
        known = mx.nd.array(labels, dtype=self.dtype)
        return runs.loss_of(self.objective.losses[Side.GLUON], logits, known)

    def release(self) -> None:
        """The Trainer and its parameters hold each other, and so do a block and its scope."""
        clones.release(self.net)
        if isinstance(self.updater, GluonUpdater):
            vars(self.updater.trainer).clear()

    def _put(self, key: Key, value: np.ndarray) -> None:
        self.parameter(key).set_data(mx.nd.array(value, dtype=self.dtype))

    def _replace_dropout(self, leaf: Leaf) -> None:
        rate = float(leaf.block._rate)

        def forward(x: mx.nd.NDArray) -> mx.nd.NDArray:
            factor = self._dropout_factor(leaf.path, rate)
            return x if factor is None else x * like(mx.nd.array(factor, dtype=self.dtype), x)

        leaf.block.__dict__["forward"] = forward

    def _watch(self, leaf: Leaf, calls: list[Call]) -> None:
        def note(values: Any) -> None:
            calls.append(Call((), tuple(y.asnumpy() for y in runs.flat(values))))

        activation = getattr(leaf.block, "act", None) if leaf.block._children else None
        if activation is not None:  # Dense(activation=…): what it computes itself ends there
            activation.register_forward_pre_hook(lambda _, args: note(args[0]))
        else:
            leaf.block.register_forward_hook(lambda _, args, out: note(out))


class OwnGluonTrainee(GluonTrainee):
    """Trains a clone of a user's net with the user's own Trainer."""

    def _copied(self, net: Owned, dtype: str) -> Any:
        self._owned, self._owner = net, clones.clone(net.net, dtype)
        self._named = dict(self._owner.collect_params())
        self._named |= self._owner._collect_params_with_prefix()
        return self._owner if net.rebuild is None else net.rebuild(self._owner)

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        def make(*_: Any) -> mx.gluon.Trainer:
            return self._owned.optimizer(self._owner)

        return GluonUpdater(parameters, self.rule, make, own=True)

    def forward(self, x: mx.nd.NDArray) -> mx.nd.NDArray:
        more = (clones.ndarray(value, self.dtype) for value in self.more)
        return call(self.net, [x, *more])[0]

    def set_gradient(self, key: Key, value: np.ndarray) -> None:
        """Leave a gradient as backward would."""
        parameter = self.parameter(key)
        parameter.grad()[:] = mx.nd.array(value.reshape(parameter.shape), dtype=self.dtype)
        parameter.data()._fresh_grad = True

    def gradient(self, key: Key) -> np.ndarray:
        return super().gradient(key).reshape(self.tensors[key].shape)

    def _put(self, key: Key, value: np.ndarray) -> None:
        super()._put(key, value.reshape(self.parameter(key).shape))
