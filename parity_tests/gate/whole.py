"""The net as a whole, for a snapshot: its run forward and backward, its steps, its exports.

Each is run clean and then with noise, on one noisy net after another: a full-size net and its
gradients take a gigabyte, and no two of them are held at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from parity_tests.gate.moves import DRAWS, Draw, Moves, noisy
from parity_tests.gate.quantities import Failure, Quantity
from parity_tests.gate.sizes import Found, Sizes, bias_sums
from parity_tests.gate.subjects import Subject
from parity_tests.runs import NET, Arrays, NetRun, Objective

__all__ = ["Artefacts", "Item", "Net", "Stream", "Training", "run_all"]

Item = Quantity | Failure | dict[str, bytes]


@dataclass(frozen=True)
class Net:
    """A net that a side has made of a subject, with what its runs have in common.

    `outputs` are those of inference in float64; `kinds` are those of the leaves; `fraction` is what
    part of float32's limit float64 may take.
    """

    border: ModuleType
    subject: Subject
    net: Any
    outputs: Arrays
    objective: Objective
    kinds: Mapping[str, str]
    fraction: float

    def noisy_inputs(self, draw: Draw) -> Arrays:
        return tuple(noisy(x, "input", i, draw=draw) for i, x in enumerate(self.subject.inputs))

    def kind(self, path: str) -> str:
        return self.kinds.get(path, "net")


class Part:
    """One thing that the whole net does; `clean` comes first, and gives float64 values."""

    level = "forward"
    name = "output"

    def __init__(self, whole: Net) -> None:
        self.whole = whole
        self.border, self.subject = whole.border, whole.subject

    def clean(self) -> Mapping[Any, np.ndarray]:
        raise NotImplementedError

    def again(self, net: Any, draw: Draw) -> Mapping[Any, np.ndarray]:
        """The same in float64 on a noisy net and noisy inputs."""
        raise NotImplementedError

    def items(self, moves: Moves) -> Iterator[Item]:
        raise NotImplementedError


class Stream(Part):
    """The net in training mode: outputs of every leaf, then all gradients."""

    def __init__(self, whole: Net) -> None:
        super().__init__(whole)
        # Of a net that is not trained, each leaf alone is run backward
        objective = whole.objective if self.subject.steps else None
        self._how = {"train": True, "objective": objective}
        self.sums: dict[str, float] = {}

    def clean(self) -> Found:
        runs = {d: self._run(self.whole.net, self.subject.inputs, d) for d in _DTYPES}
        self._double, self._single = (_of_run(runs[d]) for d in _DTYPES)
        self.sums = bias_sums(runs["float64"])
        return self._double

    def again(self, net: Any, draw: Draw) -> Found:
        return _of_run(self._run(net, self.whole.noisy_inputs(draw), "float64"))

    def _run(self, net: Any, inputs: Arrays, dtype: str) -> NetRun:
        run: NetRun = self.border.run_net(net, inputs, dtype, **self._how)
        return run

    def items(self, moves: Moves) -> Iterator[Item]:
        sizes = Sizes(self._double, self.sums)
        outputs = [key for key in self._double if key[1].startswith("output")]
        gradients = [key for key in self._double if not key[1].startswith("output")]
        for level, keys in (("forward", outputs), ("backward", reversed(gradients))):
            for key in keys:
                yield Quantity(
                    level, "stream", key[0], self.whole.kind(key[0]), key[1],
                    self._single[key], self._double[key], moves.limit(key, sizes.of(key)),
                    self.whole.fraction,
                )  # fmt: skip


class Training(Part):
    """Steps of training: the logits, loss, slots, weights and buffers that each leaves."""

    level = "training"
    name = "step"

    def __init__(self, whole: Net, stream: Stream) -> None:
        super().__init__(whole)
        self._stream = stream
        self._loss = whole.objective.gluon or whole.objective.torch

    def clean(self) -> Found:
        batches = self.subject.batches
        self._double, self._single = (self._run(self.whole.net, batches, d) for d in _DTYPES)
        return self._double

    def again(self, net: Any, draw: Draw) -> Found:
        batches = [
            (noisy(x, "batch", i, draw=draw), y) for i, (x, y) in enumerate(self.subject.batches)
        ]
        return self._run(net, batches, "float64")

    def _run(self, net: Any, batches: Any, dtype: str) -> Found:
        made = self.border.steps(net, batches, dtype, self.subject.rule, self._loss)
        kept = (1, len(batches))  # the steps whose weights are kept
        return {
            (path, f"step {n} {name}"): value
            for n, path, name, value in made
            if path == NET or n in kept
        }

    def items(self, moves: Moves) -> Iterator[Item]:
        sizes = Sizes(self._double, self._stream.sums)
        for key, value in self._double.items():
            path, name = key
            yield Quantity(
                "training", "stream", path, self.whole.kind(path), name,
                self._single[key], value, moves.limit(key, sizes.of(key)), self.whole.fraction,
            )  # fmt: skip


class Artefacts(Part):
    """What is exported, loaded again and run."""

    level = "artefacts"
    name = "export"

    def clean(self) -> dict[str, np.ndarray]:
        self._values, self._files = self.border.artefacts(self.whole.net, self.subject.inputs)
        return {"output": self.whole.outputs[0]}

    def again(self, net: Any, draw: Draw) -> dict[str, np.ndarray]:
        run: NetRun = self.border.run_net(
            net, self.whole.noisy_inputs(draw), "float64", train=False
        )
        return {"output": run.outputs[0]}

    def items(self, moves: Moves) -> Iterator[Item]:
        double = self.whole.outputs[0]
        for name, value in self._values.items():
            yield Quantity(
                "artefacts", "stream", NET, "net", name, value,
                double if value.shape == double.shape else None,
                moves.limit("output"), self.whole.fraction,
            )  # fmt: skip
        yield self._files


_DTYPES = ("float64", "float32")


def run_all(
    parts: Iterable[Part], noisy_net: Callable[[Draw], AbstractContextManager[Any]]
) -> Iterator[Item]:
    """Everything that the parts give, each noisy net being run by all before the next is made."""
    runs = [_Run(part) for part in parts]
    for run in runs:
        run.begin()
    for draw in DRAWS:
        with noisy_net(draw) as net:
            for run in runs:
                run.widen(net, draw)
        del net  # before the next is made
    for run in runs:
        yield from run.items()


@dataclass
class _Run:
    """A part under way: how far its values move, or why it stopped."""

    part: Part
    moves: Moves | None = None
    failure: Failure | None = None

    def begin(self) -> None:
        try:
            self.moves = Moves(self.part.clean())
        except Exception as error:
            self._stop(error)

    def widen(self, net: Any, draw: Draw) -> None:
        if self.moves is None:
            return
        try:
            self.moves.widen(self.part.again(net, draw))
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self.moves = None
        where = (self.part.level, "stream", NET, "net", self.part.name)
        self.failure = Failure.of(error, *where)

    def items(self) -> Iterator[Item]:
        if self.failure is not None:
            yield self.failure
        if self.moves is not None:
            yield from self.part.items(self.moves)


def _of_run(run: NetRun) -> Found:
    """Outputs in order, then gradients; a leaf that is called again has its calls numbered."""
    found: Found = {}
    for values in (run.named_outputs(), run.named_gradients()):
        for (path, call, name), value in values.items():
            found[path, f"{name} of call {call + 1}" if call else name] = value
    return found
