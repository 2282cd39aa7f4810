"""The supervisor of a distributed job, with real processes that end in every way there is."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cnn_harness.jobs.node import encode
from cnn_harness.jobs.supervise import JobFailed, Limits, Supervisor
from cnn_harness.tests.runs import wait_until

QUICK = Limits(lost=3.0, start=20.0, grace=1.0, save=5.0, linger=5.0)
WAIT = ["sleep", "600"]


def ranked(rank: int, then: str = "exec sleep 600") -> list[str]:
    """A worker that reports its rank and goes on."""
    return ["bash", "-c", f"echo {rank} >&$GLUON_CNN_REPORT; {then}"]


class Job:
    """Starts the nodes of a job as MXNet's launcher does, and keeps their processes."""

    token = "a token"

    def __init__(self, work: dict[int, list[str]], serve: list[str] | None = None) -> None:
        self.work, self.serve = work, serve or ["sleep", "1"]
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.supervisor = Supervisor(len(work), 1, self.token, limits=QUICK)
        self.port = 0

    def submit(self, port: int) -> None:
        self.port = port
        for role, number in (("scheduler", 0), ("server", 0), *(("worker", n) for n in self.work)):
            self.start(role, self.work.get(number, []) if role == "worker" else [])
            # One after another, so that number n gets the command of number n
            while len(self.supervisor.nodes) < len(self.nodes):
                time.sleep(0.02)

    def start(self, role: str, work: list[str], token: str | None = None) -> None:
        words = [f"127.0.0.1:{self.port}", token or self.token, encode(work), encode(self.serve)]
        self.nodes[f"{role} {len(self.nodes)}"] = subprocess.Popen(
            [sys.executable, "-m", "cnn_harness.jobs.node", *words],
            env={**os.environ, "DMLC_ROLE": role},
        )

    def run(self) -> None:
        try:
            asyncio.run(self.supervisor.run("127.0.0.1", self.submit))
        finally:
            self.end()

    def end(self) -> None:
        for node in self.nodes.values():
            node.send_signal(signal.SIGCONT)
            node.wait(60)

    def fails(self) -> JobFailed:
        with pytest.raises(JobFailed) as failure:
            self.run()
        return failure.value

    def after(self, seconds: float, act) -> None:
        """Do something once all nodes have started their processes."""

        def body() -> None:
            total = len(self.work) + 2
            while sum(node.pid is not None for node in self.supervisor.nodes) < total:
                time.sleep(0.02)
            time.sleep(seconds)
            act()

        threading.Thread(target=body, daemon=True).start()

    def pid(self, role: str, number: int) -> int:
        (found,) = (n for n in self.supervisor.nodes if (n.role, n.number) == (role, number))
        assert found.pid is not None
        return found.pid


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def _all_gone(job: Job) -> bool:
    pids = [node.pid for node in job.supervisor.nodes if node.pid is not None]
    deadline = time.monotonic() + 5
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(_alive, pids))


def test_a_job_ends_when_its_workers_have_ended() -> None:
    job = Job({0: ["true"], 1: ["sleep", "0.5"]})
    job.run()
    assert _all_gone(job)
    assert {node.code for node in job.supervisor.nodes} == {0}


def test_a_worker_that_fails_ends_the_job_with_its_status() -> None:
    job = Job({0: ranked(1, "sleep 0.5; exit 3"), 1: ranked(0)}, serve=WAIT)
    failure = job.fails()
    assert "worker of rank 1 (pid" in str(failure)
    assert "exited with status 3" in str(failure)
    assert "--resume" in str(failure)
    assert failure.exit_code == 3
    assert _all_gone(job)


@pytest.mark.parametrize(("role", "number"), [("worker", 1), ("server", 0), ("scheduler", 0)])
def test_a_killed_process_ends_the_job_and_is_named(role: str, number: int) -> None:
    job = Job({0: ranked(0), 1: ranked(1)}, serve=WAIT)
    job.after(0.2, lambda: os.kill(job.pid(role, number), signal.SIGKILL))
    began = time.monotonic()
    failure = job.fails()
    name = {"worker": "worker of rank 1", "server": "server 0"}.get(role, role)
    assert str(failure).startswith(f"{name} (pid ")
    assert "was killed by SIGKILL" in str(failure)
    assert failure.exit_code == 1
    assert time.monotonic() - began < 30
    assert _all_gone(job)


