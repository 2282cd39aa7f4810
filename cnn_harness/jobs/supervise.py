"""The supervisor of a distributed job: it knows every process, and ends the job when one is lost.

MXNet's launcher starts processes and waits; its parameter server waits for ever for a worker that
has died. So each process runs under a `cnn_harness.jobs.node`, which keeps a connection to the
supervisor: lines of JSON, `hello` and `exit` from the node, `place` and `stop` to it, and a beat
both ways. A node that ends badly, is not heard of any more, or whose process hangs, ends the job.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cnn_harness.errors import CommandError
from cnn_harness.jobs.vitals import STALL, Vitals, Watch

BEAT = 2.0  # seconds between two signs of life
LOST = 20.0  # seconds without one after which a node counts as lost


@dataclass(frozen=True)
class Limits:
    """How long the supervisor waits, in seconds."""

    lost: float = LOST
    stall: float = STALL  # for a worker to compute something; 0: for ever
    start: float = 180.0  # for all processes to come
    grace: float = 10.0  # between asking a process to stop and killing it
    save: float = 60.0  # for worker 0 to finish its step and save, when the job is interrupted
    linger: float = 30.0  # for servers to leave after the last worker


class JobFailed(CommandError):
    """A process was lost or failed; `exit_code` is what the job ends with."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(eq=False)
class Node:
    """One process of the job, as the supervisor knows it."""

    role: str  # "scheduler", "server" or "worker"
    number: int  # in the order in which they came
    host: str
    writer: asyncio.StreamWriter
    pid: int | None = None
    rank: int | None = None  # of a worker, as the parameter server has given it
    code: int | None = None  # of its exit; negative for a signal
    heard: float = 0.0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """`worker of rank 1 (pid 4242 on HOST)`."""
        which = {"scheduler": "", "server": f" {self.number}"}.get(self.role, " without a rank yet")
        if self.rank is not None:
            which = f" of rank {self.rank}"
        pid = "" if self.pid is None else f"pid {self.pid} on "
        return f"{self.role}{which} ({pid}{self.host})"

    def send(self, message: dict[str, Any]) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(message).encode() + b"\n")


