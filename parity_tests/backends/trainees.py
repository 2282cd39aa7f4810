"""A net in training, in either framework: one step at a time, every stage of a step as numpy.

Trainees are clones that train as the `train` commands do: a summed loss, backward, and an optimizer
that divides by the batch size. Keys are (path, role) by the torch net's paths on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mxnet as mx
import numpy as np
import torch
from mxnet import autograd

from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.leaves import Leaf, Tensor, leaves_of
from parity_tests.backends.runs import Call, Objective, Outputs, allot, output_name
from parity_tests.backends.torch import runs as torch_side
from parity_tests.backends.updaters import GluonUpdater, TorchUpdater, Updater
from parity_tests.numerics.update_rules import Rule
from parity_tests.pairing.structure import pair_leaves

__all__ = ["Batch", "GluonTrainee", "Key", "Masks", "Stages", "State", "TorchTrainee", "Trainee"]

Key = tuple[str, str]  # (path, role), by the torch net's paths
Masks = Mapping[str, np.ndarray]  # by torch path: True where dropout keeps a value


@dataclass(frozen=True)
class Batch:
    """One step's data: images (N, C, H, W), classes (N,), its rate, and dropout's masks."""

    images: np.ndarray
    labels: np.ndarray
    rate: float
    masks: Masks


@dataclass(frozen=True)
class State:
    """What a step starts from and leaves: weights, slots in MXNet's units, buffers."""

    weights: dict[Key, np.ndarray]
    slots: dict[Key, dict[str, np.ndarray]]
    buffers: dict[Key, np.ndarray]
    count: int


@dataclass(frozen=True)
class Stages:
    """One step in the order in which it is computed: logits (N, classes), loss (N,), gradients of
    the summed loss, then the new state. `outputs` are those of every leaf, where they are watched.
    """

    logits: np.ndarray
    loss: np.ndarray
    logit_gradient: np.ndarray
    gradients: dict[Key, np.ndarray]
    after: State
    outputs: Outputs


class _Trainee:
    """What both sides share; `net` is the clone that trains."""

    side = ""

    def __init__(self, net: Any, dtype: str, rule: Rule, paths: Mapping[str, str]) -> None:
        self.net, self.dtype, self.rule, self.count = net, dtype, rule, 0
        self.masks: dict[str, np.ndarray] = {}
        self.tensors: dict[Key, Tensor] = {}
        self._leaves = [
            replace(leaf, path=paths.get(leaf.path, leaf.path)) for leaf in leaves_of(net)
        ]
        self._calls: dict[int, list[Call]] = {}
        for leaf in self._leaves:
            path = leaf.path
            if leaf.kind == "dropout":
                self._replace_dropout(leaf, path)
            self.tensors.update({(path, role): t for role, t in leaf.tensors.items()})
        self.updater = self.make_updater(
            {"/".join(key): self.parameter(key) for key in self._keys(trainable=True)}
        )

    def watch(self) -> None:
        """Note every leaf's outputs from now on, as they are: reading them changes nothing."""
        for leaf in {id(leaf.block): leaf for leaf in self._leaves}.values():
            self._watch(leaf, self._calls.setdefault(id(leaf.block), []))

    def _noted(self) -> Outputs:
        """The outputs of the step that was just made, by torch path."""
        calls = allot(self._leaves, self._calls)
        found = {
            (path, index, output_name(i)): value
            for path, made in calls.items()
            for index, call in enumerate(made)
            for i, value in enumerate(call.outputs)
        }
        for made in self._calls.values():
            made.clear()
        return found

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        raise NotImplementedError

    def _watch(self, leaf: Leaf, calls: list[Call]) -> None:
        raise NotImplementedError

    def parameter(self, key: Key) -> Any:
        """The framework's own parameter or buffer."""
        raise NotImplementedError

    def _put(self, key: Key, value: np.ndarray) -> None:
        raise NotImplementedError

    def _replace_dropout(self, leaf: Leaf, path: str) -> None:
        raise NotImplementedError

    def _keys(self, *, trainable: bool) -> Iterator[Key]:
        for key, tensor in self.tensors.items():
            if tensor.trainable == trainable and tensor.buffer != trainable:
                yield key

    def state(self) -> State:
        slots = self.updater.slots()
        return State(
            {key: self.tensors[key].read() for key in self._keys(trainable=True)},
            {key: slots["/".join(key)] for key in self._keys(trainable=True)},
            {key: self.tensors[key].read() for key in self._keys(trainable=False)},
            self.count,
        )

    def load(self, state: State) -> None:
        """Go on from another trainee's state, of either framework and dtype."""
        for key, value in {**state.weights, **state.buffers}.items():
            self._put(key, value.astype(self.dtype))
        slots = {
            "/".join(key): {name: value.astype(self.dtype) for name, value in named.items()}
            for key, named in state.slots.items()
        }
        if state.count:
            self.updater.load(slots, state.count)
        self.count = state.count

    def _kept(self, path: str, rate: float) -> np.ndarray | None:
        """What dropout multiplies with in this step; None where it passes its input on."""
        mask = self.masks.get(path)
        return None if mask is None else (mask / (1.0 - rate)).astype(self.dtype)


