"""The processes of a job that watch each other, where whoever started them only waits.

torchrun notices a process that dies, and never one that hangs. So every process says, every few
seconds and in a thread of its own, what it computes and what it waits for, into the store by which
the job has met. The first two look at all of them: two, since a process cannot tell of itself.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from cnn_harness.jobs.supervise import BEAT, ENDED, Limits
from cnn_harness.jobs.vitals import SILENT, Vitals, Watch, vitals_of
from gluon_cnn_parity.stderr import say_if_read

SAID = 75  # the status of a process that ends since another hangs, of which a line was said
WATCHERS = 2  # the processes of rank 0 and 1
SILENCE = 3 * BEAT  # after which a process does not tell any more what it does


class Store(Protocol):
    """What all processes of the job read and write, as torch's stores do."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...

    def add(self, key: str, value: int) -> int: ...


class _Said:
    """What a process has said of itself last."""

    def __init__(self) -> None:
        self.pid, self.host = 0, ""
        self._beats, self._at = 0, 0.0
        self._vitals = Vitals(0.0)

    def hear(self, told: list[Any], now: float) -> None:
        if told[0] != self._beats:
            self._beats, self.pid, self.host, cpu, waits = told
            self._vitals, self._at = Vitals(cpu, waits), now

    def vitals(self, now: float) -> Vitals:
        """Of a process that says nothing any more, what the system says of it, where it is ours."""
        if now - self._at <= SILENCE:
            return self._vitals
        seen = vitals_of(self.pid) if _is_sibling(self.pid) else None
        return Vitals(self._vitals.cpu, SILENT) if seen is None else seen


class Watchdog:
    """Watches a job of `count` processes from the one of this rank."""

    def __init__(self, store: Store, rank: int, count: int, limits: Limits) -> None:
        self._store, self._rank, self._count, self._limits = store, rank, count, limits
        self._watch = Watch(limits.stall)
        self._began = time.monotonic()
        self._beats = 0
        self._said: dict[int, _Said] = {}
        self._left: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; an end of this process, good or bad, is told to the others."""
        self._thread.start()
        atexit.register(self.leave)

    def leave(self) -> None:
        """Be watched no more: what this process still does, whoever started it sees."""
        self._over.set()
        self._thread.join(BEAT)
        with contextlib.suppress(RuntimeError):  # the store is gone, and the job with it
            self._store.set(_beat(self._rank), "null")

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone, and the job with it
            while not self._over.wait(BEAT):
                if (verdict := self.step(time.monotonic())) is not None:
                    self._end(verdict)

    def step(self, now: float) -> tuple[int, str] | None:
        """Tell of this process and look at the others.

        Returns, once the job has to end, the pid of the one that hangs and what is to be said here.
        """
        self._tell()
        if self._store.check(["verdict"]):
            return int(self._store.get("verdict")), ""
        found = self._look(now) if self._rank < WATCHERS else None
        if found is None or found[0] == self._rank:  # whoever hangs may not be able to say so
            return None
        if self._store.add("verdicts", 1) > 1:
            return None  # the other one has found out too, and says so
        rank, why = found
        said = self._said.get(rank, _Said())
        where = f" (pid {said.pid} on {said.host})" if said.pid else ""
        self._store.set("verdict", str(said.pid))
        return said.pid, f"error: process {rank}{where} {why}; {ENDED}"

    def _tell(self) -> None:
        found = vitals_of(os.getsid(0))  # torchrun gives each process a session
        if found is not None:
            self._beats += 1
            cpu = found.cpu - time.thread_time()  # to watch is not to compute
            here = [self._beats, os.getpid(), socket.gethostname(), cpu, found.waits]
            self._store.set(_beat(self._rank), json.dumps(here))

    def _look(self, now: float) -> tuple[int, str] | None:
        """The rank of the process that hangs, and what of it is to be said."""
        missing = [rank for rank in range(self._count) if not self._hear(rank, now)]
        if missing:
            late = self._limits.start and now - self._began > self._limits.start
            return (missing[0], f"has not come in {self._limits.start:.0f} s") if late else None
        here = [rank for rank in range(self._count) if rank not in self._left]
        for rank in here:
            self._watch.see(rank, self._said[rank].vitals(now), now)
        hanging = self._watch.hanging(here, now)
        if hanging is None:
            return None
        return hanging[0], f"hangs: {hanging[1]}, for {self._limits.stall:.0f} s"

    def _hear(self, rank: int, now: float) -> bool:
        """Note what a process says of itself; False where it has not said anything yet."""
        if rank not in self._said and not self._store.check([_beat(rank)]):
            return False
        told = json.loads(self._store.get(_beat(rank)))
        if told is None:
            self._left.add(rank)
            self._watch.forget(rank)
        else:
            self._said.setdefault(rank, _Said()).hear(told, now)
        return True

    def _end(self, verdict: tuple[int, str]) -> None:
        pid, line = verdict
        if line:
            say_if_read(line)
        if pid != os.getpid() and _is_sibling(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # torchrun's SIGTERM would not be noticed
        os._exit(SAID)  # the main thread waits for the one that hangs


def _beat(rank: int) -> str:
    return f"beat/{rank}"


def _is_sibling(pid: int) -> bool:
    """Whether a process was started by whoever has started this one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == os.getppid()
