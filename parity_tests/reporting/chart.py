"""Layout of the charts of error against bound: a column a layer, the error on a log axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from parity_tests.reporting.drift import Drift
from parity_tests.reporting.results import Results
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Side, Status

WIDTH, LEFT, RIGHT, TOP, HEIGHT, FOOT = 1160.0, 62.0, 8.0, 20.0, 150.0, 44.0
DECADES = 2.0  # above the highest bound; what is farther off stands at the rim, with its number
LABELLED = 3  # marks beyond their bound get their number beside them, unless they are more
NAME = 22  # letters of a layer's name


@dataclass(frozen=True)
class Mark:
    """The error of one side at one layer; `value` 0 is equal, None cannot be measured."""

    path: str
    side: Side
    value: float | None
    over: bool
    title: str
    number: str = ""
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True)
class Picture:
    """What the template draws, in the units of a view box WIDTH wide."""

    level: Level
    title: str
    description: str
    paths: int
    radius: float
    marks: tuple[Mark, ...]
    bound: str  # the points of the step line
    grid: tuple[tuple[float, str], ...]
    names: tuple[tuple[float, str, str], ...]  # x, what is shown, the whole
    first: tuple[float, str, str] | None  # x, where its text is anchored, the layer
    width: float = WIDTH
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = TOP + HEIGHT
    equal: float = TOP + HEIGHT + 18.0
    height: float = TOP + HEIGHT + FOOT


def local_picture(report: Results, level: Level) -> Picture | None:
    """Float32 error over bound: every layer alone, or of other levels the worst there is."""
    alone = level in (Level.FORWARD, Level.BACKWARD)
    how = "each layer alone, on the same input, " if alone else ""
    rows = [
        row
        for row in report.rows
        if (row.level, row.dtype) == (level, "float32")
        and (row.check == Check.LOCAL or not alone)
        and row.side
        and row.status != Status.NOTE  # a known difference of conventions, and said elsewhere
    ]
    marks = []
    for row in _worst((row.path, row.side, _rank(row), row) for row in rows):
        over = row.status != Status.OK
        number = "" if row.fraction is None else _times(row.fraction)
        title = f"{row.path} {row.quantity}, {_name(row.side)}: {_of_bound(row)}"
        marks.append(Mark(row.path, row.side, row.fraction, over, title, number))
    return _picture(
        level,
        f"{level}: {how}float32; error / bound",
        marks,
        dict.fromkeys((row.path for row in rows), 1.0),
        _fraction_label,
        report,
    )


def inherited_picture(report: Results, drifts: Sequence[Drift], level: Level) -> Picture | None:
    """The whole net, each side's own stream: distance from float64, and the envelope."""
    chosen = _worst((d.path, "", d.share, d) for d in drifts if d.level == level)
    marks = []
    for drift in chosen:
        for side, distance in ((Side.GLUON, drift.gluon), (Side.TORCH, drift.torch)):
            size = "non-finite" if distance.relative is None else f"{distance.relative:.1e}"
            title = f"{drift.place}, {_name(side)}: {size} of the largest value from float64"
            over = not distance.ok or (drift.outside == "function" and side == Side.GLUON)
            marks.append(Mark(drift.path, side, distance.relative, over, title, size))
    return _picture(
        level,
        f"{level}: the whole net, each side's own stream, float32; distance from float64 by the "
        "largest value",
        marks,
        {drift.path: drift.bound or 0.0 for drift in chosen},
        lambda power: f"1e{power}",
        report,
    )


def _picture(
    level: Level,
    title: str,
    marks: list[Mark],
    bounds: Mapping[str, float],
    label: Callable[[int], str],
    report: Results,
) -> Picture | None:
    paths = list(bounds)
    high = _log_of_largest(bounds.values())
    if not marks or high is None:
        return None
    seen = [math.log10(m.value) for m in marks if m.value and math.isfinite(m.value)]
    top = min(max([high, *seen]), high + DECADES) + 0.25
    low = max(min([high - 2, *seen]), top - 8) - 0.1
    step = (WIDTH - LEFT - RIGHT) / len(paths)
    middle = {path: LEFT + step * (i + 0.5) for i, path in enumerate(paths)}

    def height(value: float | None) -> float:
        if value == 0:
            return TOP + HEIGHT + 18.0
        power = top if value is None or not math.isfinite(value) else math.log10(value)
        return TOP + HEIGHT * (top - min(max(power, low), top)) / (top - low)

    shift = {Side.GLUON: -step / 5, Side.TORCH: step / 5}
    labelled = [m for m in marks if m.over]
    labelled = labelled if len(labelled) <= LABELLED else []
    placed = tuple(
        replace(
            m, number=m.number if m in labelled else "",
            x=middle[m.path] + shift[m.side], y=height(m.value),
        )
        for m in marks
    )  # fmt: skip
    points = []
    for path, bound in bounds.items():
        y = height(bound) if bound else TOP + HEIGHT
        points += [f"{middle[path] + side * step / 2:.1f},{y:.1f}" for side in (-1, 1)]
    letters = min(NAME, max(len(path) for path in paths))
    every = math.ceil((letters * 6.2 + 12) / step)
    first = report.first_divergence
    at = middle.get(first.path) if first else None
    over = sum(m.over for m in marks)
    return Picture(
        level,
        title,
        f"{len(paths)} layers, {over} of {len(marks)} marks beyond the bound",
        len(paths),
        min(max(step * 0.2, 2.0), 4.0),
        placed,
        " ".join(points),
        tuple((height(10.0**p), label(p)) for p in range(math.ceil(low), math.floor(top) + 1)),
        tuple((middle[p], _short(p), p) for i, p in enumerate(paths) if i % every == 0),
        (at, "end" if at > WIDTH / 2 else "start", first.path) if first and at else None,
    )


def _worst(items: Iterable[tuple]) -> list:
    """Of (path, side, rank, item) the item of the largest rank of each path and side, in order."""
    best: dict[tuple[str, str], tuple] = {}
    for path, side, rank, item in items:
        if (path, side) not in best or rank > best[path, side][0]:
            best[path, side] = (rank, item)
    return [item for _, item in best.values()]


def _rank(row: Row) -> float:
    if row.fraction is None:
        return math.inf if row.status != Status.OK else -1.0
    return row.fraction


def _log_of_largest(bounds: Iterable[float]) -> float | None:
    largest = max(bounds, default=0.0)
    return math.log10(largest) if largest > 0 else None


def _name(side: Side) -> str:
    return {Side.GLUON: "Gluon", Side.TORCH: "PyTorch"}[side]


def _of_bound(row: Row) -> str:
    if row.fraction is None:
        return row.detail or row.status
    return "equal" if row.fraction == 0 else f"{row.fraction:.3g} of the bound"


def _times(fraction: float) -> str:
    if math.isinf(fraction):
        return "∞"
    if fraction < 1e5:
        return f"{fraction:.2g}×" if fraction < 10 else f"{fraction:.0f}×"
    return f"{fraction:.0e}×".replace("e+", "e")


def _fraction_label(power: int) -> str:
    return {0: "bound", 1: "10×", 2: "100×"}.get(power, f"1/{10**-power:,}" if power < 0 else "")


def _short(path: str) -> str:
    return path if len(path) <= NAME else f"…{path[1 - NAME :]}"
