"""The report of a parity run: its results, and the page that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parity_tests.reporting.results import Results

__all__ = ["Report"]


@dataclass
class Report(Results):
    """The outcome of one pair's parity run; `ok` is False too when nothing was compared."""

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page."""
        from parity_tests.reporting.html import page  # Jinja2 is in an extra

        Path(path).write_text(page([self]), encoding="utf-8")
