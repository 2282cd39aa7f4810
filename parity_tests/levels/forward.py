"""Level forward: every leaf's output, local and inherited, in float64 and float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.runs import NET, Key
from parity_tests.levels.envelope import forward_envelope, forward_truth
from parity_tests.levels.inherited import is_clean, judged_keys, until_certain, with_other_side
from parity_tests.levels.local import local_calls, local_rows
from parity_tests.levels.referee import DidNotRun, Subject, attempt, not_compared
from parity_tests.numerics.compare import compare
from parity_tests.numerics.operators.table import operator_of
from parity_tests.pairing.align import Pair
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side


def forward_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    """Local rows of every leaf first, then the inherited ones; inference, then training."""
    coverage = Coverage()
    local: list[Row] = []
    inherited: list[Row] = []
    for train in subject.modes if subject.has_modes else (False,):
        try:
            local += _local(subject, train, coverage)
            inherited += _inherited(subject, train, is_clean(local))
            subject.forget(train=train)  # what follows is another matter, and memory is short
        except DidNotRun as error:
            inherited.append(not_compared(Level.FORWARD, NET, "output", error))
    return local + inherited, coverage


def _local(subject: Subject, train: bool, coverage: Coverage) -> Iterator[Row]:
    referee = subject.run(Side.TORCH, "float64", train=train)
    for pair in subject.pairing.pairs:
        if not train:
            coverage.expect("outputs", pair.path)
        calls = referee.calls[pair.torch.path]
        if not pair.comparable:
            continue
        if not calls and not train:
            why = "never ran on this input"
            yield not_compared(Level.FORWARD, pair.path, "output", why, check=Check.LOCAL)
        if not calls:
            continue
        for index, call in enumerate(local_calls(subject, pair, referee, train=train)):
            if train and pair.torch.kind == "dropout":
                yield from _dropout(subject, pair, call.inputs[0])
            by_mode = operator_of(pair.torch.family).by_mode or False not in subject.modes
            if train and not by_mode:
                continue
            coverage.done("outputs", pair.path)
            truth = partial(forward_truth, subject, pair.torch, index, train=train)
            yield from local_rows(
                Level.FORWARD,
                pair,
                call,
                train=train,
                strict=subject.strict,
                truth=None if call.known else truth,
            )


def _dropout(subject: Subject, pair: Pair, x: np.ndarray) -> Iterator[Row]:
    """Each side's own dropout: what it keeps is x/(1 − p), and it keeps 1 − p of all values.

    Only where there are masks: MXNet's generator cannot be put back afterwards.
    """
    if pair.torch.path not in subject.masks:
        return
    judged = partial(
        Row.judged,
        level=Level.FORWARD,
        path=pair.path,
        check=Check.LOCAL,
        dtype="float32",
        mode=Mode.TRAIN,
    )
    for side in SIDES:
        rate = float(getattr(pair, side).hyper["p"])
        ones = np.ones((max(1, -(-4096 // x[0].size)), *x.shape[1:]), np.float32)
        sampled = attempt(side, backend(side).sample_dropout, getattr(pair, side), ones)
        surviving = sampled[sampled != 0]
        expected = np.full_like(surviving, 1.0) / (1.0 - rate)
        verdict = compare(surviving, expected.astype(np.float32), scale=expected, content="nonzero")
        row = judged(verdict, quantity="scale of what is kept", side=side)
        if not verdict.ok and (surviving == 1).all():
            reason = f"what is kept is not divided by 1 − p = {1 - rate:g}"
            row = replace(row, diagnosis=f"dropout scale: {reason}")
        yield row
        share = np.array([surviving.size / sampled.size])
        # six standard deviations of a mean of independent draws
        units = (
            sampled.size if not pair.torch.hyper["axes"] else sampled.shape[0] * sampled.shape[1]
        )
        spread = 6 * np.sqrt(max(rate * (1 - rate), 1e-12) / units)
        verdict = compare(
            share, np.array([1.0 - rate]), scale=spread / 2.0**-53, factor=1.0, unit="float64"
        )
        yield judged(verdict, quantity="share that is kept", side=side, unit="× 6σ")


def _inherited(subject: Subject, train: bool, clean: bool) -> Iterator[Row]:
    referee = subject.run(Side.TORCH, "float64", train=train)
    measure = until_certain(partial(forward_envelope, subject, train=train), clean)
    rows: list[Row] = []
    single: dict[str, Mapping[Key, np.ndarray]] = {}
    for side, dtype in subject.judged:
        try:
            run = subject.run(side, dtype, train=train)
        except DidNotRun as error:
            where = {"check": Check.INHERITED, "side": side, "dtype": dtype}
            rows.append(not_compared(Level.FORWARD, NET, "output", error, **where))
            continue
        outputs = run.named_outputs()
        if dtype == "float32":
            single[side] = subject.by_torch_path(outputs) if side == Side.GLUON else outputs
        rows += measure(
            partial(
                judged_keys,
                Level.FORWARD,
                subject,
                actual=outputs,
                expected=referee.named_outputs(),
                side=side,
                dtype=dtype,
                mode=Mode.TRAIN if train else Mode.INFERENCE,
            )
        )
        subject.forget_run(side, dtype, train=train)
    return with_other_side(rows, single)
