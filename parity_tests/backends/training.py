"""A net in training, in either framework: one step at a time, every stage of a step as numpy.

Trainees are clones that train as the `train` commands do: a summed loss, backward, and an optimizer
that divides by the batch size. Keys are (path, role), the paths being those a trainee is told to
use: the torch net's on both sides of a pair.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity_tests.backends.leaves import Leaf, Tensor
from parity_tests.backends.optimizers import Updater
from parity_tests.backends.runs import Arrays, Call, Objective, Outputs, allot, output_name
from parity_tests.numerics.update_rules import Rule

Key = tuple[str, str]  # (path, role)
OWN_RATE = math.nan  # a user's optimizer has its own
Masks = Mapping[str, np.ndarray]  # by path: True where dropout keeps a value


@dataclass(frozen=True)
class Batch:
    """One step's data: images (N, C, H, W), or whatever a net's first input is, classes (N,), its
    rate (`OWN_RATE`: the optimizer's own), dropout's masks, and the inputs after the first."""

    images: np.ndarray
    labels: np.ndarray
    rate: float
    masks: Masks
    more: Arrays = ()

    @property
    def inputs(self) -> Arrays:
        """All inputs of the net."""
        return (self.images, *self.more)


@dataclass(frozen=True)
class Owned:
    """A user's own net in training: its clone runs as `rebuild` makes it of that (None: as it is),
    and `optimizer` makes what updates the clone. Unless `strict`, known differences between the
    frameworks' rules are put right."""

    net: Any
    rebuild: Callable[[Any], Any] | None
    optimizer: Callable[[Any], Any]
    strict: bool = False


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


class Trainee(ABC):
    """What both frameworks share; `net` is the clone that trains."""

    def __init__(
        self,
        net: Any,
        dtype: str,
        rule: Rule,
        objective: Objective,
        paths: Mapping[str, str] | None = None,
    ) -> None:
        self.net, self.count = self._copied(net, dtype), 0
        self.dtype, self.rule, self.objective = dtype, rule, objective
        self.masks: dict[str, np.ndarray] = {}
        self.more: Arrays = ()
        self.tensors: dict[Key, Tensor] = {}
        names = paths or {}
        self._leaves = [
            replace(leaf, path=names.get(leaf.path, leaf.path)) for leaf in self.leaves_of(self.net)
        ]
        self._calls: dict[int, list[Call]] = {}
        for leaf in self._leaves:
            if leaf.kind == "dropout":
                self._replace_dropout(leaf)
            self.tensors.update({(leaf.path, role): t for role, t in leaf.tensors.items()})
        self.updater = self.make_updater(
            {"/".join(key): self.parameter(key) for key in self.keys(trainable=True)}
        )

    @staticmethod
    @abstractmethod
    def leaves_of(net: Any) -> list[Leaf]:
        """The leaves of a net of this framework."""

    @abstractmethod
    def _copied(self, net: Any, dtype: str) -> Any: ...

    @abstractmethod
    def make_updater(self, parameters: dict[str, Any]) -> Updater:
        """The optimizer of the `train` command over these parameters."""

    @abstractmethod
    def parameter(self, key: Key) -> Any:
        """The framework's own parameter or buffer."""

    @abstractmethod
    def differentiate(self, images: np.ndarray, labels: np.ndarray) -> Arrays:
        """Forward and backward: logits (N, classes), loss (N,), gradient of the logits."""

    @abstractmethod
    def gradient(self, key: Key) -> np.ndarray:
        """The gradient that backward left; zeros where it left none."""

    @abstractmethod
    def release(self) -> None:
        """Let go of the clone and its optimizer; the trainee is of no use after this."""

    @abstractmethod
    def _put(self, key: Key, value: np.ndarray) -> None: ...

    @abstractmethod
    def _replace_dropout(self, leaf: Leaf) -> None: ...

    @abstractmethod
    def _watch(self, leaf: Leaf, calls: list[Call]) -> None: ...

    def step(self, batch: Batch) -> Stages:
        """Forward, backward and one update."""
        self.masks, self.count = dict(batch.masks), self.count + 1
        self.more = batch.more
        logits, loss, logit_gradient = self.differentiate(batch.images, batch.labels)
        gradients = {key: self.gradient(key) for key in self.keys(trainable=True)}
        self.update(batch.rate, len(batch.labels))
        outputs = self.recorded_outputs()
        return Stages(logits, loss, logit_gradient, gradients, self.state(), outputs)

    def update(self, rate: float, batch: int) -> None:
        """One update with the gradients that backward left."""
        self.updater.update(rate, batch)

    def watch(self) -> None:
        """Record every leaf's outputs from now on, as they are: reading them changes nothing."""
        for leaf in {id(leaf.block): leaf for leaf in self._leaves}.values():
            self._watch(leaf, self._calls.setdefault(id(leaf.block), []))

    def recorded_outputs(self) -> Outputs:
        """The leaves' outputs in the step that was just made, which are then forgotten."""
        outputs = {
            (path, index, output_name(i)): value
            for path, calls in allot(self._leaves, self._calls).items()
            for index, call in enumerate(calls)
            for i, value in enumerate(call.outputs)
        }
        for calls in self._calls.values():
            calls.clear()
        return outputs

    def keys(self, *, trainable: bool) -> Iterator[Key]:
        """Keys of what the optimizer updates, or of the buffers, which it does not."""
        for key, tensor in self.tensors.items():
            if tensor.trainable == trainable and tensor.buffer != trainable:
                yield key

    def state(self) -> State:
        """What the next step starts from."""
        return State(
            {key: self.tensors[key].read() for key in self.keys(trainable=True)},
            {key: self._slots(key) for key in self.keys(trainable=True)},
            {key: self.tensors[key].read() for key in self.keys(trainable=False)},
            self.count,
        )

    def _slots(self, key: Key) -> dict[str, np.ndarray]:
        """A parameter's slots in the shape that its tensor has on both sides."""
        slots, shape = self.updater.slots_of("/".join(key)), self.tensors[key].shape
        return {name: value.reshape(shape) for name, value in slots.items()}

    def named_state(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """The state as (path, quantity, value), one value in memory at a time."""
        for key in self.keys(trainable=True):
            path, role = key
            for slot, value in self._slots(key).items():
                yield path, f"{role} {slot}", value
            yield path, role, self.tensors[key].read()
        for key in self.keys(trainable=False):
            yield *key, self.tensors[key].read()

    def put(self, weights: Mapping[Key, np.ndarray]) -> None:
        """Other weights, and nothing else."""
        for key, value in weights.items():
            self._put(key, value.astype(self.dtype))

    def load(self, state: State) -> None:
        """Go on from another trainee's state, of either framework and dtype."""
        for key, value in {**state.weights, **state.buffers}.items():
            self._put(key, value.astype(self.dtype))
        slots = {
            "/".join(key): {
                name: value.astype(self.dtype).reshape(self.parameter(key).shape)
                for name, value in named.items()
            }
            for key, named in state.slots.items()
        }
        if state.count:
            self.updater.load(slots, state.count)
        self.count = state.count

    def _dropout_factor(self, path: str, rate: float) -> np.ndarray | None:
        """What dropout multiplies with in this step; None where it passes its input on."""
        mask = self.masks.get(path)
        return None if mask is None else (mask / (1.0 - rate)).astype(self.dtype)


# (net, dtype, rule, objective, names of leaves' paths)
MakeTrainee = Callable[[Any, str, Rule, Objective, Mapping[str, str] | None], Trainee]
