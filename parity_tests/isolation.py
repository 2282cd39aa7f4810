"""Runs work in a child process, so that native code that dies takes nothing else with it.

What crashed once is refused in the next child, which does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from gluon_cnn_parity.child import Tell, follow
from gluon_cnn_parity.native import how_it_ended
from parity_tests.backends.journal import JOURNAL, Place
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.forks import refuse_dead_autograd
from parity_tests.reporting.verdicts import Side

_Result = TypeVar("_Result")
MOST = 12  # crashes of one piece of work; a net has a few operations that crash, or is beyond help


def isolated(work: Callable[[], _Result]) -> _Result:
    """What `work()` gives in a child process, begun anew without what crashed.

    What it raises is raised here. The result and exceptions have to be picklable.

    Raises:
        ParityError: it crashed outside of any call of a framework, or too often.
    """
    work = partial(copy_context().run, work)  # which a thread does not have
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
            raise ParityError(
                f"the check itself {how_it_ended(ended)}; run it again, on a smaller input"
            )
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

        def begin(tell: Tell) -> Any:
            JOURNAL.tell, JOURNAL.crashed, JOURNAL.kept = tell, crashed, self.kept
            refuse_dead_autograd()
            return work()

        return follow(begin, self._note)

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
        return f"{who} crashed in {where}: it {how_it_ended(ended)}"
