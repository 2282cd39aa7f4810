"""One self-contained page of a parity run: the verdict first, then where and how far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity_tests.reporting.causes import BY_LAYER
from parity_tests.reporting.chart import inherited_picture, local_picture
from parity_tests.reporting.drift import Drift
from parity_tests.reporting.environment import environment
from parity_tests.reporting.kill_matrix import Outcome, kill_matrix
from parity_tests.reporting.results import Results
from parity_tests.reporting.rows import Row
from parity_tests.reporting.templating import render
from parity_tests.reporting.verdicts import LEVELS, Check, Level, Status

FAILURES = 12  # rows of a net that are shown at once; the table of all comparisons has the rest
CARDS = 3  # divergences with their values; the rest are in their nets' sections


def page(reports: Sequence[Results], outcomes: Sequence[Outcome] = ()) -> str:
    """HTML with its style and script inside; whatever a net is named is escaped.

    `outcomes` are those of the fault catalogue. Only this page's own style and script may act in
    it, and nothing is fetched.
    """
    failed = [report for report in reports if not report.ok]
    ordered = failed + [report for report in reports if report.ok]
    asked = {level for report in reports for level in report.levels}
    return render(
        "report.html.j2",
        words=("u", "bound", "local", "inherited", "envelope"),
        script="report.js",
        title=_title(reports, failed, outcomes),
        tone=_tone(reports, failed, outcomes),
        reports=reports,
        failed=failed,
        cards=CARDS,
        views=[_view(report, f"net-{i}") for i, report in enumerate(ordered)],
        kills=kill_matrix(outcomes),
        values=sum(row.compared for report in reports for row in report.rows),
        seconds=sum(report.seconds for report in reports),
        levels=[level for level in LEVELS if level in asked],
        unasked=[level for level in LEVELS if level not in asked],
        environment=next((r.environment for r in reports if r.environment), None) or environment(),
    )


# What a headline says of the first failure, by its level
FINDINGS = {
    Level.STRUCTURE: "Another structure",
    Level.WEIGHTS: "Other weights",
    Level.FORWARD: "Another function",
    Level.BACKWARD: "Other gradients",
    Level.OPTIMIZER: "Another update rule",
    Level.TRAINING: "Another course of training",
    Level.ARTEFACTS: "Another exported net",
    Level.MULTI_DEVICE: "Several devices compute otherwise",
    Level.DATA: "Other batches",
}


def _title(reports: Sequence[Results], failed: list[Results], outcomes: Sequence[Outcome]) -> str:
    """What kind of finding it is, and where."""
    escaped = sum(not outcome.right_level for outcome in outcomes)
    if len(failed) == 1:
        finding = _finding(failed[0])
        return f"{failed[0].name}: {finding}" if len(reports) > 1 else finding
    if failed:
        return f"Not in parity: {len(failed)} of {len(reports)} nets"
    if escaped:
        return f"{escaped} of {len(outcomes)} faults not caught where they belong"
    if not reports:
        return f"All {len(outcomes)} faults caught"
    exempted = {(report.name, row.path) for report in reports for row in report.allowed}
    count = len(exempted)
    parity = "Parity, in a quick look" if any(report.quick for report in reports) else "Parity"
    return f"{parity}, with {count} exception{'s' * (count > 1)} allowed" if count else parity


def _tone(reports: Sequence[Results], failed: list[Results], outcomes: Sequence[Outcome]) -> str:
    if failed or not all(outcome.right_level for outcome in outcomes):
        return "bad"
    return "near" if any(report.allowed for report in reports) else "good"


def _finding(report: Results) -> str:
    if not report.failures:
        return "Not compared"
    first = report.failures[0]
    place = f" at {first.path}" if first.path else ""
    if first.status == Status.NOT_COMPARED:
        return f"Not compared: {first.level}{place}"
    finding = FINDINGS[first.level]
    if first.check == Check.INHERITED and first.dtype == "float32":
        finding = "More than rounding"
    level = "" if first.level in finding else f" ({first.level})"
    return f"{finding}{place}{level}"


@dataclass
class _Layer:
    """A line of the table of layers: worst parts of the bound, and the distance from float64."""

    path: str
    local: dict[str, dict[str, float | None]] = field(default_factory=dict)  # level -> side
    drift: Drift | None = None
    failed: int = 0
    follows: int = 0  # of those that failed, from another layer's divergence
    allowed: int = 0
    compared: int = 0

    @property
    def verdict(self) -> tuple[str, str]:
        """In words, and the class that colours them."""
        if self.failed > self.follows:
            return f"{self.failed - self.follows} failed", "bad"
        if self.follows:
            return "follows", "near"
        if self.allowed:
            return "allowed", "near"
        return ("ok", "good") if self.compared else ("not compared", "near")


def _view(report: Results, name: str) -> dict[str, Any]:
    drifts = report.drifts
    follows = report.consequences
    failures = [row for row in report.failures if id(row) not in follows]
    shown = [level for level in (Level.FORWARD, Level.BACKWARD) if level in report.levels]
    steps = (Level.OPTIMIZER, Level.TRAINING, Level.MULTI_DEVICE)
    drawn = shown + [level for level in steps if level in report.levels]
    return {
        "id": name,
        "report": report,
        "first": report.first_divergence,
        "answers": report.answers,
        "coverage": report.coverage.counts(),
        "missing": report.coverage.missing(),
        "levels": [_level(report, level) for level in LEVELS],
        "local": [p for level in drawn if (p := local_picture(report, level))],
        "inherited": [p for level in shown if (p := inherited_picture(report, drifts, level))],
        "layers": _layers(report, drifts, follows),
        "failures": failures[:FAILURES],
        "more": max(0, len(failures) - FAILURES),
        "follows": len(follows),
        **_notes(report),
        "rows": [
            (row, follows[id(row)].path if id(row) in follows else "")
            for row in _failures_first(report)
        ],
    }


def _notes(report: Results) -> dict[str, Any]:
    """What passes and is said: allowed by the user, left out with its reason, or known."""
    counts = Counter(row.path for row in report.allowed)
    reasons = {row.path: row.allowance for row in reversed(report.allowed)}
    others = [row for row in report.notes if not row.allowance]
    left_out = [row for row in others if row.left_out]
    return {
        "allowed": [(path, reasons[path], count) for path, count in counts.items()],
        "left_out": left_out,
        "known": [row for row in others if row not in left_out],
    }


def _failures_first(report: Results) -> list[Row]:
    rows = report.failures + report.notes
    shown = {id(row) for row in rows}
    return rows + [row for row in report.rows if id(row) not in shown]


def _level(report: Results, level: Level) -> dict[str, Any]:
    rows = [row for row in report.rows if row.level == level]
    verdict = report.finding(level) or "parity"
    if verdict == "parity" and any(row.allowance for row in rows):
        verdict = "allowed"
    worst = report.worst(level)
    return {
        "name": level,
        "verdict": verdict if level in report.levels else "not asked for",
        "tone": {"parity": "good", "allowed": "near"}.get(verdict, "bad"),
        "count": report.compared(level),
        "worst": worst.fraction if worst else None,
        "at": worst.path if worst and worst.fraction else "",
    }


def _layers(report: Results, drifts: Sequence[Drift], follows: Mapping[int, Row]) -> list[_Layer]:
    """Every path of the levels that go layer by layer, in the order of computation.

    None where no error was measured, as of the structure alone: the table would be empty cells.
    """
    layers: dict[str, _Layer] = {}
    for row in report.rows:
        if row.level not in BY_LAYER or not row.path:
            continue
        layer = layers.setdefault(row.path, _Layer(row.path))
        layer.failed += row.status.failed
        layer.follows += id(row) in follows
        layer.allowed += bool(row.allowance)
        layer.compared += row.compared
        if row.check == Check.LOCAL and row.dtype == "float32" and row.status != Status.NOTE:
            sides = layer.local.setdefault(row.level, {})
            known = sides.get(row.side)
            if row.fraction is not None and (known is None or row.fraction > known):
                sides[row.side] = row.fraction
    for drift in drifts:
        layer = layers.setdefault(drift.path, _Layer(drift.path))
        output = drift.level == Level.FORWARD and drift.quantity == "output"
        if output and (layer.drift is None or drift.share > layer.drift.share):
            layer.drift = drift
    measured = any(layer.local or layer.drift for layer in layers.values())
    return list(layers.values()) if measured else []
