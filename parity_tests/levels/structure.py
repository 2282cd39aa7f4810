"""Level structure: every leaf has its partner, and the two have the same numbers and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from parity_tests.backends.base import SIDES, backend
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET, output_name
from parity_tests.levels.local import agrees, trained_by_one
from parity_tests.levels.referee import DidNotRun, Subject
from parity_tests.levels.view import View, agrees_elsewhere, are_near
from parity_tests.numerics.operators.table import COMPOSED, operator_of
from parity_tests.pairing.align import Pair, Pairing, differences
from parity_tests.pairing.graph import Operation
from parity_tests.pairing.segments import SegmentPair
from parity_tests.reporting.rows import LEFT_OUT, Coverage, Row
from parity_tests.reporting.verdicts import Level, Side, Status


def structure_rows(pairing: Pairing) -> tuple[list[Row], Coverage]:
    """One row for every leaf that agrees, and one for every single difference."""
    rows: list[Row] = []
    coverage = Coverage()
    before = ""
    for gluon, torch in pairing.steps:
        if gluon is not None and torch is not None:
            before = torch.path
            path = torch.path or NET
            coverage.expect("leaves", path)
            coverage.done("leaves", path)
            rows += _pair_rows(path, Pair(gluon, torch))
            continue
        leaf = gluon or torch
        assert leaf is not None  # a step has one side at least
        row = _alone_row(leaf, before)
        if row.status != Status.NOTE:
            coverage.expect("leaves", f"{row.path or NET} ({leaf.side})")
        rows.append(row)
    return rows, coverage


def _pair_rows(path: str, pair: Pair) -> Iterator[Row]:
    gluon, torch = pair
    different = [
        (quantity, f"Gluon has {a}, torch has {b}") for quantity, a, b in differences(gluon, torch)
    ]
    if gluon.kind != torch.kind:
        if pair.comparable:
            yield _row(path, "kind", f"{gluon} is taken for {torch}", Status.NOTE, compared=0)
        else:
            different.insert(0, ("kind", f"Gluon has {gluon}, torch has {torch}"))
    ours, theirs = (sum(t.size for t in leaf.tensors.values()) for leaf in pair)
    if ours != theirs:
        different.append(("parameter count", f"Gluon has {ours}, torch has {theirs}"))
    for quantity, detail in different:
        yield _row(path, quantity, detail)
    if not different:
        compared = 2 + len(gluon.hyper) + 3 * len(gluon.tensors)
        yield _row(path, "leaf", "", Status.OK, compared=compared)


def _alone_row(leaf: Leaf, before: str) -> Row:
    after = f"after {before}" if before else "at the start"
    detail = f"{leaf} is in {leaf.side.framework} only, {after}"
    if operator_of(leaf.family).absorbed:
        return _row(leaf.path, "leaf", f"{detail}; it moves no value", Status.NOTE, compared=0)
    return _row(leaf.path, "leaf", detail)


def executed_rows(view: View, subject: Subject) -> tuple[list[Row], Coverage]:
    """One row for every segment that agrees, and one for every difference in what is executed.

    A difference after which both sides give the same values is a note: they compute one function
    in two ways.
    """
    rows: list[Row] = []
    coverage = Coverage()
    elsewhere = _elsewhere(subject)
    for pair in subject.pairing.pairs:
        segment = view.segments[pair.path]
        coverage.expect("operations", pair.path)
        coverage.done("operations", pair.path)
        different, inner = list(_differing(segment, pair)), list(_inner(segment))
        lonely, otherwise = list(_alone(segment)), list(_of_other_kinds(segment))
        for role, ours, theirs in trained_by_one(pair) if segment.unlike else ():
            names = (ours, theirs) if ours.trainable else (theirs, ours)
            detail = f"{names[0].name} is trained, and its partner {names[1].name} is not"
            rows.append(_row(pair.path, f"{role} trainable", detail))
        if not (different or inner or lonely or otherwise):
            compared = 1 + len(pair.torch.hyper) + 3 * len(pair.torch.tensors)
            rows.append(_row(pair.path, "operation", "", Status.OK, compared=compared))
            continue
        alike = _with_one_sides_weights(pair)
        same = not segment.trains_otherwise and agrees(subject, alike, view.traced.modes)
        if same and subject.recorded is None and segment.reads_other_inputs:
            same = agrees(elsewhere, alike, view.traced.modes)
        by_chance = same and not agrees_elsewhere(subject, alike)
        same = same and not by_chance
        if same:
            rows.append(_row(pair.path, "operation", "", Status.OK))
        hidden = (*(() if same else inner), *(otherwise if by_chance else ()))
        for row in (*different, *hidden, *lonely):
            if same:
                detail = f"{row.detail}; both give the same values"
                row = replace(row, status=Status.NOTE, compared=0, detail=detail)
            rows.append(row)
    counts = view.output_counts
    if len(set(counts)) > 1:
        rows.append(_row(NET, "outputs", f"Gluon has {counts[0]}, torch has {counts[1]}"))
    rows += _exchanged(view, subject)
    rows += _of_other_dtypes(view)
    rows += _never_run(view)
    for side, op in view.unreached:
        rows.append(_row(op.path or NET, "operation", _only(side, op)))
    return rows, coverage


def _exchanged(view: View, subject: Subject) -> Iterator[Row]:
    """What the nets give in one place, and is made in different ones; unless it is the same."""
    pairs = list(zip(*(view.outputs[side] for side in SIDES), strict=False))
    if all(ours[0] == theirs[0] for ours, theirs in pairs):
        return
    try:
        runs = [subject.run(side, "float32", train=subject.modes[0]) for side in SIDES]
    except DidNotRun:
        return  # the other levels say so
    paths = list(view.segments)
    for place, ends in enumerate(pairs):
        values = [run.outputs[place] for run in runs]
        if ends[0][0] != ends[1][0] and not are_near(*values):
            ours, theirs = (paths[s.segment] if s.segment >= 0 else "an input" for s, _ in ends)
            detail = f"Gluon gives that of {ours}, torch that of {theirs}"
            yield _row(NET, output_name(place), detail)


def _of_other_dtypes(view: View) -> Iterator[Row]:
    """Outputs of floats that one net casts to a dtype to which the other does not."""
    given = (view.traced.executed(side).output_dtypes for side in SIDES)
    for place, (ours, theirs) in enumerate(zip(*given, strict=False)):
        if ours != theirs and all(dtype.startswith("float") for dtype in (ours, theirs)):
            detail = f"Gluon gives {ours}, torch {theirs}"
            yield _row(NET, f"{output_name(place)} dtype", detail)


def _elsewhere(subject: Subject) -> Subject:
    """The nets on the same numbers in other places.

    What one side reads of its inputs the other may hold as a constant that equals these. A mask is
    that of another sample: with a row that hides everything, softmax has nothing to give.
    """
    masks = [np.isin(x, (0, 1)).all() for x in subject.inputs]
    pairs = zip(subject.inputs, masks, strict=True)
    inputs = tuple(np.roll(x, 1, axis=0 if mask else None) for x, mask in pairs)
    return replace(subject, inputs=inputs, _runs={}, shared={})


def _with_one_sides_weights(pair: Pair) -> Pair:
    """The pair with Gluon's values in torch's leaf: that others are held is for level weights."""
    ours, theirs = pair.gluon.tensors, pair.torch.tensors
    values = {
        role: ours[role].read()
        for role, tensor in theirs.items()
        if role in ours and ours[role].shape == tensor.shape
    }
    if all(np.array_equal(theirs[role].read(), value) for role, value in values.items()):
        return pair
    return replace(pair, torch=backend(Side.TORCH).leaf_with_values(pair.torch, values))


def _never_run(view: View) -> Iterator[Row]:
    """What a net holds and did not use on this input: nothing can be said of it."""
    for leaf in view.unused:
        detail = f"{LEFT_OUT}{leaf} of {leaf.side.framework} never ran on this input"
        yield _row(leaf.path or NET, "leaf", detail, Status.NOTE, compared=0)


_EDGES = ("reads", "number of inputs", "output")  # how what differs between edges begins


def _differing(segment: SegmentPair, pair: Pair) -> Iterator[Row]:
    operations = segment.pair
    recorded = pair.gluon.kind == pair.torch.kind and pair.torch.family not in COMPOSED
    if recorded:  # in the words of the record, which has names for them
        for quantity, ours, theirs in differences(pair.gluon, pair.torch):
            yield _row(pair.path, quantity, f"Gluon has {ours}, torch has {theirs}")
    for difference in segment.differences:
        if recorded and not difference.what.startswith(_EDGES):
            continue
        ours, theirs = (getattr(x, "name", x) for x in (difference.left, difference.right))
        if difference.what == "kind" and operations is not None:
            ours, theirs = operations.left, operations.right
        yield _row(pair.path, difference.what, f"Gluon has {ours}, torch has {theirs}")


def _inner(segment: SegmentPair) -> Iterator[Row]:
    """What differs between other operations of a segment, which has no cut behind them."""
    for difference in (d for pair in segment.inner for d in pair.differences):
        if difference.what != "kind" and not difference.what.startswith(_EDGES):
            detail = f"Gluon has {difference.left}, torch has {difference.right}"
            yield _row(segment.path, difference.what, detail)


def _of_other_kinds(segment: SegmentPair) -> Iterator[Row]:
    """Operations of a segment that are paired, and are two ways of computing one value, or faults.

    Where the segment gives the same values, and not by chance, they are the former.
    """
    for pair in segment.inner:
        if any(d.what == "kind" for d in pair.differences):
            yield _row(segment.path, "kind", f"Gluon has {pair.left}, torch has {pair.right}")


def _alone(segment: SegmentPair) -> Iterator[Row]:
    for side, op in segment.alone:
        yield _row(segment.path, "operation", _only(side, op))


def _only(side: Side, op: Operation) -> str:
    return f"{op} is in {side.framework} only"


def _row(
    path: str, quantity: str, detail: str, status: Status = Status.DIVERGED, compared: int = 1
) -> Row:
    return Row(
        level=Level.STRUCTURE,
        path=path,
        quantity=quantity,
        status=status,
        detail=detail,
        compared=compared,
    )
