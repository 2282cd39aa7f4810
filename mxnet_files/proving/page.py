"""`report.html`: the certificate for people, one file without scripts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any


def page(report: Mapping[str, Any]) -> str:
    """A report as `report.json` holds it, but for the page itself. Everything in it is escaped."""
    from jinja2 import Environment, StrictUndefined  # torch requires it

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    text = resources.files("mxnet_files.proving").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(text).render(report)
