"""Takes one side of one subject: every leaf alone, the loss alone, then the net as a whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from parity_tests.backends.base import Backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET, Arrays, LeafRun, NetRun, Objective, is_float
from parity_tests.gate.record.nets import Artefacts, Item, Net, Recorder, Stream, Training, run_all
from parity_tests.gate.record.noise import DRAWS, Draw, NoiseEnvelope, noisy
from parity_tests.gate.record.operations import ExecutedNet, Operations
from parity_tests.gate.record.quantities import Failure, Quantity, QuantityRecord, SideRecord
from parity_tests.gate.record.subjects import Subject, Tensors, drawn, fixed_upstream
from parity_tests.numerics.compare import UNIT
from parity_tests.numerics.operators.record import Rounds
from parity_tests.numerics.operators.table import operator_of
from parity_tests.reporting.verdicts import Check, Level

LOSS = "(loss)"

_UNIT = UNIT["float32"]
# One pair of draws is enough for a leaf: both dtypes of a leaf alone see the same inputs.
_LEAF_DRAWS = DRAWS[:2]

Tensor = tuple[str, str]  # (path, role)


# Makes of a net one whose leaves are what it executes
Execute = Callable[[Any], ExecutedNet]


def record_side(backend: Backend, subject: Subject, execute: Execute | None = None) -> SideRecord:
    """Everything a side gives for a subject; what does not run is a Failure, leaf by leaf.

    With `execute` the leaves are the operations that the net executes, and not its modules.
    Raises what `execute` raises.
    """
    record = SideRecord()
    try:
        recorder = _SideRecorder(backend, subject)
    except Exception as error:
        record.failures.append(Failure.of(error, Level.FORWARD, Check.STREAM, NET, "net", "output"))
        return record
    if execute is not None and recorder.broken is None:
        record.operations = recorder.look_into(execute)
    for part in (recorder.local, recorder.loss, recorder.whole):
        for item in part():
            if isinstance(item, Failure):
                record.failures.append(item)
            elif isinstance(item, dict):
                record.files.update(item)
            else:
                record.quantities.append(item.record() if isinstance(item, Quantity) else item)
    return record


def start_of(backend: Backend, net: Any, subject: Subject) -> Tensors:
    """The values that every leaf starts from."""
    values = {}
    for leaf in backend.leaves(net):
        for role, tensor in leaf.tensors.items():
            key = (leaf.path, role)
            value = subject.values(backend.side, key, leaf.kind, tensor.shape)
            values[key] = tensor.read() if value is None else value
    return values


def _noisy_tensor(key: Tensor, value: np.ndarray, draw: Draw) -> np.ndarray:
    path, role = key
    return value if role == "bitmaps" else noisy(value, path, role, draw=draw)


class _SideRecorder:
    """A net of one side, dressed; the nets and leaves with other values are made when they run."""

    def __init__(self, backend: Backend, subject: Subject) -> None:
        self.backend, self.subject = backend, subject
        plain = subject.make[backend.side]()
        self.net = backend.with_values(plain, start_of(backend, plain, subject))
        del plain
        gc.collect()  # a Gluon net is a circle, and the user's own may not be cleared
        self.leaves: Sequence[Leaf] = backend.leaves(self.net)
        self.running = self.net  # the net of which these are the leaves
        self.modes: tuple[bool, ...] = (False, True)
        self.outputs: Arrays = ()
        self.objective: Objective | None = None
        self.shapes: dict[str, Arrays] = {}
        self.broken: Failure | None = None
        self._prepare()

    def _prepare(self) -> None:
        """The net as a whole comes first, since it tells what shape each leaf's input has."""
        try:
            run = self.backend.run_net(self.net, self.subject.inputs, "float64", train=False)
        except Exception as error:
            self.broken = Failure.of(error, Level.FORWARD, Check.STREAM, NET, "net", "output")
            return
        self._see(run)
        self.outputs = run.outputs
        self.objective = self._objective(run.outputs)

    def _see(self, run: NetRun) -> None:
        self.shapes = {path: calls[0].inputs for path, calls in run.calls.items() if calls}

    def look_into(self, execute: Execute) -> Operations:
        """Let the leaves be what the net executes."""
        seen = execute(self.net)
        self.running, self.modes = seen.net, seen.modes
        self.leaves = self.backend.leaves(seen.net)
        train = seen.modes[0]
        self._see(self.backend.run_net(seen.net, self.subject.inputs, "float64", train=train))
        return seen.operations

    def _objective(self, outputs: Arrays) -> Objective:
        """A loss of the labels, or fixed gradients of the outputs where there are no labels."""
        side, labels = self.backend.side, self.subject.labels
        loss = self.subject.loss.get(side)
        if labels is None or loss is None:
            return Objective(upstream=fixed_upstream(outputs))
        return Objective(labels=labels, losses={side: loss(self.net)})

    def local(self) -> Iterator[QuantityRecord | Failure]:
        """Every leaf alone, forward and then backward."""
        # Only what is kept of a leaf stays: VGG16's gradients fill gigabytes
        items = [
            item.record() if isinstance(item, Quantity) else item
            for leaf in self.leaves
            for item in self._leaf(leaf)
        ]
        for level in (Level.FORWARD, Level.BACKWARD):
            yield from (item for item in items if item.level == level)

    def _leaf(self, leaf: Leaf) -> Iterator[Quantity | Failure]:
        if leaf.composite:
            return
        where = (Level.FORWARD, Check.LOCAL, leaf.path, leaf.kind, "output")
        inputs = self.shapes.get(leaf.path)
        if inputs is None:
            reason = self.broken.reason if self.broken else "it never ran on this input"
            yield Failure(*where, reason)
            return
        xs = tuple(_normal_like(x, self.subject.name, leaf.path, i) for i, x in enumerate(inputs))
        try:
            yield from self._modes(leaf, xs)
        except Exception as error:
            yield Failure.of(error, *where)

    def _modes(self, leaf: Leaf, xs: Arrays) -> Iterator[Quantity]:
        name = (self.subject.name, leaf.path)
        shapes = self.backend.run_leaf(leaf, xs, "float64", train=True)
        outputs = [v for k, v in shapes.items() if k.startswith("output")]
        upstream = tuple(_normal_like(y, *name, "upstream", i) for i, y in enumerate(outputs))
        by_mode = operator_of(leaf.family).by_mode and False in self.modes
        differentiable = any(map(is_float, outputs))
        for train in (True, False) if by_mode else (True,):
            gs = upstream if train and differentiable else None

            def run(
                leaf: Leaf, dtype: str, xs: Arrays, gs: Arrays | None, train: bool = train
            ) -> LeafRun:
                return self.backend.run_leaf(leaf, xs, dtype, train=train, upstream=gs)

            double, single = run(leaf, "float64", xs, gs), run(leaf, "float32", xs, gs)
            envelope = NoiseEnvelope(double)
            for draw in _LEAF_DRAWS:
                noisy_xs = tuple(noisy(x, *name, i, draw=draw) for i, x in enumerate(xs))
                noisy_gs = None
                if gs is not None:
                    noisy_gs = tuple(noisy(g, "g", i, draw=draw) for i, g in enumerate(gs))
                with self._leaf_with(leaf, partial(_noisy_tensor, draw=draw)) as other:
                    envelope.widen(run(other, "float64", noisy_xs, noisy_gs).items())
            sizes = self._sizes(leaf, xs, gs, run)
            for quantity, value in double.items():
                if not train and not quantity.startswith("output"):
                    continue
                limit = envelope.limit(quantity, sizes.get(quantity))
                yield Quantity(
                    Level.FORWARD if quantity.startswith("output") else Level.BACKWARD,
                    Check.LOCAL, leaf.path, leaf.kind,
                    quantity if train else f"{quantity} in inference", single[quantity], value,
                    0.0 if _exact(leaf, quantity) else limit,
                    1.0 if self._single(leaf) else 2.0**-29,
                )  # fmt: skip

    def _single(self, leaf: Leaf) -> bool:
        """Whether the framework computes the leaf in float32 even in a float64 net."""
        return self.backend.side == "gluon" and operator_of(leaf.family).single_precision

    @contextmanager
    def _leaf_with(
        self, leaf: Leaf, change: Callable[[Tensor, np.ndarray], np.ndarray]
    ) -> Iterator[Leaf]:
        values = {role: change((leaf.path, role), t.read()) for role, t in leaf.tensors.items()}
        other: Leaf = self.backend.leaf_with_values(leaf, values)
        del values
        try:
            yield other
        finally:
            self.backend.release(other.block)

    def _sizes(
        self, leaf: Leaf, xs: Arrays, gs: Arrays | None, run: Callable[..., LeafRun]
    ) -> dict[str, float]:
        """What a linear operation rounds: itself with every number made absolute."""
        operator = operator_of(leaf.family)
        if not operator.linear or operator.own is not None:
            return {}  # the limits of the project's own leaves are those that snapshots have
        absolute = None if gs is None else tuple(np.abs(g) for g in gs)
        with self._leaf_with(leaf, lambda _, value: np.abs(value)) as other:
            sums = run(other, "float64", tuple(np.abs(x) for x in xs), absolute)
        return {name: float(value.max()) for name, value in sums.items() if value.size}

    def loss(self) -> Iterator[Quantity | Failure]:
        """The loss alone, on logits that are not the net's."""
        if self.objective is None or self.objective.labels is None:
            return
        classes = int(self.objective.labels.max()) + 1
        shape = (len(self.objective.labels), max(classes, 10))
        logits = drawn("logits", *shape).standard_normal(shape).astype(np.float32) * 3
        try:
            runs = {d: self.backend.run_loss(self.objective, logits, d) for d in UNIT}
            envelope = NoiseEnvelope(runs["float64"])
            for draw in DRAWS:
                noisy_logits = noisy(logits, "logits", draw=draw)
                envelope.widen(
                    self.backend.run_loss(self.objective, noisy_logits, "float64").items()
                )
        except Exception as error:
            yield Failure.of(error, Level.LOSS, Check.LOCAL, LOSS, "loss", "loss")
            return
        # The table of a vectorised log is off by 64 u of 1, however small the result (`compare`)
        for name, value in runs["float64"].items():
            limit = max(envelope.limit(name), 64 * _UNIT * max(1.0, float(np.abs(logits).max())))
            single = runs["float32"][name]
            yield Quantity(Level.LOSS, Check.LOCAL, LOSS, "loss", name, single, value, limit)

    def whole(self) -> Iterator[Item]:
        """The net as a whole: its run, its training, its exports."""
        if self.broken is not None:
            yield self.broken
            return
        assert self.objective is not None  # a net that runs has one
        single = any(self._single(leaf) for leaf in self.leaves)
        modules = self.backend.leaves(self.net)
        whole = Net(
            self.backend, self.subject, self.running, self.outputs, self.objective,
            {leaf.path: leaf.kind for leaf in (*modules, *self.leaves)},
            1.0 if single else UNIT["float64"] / _UNIT,
        )  # fmt: skip
        stream = Stream(whole)
        # lets its values go before the others'
        yield from run_all([stream], partial(self._noisy_net, self.running))
        whole = replace(whole, net=self.net)
        parts: list[Recorder] = [Artefacts(whole)]
        if self.subject.batches and self.objective.labels is not None:
            parts.insert(0, Training(whole, stream.sums))
        yield from run_all(parts, partial(self._noisy_net, self.net))

    @contextmanager
    def _noisy_net(self, clean: Any, draw: Draw) -> Iterator[Any]:
        values = {
            (leaf.path, role): _noisy_tensor((leaf.path, role), tensor.read(), draw)
            for leaf in self.backend.leaves(clean)
            for role, tensor in leaf.tensors.items()
        }
        net = self.backend.with_values(clean, values)
        del values
        try:
            yield net
        finally:
            self.backend.release(net)


def _normal_like(array: np.ndarray, *seed: object) -> np.ndarray:
    """Normal values in an array's shape, exact in float32; integers stay as they are."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return drawn(*seed).standard_normal(array.shape).astype(np.float32)


def _exact(leaf: Leaf, quantity: str) -> bool:
    rounds = operator_of(leaf.family).rounds
    if rounds == Rounds.GRADIENTS:
        return quantity.startswith("output")
    return rounds == Rounds.NOTHING
