"""Diagnosis: what explains a divergence, found by trying named hypotheses on the values.

Each hypothesis is computed on the side that is right (`parity_tests.numerics.reference` says
which), and named in `Row.diagnosis`, as `NAME: what it says`, only where it makes the values of the
side that is wrong, and where no other does. Nothing here knows where a fault came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun
from parity_tests.levels.connections import explain_connections
from parity_tests.levels.diagnosis.executed import explain_segment
from parity_tests.levels.diagnosis.hypotheses import (
    SLACK,
    Explanation,
    close,
    explained,
    only_explanation,
)
from parity_tests.levels.diagnosis.structure import explain_structure
from parity_tests.levels.local import upstream_for
from parity_tests.levels.referee import DidNotRun, Subject, attempt
from parity_tests.numerics.operators.table import operator_of
from parity_tests.numerics.reference import reference_value
from parity_tests.pairing.align import Pair
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

MOST = 24  # rows of a report that are explained: what follows from a cause needs no name of its own


def diagnose(report: Report, subject: Subject) -> None:
    """Fill in `diagnosis` of the first rows that diverged, of the first level that has any."""
    failures = [row for row in report.failures if row.status == Status.DIVERGED]
    first = [row for row in failures if row.level == failures[0].level][:MOST] if failures else []
    names: dict[int, str] = {}
    for row in first:
        if row.diagnosis:
            continue
        try:
            names[id(row)] = _explained(row, subject)
        except (DidNotRun, KeyError, ValueError, RuntimeError, IndexError):
            continue  # a hypothesis that cannot be tried explains nothing
    report.rows = [
        replace(row, diagnosis=names[id(row)]) if names.get(id(row)) else row for row in report.rows
    ]


def _explained(row: Row, subject: Subject) -> str:
    segment = subject.segments.get(row.path)
    if row.level == Level.STRUCTURE or (segment is not None and segment.alone):
        pair = _pair(row, subject)
        if segment is None or pair is None:
            return explain_structure(row, subject.pairing)
        run = subject.run(Side.TORCH, "float64", train=subject.modes[0])
        inputs = run.calls[pair.torch.path][0].inputs
        name = explain_structure(row, subject.pairing, inputs)
        name = name or explain_segment(row, pair, segment, subject)
        if name or row.level != Level.BACKWARD:
            return name
    if row.level == Level.WEIGHTS and row.check == Check.VALUE:
        return _weights(row, subject)
    if row.level in (Level.FORWARD, Level.BACKWARD) and row.check == Check.LOCAL:
        pair = _pair(row, subject)
        return "" if pair is None else _local(row, pair, subject)
    if row.level == Level.FORWARD and row.check == Check.INHERITED:
        return explain_connections(row, subject)
    return ""


def _pair(row: Row, subject: Subject) -> Pair | None:
    return next((pair for pair in subject.pairing.pairs if pair.path == row.path), None)


def _weights(row: Row, subject: Subject) -> str:
    pair = _pair(row, subject)
    if pair is None:
        return ""
    if any(row.quantity not in leaf.tensors for leaf in pair):
        return "another constant: one net has it as an attribute of its code"
    tensors = [leaf.tensors[row.quantity] for leaf in pair]
    others = {
        tensor.name: tensor.read()
        for gluon, _ in subject.pairing.steps
        if gluon is not None
        for tensor in gluon.tensors.values()
        if tensor.name != tensors[0].name and tensor.shape == tensors[1].shape
    }
    ours, theirs = (tensor.read() for tensor in tensors)
    name = explained(ours, theirs, role=row.quantity, kind=pair.torch.kind, others=others)
    if not name and all(tensor.constant for tensor in tensors):  # which no transfer copies
        apart = np.abs(ours - theirs)
        largest = float(np.abs(theirs).max())
        return (
            f"another constant {tensors[1].name}: {(apart > 0).sum()} of {ours.size} values "
            f"differ, by up to {float(apart.max()):.2g}, where the largest is {largest:.2g}"
        )
    if not name and _are_unrelated(subject):
        return (
            "separate initialisation: the weights are unrelated; transfer=True (--transfer) copies"
        )
    return name


def _are_unrelated(subject: Subject) -> bool:
    """Whether no two weights of more than one dimension are correlated."""
    tensors = [
        (pair.gluon.tensors[role].read(), tensor.read())
        for pair in subject.pairing.pairs
        for role, tensor in pair.torch.tensors.items()
        if role in pair.gluon.tensors and len(tensor.shape) > 1
    ]
    return len(tensors) > 1 and all(
        a.shape == b.shape and abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 8 / np.sqrt(a.size)
        for a, b in tensors
    )


def _local(row: Row, pair: Pair, subject: Subject) -> str:
    """One leaf alone: which side computes what its listing says, and what the other computes."""
    train, backward = row.mode == Mode.TRAIN, row.level == Level.BACKWARD
    run = subject.run(Side.TORCH, "float64", train=train or backward, backward=backward)
    call = run.calls[pair.torch.path][0]
    upstream = upstream_for(pair.path, call.outputs) if backward else None
    how = {"train": train, "upstream": upstream}
    runs: dict[Side, LeafRun] = {}
    for leaf in (pair.gluon, pair.torch):
        runs[leaf.side] = attempt(
            leaf.side, backend(leaf.side).run_leaf, leaf, call.inputs, row.dtype, **how
        )
    slack = SLACK[row.dtype]
    batch = len(call.inputs[0])
    right = reference_value(pair.torch, call.inputs, train=train, upstream=upstream)
    if right is not None:
        names = [name for name in right if backward or name.startswith("output")]
        wrong = [side for side, run in runs.items() if not _same(run, right, names, slack)]
        if len(wrong) == 1:
            faults = _faults(pair.torch, call.inputs, train, upstream, runs[wrong[0]], names, slack)
            name = only_explanation(
                Explanation(name, f"{wrong[0].framework} computes exactly that") for name in faults
            )
            if name:
                return name
            if _in_half_precision(runs[wrong[0]], right, names, row.dtype):
                return f"float16 rounding: all that {wrong[0].framework} gives is a float16"
    for side, run_alone in runs.items():
        if row.quantity not in run_alone:
            return f"stopped gradient: {side.framework} gives none"
    role = "gradient" if row.quantity.endswith("gradient") else row.quantity.split()[0]
    weights = role == "gradient" and not row.quantity.startswith("input")
    ours, theirs = runs[Side.GLUON][row.quantity], runs[Side.TORCH][row.quantity]
    return explained(
        ours, theirs, role=role, kind=pair.torch.kind, slack=slack, batch=batch if weights else 0
    )


def _in_half_precision(run: LeafRun, right: LeafRun, names: list[str], dtype: str) -> bool:
    """Whether float32 values are all representable in float16, and near the right ones."""
    if dtype != "float32":
        return False
    for name in names:
        value = run[name]
        with np.errstate(over="ignore"):
            half = value.astype(np.float16).astype(np.float32)
        if not np.array_equal(half, value) or not close(value, right[name], 2.0**-9):
            return False
    return True


def _same(run: LeafRun, other: LeafRun, names: list[str], slack: float) -> bool:
    return all(
        name in run and name in other and close(_flat(run[name], other[name]), other[name], slack)
        for name in names
    )


def _flat(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    return value.reshape(like.shape) if value.size == like.size else value


def _faults(
    leaf: Leaf, inputs: Arrays, train: bool, upstream: Arrays | None, run: LeafRun,
    names: list[str], slack: float,
) -> Iterator[str]:  # fmt: skip
    """The faults with which the leaf gives all that the wrong side gave."""
    for variant, name in operator_of(leaf.family).faults:
        faulty = reference_value(leaf, inputs, train=train, upstream=upstream, fault=variant)
        if faulty is None:
            continue
        compared = [n for n in names if not _idle(n, faulty, run)]
        if compared and _same(run, faulty, compared, slack):
            yield name


def _idle(name: str, faulty: LeafRun, run: LeafRun) -> bool:
    """A gradient that neither has, or that is 0 on both sides."""
    return not faulty.get(name, np.zeros(1)).any() and not run.get(name, np.zeros(1)).any()