def test_a_killed_node_takes_its_process_with_it() -> None:
    job = Job({0: WAIT, 1: WAIT}, serve=WAIT)
    job.after(0.2, lambda: job.nodes["worker 3"].kill())
    assert "worker without a rank yet (pid" in str(failure := job.fails())
    assert "was lost" in str(failure)
    assert _all_gone(job)


# A fifth of a core is enough to show that a process computes
BUSY = [sys.executable, "-c", "import time\nwhile True: sum(range(10**5)), time.sleep(0.01)"]


def _silent() -> Job:
    job = Job({0: WAIT, 1: WAIT}, serve=WAIT)
    job.after(0.2, lambda: job.nodes["worker 2"].send_signal(signal.SIGSTOP))
    return job


def _patient(workers: int, servers: int = 1, **limits: float) -> Supervisor:
    return Supervisor(workers, servers, Job.token, limits=replace(QUICK, lost=20.0, **limits))


def _stopped(role: str, number: int) -> Job:
    job = Job({0: BUSY, 1: BUSY}, serve=WAIT)
    job.supervisor = _patient(2, stall=4.0)
    job.after(0.2, lambda: os.kill(job.pid(role, number), signal.SIGSTOP))
    return job


def _no_more_time_to_start(job: Job) -> None:
    job.supervisor._limits = replace(job.supervisor._limits, start=0.0)


def _waiting() -> Job:
    job = Job({0: WAIT, 1: WAIT}, serve=WAIT)
    job.supervisor = _patient(3, stall=2.0, start=180.0)
    job.after(7.0, lambda: _no_more_time_to_start(job))
    return job


def _stuck(pipe: int) -> Job:
    writes = ["bash", "-c", f"exec yes >/proc/{os.getpid()}/fd/{pipe}"]
    job = Job({0: WAIT, 1: writes}, serve=WAIT)
    job.supervisor = _patient(2, stall=4.0)
    return job


