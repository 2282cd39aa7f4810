"""One self-contained page of a parity run: the verdict first, then error against bound by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from parity_tests.report import Report, Row

__all__ = ["page"]

# The picture: a logarithmic scale of error / bound, powers of ten.
LOW, HIGH = -4.0, 2.0
HEIGHT, TOP, LEFT, WIDTH = 220.0, 26.0, 46.0, 1080.0


@dataclass(frozen=True)
class Dot:
    """The worst error of one side at one layer."""

    x: float
    y: float
    side: str
    title: str
    over: bool


def page(reports: Sequence[Report]) -> str:
    """HTML with its style and script inside; whatever a net is named is escaped."""
    environment = Environment(
        loader=PackageLoader("parity_tests", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        reports=[_view(report) for report in reports],
        failed=[report for report in reports if not report.ok],
        values=sum(row.compared for report in reports for row in report.rows),
        environment=next((r.environment for r in reports if r.environment), {}),
    )


def _view(report: Report) -> dict[str, Any]:
    rows = report.failures + [row for row in report.rows if row.status == "note"]
    shown = {id(row) for row in rows}
    rows += [row for row in report.rows if id(row) not in shown]
    return {
        "report": report,
        "first": report.first_divergence,
        "coverage": report.coverage.percent(),
        "missing": report.coverage.missing(),
        "levels": [
            (level, report.compared(level), _worst(report, level)) for level in report.levels
        ],
        "rows": [(row, _fraction(row)) for row in rows],
        "pictures": [
            picture
            for level in ("forward", "backward")
            if level in report.levels and (picture := _picture(report, level))
        ],
    }


def _worst(report: Report, level: str) -> str:
    worst = report.worst(level)
    if worst is None or not worst.fraction:
        return "" if worst is None else "equal"
    return f"{_fraction(worst)} at {worst.path or 'the net'}"


def _fraction(row: Row) -> str:
    if row.fraction is None:
        return ""
    if row.fraction == 0:
        return "equal"
    return "∞" if math.isinf(row.fraction) else f"{row.fraction:.3g}"


def _picture(report: Report, level: str) -> dict[str, Any] | None:
    """Local error over bound in float32, layer by layer, both sides."""
    rows = [
        row
        for row in report.rows
        if row.level == level and row.check == "local" and row.dtype == "float32"
    ]
    paths = list(dict.fromkeys(row.path for row in rows))
    if not paths:
        return None
    width = max(WIDTH, LEFT + 8.0 * len(paths))
    step = (width - LEFT - 10.0) / len(paths)
    dots = []
    for row in _worst_of_each(rows):
        x = LEFT + step * (paths.index(row.path) + (0.35 if row.side == "gluon" else 0.65))
        fraction = row.fraction if row.fraction is not None else math.inf
        title = (
            f"{row.path} {row.quantity}, {row.side}: {_fraction(row) or row.detail} of the bound"
        )
        dots.append(Dot(x, _height(fraction), row.side, title, row.status != "ok"))
    every = max(1, math.ceil(len(paths) / (width / 90.0)))
    return {
        "level": level,
        "width": width,
        "height": HEIGHT + TOP + 22.0,
        "dots": dots,
        "lines": [(_height(10.0**p), _label(p), p == 0) for p in range(int(LOW), int(HIGH) + 1)],
        "names": [(LEFT + step * (i + 0.5), p) for i, p in enumerate(paths) if i % every == 0],
    }


def _worst_of_each(rows: Sequence[Row]) -> list[Row]:
    worst: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.path, row.side)
        if key not in worst or _rank(row) > _rank(worst[key]):
            worst[key] = row
    return list(worst.values())


def _rank(row: Row) -> float:
    if row.fraction is None:
        return math.inf if row.status != "ok" else -1.0
    return row.fraction


def _height(fraction: float) -> float:
    power = LOW if fraction <= 0 else min(max(math.log10(fraction), LOW), HIGH)
    return TOP + HEIGHT * (HIGH - power) / (HIGH - LOW)


def _label(power: int) -> str:
    if power == int(LOW):
        return "equal"
    return {0: "bound", 1: "10×", 2: "100×"}.get(power, f"1/{10**-power:,}")
