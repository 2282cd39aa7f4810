"""The net as a whole, for a snapshot: its run forward and backward, its steps, its exports.

Each is run clean and then with noise, on one noisy net after another. A full-size net and its
gradients take gigabytes: no two of the noisy nets are held at once, of float32 only what a snapshot
keeps, and of the noisy runs one value at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity_tests.backends.base import Backend
from parity_tests.backends.runs import NET, Arrays, NetRun, Objective
from parity_tests.gate.record.noise import DRAWS, Draw, NoiseEnvelope, noisy
from parity_tests.gate.record.quantities import Failure, Quantity, QuantityRecord
from parity_tests.gate.record.sizes import Key, Sizes, TensorsByKey, bias_sums
from parity_tests.gate.record.subjects import Subject
from parity_tests.reporting.verdicts import Check, Level

Item = Quantity | QuantityRecord | Failure | dict[str, bytes]
Values = Iterable[tuple[Any, np.ndarray]]  # by key


@dataclass(frozen=True)
class Net:
    """A net that a side has made of a subject, with what its runs have in common.

    `outputs` are those of inference in float64; `kinds` are those of the leaves; `fraction` is what
    part of float32's limit float64 may take.
    """

    backend: Backend
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


class Recorder:
    """One thing that the whole net does; `clean` comes first, and gives float64 values."""

    level = Level.FORWARD
    name = "output"

    def __init__(self, whole: Net) -> None:
        self.whole = whole
        self.backend, self.subject = whole.backend, whole.subject

    def clean(self) -> Mapping[Any, np.ndarray]:
        raise NotImplementedError

    def again(self, net: Any, draw: Draw) -> Values:
        """The same in float64 on a noisy net and noisy inputs."""
        raise NotImplementedError

    def items(self, envelope: NoiseEnvelope) -> Iterator[Item]:
        raise NotImplementedError


class _BothDtypes(Recorder):
    """A part that is run in both dtypes; what a snapshot keeps of both is `records`, by key."""

    def __init__(self, whole: Net) -> None:
        super().__init__(whole)
        self.records: dict[Key, QuantityRecord] = {}

    def values(self, net: Any, inputs: Any, dtype: str) -> Values:
        """What a run gives, in order."""
        raise NotImplementedError

    def level_of(self, name: str) -> Level:
        return self.level

    def both(self, inputs: Any, double: TensorsByKey, sums: Mapping[str, float]) -> None:
        """Run it in float32 too, beside float64's values; `sums` as `Sizes` takes them."""
        self._sizes = Sizes(double, sums)
        for key, single in self.values(self.whole.net, inputs, "float32"):
            path, name = key
            self.records[key] = Quantity(
                self.level_of(name), Check.STREAM, path, self.whole.kind(path), name, single,
                double[key], 0.0, self.whole.fraction,
            ).record()  # fmt: skip

    def limited(self, keys: Iterable[Key], envelope: NoiseEnvelope) -> Iterator[QuantityRecord]:
        for key in keys:
            yield replace(self.records[key], limit=envelope.limit(key, self._sizes.of(key)))


class Stream(_BothDtypes):
    """The net in training mode: outputs of every leaf, then all gradients."""

    def __init__(self, whole: Net) -> None:
        super().__init__(whole)
        self.sums: dict[str, float] = {}

    def clean(self) -> TensorsByKey:
        inputs = self.subject.inputs
        run = self._run(self.whole.net, inputs, "float64")
        self.sums = bias_sums(run)
        double = dict(_of_run(run))
        self.both(inputs, double, self.sums)
        return double

    def again(self, net: Any, draw: Draw) -> Values:
        return self.values(net, self.whole.noisy_inputs(draw), "float64")

    def values(self, net: Any, inputs: Any, dtype: str) -> Values:
        return _of_run(self._run(net, inputs, dtype))

    def _run(self, net: Any, inputs: Arrays, dtype: str) -> NetRun:
        # Of a net that is not trained, each leaf alone is run backward
        objective = self.whole.objective if self.subject.batches else None
        return self.backend.run_net(net, inputs, dtype, train=True, objective=objective)

    def level_of(self, name: str) -> Level:
        return Level.BACKWARD if "gradient" in name else Level.FORWARD

    def items(self, envelope: NoiseEnvelope) -> Iterator[Item]:
        outputs = [key for key, record in self.records.items() if record.level == Level.FORWARD]
        gradients = [key for key, record in self.records.items() if record.level == Level.BACKWARD]
        yield from self.limited(outputs, envelope)
        gradients.sort(key=lambda key: key[0] == NET)  # backwards, the net's output comes first
        yield from self.limited(reversed(gradients), envelope)