class GluonTrainee(_Trainee):
    """A Gluon net and its Trainer; methods may be overridden to plant a fault."""

    side = "gluon"

    def __init__(
        self, gluon_net: Any, torch_net: Any, dtype: str, rule: Rule, objective: Objective
    ) -> None:
        pairs = pair_leaves(leaves_of(gluon_net), leaves_of(torch_net)).pairs
        net = gluon_side.clone(gluon_net, dtype)
        self.objective = objective
        self._named = net._collect_params_with_prefix()
        super().__init__(net, dtype, rule, {pair.gluon.path: pair.torch.path for pair in pairs})

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        return GluonUpdater(parameters, self.rule)

    def parameter(self, key: Key) -> mx.gluon.Parameter:
        return self._named[self.tensors[key].name]

    def step(self, batch: Batch) -> Stages:
        """Forward, backward and one update."""
        self.masks, self.count = dict(batch.masks), self.count + 1
        x = mx.nd.array(batch.images, dtype=self.dtype)
        zeros = None
        with autograd.record():
            logits = self.forward(x)
            zeros = mx.nd.zeros(logits.shape, dtype=self.dtype)
            zeros.attach_grad()  # MXNet keeps no gradient of the logits themselves
            logits = logits + zeros
            each = self.loss(logits, batch.labels)
        each.backward()
        gradients = {
            key: self.parameter(key).grad().asnumpy() for key in self._keys(trainable=True)
        }
        self.update(batch.rate, len(batch.labels))
        return Stages(
            logits.asnumpy(),
            each.asnumpy(),
            zeros.grad.asnumpy(),
            gradients,
            self.state(),
            self._noted(),
        )

    def forward(self, x: mx.nd.NDArray) -> mx.nd.NDArray:
        return self.net(x)

    def loss(self, logits: mx.nd.NDArray, labels: np.ndarray) -> mx.nd.NDArray:
        assert self.objective.gluon is not None  # a trial has both losses
        return self.objective.gluon(logits, mx.nd.array(labels, dtype=self.dtype))

    def update(self, rate: float, batch: int) -> None:
        self.updater.update(rate, batch)

    def _put(self, key: Key, value: np.ndarray) -> None:
        self.parameter(key).set_data(mx.nd.array(value, dtype=self.dtype))

    def _replace_dropout(self, leaf: Leaf, path: str) -> None:
        rate = float(leaf.block._rate)

        def forward(x: mx.nd.NDArray) -> mx.nd.NDArray:
            kept = self._kept(path, rate)
            return x if kept is None else x * mx.nd.array(kept, dtype=self.dtype)

        leaf.block.__dict__["forward"] = forward

    def _watch(self, leaf: Leaf, calls: list[Call]) -> None:
        def note(values: Any) -> None:
            calls.append(Call((), tuple(y.asnumpy() for y in gluon_side.flat(values))))

        activation = getattr(leaf.block, "act", None) if leaf.block._children else None
        if activation is not None:  # Dense(activation=…): what it computes itself ends there
            activation.register_forward_pre_hook(lambda _, args: note(args[0]))
        else:
            leaf.block.register_forward_hook(lambda _, args, out: note(out))


class TorchTrainee(_Trainee):
    """A torch net and its optimizer; methods may be overridden to plant a fault."""

    side = "torch"

    def __init__(
        self, gluon_net: Any, torch_net: Any, dtype: str, rule: Rule, objective: Objective
    ) -> None:
        net = torch_side.clone(torch_net, dtype).train()
        self.objective = objective
        self._named: dict[str, Any] = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        super().__init__(net, dtype, rule, {})

    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        return TorchUpdater(parameters, self.rule)

    def parameter(self, key: Key) -> Any:
        return self._named[self.tensors[key].name]

    def step(self, batch: Batch) -> Stages:
        """Forward, backward and one update."""
        self.masks, self.count = dict(batch.masks), self.count + 1
        for parameter in self.net.parameters():
            parameter.grad = None
        logits = self.forward(torch.from_numpy(batch.images.astype(self.dtype)))
        logits.retain_grad()
        each = self.loss(logits, batch.labels)
        each.sum().backward()
        gradients = {
            key: _numpy(self.parameter(key).grad, self.parameter(key))
            for key in self._keys(trainable=True)
        }
        self.update(batch.rate, len(batch.labels))
        return Stages(
            _numpy(logits),
            _numpy(each),
            _numpy(logits.grad, logits),
            gradients,
            self.state(),
            self._noted(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def loss(self, logits: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
        assert self.objective.torch is not None  # a trial has both losses
        return self.objective.torch(logits, torch.from_numpy(labels.astype(np.int64)))

    def update(self, rate: float, batch: int) -> None:
        self.updater.update(rate, batch)

    def _put(self, key: Key, value: np.ndarray) -> None:
        with torch.no_grad():
            self.parameter(key).copy_(torch.from_numpy(value))

    def _replace_dropout(self, leaf: Leaf, path: str) -> None:
        rate = float(leaf.block.p)

        def forward(x: torch.Tensor) -> torch.Tensor:
            kept = self._kept(path, rate)
            return x if kept is None else x * torch.from_numpy(kept)

        leaf.block.forward = forward

    def _watch(self, leaf: Leaf, calls: list[Call]) -> None:
        def note(_: torch.nn.Module, args: Any, out: Any) -> None:
            several = out if isinstance(out, (tuple, list)) else (out,)
            calls.append(Call((), tuple(_numpy(y) for y in several)))

        leaf.block.register_forward_hook(note)


def _numpy(value: torch.Tensor | None, like: torch.Tensor | None = None) -> np.ndarray:
    """A copy; zeros for a gradient that nobody computed, which no comparison takes for one."""
    if value is None:
        assert like is not None
        return np.zeros(tuple(like.shape), str(like.dtype).removeprefix("torch."))
    return value.detach().numpy().copy()


Trainee = GluonTrainee | TorchTrainee
MakeTrainee = Callable[[Any, Any, str, Rule, Objective], Trainee]