class Supervisor:
    """Listens for the nodes of one job of `workers`, `servers` and a scheduler."""

    def __init__(
        self,
        workers: int,
        servers: int,
        token: str,
        *,
        limits: Limits | None = None,
        settings: dict[str, str] | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._expected = {"worker": workers, "server": servers, "scheduler": 1}
        self._token, self._limits = token, limits or Limits()
        self._settings, self._say = settings or {}, say
        self.nodes: list[Node] = []
        self._vitals = Watch(self._limits.stall)
        self._verdict: asyncio.Future[None] | None = None

    async def run(self, address: str, submit: Callable[[int], None]) -> None:
        """Listen on `address`, call `submit(port)` in a thread to start the job, and see it end.

        Returns when every worker has exited with 0. Raises: JobFailed otherwise, naming the
        process, when all others have been stopped.
        """
        loop = asyncio.get_running_loop()
        self._verdict = loop.create_future()
        server = await asyncio.start_server(self._serve, address, 0)
        port = server.sockets[0].getsockname()[1]
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted, number)
        submitted = asyncio.ensure_future(_in_daemon(submit, port))
        submitted.add_done_callback(self._submitted)
        watching = asyncio.ensure_future(self._watch())
        try:
            await self._verdict
            await self._leave()
        except JobFailed as failure:
            if failure.exit_code > 128:  # interrupted: worker 0 saves while the others serve it
                leader = [node for node in self.nodes if node.rank == 0]
                await self._stop(leader, self._limits.save, failure.exit_code - 128)
            raise
        finally:
            watching.cancel()
            await self._stop(self.nodes, self._limits.grace, signal.SIGTERM)
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            server.close()

    def _fail(self, message: str, exit_code: int = 1) -> None:
        assert self._verdict is not None
        if not self._verdict.done():
            self._verdict.set_exception(JobFailed(message, exit_code))

    def _interrupted(self, number: int) -> None:
        name = signal.Signals(number).name
        self._fail(f"{name}: the job was ended; continue it with --resume", 128 + number)

    def _submitted(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(f"the launcher could not start the job: {error}")

    def _of(self, role: str) -> list[Node]:
        return [node for node in self.nodes if node.role == role]

    def _missing(self) -> dict[str, int]:
        """How many processes of each role have not come yet: the others wait for them."""
        return {role: count - len(self._of(role)) for role, count in self._expected.items()}

    async def _watch(self) -> None:
        """Notice nodes that never come, and nodes that are not heard of any more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(min(BEAT, self._limits.lost / 4))
            now = loop.time()
            for node in self.nodes:
                node.send({"beat": True})
                if node.code is None and now - node.heard > self._limits.lost:
                    self._fail(
                        f"{node.name} has not been heard of for {self._limits.lost:.0f} s; {ENDED}"
                    )
            workers = [node for node in self._of("worker") if node.code is None]
            hanging = self._vitals.hanging(workers, now) if self._limits.stall else None
            if hanging is not None and hanging[0].code is None:
                node, why = hanging
                self._fail(f"{node.name} hangs: {why}, for {self._limits.stall:.0f} s; {ENDED}")
            missing = self._missing()
            if any(missing.values()) and now - began > self._limits.start:
                words = ", ".join(f"{n} {role}s" for role, n in missing.items() if n)
                self._fail(
                    f"{words} did not start within {self._limits.start:.0f} s: is every host "
                    "reachable, and is this package installed on it?"
                )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk with one node until it is gone."""
        try:
            node = await self._admit(reader, writer)
        except (ValueError, KeyError, TypeError, TimeoutError, ConnectionError):
            node = None
        if node is None:  # not one of ours: say nothing
            writer.close()
            return
        try:
            while line := await reader.readline():
                node.heard = asyncio.get_running_loop().time()
                message = json.loads(line)
                if (
                    message.get("vitals")
                    and node.code is None
                    and not any(self._missing().values())
                ):
                    self._vitals.see(node, Vitals(*message["vitals"]), node.heard)
                node.pid = message.get("started", node.pid)
                node.rank = message.get("rank", node.rank)
                if "exit" in message:
                    node.code = int(message["exit"])
                    self._exited(node)
        except (ValueError, ConnectionError):
            pass
        except asyncio.CancelledError:
            return  # the job is over, and this node has not answered
        if node.code is None:
            self._fail(f"{node.name} was lost: its connection is closed; {ENDED}")
        node.gone.set()
        writer.close()

    async def _admit(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Node | None:
        hello = json.loads(await asyncio.wait_for(reader.readline(), 30))
        role = hello["role"]
        known = self._of(role)
        if not hmac.compare_digest(str(hello["token"]), self._token):
            return None
        if len(known) >= self._expected[role]:
            return None
        node = Node(role, len(known), str(hello["host"]), writer)
        node.heard = asyncio.get_running_loop().time()
        self.nodes.append(node)
        node.send({"place": self._settings})
        return node

    def _exited(self, node: Node) -> None:
        assert self._verdict is not None
        if node.code != 0:
            code = node.code or 0
            self._fail(f"{node.name} {how_ended(code)}; {ENDED}", code if code > 0 else 1)
        workers = self._of("worker")
        done = len(workers) == self._expected["worker"] and all(n.code == 0 for n in workers)
        if done and not self._verdict.done():
            self._verdict.set_result(None)

    async def _leave(self) -> None:
        """Let servers and scheduler end by themselves after the last worker."""
        leaving = [asyncio.ensure_future(node.gone.wait()) for node in self.nodes]
        _, late = await asyncio.wait(leaving, timeout=self._limits.linger)
        for task in late:
            task.cancel()
        if late:
            self._say("the parameter server did not end by itself and was stopped")

    async def _stop(self, nodes: list[Node], grace: float, number: int) -> None:
        """Have the nodes end their processes: asked first, killed after `grace` seconds."""
        running = [node for node in nodes if not node.gone.is_set()]
        for node in running:
            node.send({"stop": int(number), "grace": grace})
        waiting = [asyncio.ensure_future(node.gone.wait()) for node in running]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=grace + 5)
            for task in late:
                task.cancel()


ENDED = "the job was ended; continue it with --resume"


def how_ended(code: int) -> str:
    """What an exit code, negative for a signal, says of a process.

    >>> how_ended(-9)
    'was killed by SIGKILL'
    """
    return f"was killed by {_signal(-code)}" if code < 0 else f"exited with status {code}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def _in_daemon(work: Callable[[int], None], port: int) -> None:
    """Run `work(port)` in a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def body() -> None:
        error: BaseException | None = None
        try:
            work(port)
        except Exception as caught:
            error = caught
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=body, name="submit", daemon=True).start()
    await done
