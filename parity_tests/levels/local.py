"""Local comparison: one leaf, alone, in both frameworks, on the same inputs.

In float64 the two sides are compared with each other, which shows that they compute the same
function; in float32 each is compared with the referee.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import Leaf, Tensor
from parity_tests.backends.runs import Arrays, LeafRun, NetRun, input_name, is_float, rounded
from parity_tests.levels.referee import JUDGED, DidNotRun, Subject, attempt, not_compared
from parity_tests.numerics import conventions
from parity_tests.numerics.chance import (
    FEWEST_LOCAL_DRAWS,
    FIRST_LOCAL_DRAWS,
    LOCAL_CERTAIN,
    MOST_LOCAL_DRAWS,
)
from parity_tests.numerics.compare import (
    EXACT,
    UNIT,
    Verdict,
    compare,
    holds_whole_numbers,
    values_equal,
)
from parity_tests.numerics.operators.cases import Scales
from parity_tests.numerics.operators.table import operator_of, tolerance
from parity_tests.numerics.scales import scales_of
from parity_tests.pairing.align import Pair
from parity_tests.pairing.segments import SegmentPair
from parity_tests.reporting.progress import show
from parity_tests.reporting.rows import LEFT_OUT, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

# What a torch leaf gives in float64, and the scales of it
Truth = tuple[LeafRun, Scales]

# What is known of a leaf alone without running it, by side and dtype
Known = Mapping[tuple[Side, str], LeafRun]


def upstream_for(path: str, outputs: Arrays) -> Arrays:
    """Gradients to send back into a leaf: normal, seeded by its path, exact in float32.

    Not those that reach it in the net: behind a dead unit they would be 0 and compare nothing.
    """
    generator = np.random.default_rng(zlib.crc32(path.encode()))
    return tuple(rounded(generator.standard_normal(y.shape), "float64") for y in outputs)


def truth_of(
    leaf: Leaf,
    inputs: Arrays,
    *,
    train: bool,
    upstream: Arrays | None = None,
    ours: LeafRun | None = None,
) -> Truth:
    """A torch leaf alone on `inputs` in float64, and the scales of what it gives.

    `ours` is what Gluon gives there: how far it is away, if it is far, takes no exact scale, which
    of a long piece of a net takes minutes.
    """
    run = backend(Side.TORCH).run_leaf(leaf, inputs, "float64", train=train, upstream=upstream)
    draws = FEWEST_LOCAL_DRAWS if ours and _are_far_apart(ours, run) else FIRST_LOCAL_DRAWS
    return run, scales_of(leaf, inputs, run, train=train, upstream=upstream, draws=draws)


# Of its largest value: what no rounding leaves, whatever it passes through
_FAR = 0.1


def _are_far_apart(ours: LeafRun, theirs: LeafRun) -> bool:
    """Whether two sides give other values altogether."""
    for name in ours.keys() & theirs.keys():
        x, y = ours[name], theirs[name]
        if name.startswith("output") and x.size == y.size and is_float(y):
            difference = np.abs(x.reshape(-1).astype(float) - y.reshape(-1)).max(initial=0.0)
            if difference > _FAR * np.abs(y).max(initial=0.0):
                return True
    return False


@dataclass(frozen=True)
class LocalCall:
    """What both sides of a pair are run on alone; a record has been run already, on its own."""

    inputs: Arrays
    upstream: Arrays | None = None
    known: Known = field(default_factory=dict)


def local_calls(
    subject: Subject, pair: Pair, referee: NetRun, *, train: bool, backward: bool = False
) -> list[LocalCall]:
    """One for each call of the pair in the referee's run, or in the record if there is one."""
    recorded = subject.recorded
    if recorded is None:
        return [
            LocalCall(call.inputs, upstream_for(pair.path, call.outputs) if backward else None)
            for call in referee.calls[pair.torch.path]
        ]
    run = subject.run(recorded.side, "float32", train=train, backward=backward)
    known: Known = {(recorded.side, "float32"): recorded.leaf_run(pair.path, run)}
    return [
        LocalCall(call.inputs, call.upstream if backward else None, known)  # type: ignore[arg-type]
        for call in run.calls[pair.path]
    ]


@dataclass(frozen=True)
class _Local:
    level: Level
    pair: Pair
    inputs: Arrays
    train: bool
    strict: bool
    runs: dict[tuple[Side, str], LeafRun]
    scales: Scales
    judged: tuple[tuple[Side, str], ...] = JUDGED
    recorded: Container[tuple[Side, str]] = ()

    @property
    def mode(self) -> Mode:
        return Mode.TRAIN if self.train else Mode.INFERENCE


