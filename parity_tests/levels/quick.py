"""A quick look: every operation once, in float32 and inference, on the values of the Gluon net.

What it costs is one run of each net, and for the bounds one of torch in float64. It has no
gradients, no training, no envelope: what many small errors add up to is not judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.runs import NET, Arrays, NetRun
from parity_tests.levels.local import (
    Truth,
    as_constant,
    content_of,
    of_whole_numbers,
    truth_of,
)
from parity_tests.levels.referee import DidNotRun, Subject, attempt, not_compared
from parity_tests.numerics.compare import EXACT, Verdict, compare
from parity_tests.numerics.operators.table import tolerance
from parity_tests.pairing.align import Pair
from parity_tests.reporting.progress import show
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side

QUICK = (
    "quick: float32 and inference alone, each operation on the same input; gradients, training, "
    "statistics, and what small errors add up to over the net, were not looked at"
)


def quick_rows(subject: Subject) -> tuple[list[Row], Coverage, str]:
    """The rows, what they reached, and in words how far the two nets' outputs are apart."""
    coverage = Coverage()
    rows: list[Row] = []
    for pair in subject.pairing.pairs:
        coverage.expect("outputs", pair.path)
    try:
        run = attempt(Side.GLUON, subject.run_gluon, "float32", train=False)
        theirs = subject.run(Side.TORCH, "float32", train=False)
    except DidNotRun as error:
        return [_row(NET, str(error))], coverage, ""
    for pair in subject.pairing.pairs:
        if not pair.comparable:
            continue
        calls = run.calls[pair.gluon.path]
        if not calls:
            rows.append(_row(pair.path, "never ran on this input"))
        for call in calls:
            coverage.done("outputs", pair.path)
            show(Level.FORWARD, pair.path)
            rows += _compared(pair, call.inputs, call.outputs)
    return rows, coverage, _apart(run, theirs)


def _compared(pair: Pair, inputs: Arrays, outputs: Arrays) -> list[Row]:
    try:
        run = attempt(
            "torch", backend(Side.TORCH).run_leaf, pair.torch, inputs, "float32", train=False
        )
        truth = None
        rows = []
        for index, actual in enumerate(outputs):
            name = f"output {index + 1}" if index else "output"
            expected = run[name]
            row = _row(pair.path, "", quantity=name)
            whole = of_whole_numbers(actual, expected)
            if whole is not None:
                rows.append(row.with_verdict(whole))
                continue
            if actual.shape != expected.shape or not np.array_equal(actual, expected):
                truth = truth or attempt("torch", truth_of, pair.torch, inputs, train=False)
            row = _judged(row, actual, expected, truth)
            rows.append(row)
    except (DidNotRun, KeyError) as error:
        return [_row(pair.path, str(error))]
    return rows


def _judged(row: Row, actual: np.ndarray, expected: np.ndarray, truth: Truth | None) -> Row:
    scale: Any = EXACT
    drift: Any = 0.0
    factor = 1.0
    if truth is not None:
        scales = truth[1]
        scale = scales.sizes.get(row.quantity, EXACT)
        drift = sum(
            scales.allowance(row.quantity, side, "float32", single=True)
            for side in (Side.GLUON, Side.TORCH)
        )
        factor = sum(
            tolerance(scales.family, Mode.INFERENCE, side, "float32").factor(scales.length)
            for side in (Side.GLUON, Side.TORCH)
        )

    def judge(content: str) -> Verdict:
        return compare(
            actual, expected, scale=scale, factor=factor, allowance=drift, dtype="float32",
            unit="float32", content=content,
        )  # fmt: skip

    verdict = judge(content_of(row.quantity))
    row = row.with_verdict(verdict)
    return as_constant(row, judge("any")) if verdict.reason in ("dead", "constant") else row


def _row(path: str, detail: str, quantity: str = "output") -> Row:
    where = {"check": Check.LOCAL, "side": Side.GLUON, "dtype": "float32", "mode": Mode.INFERENCE}
    return not_compared(Level.FORWARD, path, quantity, detail, **where)


def _apart(ours: NetRun, theirs: NetRun) -> str:
    shares = [
        float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-30)
        for a, b in zip(ours.outputs, theirs.outputs, strict=False)
        if a.shape == b.shape and a.dtype.kind == "f"
    ]
    if not shares:
        return ""
    return f"quick: the outputs are {max(shares):.1e} of their largest value apart"
