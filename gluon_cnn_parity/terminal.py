"""What a terminal shows: short numbers, text in columns, and colour where there is any."""

from __future__ import annotations

import os
import unicodedata
from typing import TextIO

_CODES = {"red": "31", "green": "32"}


def loss_text(value: float) -> str:
    """A loss with four decimals, or few digits of one that explodes.

    >>> loss_text(0.40213), loss_text(-1e-9), loss_text(11607955328.1782)
    ('0.4021', '0.0000', '1.16e+10')
    """
    return f"{value:z.4f}" if abs(value) < 1e6 else f"{value:.3g}"


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


def columns(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> [columns(text) for text in ("cat", "\u732b", "e\u0301", "\U0001f436 dog")]
    [3, 2, 1, 6]
    """
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(c) in "FW")
        for c in text
    )  # fmt: skip


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """The text in that colour, where the stream is a terminal that has it.

    `NO_COLOR` and `TERM=dumb` turn colour off (https://no-color.org).
    """
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not stream.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"