def local_rows(
    level: Level,
    pair: Pair,
    call: LocalCall,
    *,
    train: bool,
    strict: bool = False,
    truth: Callable[..., Truth] | None = None,
) -> list[Row]:
    """The rows of one leaf at level forward (its outputs) or backward (gradients, buffers).

    `truth` gives what `truth_of` would, where it is known already; it takes `ours` too.
    """
    show(level, pair.path)
    inputs, known = call.inputs, call.known
    runs: dict[tuple[Side, str], LeafRun] = {}
    how: dict[str, Any] = {"train": train, "upstream": call.upstream}
    find = truth or partial(truth_of, pair.torch, inputs, **how)
    segment = segment_of(pair)
    in_steps = segment is not None and segment.unlike
    judged = JUDGED[1:] if (Side.GLUON, "float32") in known else JUDGED
    try:
        for side, dtype in judged:
            if side == Side.GLUON and (side, dtype) not in known:
                runs[side, dtype] = attempt(
                    side, backend(side).run_leaf, pair.gluon, inputs, dtype, **how
                )
        ours = runs.get((Side.GLUON, "float64")) if in_steps else None
        runs[Side.TORCH, "float64"], scales = attempt(Side.TORCH, find, ours=ours)
        if (Side.TORCH, "float32") not in known:
            runs[Side.TORCH, "float32"] = attempt(
                Side.TORCH, backend(Side.TORCH).run_leaf, pair.torch, inputs, "float32", **how
            )
        runs.update(known)
    except DidNotRun as error:
        return [not_compared(level, pair.path, "leaf", error, check=Check.LOCAL)]
    local = _Local(level, pair, inputs, train, strict, runs, scales, judged, tuple(known))
    rows = _rows_of(local, known)
    if scales.draws and any(in_doubt(row) for row in rows):
        run = runs[Side.TORCH, "float64"]
        again = backend(Side.TORCH).run_leaf(pair.torch, inputs, "float64", **how)
        # of what draws numbers of its own, more runs would show how far these move the results
        if all(np.array_equal(again[name], values) for name, values in run.items()):
            more = scales_of(pair.torch, inputs, run, draws=MOST_LOCAL_DRAWS, **how)
            rows = _rows_of(replace(local, scales=more), known)
    return rows


def in_doubt(row: Row) -> bool:
    """Whether the draws that measured a scale may have been too few for a row that failed.

    What is exact beside a scale of 0 counts too: no draw may have met the jump.
    """
    if row.status != Status.DIVERGED or row.error is None or row.bound is None:
        return False
    return not row.bound or row.error < LOCAL_CERTAIN * row.bound


def _rows_of(local: _Local, known: Known) -> list[Row]:
    pair, level, runs = local.pair, local.level, local.runs
    names = {name: None for run in known.values() or runs.values() for name in run}
    segment = segment_of(pair)
    masks = mask_gradients(segment) if segment is not None and segment.unlike else ()
    absent = absent_gradients(segment)
    return [
        between_masks(row) if name in masks else row
        for name in names
        if name.startswith("output") == (level == Level.FORWARD) and name not in absent
        for row in _quantity_rows(local, name)
    ]


def segment_of(pair: Pair) -> SegmentPair | None:
    """What a pair of leaves is made of, where it is made of executed operations."""
    program = getattr(pair.torch.block, "program", None)
    return None if program is None else program.layout.pair


# How many roundings of float32 one of float16 is
HALF = 2.0**13


def gives_half(segment: SegmentPair) -> bool:
    """Whether both sides of a segment have values of float16, to which a record is rounded.

    What is run here is not, and neither are its gradients.
    """
    return segment.both_give("float16")


def mask_gradients(segment: SegmentPair) -> set[str]:
    """The gradients of a segment's masks, by their names."""
    return {input_name(i) for i in segment.masks}


def absent_gradients(segment: SegmentPair | None) -> set[str]:
    """The gradients of what one side has as whole numbers: a mask that the other has as floats."""
    return set() if segment is None else {input_name(i) for i in segment.whole}


def between_masks(row: Row) -> Row:
    """The row of a mask's gradient: it tells of values between 0 and 1, which no mask has.

    And of what no input decides.
    """
    if row.status != Status.DIVERGED:
        return row
    detail = f"{row.detail}; no input but masks of 0 and 1 decides it, and this trains nothing"
    return replace(row, status=Status.NOTE, compared=0, detail=detail, window=None)


def agrees(subject: Subject, pair: Pair, modes: Sequence[bool]) -> bool:
    """Whether both sides of a pair compute the same in these modes.

    What one side alone trains has no gradient on the other, and no gradient is asked for of what a
    framework does not differentiate.
    """
    segment = segment_of(pair)
    lacking = segment is not None and segment.lacks_gradient
    frozen = {f"{role} gradient" for role, _, _ in trained_by_one(pair)}
    try:
        for train in modes:
            run = subject.run(Side.TORCH, "float64", train=train)
            backward = train and not lacking
            for call in local_calls(subject, pair, run, train=train, backward=backward):
                rows = local_rows(Level.FORWARD, pair, replace(call, upstream=None), train=train)
                if backward:  # statistics, and gradients
                    rows += local_rows(Level.BACKWARD, pair, call, train=train)
                failed = [r for r in rows if r.status in (Status.DIVERGED, Status.NOT_COMPARED)]
                if any(row.quantity not in frozen for row in failed):
                    return False
    except DidNotRun:
        return False
    return True


