"""`report.json` and `report.html` of a run: what goes into them, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from gluon_cnn_parity.atomic import write_together
from parity_tests.reporting.environment import environment
from parity_tests.reporting.html import page
from parity_tests.reporting.kill_matrix import JUDGED, Outcome, score
from parity_tests.reporting.report import Report
from parity_tests.reporting.results import SCHEMA


def schema() -> dict[str, Any]:
    """The JSON Schema of `report.json`, with a description of every field."""
    text = (
        resources.files("parity_tests.reporting").joinpath("report.schema.json").read_text("utf-8")
    )
    return json.loads(text)


def document(reports: Sequence[Report], outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    """What `report.json` holds; `outcomes` are those of the fault catalogue, if it was run."""
    return {
        "schema": SCHEMA,
        "ok": all(report.ok for report in reports) and all(o.right_level for o in outcomes),
        "environment": environment(),
        "reports": [report.as_dict() for report in reports],
        "faults": {**score(outcomes), "outcomes": [_outcome(o) for o in outcomes]}
        if outcomes
        else None,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), **{name: getattr(outcome, name) for name in JUDGED}}


def write_report(folder: Path, reports: Sequence[Report], outcomes: Sequence[Outcome] = ()) -> None:
    """Write both files into `folder`, made if missing. Raises OSError where that fails."""
    text = json.dumps(document(reports, outcomes), allow_nan=False) + "\n"
    html = page(reports, outcomes)
    write_together(folder, {"report.json": text, "report.html": html})
