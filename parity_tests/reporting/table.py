"""The table a terminal shows: model × level, how much was compared, the worst error, where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

from gluon_cnn_parity.terminal import coloured, short
from parity_tests.backends.runs import NET
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level

MOST = 5  # places of which the same is said
HEAD = ("model", "level", "verdict", "values", "worst/bound", "where")
# The groups of coverage that a level is responsible for.
GROUPS = (
    "leaves", "parameters", "buffers", "outputs", "gradients",
    "optimizer weights", "optimizer slots", "schedules",
    "training weights", "training gradients", "training slots", "training buffers", "features",
    "artefacts", "exported parameters", "graph nodes",
    "scale gradients", "scale slots", "scale weights", "scale buffers", "batches",
)  # fmt: skip


def table(reports: Sequence[Report], levels: Sequence[Level], stream: TextIO | None = None) -> str:
    """A line a model and level, then a line a model of what was compared, in percent.

    Verdicts are coloured where `stream` is given, and a terminal.
    """
    lines: list[tuple[str, ...]] = [HEAD]
    for report in reports:
        lines += [_line(report, level) for level in levels if level in report.levels]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    longest = max(len(_set(line, widths)) for line in lines)
    text = [_set(line, widths, stream) for line in lines]
    text.insert(1, "-" * longest)
    after = [*_coverage(reports), *_left_out(reports), *_normal(reports), *_remarks(reports)]
    return "\n".join([*text, "", *after])


def _remarks(reports: Sequence[Report]) -> list[str]:
    """How the nets were compared; models of which the same is said share a line."""
    by_text: dict[str, list[str]] = {}
    for report in reports:
        for remark in report.remarks:
            by_text.setdefault(remark, []).append(report.name)
    several = len(reports) > 1
    return [f"{', '.join(n)}: {text}" if several else text for text, n in by_text.items()]


def _left_out(reports: Sequence[Report]) -> list[str]:
    """What a note says was not compared, and why; places of which the same is said share a line."""
    by_text: dict[str, dict[str, None]] = {}
    for report in reports:
        for row in report.notes:
            if row.left_out:
                what = f"{row.check} {row.detail}" if row.check else row.detail
                at = "" if row.path == NET else f" {row.path}"
                by_text.setdefault(what, {})[f"{report.name}{at}"] = None
    return [f"{what} ({_some(places)})" for what, places in by_text.items()]


def _some(places: Iterable[str]) -> str:
    """The first few of them."""
    first = list(places)
    return ", ".join(first[:MOST]) + (f" and {len(first) - MOST} more" if first[MOST:] else "")


def _line(report: Report, level: Level) -> tuple[str, ...]:
    worst = report.worst(level)
    fraction, where = "", ""
    if worst is not None and worst.fraction is not None:
        fraction = "equal" if worst.fraction == 0 else short(worst.fraction)
        if worst.fraction:
            aside = " ".join(p for p in (worst.check, worst.side, worst.dtype, worst.mode) if p)
            where = f"{worst.path} {worst.quantity} ({aside})"
    fine = "ok (quick)" if report.quick else "ok"
    verdict = report.finding(level) or fine
    return report.name, level, verdict, f"{report.compared(level):,}", fraction, where


def _set(line: Sequence[str], widths: Sequence[int], stream: TextIO | None = None) -> str:
    cells = [
        cell.rjust(width) if i in (3, 4) else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    if stream is not None and line != HEAD:
        cells[2] = coloured(cells[2], "green" if line[2] == "ok" else "red", stream)
    return "  ".join(cells).rstrip()


def _normal(reports: Sequence[Report]) -> list[str]:
    """Whether inherited error is normal: a line for what is not, one for the most of what is."""
    answers = [(report.name, answer) for report in reports for answer in report.answers]
    wrong = [(name, answer) for name, answer in answers if not answer.normal]
    lines = [f"inherited error, {name} {answer.level}: {answer.sentence}" for name, answer in wrong]
    if answers and not wrong:
        name, most = max(answers, key=lambda pair: pair[1].at.share)
        nets = len({name for name, _ in answers})
        where = f"{name} {most.level}"
        where = where if nets == 1 else f"normal in all {nets} nets, the most in {where}"
        lines.append(f"inherited error, {where}: {most.sentence}")
    return lines


def _coverage(reports: Sequence[Report]) -> list[str]:
    """What was compared, in percent; models that agree share a line."""
    by_text: dict[str, list[str]] = {}
    for report in reports:
        percent = report.coverage.percent()
        text = ", ".join(f"{percent[g]:.4g} % of {g}" for g in GROUPS if g in percent)
        missing = report.coverage.missing()
        if missing:
            text += f"; not compared: {', '.join(missing[:5])}" + (" …" if missing[5:] else "")
        by_text.setdefault(text or "nothing", []).append(report.name)
    return [f"compared {text}: {', '.join(names)}" for text, names in by_text.items()]
