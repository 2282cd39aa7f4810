"""Stopping a run between two updates when SIGINT or SIGTERM asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """A signal ended the command; the exit code is the shell's, 128 + its number.

    No `Exception`: it may come at any line, and nobody who handles errors there may take it.
    """

    def __init__(self, number: int, where: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{where}")
        self.signal, self.where = number, where

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


class Stopped(Exception):
    """A pass over data was left early, since the run was asked to stop."""


class Stop:
    """Notes SIGINT and SIGTERM instead of dying; `requested` is then true.

    A context manager, for a program's main thread: elsewhere it notes nothing, and signals do what
    they did. Until `hold` is called, and at the second signal, `Interrupted` is raised at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._held = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on a first signal is noted: what runs looks at `requested` after each update."""
        self._held = True

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self._held or self.signal is not None:
            raise Interrupted(number, ", at once")
        self.signal = number

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The items, until a stop is requested. Raises: Stopped then."""
        for item in items:
            if self.requested:
                raise Stopped
            yield item
