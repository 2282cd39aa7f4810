"""One self-contained page of a comparison: the verdict first, then who moved, where, and why."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from parity_tests.gate.verdict import NAMES, Comparison

__all__ = ["page"]

ROWS = 500  # changed quantities shown; gate.json has all


def page(comparison: Comparison) -> str:
    """HTML with its style inside; whatever a net is named is escaped."""
    environment = Environment(
        loader=PackageLoader("parity_tests.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    template = environment.get_template("gate.html.j2")
    rows = comparison.changed[:ROWS]
    return template.render(
        comparison=comparison, names=NAMES, rows=rows, more=len(comparison.changed) - len(rows)
    )
