"""The report of a parity run: its results, and the page that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gluon_cnn_parity.atomic import write_text
from parity_tests.reporting.results import Results

__all__ = ["Report"]


@dataclass
class Report(Results):
    """The outcome of one pair's parity run; `ok` is False too when nothing was compared."""

    def to_html(self, path: str | Path) -> None:
        """Write one self-contained page, whole or not at all. Raises OSError."""
        from parity_tests.reporting.html import page  # Jinja2 is in an extra

        write_text(path, page([self]))
