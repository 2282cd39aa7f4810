"""What processes compute and wait for, of real ones; who hangs, without a clock."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cnn_harness.jobs.vitals import STOPPED, Vitals, Watch, vitals_of


def _session(*command: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, start_new_session=True, **options)


def _until(pid: int, good: Callable[[Vitals], bool]) -> Vitals | None:
    """The vitals of a session, once they are as expected, or after 20 seconds."""
    deadline = time.monotonic() + 20
    while True:
        found = vitals_of(pid)
        if time.monotonic() > deadline or (found is not None and good(found)):
            return found
        time.sleep(0.02)


def test_vitals_of_real_processes() -> None:
    reader, writer = os.pipe()  # which nobody reads
    busy = _session("bash", "-c", f"{sys.executable} -c 'while True: pass'; true")
    idle = _session("sleep", "60")
    stuck = _session("yes", stdout=writer)
    try:
        assert (found := _until(busy.pid, lambda v: v.cpu > 0.2)) is not None
        assert found.cpu > 0.2  # of a process below it
        assert found.waits == ""
        assert vitals_of(idle.pid) == Vitals(0.0)
        if Path(f"/proc/{stuck.pid}/wchan").read_text() == "0":
            pytest.skip("this system does not say what a process waits for")
        assert (found := _until(stuck.pid, lambda v: bool(v.waits))) is not None
        assert "pipe that nobody reads" in found.waits
        idle.send_signal(19)  # SIGSTOP
        assert (found := _until(idle.pid, lambda v: bool(v.waits))) is not None
        assert found.waits == STOPPED
    finally:
        for process in (busy, idle, stuck):
            os.killpg(process.pid, 9)
            process.wait()
        os.close(reader)
        os.close(writer)
    assert vitals_of(idle.pid) is None


def test_a_job_that_computes_is_left_alone() -> None:
    watch = Watch(30)
    for now in range(0, 200, 2):
        watch.see("worker 0", Vitals(0.0), now)  # waits while the other computes
        watch.see("worker 1", Vitals(now * 0.02), now)
        watch.see("server", Vitals(0.0), now)
        assert watch.hanging(["worker 0", "worker 1"], now) is None
    assert Watch(30).hanging([], 1000) is None
    assert Watch(30).hanging(["not seen yet"], 1000) is None


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ({"server": STOPPED}, ("server", STOPPED)),
        ({"worker 1": "it waits for a disk"}, ("worker 1", "it waits for a disk")),
        ({}, ("worker 0", "neither it nor any other worker computes")),
    ],
)
def test_who_hangs_is_known_after_the_limit(waits: dict[str, str], expected: tuple) -> None:
    watch, workers = Watch(30), ["worker 0", "worker 1"]
    for now in range(0, 200, 2):
        for who in (*workers, "server"):
            cpu = min(now, 100) * 0.5  # from 100 on none computes
            watch.see(who, Vitals(cpu, waits.get(who, "") if now > 100 else ""), now)
        hanging = watch.hanging(workers, now)
        assert (hanging is None) == (now <= 130), now
        if hanging is not None:
            assert hanging == expected


def test_a_stopped_process_hangs_while_others_compute() -> None:
    watch = Watch(30)
    for now in range(0, 50, 2):
        watch.see("worker 0", Vitals(now * 1.0), now)
        watch.see("server", Vitals(0.0, STOPPED), now)
        assert (watch.hanging(["worker 0"], now) is None) == (now <= 30)
