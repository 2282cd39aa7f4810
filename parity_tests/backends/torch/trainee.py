"""A torch net and its optimizer; methods may be overridden to plant a fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.optimizers import Updater
from parity_tests.backends.runs import Arrays, Call, rounded
from parity_tests.backends.torch import clones
from parity_tests.backends.torch.leaves import leaves
from parity_tests.backends.torch.optimizer import OwnTorchUpdater, TorchUpdater
from parity_tests.backends.torch.runs import loss_of
from parity_tests.backends.tracing import flatten
from parity_tests.backends.training import Key, Owned, Trainee
from parity_tests.reporting.verdicts import Side


class TorchTrainee(Trainee):
    """Trains a clone of a torch net."""

    leaves_of = staticmethod(leaves)

    def _copied(self, net: Any, dtype: str) -> Any:
        copied = clones.clone(net, dtype).train()
        self._named: dict[str, Any] = {
            **dict(copied.named_parameters(remove_duplicate=False)),
            **dict(copied.named_buffers(remove_duplicate=False)),
        }
        return copied

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        return TorchUpdater(parameters, self.rule)

    def parameter(self, key: Key) -> Any:
        return self._named[self.tensors[key].name]

    def differentiate(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        for parameter in self.net.parameters():
            parameter.grad = None
        logits = self.forward(_tensor(images, self.dtype))
        logits.retain_grad()
        each = self.loss(logits, labels)
        each.sum().backward()
        return _numpy(logits), _numpy(each), _numpy(logits.grad, logits)

    def gradient(self, key: Key) -> np.ndarray:
        return _numpy(self.parameter(key).grad, self.parameter(key))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes)."""
        return self.net(x)

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        """One loss a sample, (N,)."""
        return loss_of(self.objective.losses[Side.TORCH], logits, labels)

    def release(self) -> None:
        """Nothing is held in a circle but dropout's replaced forward, which holds the trainee."""
        for leaf in self._leaves:
            if leaf.kind == "dropout":
                vars(leaf.block).pop("forward", None)

    def _put(self, key: Key, value: np.ndarray) -> None:
        with torch.no_grad():
            self.parameter(key).copy_(_of_numpy(value))

    def _replace_dropout(self, leaf: Leaf) -> None:
        rate = float(leaf.block.p)

        def forward(x: torch.Tensor) -> torch.Tensor:
            factor = self._dropout_factor(leaf.path, rate)
            return x if factor is None else x * torch.from_numpy(factor)

        leaf.block.forward = forward

    def _watch(self, leaf: Leaf, calls: list[Call]) -> None:
        def note(_: torch.nn.Module, args: Any, out: Any) -> None:
            calls.append(Call((), tuple(map(_numpy, flatten(out, torch.Tensor)))))

        leaf.block.register_forward_hook(note)


class OwnTorchTrainee(TorchTrainee):
    """Trains a clone of a user's net with the user's own optimizer."""

    def _copied(self, net: Owned, dtype: str) -> Any:
        self._owned, self._owner = net, super()._copied(net.net, dtype)
        return self._owner if net.rebuild is None else net.rebuild(self._owner).train()

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        optimizer = self._owned.optimizer(self._owner)
        return OwnTorchUpdater(parameters, self.rule, optimizer, strict=self._owned.strict)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.net(x, *(_tensor(value, self.dtype) for value in self.more))
        first: torch.Tensor = next(flatten(made, torch.Tensor))
        return first

    def set_gradient(self, key: Key, value: np.ndarray) -> None:
        """Leave a gradient as backward would."""
        parameter = self.parameter(key)
        parameter.grad = _of_numpy(value).reshape(parameter.shape).to(parameter.dtype)


def _of_numpy(value: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(value))  # numpy computes a number of an array of no axes


def _tensor(value: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(rounded(value, dtype)))


def _numpy(value: torch.Tensor | None, like: torch.Tensor | None = None) -> np.ndarray:
    """A copy; zeros for a gradient that nobody computed, which no comparison takes for one."""
    if value is None:
        assert like is not None
        return np.zeros(tuple(like.shape), str(like.dtype).removeprefix("torch."))
    return value.detach().numpy().copy()
