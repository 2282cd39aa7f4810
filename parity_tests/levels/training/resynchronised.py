"""Training resynchronised: every step from Gluon's state, so each stage has a bound of its own.

What a stage inherits (logits, gradients of parameters, BatchNorm's statistics) is judged against
the referee in envelopes, as at the levels forward and backward; what it computes from values at
hand (the loss and its gradient from the side's own logits, slots and weights from its own
gradients) in u·s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.losses import loss_scales
from parity_tests.backends.runs import NET, NetRun
from parity_tests.backends.runs import Key as RunKey
from parity_tests.backends.training import Batch, Key, Stages, State
from parity_tests.levels.backward import in_common_terms, variances
from parity_tests.levels.diagnosis.training import Step, explain_stage
from parity_tests.levels.envelope import Envelope, backward_envelope, forward_envelope
from parity_tests.levels.inherited import judged_keys
from parity_tests.levels.local import JUDGED
from parity_tests.levels.optimizer.judged import judged_update
from parity_tests.levels.referee import DidNotRun, Subject, along, not_compared
from parity_tests.levels.training.ledger import Ledger
from parity_tests.levels.training.trial import Trial
from parity_tests.numerics.compare import compare
from parity_tests.numerics.operators.table import tolerance
from parity_tests.numerics.update_rules import Update
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status


def resynchronised_rows(trial: Trial, steps: int) -> list[Row]:
    """Rows of `steps` steps that all start from Gluon's float32 state."""
    ledger = Ledger()
    trainees = {key: trial.trainee(*key) for key in JUDGED}
    for trainee in trainees.values():
        trainee.watch()
    carriers = _Carriers(trial)
    try:
        earlier: Batch | None = None
        gradients: dict[tuple[str, str], dict[Key, np.ndarray]] = {}
        for number, batch in enumerate(trial.batches[:steps], 1):
            state = trainees[Side.GLUON, "float32"].state()
            for key, trainee in trainees.items():
                if key != (Side.GLUON, "float32"):
                    trainee.load(state)
            witness = _Witness(trial, carriers, state, batch)
            for place, ((side, dtype), trainee) in enumerate(trainees.items()):
                before = trainee.state()
                stages = trainee.step(batch)
                rows = _judged(trial, witness, before, stages, batch, earlier, side, dtype)
                step = Step(
                    witness.subject, witness.run, witness.led(stages), batch, before, stages,
                    earlier, gradients.get((side, dtype), {}),
                )  # fmt: skip
                for order, row in rows:
                    ledger.add(number, (*order, place), _explained(row, step))
                gradients[side, dtype] = stages.gradients
            earlier = batch
    except DidNotRun as error:
        check = Check.RESYNCHRONISED
        return [*ledger.rows(), not_compared(Level.TRAINING, NET, "step", error, check=check)]
    return ledger.rows()


def _explained(row: Row, step: Step) -> Row:
    if row.status != Status.DIVERGED or row.diagnosis:
        return row
    try:
        return replace(row, diagnosis=explain_stage(row, step))
    except DidNotRun:
        return row  # a hypothesis that cannot be tried explains nothing


class _Carriers:
    """A pair of nets that only hold a state, for the referee to run clones of."""

    def __init__(self, trial: Trial) -> None:
        self.gluon = backend(Side.GLUON).clone(trial.gluon_net, None)
        self.torch = backend(Side.TORCH).clone(trial.torch_net, "float32")
        self.pairing = trial.pair(self.gluon, self.torch)

    def load(self, state: State) -> None:
        values = {**state.weights, **state.buffers}
        for pair in self.pairing.pairs:
            roles = [role for role in pair.torch.tensors if (pair.torch.path, role) in values]
            for leaf in (pair.gluon, pair.torch):
                own = {role: values[pair.torch.path, role] for role in roles}
                backend(leaf.side).set_values(leaf, own)


