"""Runs work in a child process, so that native code that dies takes nothing else with it.

The child is a fork, which has the nets as they are. It works in a thread of its own: OpenMP's
threads are not forked, and a new thread starts new ones. What crashed once is refused in the next
child, which does the rest.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from parity_tests.backends.journal import JOURNAL, Place
from parity_tests.backends.leaves import ParityError
from parity_tests.reporting.verdicts import Side

__all__ = ["isolated"]

_Result = TypeVar("_Result")
_DEADLY = (signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
MOST = 12  # crashes of one piece of work; a net has a few operations that crash, or is beyond help


def isolated(work: Callable[[], _Result]) -> _Result:
    """What `work()` gives in a child process, begun anew without what crashed.

    What it raises is raised here. The result and exceptions have to be picklable.

    Raises:
        ParityError: it crashed outside of any call of a framework, or too often.
    """
    crashed: dict[Place, str] = {}
    kept: dict[str, Any] = {}
    for _ in range(MOST):
        watch = _Watch(kept)
        ended = watch.follow(work, crashed)
        if watch.result is not None:
            told, value = watch.result
            if told == "raised":
                raise value
            result: _Result = value
            return result
        if watch.place is None:
            raise ParityError(f"the check itself {_how(ended)}; run it again, on a smaller input")
        crashed[watch.place] = watch.named(ended)
    raise ParityError(f"{MOST} operations crashed, the last one: {list(crashed.values())[-1]}")


class _Watch:
    """One child, and what it told last."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept
        self.place: Place | None = None
        self.inside: tuple[str, str] | None = None
        self.result: tuple[str, Any] | None = None

    def follow(self, work: Callable[[], Any], crashed: dict[Place, str]) -> int:
        """Run the child to its end; its exit status, negative for a signal."""
        ours, theirs = multiprocessing.Pipe(duplex=False)
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads: see the docstring of this module
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            ours.close()
            _serve(work, theirs, crashed, self.kept)
        theirs.close()
        try:
            while True:
                self._note(*ours.recv())
        except EOFError:
            _, status = os.waitpid(child, 0)
            return os.waitstatus_to_exitcode(status)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        finally:
            ours.close()

    def _note(self, what: str, value: Any) -> None:
        if what == "enter":
            self.place, self.inside = value, None
        elif what == "leave":
            self.place = self.inside = None
        elif what == "at":
            self.inside = value
        elif what == "keep":
            self.kept[value[0]] = value[1]
        else:
            self.result = (what, value)

    def named(self, ended: int) -> str:
        """`Gluon crashed in conv2d at features.0: SIGSEGV`."""
        assert self.place is not None
        who = Side(self.place.who).framework if self.place.who in tuple(Side) else self.place.who
        where = f"{self.inside[0]} at {self.inside[1] or '(net)'}" if self.inside else self.place
        return f"{who} crashed in {where}: it {_how(ended)}"


def _how(ended: int) -> str:
    """What an exit status says, negative for a signal."""
    if ended >= 0:
        return f"ended with status {ended}"
    name = signal.Signals(-ended).name
    told = ", as when memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{told}"


def _serve(
    work: Callable[[], Any], pipe: Connection, crashed: dict[Place, str], kept: dict[str, Any]
) -> None:
    """The child: does not return."""
    status = 1
    try:
        faulthandler.disable()  # its parent will say what happened
        for number in _DEADLY:  # MXNet's own handler ends with a status instead
            signal.signal(number, signal.SIG_DFL)
        lock = threading.Lock()

        def tell(what: str, value: Any) -> None:
            with lock:
                pipe.send((what, value))

        JOURNAL.tell, JOURNAL.crashed, JOURNAL.kept = tell, crashed, kept

        def body() -> None:
            try:
                answer = ("gave", work())
            except BaseException as error:
                answer = ("raised", error)
            tell(*answer)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        status = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
