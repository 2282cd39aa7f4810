"""What a terminal shows: numbers that stay short, and colour where there is any."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ["coloured", "short"]

_CODES = {"red": "31", "green": "32"}


def short(value: float) -> str:
    """A number in at most seven characters or so.

    >>> [short(value) for value in (0.0, 0.0312, 12.3456, 673218606992.764, 2e-9)]
    ['0', '0.031', '12.346', '6.7e11', '2.0e-9']
    """
    if value == 0:
        return "0"
    if 0.001 <= abs(value) < 10_000:
        return f"{value:.3f}"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits}e{int(exponent)}" if exponent else digits  # inf and nan have none


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in that colour, where the stream is a terminal that has it.

    `NO_COLOR` and `TERM=dumb` turn colour off (https://no-color.org).
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