def trained_by_one(pair: Pair) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The role of each tensor that one side trains and the other does not, and both tensors."""
    for role, theirs in pair.torch.tensors.items():
        ours = pair.gluon.tensors.get(role)
        if ours is not None and ours.trainable != theirs.trainable:
            yield role, ours, theirs


def _quantity_rows(local: _Local, name: str) -> list[Row]:
    blank = Row(
        level=local.level,
        path=local.pair.path,
        quantity=name,
        status=Status.NOT_COMPARED,
        check=Check.LOCAL,
        mode=local.mode,
    )
    if name.endswith("gradient") and _is_nowhere(run.get(name) for run in local.runs.values()):
        detail = "one side has no such gradient, the other's is 0: no value passes"
        return [replace(blank, status=Status.NOTE, detail=detail)]
    for (side, dtype), run in local.runs.items():
        if name not in run:
            detail = f"{side} gives no {name}, the other side does"
            return [
                replace(
                    blank, status=Status.DIVERGED, side=side, dtype=dtype, compared=1, detail=detail
                )
            ]
    return [_judged(local, replace(blank, side=side, dtype=dtype)) for side, dtype in local.judged]


def _is_nowhere(values: Iterable[np.ndarray | None]) -> bool:
    """Whether some runs lack a gradient, and those that have it have zeros alone."""
    known = list(values)
    there = [value for value in known if value is not None]
    return len(there) < len(known) and not any(value.any() for value in there)


def _judged(local: _Local, row: Row) -> Row:
    name, side, dtype = row.quantity, row.side, row.dtype
    entry = tolerance(local.scales.family, mode_of(name, local.train), side, dtype)
    single = operator_of(local.scales.family).single_precision
    allowance = local.scales.allowance(name, side, dtype, single=single)
    actual, expected = local.runs[side, dtype][name], local.runs[Side.TORCH, "float64"][name]
    scale = local.scales.sizes.get(name, EXACT)  # a fixed buffer has no scale
    finite = all(np.isfinite(values).all() for values in (actual, expected))
    sized = all(np.isfinite(x).all() and np.all(np.asarray(x) >= 0) for x in (scale, allowance))
    if finite and not sized:
        detail = "numbers inside it overflow when they are moved: what it rounds has no size"
        return replace(row, detail=detail)

    whole = of_whole_numbers(actual, expected)
    if whole is not None:
        return row.with_verdict(whole)

    segment = segment_of(local.pair)
    if (side, dtype) in local.recorded and segment is not None and gives_half(segment):
        steps = 1 + len(segment.sides[side].executed)
        allowance = allowance + steps * HALF * UNIT["float32"] * (scale + np.abs(expected))

    def judge(wanted: np.ndarray, content: str = content_of(name)) -> Verdict:
        return compare(
            actual,
            wanted,
            scale=scale,
            factor=entry.factor(local.scales.length),
            allowance=allowance,
            dtype=dtype,
            unit=dtype,
            content=content,
        )

    verdict = judge(expected)
    row = row.with_verdict(verdict)
    if verdict.reason in ("dead", "constant"):
        return as_constant(row, judge(expected, "any"))
    if row.window is not None and dtype == "float32":
        title, other = ("PyTorch", Side.TORCH) if side == Side.GLUON else ("Gluon", Side.GLUON)
        window = row.window.with_array(f"{title} {dtype}", local.runs[other, dtype][name])
        row = replace(row, window=window)
    if verdict.ok or side == Side.TORCH:
        return row
    convention = conventions.variance(local.pair.torch, name, local.inputs, local.train)
    if convention is None or not judge(convention.convert(expected)).ok:
        return row
    status = Status.DIVERGED if local.strict else Status.NOTE
    return replace(row, status=status, diagnosis=convention.diagnosis)


def of_whole_numbers(actual: np.ndarray, expected: np.ndarray) -> Verdict | None:
    """The verdict on indices, a mask or counts, which count by value; None for other numbers."""
    if any(holds_whole_numbers(values.dtype) for values in (actual, expected)):
        return values_equal(actual, expected)
    return None


def as_constant(row: Row, verdict: Verdict) -> Row:
    """The row of values that are all alike: nothing is learnt where both sides agree on them."""
    if not verdict.ok:
        return row.with_verdict(verdict)
    detail = f"{LEFT_OUT}on both sides {row.detail}; other inputs would tell more"
    return replace(row, status=Status.NOTE, compared=0, detail=detail, window=None)


def content_of(name: str) -> str:
    """What a quantity must hold to be worth comparing: a gradient may rightly be constant."""
    if name.startswith("output"):
        return "varied"
    return "nonzero" if name.endswith("gradient") else "any"


def mode_of(name: str, train: bool) -> str:
    """Under which mode the tolerance table has a quantity."""
    if content_of(name) == "any":
        return "statistics"
    return Mode.TRAIN if train else Mode.INFERENCE
