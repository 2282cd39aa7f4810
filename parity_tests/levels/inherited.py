"""Inherited error: what each side's own stream has gathered, judged against the envelope."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from parity_tests.backends.runs import NET, Key
from parity_tests.backends.spill import release
from parity_tests.levels.envelope import Envelope
from parity_tests.levels.local import (
    HALF,
    absent_gradients,
    as_constant,
    between_masks,
    content_of,
    gives_half,
    mask_gradients,
)
from parity_tests.levels.referee import Subject
from parity_tests.numerics.chance import FIRST_DRAWS, MOST_DRAWS, beyond_chance
from parity_tests.numerics.compare import (
    ENVELOPE_FACTOR,
    SMALLEST,
    UNIT,
    Verdict,
    as_numbers,
    compare,
)
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status


def is_clean(rows: Iterable[Row]) -> bool:
    """Whether nothing diverged: else an inherited error is a consequence, and not chance."""
    return not any(row.status == Status.DIVERGED for row in rows)


def until_certain(
    measure: Callable[..., Envelope], clean: bool
) -> Callable[[Callable[..., Iterable[Row]]], list[Row]]:
    """Judges rows by an envelope of as many draws as no clean net alarms by.

    `measure` gives the envelope of a number of `draws`; a net that is not `clean` needs no more
    than the first.
    """

    def judged(judge: Callable[..., Iterable[Row]]) -> list[Row]:
        draws = FIRST_DRAWS
        while True:
            rows = list(judge(envelope=measure(draws=draws)))
            doubtful = clean and any(_may_be_chance(row, draws) for row in rows)
            if draws >= MOST_DRAWS or not doubtful:
                return rows
            draws *= 2

    return judged


def _may_be_chance(row: Row, draws: int) -> bool:
    if row.status != Status.DIVERGED or row.error is None or not row.bound:
        return False
    return row.error <= row.bound * beyond_chance(draws)


def judged_keys(
    level: Level,
    subject: Subject,
    *,
    actual: Mapping[Key, np.ndarray],
    expected: Mapping[Key, np.ndarray],
    envelope: Envelope,
    side: Side,
    dtype: str,
    mode: Mode,
) -> Iterator[Row]:
    """One row for each value of the paired leaves, and of the net as a whole, in order.

    `actual` has the keys of its own side, `expected` and `envelope` torch's.
    """
    if side == Side.GLUON:
        actual = subject.by_torch_path(actual)
    recorded = subject.recorded is not None and side == subject.recorded.side
    half = recorded and any(map(gives_half, subject.segments.values()))
    wider = HALF if half else 1.0
    paths = [pair.torch.path for pair in subject.pairing.pairs]
    order = {path: i for i, path in enumerate([*dict.fromkeys(paths), NET])}
    kinds = {pair.torch.path: pair.torch.kind for pair in subject.pairing.pairs}
    keys = {key: None for key in (*expected, *actual) if key[0] in order}
    masks = {path: mask_gradients(segment) for path, segment in subject.segments.items()}
    nowhere = {path: absent_gradients(segment) for path, segment in subject.segments.items()}
    for path, call, quantity in sorted(keys, key=lambda key: order[key[0]]):
        key = (path, call, quantity)
        if quantity in nowhere.get(path, ()):
            continue
        row = Row(
            level=level,
            path=path or NET,
            quantity=quantity,
            status=Status.DIVERGED,
            check=Check.INHERITED,
            side=side,
            dtype=dtype,
            mode=mode,
            compared=1,
        )
        judged = between_masks if quantity in masks.get(path, ()) else (lambda row: row)
        known = [values[key] for values in (actual, expected) if key in values]
        if len(known) < 2 and quantity.endswith("gradient") and not known[0].any():
            continue  # no gradient, on one side as an array of zeros
        if len(known) < 2:
            absent, present = (side, "the referee") if key not in actual else ("the referee", side)
            which = f"call {call + 1}: " if call else ""
            yield judged(replace(row, detail=f"{which}{absent} has no {quantity}, {present} has"))
            continue
        value = _in_torch_shape(actual[key], expected[key], kinds.get(path, ""), quantity)
        yield judged(_judged(row, value, expected[key], wider * envelope.limit(key, dtype)))
        release()


def with_other_side(
    rows: Iterable[Row], single: Mapping[str, Mapping[Key, np.ndarray]]
) -> Iterator[Row]:
    """Show, around a divergence in float32, the values of the side that was not judged as well.

    `single` has both sides' float32 values, by the keys of torch.
    """
    for row in rows:
        name, other = ("PyTorch", Side.TORCH) if row.side == Side.GLUON else ("Gluon", Side.GLUON)
        key = (row.path, 0, row.quantity)
        values = single.get(other, {})
        once = key in values and (row.path, 1, row.quantity) not in values
        if row.window is not None and row.dtype == "float32" and once:
            window = row.window.with_array(f"{name} float32", values[key])
            row = replace(row, window=window)
        yield row


def _in_torch_shape(
    actual: np.ndarray, expected: np.ndarray, kind: str, quantity: str
) -> np.ndarray:
    """Gluon's Dense flattens (N, C, H, W) itself; torch flattens before it."""
    flattened = (
        kind == "dense" and quantity == "input gradient" and actual.ndim > expected.ndim == 2
    )
    if flattened and actual.shape[0] == expected.shape[0] and actual.size == expected.size:
        return actual.reshape(expected.shape)
    return actual


def _judged(row: Row, actual: np.ndarray, expected: np.ndarray, limit: float) -> Row:
    if not math.isfinite(limit):
        reason = "float32 overflows on the way to it; smaller inputs would tell"
        return replace(row, status=Status.NOT_COMPARED, compared=0, detail=reason)
    whole = actual, expected
    actual, expected = as_numbers(*whole)
    dtype = row.dtype if actual is whole[0] else "float64"
    exact = not limit and actual.shape == expected.shape
    if exact and not np.array_equal(actual, expected):  # noise in float32 has no room there
        nothing = np.abs(np.subtract(actual, expected, dtype=np.float64)) < SMALLEST["float32"]
        expected = np.where(nothing, actual, expected)

    def judge(content: str) -> Verdict:
        verdict = compare(
            actual,
            expected,
            scale=limit / UNIT[row.dtype],
            factor=ENVELOPE_FACTOR,
            dtype=dtype,
            unit=row.dtype,
            content=content,
        )
        return replace(verdict, unit="envelopes")

    verdict = judge(content_of(row.quantity))
    distance = allowed = None
    if verdict.error is not None:  # of finite values in one shape
        largest = max(float(expected.max()), -float(expected.min()))
        moved = verdict.error * limit if limit else float(np.abs(actual - expected).max())
        distance = moved / largest if largest else None
        allowed = ENVELOPE_FACTOR * limit / largest if largest else None
    row = row.with_verdict(verdict)
    if verdict.reason in ("dead", "constant"):
        row = as_constant(row, judge("any"))
    return replace(row, unit="envelopes", distance=distance, allowed=allowed)