class Training(_BothDtypes):
    """Steps of training: the logits, loss, slots, weights and buffers that each leaves."""

    level = Level.TRAINING
    name = "step"

    def __init__(self, whole: Net, sums: Mapping[str, float]) -> None:
        super().__init__(whole)
        self._sums = sums  # the stream's

    def clean(self) -> TensorsByKey:
        batches = self.subject.batches
        double = dict(self.values(self.whole.net, batches, "float64"))
        self.both(batches, double, self._sums)
        return double

    def again(self, net: Any, draw: Draw) -> Values:
        batches = [
            (noisy(x, "batch", i, draw=draw), y) for i, (x, y) in enumerate(self.subject.batches)
        ]
        return self.values(net, batches, "float64")

    def values(self, net: Any, batches: Any, dtype: str) -> Values:
        recorded = (1, len(batches))  # the steps whose weights are recorded
        for n, path, name, value in training_steps(
            self.backend, net, batches, dtype, self.subject, self.whole.objective
        ):
            if path == NET or n in recorded:
                yield (path, f"step {n} {name}"), value

    def items(self, envelope: NoiseEnvelope) -> Iterator[Item]:
        yield from self.limited(self.records, envelope)


def training_steps(
    backend: Backend,
    net: Any,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    dtype: str,
    subject: Subject,
    objective: Objective,
) -> Iterator[tuple[int, str, str, np.ndarray]]:
    """Train a copy as the `train` command does: (step, path, quantity, value) of every stage.

    Dropout passes its input on.
    """
    trainee = backend.trainee(net, dtype, subject.rule, objective)
    try:
        for number, (images, labels) in enumerate(batches, 1):
            logits, loss, _ = trainee.differentiate(images, labels)
            yield number, NET, "logits", logits
            yield number, NET, "loss", loss
            trainee.update(subject.rate, len(labels))
            for path, quantity, value in trainee.named_state():
                yield number, path, quantity, value
    finally:
        trainee.release()


class Artefacts(Recorder):
    """What is exported, loaded again and run."""

    level = Level.ARTEFACTS
    name = "export"

    def clean(self) -> dict[str, np.ndarray]:
        self._values, self._files = self.backend.artefacts(self.whole.net, self.subject.inputs)
        return {"output": self.whole.outputs[0]}

    def again(self, net: Any, draw: Draw) -> Values:
        run = self.backend.run_net(net, self.whole.noisy_inputs(draw), "float64", train=False)
        return [("output", run.outputs[0])]

    def items(self, envelope: NoiseEnvelope) -> Iterator[Item]:
        double = self.whole.outputs[0]
        for name, value in self._values.items():
            yield Quantity(
                Level.ARTEFACTS, Check.STREAM, NET, "net", name, value,
                double if value.shape == double.shape else None,
                envelope.limit("output"), self.whole.fraction,
            )  # fmt: skip
        yield self._files


def run_all(
    parts: Iterable[Recorder], noisy_net: Callable[[Draw], AbstractContextManager[Any]]
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

    part: Recorder
    envelope: NoiseEnvelope | None = None
    failure: Failure | None = None

    def begin(self) -> None:
        try:
            self.envelope = NoiseEnvelope(self.part.clean())
        except Exception as error:
            self._stop(error)

    def widen(self, net: Any, draw: Draw) -> None:
        if self.envelope is None:
            return
        try:
            self.envelope.widen(self.part.again(net, draw))
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        self.envelope = None
        where = (self.part.level, Check.STREAM, NET, "net", self.part.name)
        self.failure = Failure.of(error, *where)

    def items(self) -> Iterator[Item]:
        if self.failure is not None:
            yield self.failure
        if self.envelope is not None:
            yield from self.part.items(self.envelope)


def _of_run(run: NetRun) -> Values:
    """Outputs in order, then gradients; a leaf that is called again has its calls numbered."""
    for values in (run.named_outputs(), run.named_gradients()):
        for (path, call, name), value in values.items():
            yield (path, f"{name} of call {call + 1}" if call else name), value
