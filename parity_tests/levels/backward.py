"""Level backward: gradients of every leaf's inputs and parameters, local and end to end.

In training mode, as a step runs it, BatchNorm's statistics after the step included.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.losses import loss_scales
from parity_tests.backends.runs import NET, Key, NetRun, is_float, output_name, rounded
from parity_tests.backends.spill import release
from parity_tests.levels.envelope import backward_envelope, forward_envelope
from parity_tests.levels.inherited import is_clean, judged_keys, until_certain, with_other_side
from parity_tests.levels.local import absent_gradients, local_calls, local_rows, segment_of
from parity_tests.levels.referee import JUDGED, DidNotRun, Subject, along, attempt, not_compared
from parity_tests.numerics.chance import FIRST_DRAWS
from parity_tests.numerics.compare import compare
from parity_tests.numerics.conventions import Convention, variance
from parity_tests.numerics.operators.table import tolerance
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status


def backward_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    """The loss, then local rows of every leaf, then the gradients of the whole step."""
    coverage = Coverage()
    rows: list[Row] = []
    subject.forget(train=False)  # of which the objective was made
    try:
        rows += _local(subject, coverage)
        rows += _loss(subject)
        rows += _inherited(subject, is_clean(rows))
    except DidNotRun as error:
        rows.append(not_compared(Level.BACKWARD, NET, "gradient", error))
    return rows, coverage


def _step(subject: Subject) -> NetRun:
    """The referee's; nobody keeps it, as it is large."""
    return subject.run(Side.TORCH, "float64", train=True, backward=True)


def _local(subject: Subject, coverage: Coverage) -> Iterator[Row]:
    referee = _step(subject)
    for pair in subject.pairing.pairs:
        calls = referee.calls[pair.torch.path]
        wanted = [f"{role} gradient" for role, t in pair.torch.tensors.items() if t.trainable]
        first = not calls or (calls[0].inputs and is_float(calls[0].inputs[0]))
        if first and "input gradient" not in absent_gradients(segment_of(pair)):
            wanted.append("input gradient")
        for quantity in wanted:
            coverage.expect("gradients", f"{pair.path} {quantity}")
        if not pair.comparable:
            continue
        if not calls:
            continue
        for call in local_calls(subject, pair, referee, train=True, backward=True):
            rows = local_rows(Level.BACKWARD, pair, call, train=True, strict=subject.strict)
            given = {row.quantity for row in rows}
            if "input gradient" not in given and (not rows or any(row.compared for row in rows)):
                coverage.done("gradients", f"{pair.path} input gradient")  # neither side has one
            for row in rows:
                if row.compared or row.status == Status.NOTE:
                    coverage.done("gradients", f"{pair.path} {row.quantity}")
            yield from rows
        release()


def _loss(subject: Subject) -> Iterator[Row]:
    """The loss of each sample and its gradient, on the referee's outputs."""
    objective = subject.objective
    if objective.labels is None:
        return
    logits = rounded(_step(subject).outputs[0], "float64")
    runs = {
        (side, dtype): attempt(side, backend(side).run_loss, objective, logits, dtype)
        for side in SIDES
        for dtype in ("float64", "float32")
    }
    expected = runs[Side.TORCH, "float64"]
    sizes = loss_scales(objective, logits, expected)
    for quantity in ("loss", "loss gradient"):
        for side, dtype in JUDGED:
            verdict = compare(
                runs[side, dtype][quantity],
                expected[quantity],
                scale=sizes[quantity],
                factor=tolerance("loss", "train", side, dtype).factor(logits.shape[-1]),
                dtype=dtype,
                unit=dtype,
                content="nonzero",
            )
            yield Row.judged(
                verdict,
                level=Level.BACKWARD,
                path=NET,
                quantity=quantity,
                check=Check.LOCAL,
                side=side,
                dtype=dtype,
                mode=Mode.TRAIN,
            )


