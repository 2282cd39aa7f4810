"""SIGINT while modules load: a command dies of it at once, where an exception would get lost.

A KeyboardInterrupt in the middle of an import is turned into another error by some modules (`ssl`:
a TypeError), dropped by others, so that the command goes on, and may abort the process.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any


def stay_fatal() -> None:
    """Let SIGINT end this process until a command's body begins."""
    if _answers(signal.default_int_handler):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def fatal() -> AbstractContextManager[None]:
    """Around imports inside a command's body: SIGINT ends the process."""
    return _instead(signal.default_int_handler, signal.SIG_DFL)


def raised() -> AbstractContextManager[None]:
    """Around a command's body: SIGINT raises KeyboardInterrupt, as Python's own handler does."""
    return _instead(signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def _instead(usual: Any, other: Any) -> Iterator[None]:
    """Answer SIGINT by `other` where `usual` does; whoever ignores or handles it goes on so."""
    changed = _answers(usual)
    if changed:
        signal.signal(signal.SIGINT, other)
    try:
        yield
    finally:
        if changed:
            signal.signal(signal.SIGINT, usual)


def _answers(handler: Any) -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is handler
