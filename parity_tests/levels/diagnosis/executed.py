"""Names for differences in what two nets execute: what one side has alone, or reads, or rearranges.

The name follows from the operations themselves, or from the values that the two sides give on the
same input.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun
from parity_tests.levels.connections import explanations
from parity_tests.levels.diagnosis.hypotheses import SLACK, close, only_explanation
from parity_tests.levels.local import upstream_for
from parity_tests.levels.referee import DidNotRun, Subject, attempt
from parity_tests.numerics.operators.executed import kind_of_executed
from parity_tests.numerics.operators.table import operator_of
from parity_tests.numerics.reference import reference_value
from parity_tests.pairing.align import Pair
from parity_tests.pairing.graph import Operation, Origin
from parity_tests.pairing.segments import SegmentPair
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Level, Side


def explain_segment(row: Row, pair: Pair, segment: SegmentPair, subject: Subject) -> str:
    """The name of a difference in a segment; empty where nothing explains it."""
    backward = row.level == Level.BACKWARD
    kinds = segment.pair and (segment.pair.left.kind, segment.pair.right.kind)
    if kinds and kinds[0] != kinds[1] and all(map(_is_activation, kinds)) and not backward:
        return f"another activation: {kinds[0]} in Gluon, {kinds[1]} in torch"
    reordered = _reordered(segment, subject.segments.values())
    if reordered and not backward:
        return reordered
    modes = subject.modes if subject.has_modes else (False,)
    moved = ""
    for train in (True,) if backward else modes:
        call = subject.run(Side.TORCH, "float64", train=train).calls[pair.torch.path][0]
        upstream = upstream_for(pair.path, call.outputs) if backward else None
        how: dict[str, Any] = {"train": train, "upstream": upstream}
        try:
            runs = {
                leaf.side: attempt(
                    leaf.side, backend(leaf.side).run_leaf, leaf, call.inputs, "float64", **how
                )
                for leaf in pair
            }
        except DidNotRun:
            if backward:
                return ""
            continue  # what goes in is of another shape: the operations themselves must tell
        name = _fault(pair, segment, call.inputs, runs, how)
        if name or backward:
            return name
        moved = moved or _rearranged(segment, runs, subject, train)
    name = _explain_alone(segment)
    if not name and moved and len(segment.alone) == 1:
        side, op = segment.alone[0]
        return f"{moved}; {op}, in {side.framework} only"
    return name or moved


def _reordered(segment: SegmentPair, segments: Iterable[SegmentPair]) -> str:
    """Two operations one behind the other that change places."""
    here = segment.pair
    if here is None:
        return ""
    for there in (other.pair for other in segments):
        if there is None or there.left.kind == here.left.kind:
            continue
        kinds = f"{here.left.kind} comes {{}} {there.left.kind} in Gluon, {{}} it in torch"
        name = "another order"
        if "add" in (here.left.kind, there.left.kind):
            name = "shortcut on the other side of the next operation"
        if _reads(there.left, here.left) and _reads(here.right, there.right):
            return f"{name}: {kinds.format('before', 'behind')}"
        if _reads(here.left, there.left) and _reads(there.right, here.right):
            return f"{name}: {kinds.format('behind', 'before')}"
    return ""


def _reads(later: Operation, earlier: Operation) -> bool:
    return any(
        x.value.origin is Origin.OPERATION and x.value.key == earlier.index for x in later.inputs
    )


def _explain_alone(segment: SegmentPair) -> str:
    """What the operations of one side alone say, if all say one thing or lead to one that does."""
    alone = [(side, op) for side, op in segment.alone if not _widens(op)]
    names = {_name_alone(side, op) for side, op in alone}
    if len({side for side, _ in alone}) == 1:
        noise = [name for side, op in alone if _is_random(op) for name in [_name_alone(side, op)]]
        side, last = max(alone, key=lambda alone: alone[1].index)
        if noise:
            names = set(noise)
        elif last.kind == "add":  # what it adds is alone with it
            names = {_name_alone(side, last)}
    return names.pop() if len(names) == 1 else ""


def _is_random(op: Operation) -> bool:
    """Whether it draws numbers of its own, in either framework's words."""
    return "rand" in op.kind or op.kind.startswith(("normal", "bernoulli"))