def _inherited(subject: Subject, clean: bool) -> Iterator[Row]:
    by_buffers = until_certain(partial(forward_envelope, subject, train=True), clean)
    by_gradients = until_certain(partial(backward_envelope, subject), clean)
    backward_envelope(subject, draws=FIRST_DRAWS)  # while the referee's run is there
    biased = variances(subject, _step(subject))
    before = in_common_terms(_step(subject).named_buffers(), biased)
    plain = _step(subject).named_gradients()
    subject.forget(train=True)
    rows: list[Row] = []
    single: dict[str, Mapping[Key, np.ndarray]] = {}
    for side, dtype in subject.judged:
        try:
            run = subject.run(side, dtype, train=True, backward=True)
        except DidNotRun as error:
            where = {"check": Check.INHERITED, "side": side, "dtype": dtype}
            rows.append(not_compared(Level.BACKWARD, NET, "gradient", error, **where))
            continue
        outputs = run.named_outputs()
        if side == Side.GLUON:
            outputs = subject.by_torch_path(outputs)
        gradients = run.named_gradients()
        if dtype == "float32":
            single[side] = subject.by_torch_path(gradients) if side == Side.GLUON else gradients
        judge = partial(
            judged_keys, Level.BACKWARD, subject, side=side, dtype=dtype, mode=Mode.TRAIN
        )
        own: list[Row] = []
        if dtype == "float64":  # mostly it takes the same way as the referee at every ReLU
            envelope = backward_envelope(subject, draws=FIRST_DRAWS)
            own = list(judge(actual=gradients, expected=plain, envelope=envelope))
            plain = {}
        if not own or not is_clean(own):
            if side == Side.GLUON:
                outputs = _inside_bounds(subject, outputs)
            led = along(subject, outputs).named_gradients()
            own = by_gradients(partial(judge, actual=gradients, expected=led))
            del led
        rows += own
        after = in_common_terms(run.named_buffers(), {} if side == Side.GLUON else biased)
        rows += by_buffers(partial(judge, actual=after, expected=before))
        subject.forget_run(side, dtype, train=True, backward=True)
        del run, outputs, gradients, judge  # before the next run needs the memory
    return with_other_side(rows, single)


_NEXT_TO_NOTHING = 1e-12


def _inside_bounds(subject: Subject, outputs: Mapping[Key, np.ndarray]) -> dict[Key, np.ndarray]:
    """Gluon's values, moved off the bounds of a clip that they are given to, by next to nothing.

    A value that is a bound exactly, as a batch norm without shift gives zeros in float32, passes
    its gradient in MXNet's `clip`, and not in torch's `hardtanh` and `relu6`.
    """
    moved = dict(outputs)
    for pair in subject.pairing.pairs:
        program = getattr(pair.torch.block, "program", None)
        slots = [] if program is None else program.layout.pair.slots
        if pair.torch.family != "clip" or not slots or slots[0].segment < 0:
            continue
        slot = slots[0]
        key = (subject.pairing.pairs[slot.segment].torch.path, 0, output_name(slot.output))
        for bound, inwards in ((pair.torch.hyper.get("min"), 1), (pair.torch.hyper.get("max"), -1)):
            if bound is not None and key in moved and (moved[key] == bound).any():
                value = moved[key].astype(np.float64)
                value[value == bound] += inwards * _NEXT_TO_NOTHING
                moved[key] = value
    return moved


def variances(subject: Subject, referee: NetRun) -> dict[Key, Convention]:
    """By which convention torch's variances after the step become biased; unless strict."""
    conventions: dict[Key, Convention] = {}
    for pair in () if subject.strict else subject.pairing.pairs:
        calls = referee.calls[pair.torch.path]
        for name in pair.torch.tensors if len(calls) == 1 else ():
            convention = variance(pair.torch, name, calls[0].inputs, train=True)
            if convention is not None and (pair.torch.path, name) in referee.buffers:
                conventions[pair.torch.path, 0, name] = convention
    return conventions


def in_common_terms(
    buffers: dict[Key, np.ndarray], biased: Mapping[Key, Convention]
) -> dict[Key, np.ndarray]:
    """Buffers after the step, torch's unbiased variances made biased."""
    for key, convention in biased.items():
        if key in buffers:
            kind = buffers[key].dtype
            buffers[key] = convention.convert(buffers[key].astype(np.float64)).astype(kind)
    return buffers
