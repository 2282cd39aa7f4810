"""Whether the processes of a job get on: what they compute, and what they wait for.

A process that lives may still hang: stopped by a signal, on a dead disk, or in front of a pipe that
nobody reads. One hanging worker makes all others wait, so that none of them computes any more.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STALL = 40.0  # seconds; with the grace to end, a job that hangs is over within a minute
BUSY = 0.01  # of a core, less is no computing

STOPPED = "it is stopped"
SILENT = "it is not heard of"
_BY_ITSELF = (STOPPED, SILENT)  # whatever the others do


@dataclass(frozen=True)
class Vitals:
    """What a session's processes have computed together, and what one of them waits for."""

    cpu: float  # seconds
    waits: str = ""  # what no waiting of a healthy job looks like


def vitals_of(session: int, proc: Path = Path("/proc")) -> Vitals | None:
    """The vitals of all processes of a session; None where the system does not tell."""
    ticks, waits, found = 0, "", False
    for entry in proc.glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            found = True
            ticks += int(fields[11]) + int(fields[12])
            waits = waits or _waits(fields[0], entry)
        except (OSError, ValueError, IndexError):  # gone meanwhile
            continue
    return Vitals(ticks / os.sysconf("SC_CLK_TCK"), waits) if found else None


def _waits(state: str, entry: Path) -> str:
    if state in "Tt":
        return STOPPED
    if state == "D":
        return "it waits for a disk"
    try:
        where = (entry / "wchan").read_text()
    except OSError:
        return ""
    return "it writes to a pipe that nobody reads" if where.endswith("pipe_write") else ""


@dataclass
class _Seen:
    cpu: float
    at: float
    busy: float  # when it computed last
    waits: str
    since: float  # when it began to wait for that


class Watch:
    """Tells from the vitals of a job's processes whether one of them hangs."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._seen: dict[Hashable, _Seen] = {}

    def see(self, who: Hashable, vitals: Vitals, now: float) -> None:
        """Note what a process said of itself at `now`, seconds."""
        last = self._seen.get(who)
        if last is None:
            self._seen[who] = _Seen(vitals.cpu, now, now, vitals.waits, now)
            return
        if vitals.cpu - last.cpu >= BUSY * (now - last.at):
            last.busy = now
        if vitals.waits != last.waits:
            last.waits, last.since = vitals.waits, now
        last.cpu, last.at = vitals.cpu, now

    def forget(self, who: Hashable) -> None:
        """Watch a process no more."""
        self._seen.pop(who, None)

    def hanging(self, workers: Iterable[Any], now: float) -> tuple[Any, str] | None:
        """The process that hangs, and why; `workers` are those who compute in a healthy job.

        One that is stopped, or silent, hangs by itself. The others are known by that no worker
        computes.
        """
        for who, seen in self._seen.items():
            if seen.waits in _BY_ITSELF and now - seen.since > self.limit:
                return who, seen.waits
        known = [(who, self._seen[who]) for who in workers if who in self._seen]
        if not known or any(now - seen.busy <= self.limit for _, seen in known):
            return None
        for who, seen in self._seen.items():
            if seen.waits:
                return who, seen.waits
        return known[0][0], "neither it nor any other worker computes"
