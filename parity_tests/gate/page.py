"""One self-contained page of a comparison: both verdicts first, then who moved, where, and why."""

from __future__ import annotations

from parity_tests.gate.agreement import Accord
from parity_tests.gate.change import Change
from parity_tests.gate.verdict import NAMES, Comparison
from parity_tests.reporting.templating import render

ROWS = 500  # changed quantities shown; gate.json has all

# Nothing red stands in a verdict that is green
TONES = {Change.UNCHANGED: "good", Change.ROUNDING: "good", Change.SEMANTICS: "bad"}


def page(comparison: Comparison) -> str:
    """HTML with its style inside; whatever a net is named is escaped."""
    rows = comparison.changed[:ROWS]
    alarm = not comparison.ok or comparison.accord == Accord.APART
    return render(
        "gate.html.j2",
        words=("moved", "agreement", "u", "bound", "local", "inherited", "envelope"),
        comparison=comparison,
        names=NAMES,
        tone="bad" if alarm else "near" if comparison.accord == Accord.NOT_JUDGED else "good",
        tones={change: TONES.get(change, "near") for change in Change},
        rows=rows,
        more=len(comparison.changed) - len(rows),
    )
