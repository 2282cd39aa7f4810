"""One line on a terminal that says where a long comparison is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from tqdm import tqdm

_LINE: ContextVar[tqdm | None] = ContextVar("progress line", default=None)


@contextmanager
def progress_line(name: str, stream: TextIO | None = None) -> Iterator[None]:
    """While it is open, `show` writes to `stream` (standard error), if that is a terminal."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield
        return
    shape = "{desc} [{n_fmt} operations, {elapsed}]"
    with tqdm(desc=name, bar_format=shape, leave=False, file=stream, dynamic_ncols=True) as line:
        token = _LINE.set(line)
        try:
            yield
        finally:
            _LINE.reset(token)


def show(level: str, operation: str) -> None:
    """Say which level compares which operation; nothing where no line is open."""
    line = _LINE.get()
    if line is not None:
        line.set_description_str(f"{level}: {operation}", refresh=False)
        line.update()