def _stubborn() -> Job:
    stubborn = ["bash", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"]
    job = Job({0: stubborn, 1: ["bash", "-c", "sleep 0.5; exit 1"]}, serve=WAIT)
    job.supervisor = _patient(2)
    return job


def _incomplete() -> Job:
    job = Job({0: WAIT, 1: WAIT}, serve=WAIT)
    job.supervisor = _patient(3, 2, start=180.0)
    job.after(0.2, lambda: _no_more_time_to_start(job))
    return job


Waited = dict[str, tuple[Job, JobFailed]]


class _Loop(asyncio.SelectorEventLoop):
    """For another thread than the main one, which alone can handle signals."""

    def add_signal_handler(self, *_: object) -> None:
        pass

    def remove_signal_handler(self, sig: int) -> bool:
        return False


@pytest.fixture(scope="module", autouse=True)
def begun() -> Iterator[Future[Waited]]:
    """Jobs that end where a limit does, all at one time, and beside the tests that need none."""
    reader, writer = os.pipe()
    jobs = {
        "silent": _silent(),
        "worker 1 stopped": _stopped("worker", 1),
        "server 0 stopped": _stopped("server", 0),
        "waiting": _waiting(),
        "stuck": _stuck(writer),
        "stubborn": _stubborn(),
        "incomplete": _incomplete(),
    }

    async def together() -> list[BaseException | None]:
        runs = (job.supervisor.run("127.0.0.1", job.submit) for job in jobs.values())
        return await asyncio.gather(*runs, return_exceptions=True)

    def ended() -> Waited:
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                ends = runner.run(together())
        finally:
            for job in jobs.values():
                job.end()
            os.close(reader)
            os.close(writer)
        failures = [end for end in ends if isinstance(end, JobFailed)]
        assert len(failures) == len(jobs), ends
        return dict(zip(jobs, zip(jobs.values(), failures, strict=True), strict=True))

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(ended)


@pytest.fixture
def waited(begun: Future[Waited]) -> Waited:
    return begun.result()


def test_an_interrupted_job_lets_worker_0_save_while_the_others_serve(tmp_path: Path) -> None:
    note, ready = tmp_path / "note", tmp_path / "ready"
    mark = str(700 + os.getpid() / 1e6)  # how long the other worker sleeps, by which it is found
    save = f"sleep 0.5; pgrep -f 'sleep {mark}' && echo alive >{note}; exit 143"
    saves = ["bash", "-c", f'trap "{save}" TERM; touch {ready}; while :; do sleep 0.1; done']
    job = Job({0: saves, 1: ["sleep", mark]}, serve=WAIT)

    def interrupt() -> None:
        while not ready.exists():  # bash begins late on a busy machine, and dies without its trap
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    job.after(0.0, interrupt)
    failure = job.fails()
    assert failure.exit_code == 128 + signal.SIGTERM
    assert "SIGTERM" in str(failure)
    assert "alive" in note.read_text()
    assert _all_gone(job)


def test_a_stranger_is_not_admitted() -> None:
    job = Job({0: ["sleep", "2"]})

    def intrude() -> None:
        job.start("worker", ["touch", "/nonexistent"], token="another")
        job.start("worker", ["touch", "/nonexistent"])  # known, but there is no place left

    job.after(0.0, intrude)
    job.run()
    assert len(job.supervisor.nodes) == 3


def test_a_launcher_that_cannot_start_anything_is_reported() -> None:
    job = Job({0: WAIT})

    def broken(port: int) -> None:
        raise FileNotFoundError("mpirun")

    job.submit = broken  # type: ignore[method-assign]
    assert "could not start the job: mpirun" in str(job.fails())


def test_nodes_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import asyncio, os, subprocess, sys\n"
        "from cnn_harness.jobs.node import encode\n"
        "from cnn_harness.jobs.supervise import Supervisor\n"
        "def submit(port):\n"
        "    for role in ('scheduler', 'server', 'worker'):\n"
        f"        work = encode(['bash', '-c', 'echo $$ >>{pids}; exec sleep 600'])\n"
        "        node = [sys.executable, '-m', 'cnn_harness.jobs.node', f'127.0.0.1:{port}', 't']\n"
        "        subprocess.Popen([*node, work, work], env={**os.environ, 'DMLC_ROLE': role})\n"
        "asyncio.run(Supervisor(1, 1, 't').run('127.0.0.1', submit))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 3, 20)
    process.kill()
    process.wait()
    wait_until(lambda: not any(_alive(int(pid)) for pid in pids.read_text().split()), 35)


def test_a_node_that_falls_silent_is_lost(waited: Waited) -> None:
    job, failure = waited["silent"]
    assert "worker without" in str(failure)
    assert "not been heard of for 3 s" in str(failure)
    assert _all_gone(job)


@pytest.mark.parametrize(("role", "number"), [("worker", 1), ("server", 0)])
def test_a_stopped_process_ends_the_job_and_is_named(
    role: str, number: int, waited: Waited
) -> None:
    job, failure = waited[f"{role} {number} stopped"]
    assert str(failure).startswith(f"{role} ")
    assert f"(pid {job.pid(role, number)} on " in str(failure)
    assert "hangs: it is stopped, for 4 s; the job was ended" in str(failure)
    assert _all_gone(job)


def test_who_waits_for_others_to_start_does_not_hang(waited: Waited) -> None:
    _, failure = waited["waiting"]
    assert str(failure).startswith("1 workers did not start within 0 s")


def test_a_job_in_which_nobody_computes_is_ended(waited: Waited) -> None:
    job, failure = waited["stuck"]
    assert "hangs: " in str(failure)
    if "neither it nor any" not in str(failure):  # all that some systems tell
        assert f"(pid {job.pid('worker', 1)} on " in str(failure)
        assert "it writes to a pipe that nobody reads" in str(failure)
    assert _all_gone(job)


def test_what_ignores_being_asked_is_killed(waited: Waited) -> None:
    job, _ = waited["stubborn"]
    assert _all_gone(job)


def test_processes_that_never_come_are_counted(waited: Waited) -> None:
    job, failure = waited["incomplete"]
    assert str(failure).startswith("1 workers, 1 servers did not start within 0 s")
    assert _all_gone(job)
