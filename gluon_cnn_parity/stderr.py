"""What goes to stderr past Python: C++ libraries' lines, and a last line that must not block."""

from __future__ import annotations

import os
import select
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LONGEST = 4000  # bytes; a pipe into which something can be written has room for PIPE_BUF, 4096


def say_if_read(line: str) -> None:
    """Write a line to stderr, unless that is a pipe that is full and that nobody reads.

    It takes no buffer: another thread may wait in front of the pipe, with the buffer's lock.
    """
    text = line.encode(errors="backslashreplace")[:_LONGEST] + b"\n"
    with suppress(OSError):  # it is closed
        _, writable, _ = select.select([], [2], [], 1.0)
        if writable:
            os.write(2, text)


@contextmanager
def without_lines(*phrases: bytes) -> Iterator[None]:
    """Keep the lines that hold one of the phrases from descriptor 2; others come at the end."""
    if sys.stderr is None:  # closed: no file that is opened later may become descriptor 2
        os.open(os.devnull, os.O_WRONLY)
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            caught.seek(0)
            for line in caught:
                if not any(phrase in line for phrase in phrases):
                    os.write(2, line)
