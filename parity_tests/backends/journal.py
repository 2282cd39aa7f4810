"""What native code is running: told to whoever watches, so that a crash has a name.

A process that a signal ends cannot say where it was. In a watched one (`parity_tests.isolation`)
each call of a framework is announced before it runs; what has crashed there before is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Place:
    """A call of a framework: whose, what is called, on which leaf, and how."""

    who: str
    action: str
    kind: str = ""
    path: str = ""
    flags: tuple[bool, ...] = ()

    def __str__(self) -> str:
        where = f" at {self.path}" if self.path else ""
        return f"{self.kind or 'a run of the whole net'}{where}"


@dataclass
class Journal:
    """`tell` takes every announcement; `crashed` has the reasons of places not to be run again.

    `kept` are results that a process that crashed had already.
    """

    tell: Callable[[str, Any], None] | None = None
    crashed: dict[Place, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def running(self, place: Place) -> Iterator[None]:
        """Announce what runs in this context, and its end."""
        if self.tell is None:
            yield
            return
        self.tell("enter", place)
        try:
            yield
        finally:
            self.tell("leave", place)

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """What `compute()` gives, or gave in a process that crashed later."""
        if key in self.kept:
            return self.kept[key]
        value = compute()
        if self.tell is not None:
            self.tell("keep", (key, value))
        return value

    def at(self, kind: str, path: str) -> None:
        """Announce the operation that a run of a whole net has come to."""
        if self.tell is not None:
            self.tell("at", (kind, path))


JOURNAL = Journal()  # nobody watches, in a process of the user's own
