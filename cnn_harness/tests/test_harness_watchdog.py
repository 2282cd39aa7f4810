"""Processes of a job that watch each other, without processes and without a clock."""

import os
from collections.abc import Callable

import pytest

from cnn_harness.jobs import watchdog
from cnn_harness.jobs.supervise import Limits
from cnn_harness.jobs.vitals import SILENT, Vitals
from cnn_harness.jobs.watchdog import Watchdog

LIMITS = Limits(stall=40, start=100)


class Board:
    """What torch's store does, in memory."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self._values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self._values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)

    def add(self, key: str, value: int) -> int:
        total = int(self._values.get(key, b"0")) + value
        self.set(key, str(total))
        return total


Told = Callable[[int, int], Vitals | None]  # (rank, now) -> vitals; None: it says nothing


def _watch(monkeypatch, told: Told, until: int = 200, count: int = 3) -> tuple[int, dict[int, str]]:
    """When the job was ended, 0 for never, and what each process said then."""
    board = Board()
    began = 1000.0  # whole, so that began + now - began is now
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: began)
    dogs = [Watchdog(board, rank, count, LIMITS) for rank in range(count)]
    for now in range(2, until, 2):
        ends = {}
        for rank, dog in enumerate(dogs):
            found = told(rank, now)
            monkeypatch.setattr(watchdog, "vitals_of", lambda pid, found=found: found)
            if found is not None and (verdict := dog.step(began + now)) is not None:
                assert verdict[0] in (0, os.getpid())
                ends[rank] = verdict[1]
        if ends:
            return now, ends
    return 0, {}


def test_a_job_that_computes_is_left_alone(monkeypatch) -> None:
    assert _watch(monkeypatch, lambda rank, now: Vitals(now * 0.5 * (rank == 1))) == (0, {})


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_process_that_says_nothing_hangs(rank: int, monkeypatch) -> None:
    def told(who: int, now: int) -> Vitals | None:
        return None if who == rank and now > 50 else Vitals(now * 0.5)

    monkeypatch.setattr(watchdog, "_is_sibling", lambda pid: False)  # on another host
    now, ends = _watch(monkeypatch, told)
    assert 90 < now < 110
    (line,) = filter(None, ends.values())
    assert line.startswith(f"error: process {rank} (pid {os.getpid()} on ")
    assert f"hangs: {SILENT}, for 40 s; " in line
    assert "--resume" in line


def test_a_process_that_computes_and_says_nothing_is_left_alone(monkeypatch) -> None:
    board = Board()
    dogs = [Watchdog(board, rank, 2, LIMITS) for rank in (0, 1)]
    monkeypatch.setattr(watchdog, "_is_sibling", lambda pid: True)
    for now in range(2, 200, 2):
        cpu = now * 0.5
        monkeypatch.setattr(watchdog, "vitals_of", lambda pid, cpu=cpu: Vitals(cpu))
        for dog in dogs[: 1 if now > 50 else 2]:  # as one that holds Python's lock for long
            assert dog.step(dogs[0]._began + now) is None


@pytest.mark.parametrize(("rank", "speaks"), [(0, 1), (1, 0), (2, 0)])
def test_where_nobody_computes_another_process_names_the_one_that_waits(
    rank: int, speaks: int, monkeypatch
) -> None:
    def told(who: int, now: int) -> Vitals:
        return Vitals(min(now, 50), "it waits for a disk" if who == rank and now > 50 else "")

    now, ends = _watch(monkeypatch, told)
    assert 90 < now <= 94
    assert f"process {rank} " in ends[speaks]
    assert "it waits for a disk" in ends[speaks]
    assert not any(line for who, line in ends.items() if who != speaks)


def test_who_has_ended_is_watched_no_more(monkeypatch) -> None:
    board = Board()
    first, second = (Watchdog(board, rank, 2, LIMITS) for rank in (0, 1))
    second._thread.start()
    for now in range(2, 200, 2):
        cpu = now * 0.5
        monkeypatch.setattr(watchdog, "vitals_of", lambda pid, cpu=cpu: Vitals(cpu))
        if now == 50:
            second.leave()
        if now < 50:
            second.step(first._began + now)
        assert first.step(first._began + now) is None


def test_who_never_comes_is_named(monkeypatch) -> None:
    now, ends = _watch(monkeypatch, lambda rank, now: Vitals(now) if rank < 2 else None)
    assert now == 102
    assert ends[0].startswith("error: process 2 has not come in 100 s; the job was ended")