_NARROW = ("float16", "bfloat16")


def _widens(op: Operation) -> bool:
    """Whether a cast takes no digit from a value."""
    return op.kind == "cast" and op.attributes["dtype"] not in _NARROW


def _name_alone(side: Side, op: Operation) -> str:
    missing = side == Side.GLUON
    where = f"{op}, in {side.framework} only"
    if _is_activation(op.kind):
        return f"{'missing' if missing else 'additional'} activation: {where}"
    if op.kind == "softmax":
        return f"softmax on the output: {where}" if not missing else f"missing softmax: {where}"
    if op.kind == "add" and len(op.inputs) == 2:
        return f"{'missing' if missing else 'additional'} shortcut: {where}"
    if op.kind == "dropout":
        return f"{'missing' if missing else 'additional'} dropout: {where}"
    if _is_random(op):
        return f"{'missing' if missing else 'additional'} noise: {where}"
    if op.kind == "cast" and not _widens(op):
        return f"{op.attributes['dtype']} rounding: {where}"
    if op.kind == "transpose" and op.attributes["order"] == (0, 2, 3, 1):
        return f"NHWC flatten order: {where}"
    if op.kind == "pad":
        widths = op.attributes["widths"]
        even = all(before == behind for before, behind in widths)
        return f"{'padding' if even else 'asymmetric padding'}: {where}"
    if op.kind == "flip":
        return f"{'BGR channels' if op.attributes['axes'] == (1,) else 'mirrored'}: {where}"
    return ""


def _is_activation(kind: str) -> bool:
    return operator_of(kind).activation or kind in (
        "hard_swish",
        "hard_swish_by_line",
        "mish",
        "clip",
    )


def _fault(
    pair: Pair, segment: SegmentPair, inputs: Arrays, runs: dict[Side, LeafRun], how: dict[str, Any]
) -> str:
    """The known fault of the operation as one side writes it, that gives what the other gives."""
    operations = segment.pair
    if operations is None:
        return ""
    slack = SLACK["float64"]
    for right, op, wrong in (
        (pair.gluon, operations.left, Side.TORCH),
        (pair.torch, operations.right, Side.GLUON),
    ):
        written = _as_written(right, op)
        if written is None:
            continue
        value = reference_value(written, inputs, **how)
        if value is None or not _close(runs[right.side], value, slack):
            continue
        if _close(runs[wrong], value, slack):
            return ""  # both are right
        for variant, name in operator_of(written.kind).faults:
            faulty = reference_value(written, inputs, **how, fault=variant)
            if faulty is not None and _close(runs[wrong], faulty, slack):
                return f"{name}: {wrong.framework} computes exactly that"
    return ""


def _as_written(leaf: Leaf, op: Operation) -> Leaf | None:
    """The leaf under the record of its paired operation, whatever else its segment has."""
    shapes = {x.role: x.shape for x in op.inputs} | {"output": op.shapes[0]}
    shapes |= {role: parameter.shape for role, parameter in op.parameters.items()}
    known = kind_of_executed(op.kind, op.attributes, shapes)
    return None if known is None else replace(leaf, kind=known[0], hyper=known[1])


def _close(run: LeafRun, other: LeafRun, slack: float) -> bool:
    """Whether all that the second gives, but statistics, is in the first."""
    names = [name for name in other if name.startswith("output") or name.endswith("gradient")]
    return all(
        name in run
        and run[name].size == other[name].size
        and close(run[name].reshape(-1), other[name].reshape(-1), slack)
        for name in names
    )


def _rearranged(
    segment: SegmentPair, runs: dict[Side, LeafRun], subject: Subject, train: bool
) -> str:
    """How one side's values follow from the other's."""
    ours, theirs = (runs[side].get("output") for side in (Side.GLUON, Side.TORCH))
    if not isinstance(ours, np.ndarray) or not isinstance(theirs, np.ndarray):
        return ""
    run = subject.run(Side.TORCH, "float64", train=train)
    return only_explanation(explanations(ours, theirs, run, is_output=segment.pair is None))
