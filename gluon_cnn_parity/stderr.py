"""What C++ libraries write to stderr past Python, and cannot be told to leave."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_lines"]


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
