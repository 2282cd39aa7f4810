"""Native code that dies: by which signals, and what is said of it."""

from __future__ import annotations

import signal

DEADLY = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)


def die_by_signal() -> None:
    """Take away what answers deadly signals: MXNet's own ends with a status, after some lines."""
    for number in DEADLY:
        signal.signal(number, signal.SIG_DFL)


def how_it_ended(status: int) -> str:
    """What an exit status says, negative for a signal.

    >>> how_it_ended(-11)
    'was ended by SIGSEGV'
    """
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    told = ", as when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{told}"