class _Witness:
    """The referee's own step from a state: what each stage must be, and how far it may be off."""

    def __init__(self, trial: Trial, carriers: _Carriers, state: State, batch: Batch) -> None:
        carriers.load(state)
        self.labels = batch.labels
        self.subject = Subject(
            carriers.gluon, carriers.torch, carriers.pairing, batch.inputs,
            replace(trial.objective, labels=batch.labels), batch.masks, strict=trial.strict,
            modes=trial.modes,
        )  # fmt: skip
        self.run = self.subject.run(Side.TORCH, "float64", train=True, backward=True)
        self.forward = forward_envelope(self.subject, train=True)
        self.backward = backward_envelope(self.subject)

    def led(self, stages: Stages) -> NetRun:
        """The referee along the very activations of a step, so that it turns as that step did at
        every ReLU and in every pooling window."""
        return along(self.subject, stages.outputs)


_Placed = tuple[tuple[int, int], Row]  # stage, tensor


def _judged(
    trial: Trial,
    witness: _Witness,
    before: State,
    stages: Stages,
    batch: Batch,
    earlier: Batch | None,
    side: Side,
    dtype: str,
) -> Iterator[_Placed]:
    """Every stage of one side's step: what is inherited in envelopes, what is local in u·s."""
    led = witness.led(stages)

    def inherited(
        actual: dict[Key, np.ndarray],
        expected: Mapping[RunKey, np.ndarray],
        envelope: Envelope,
        suffix: str = "",
    ) -> Iterator[Row]:
        named = {(path, 0, role + suffix): value for (path, role), value in actual.items()}
        rows = judged_keys(
            Level.TRAINING, witness.subject, actual=named,
            expected={key: value for key, value in expected.items() if key in named},
            envelope=envelope, side=Side.TORCH,  # whose paths the keys have
            dtype=dtype, mode=Mode.TRAIN,
        )  # fmt: skip
        return (replace(row, side=side, check=Check.RESYNCHRONISED) for row in rows)

    outputs = {(NET, "output"): stages.logits}
    for row in inherited(outputs, witness.run.named_outputs(), witness.forward):
        yield (0, 0), replace(row, quantity="logits")
    yield from _judged_loss(witness, stages, side, dtype)
    rows = inherited(stages.gradients, led.named_gradients(), witness.backward, " gradient")
    for number, row in enumerate(rows):
        yield (3, -number), row  # backward meets the last leaf first
    for number, (path, role) in enumerate(stages.gradients):
        key = (path, role)
        known = trial.rule_of(key, batch)
        if known is None:
            continue
        rule, rate = known
        last = (None if earlier is None else trial.rule_of(key, earlier)) or (rule, 0.0)
        update = Update(rate, len(batch.labels), before.count + 1, last[1])
        rows = judged_update(
            rule, update, {**before.slots[key], "weight": before.weights[key]},
            stages.gradients[key],
            {**stages.after.slots[key], "weight": stages.after.weights[key]},
            slack=trial.slack(rule, side), role=role, level=Level.TRAINING, path=path, side=side,
            check=Check.RESYNCHRONISED,
        )  # fmt: skip
        for row in rows:
            yield (5 if row.quantity == role else 4, number), row
    run = witness.run
    buffers = run.named_buffers()
    if side == Side.GLUON:  # which keeps the biased variance
        buffers = in_common_terms(buffers, variances(witness.subject, run))
    for number, row in enumerate(inherited(stages.after.buffers, buffers, witness.forward)):
        yield (6, number), row


def _judged_loss(witness: _Witness, stages: Stages, side: Side, dtype: str) -> Iterator[_Placed]:
    """Loss and logit gradient against those of the side's own logits, in float64."""
    objective = witness.subject.objective
    expected = backend(Side.TORCH).run_loss(objective, stages.logits, "float64")
    sizes = loss_scales(objective, stages.logits, expected)
    length = stages.logits.shape[-1]
    for place, (name, kind, value) in enumerate(
        (("loss", "loss", stages.loss), ("logit gradient", "loss gradient", stages.logit_gradient)),
        1,
    ):
        verdict = compare(
            value, expected[kind], scale=sizes[kind],
            factor=tolerance("loss", "train", side, dtype).factor(length),
            dtype=dtype, unit=dtype, content="nonzero",
        )  # fmt: skip
        row = Row.judged(
            verdict, level=Level.TRAINING, path=NET, quantity=name, check=Check.RESYNCHRONISED,
            side=side, dtype=dtype, mode=Mode.TRAIN,
        )  # fmt: skip
        yield (place, 0), row
