"""One process of a distributed job, and the one that answers for it to the supervisor.

`python -m cnn_harness.jobs.node ADDRESS TOKEN WORK SERVE`, started by MXNet's launcher in place of
the command, on whatever host and by whatever means: ssh, mpirun, srun. WORK is what a worker runs
and SERVE what a server or the scheduler does (JSON lists in base64, which passes through any number
of shells). It starts the command, reports how it ends, and ends it when the supervisor says so or
is gone. It ends with 0 whatever happens to the command: the launcher's own threads know only how to
print a traceback.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from cnn_harness.jobs.supervise import BEAT, LOST
from cnn_harness.jobs.vitals import vitals_of

REPORT = "GLUON_CNN_REPORT"  # the descriptor on which a worker writes its rank
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def encode(command: Sequence[str]) -> str:
    """A command as one word without any character that a shell reads."""
    return base64.urlsafe_b64encode(json.dumps(list(command)).encode()).decode()


def main(argv: Sequence[str]) -> int:
    """Run one process of a job to its end; returns 1 where the supervisor cannot be reached."""
    address, token, work, serve = argv
    host, _, port = address.rpartition(":")
    role = os.getenv("DMLC_ROLE", "worker")
    command = json.loads(base64.urlsafe_b64decode(work if role == "worker" else serve))
    try:
        connection = socket.create_connection((host, int(port)), timeout=30)
    except OSError as error:
        print(f"error: no supervisor at {address}: {error}", file=sys.stderr)
        return 1
    connection.settimeout(LOST)
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, messages), daemon=True).start()
    _send(connection, {"hello": 1, "token": token, "role": role, "host": socket.gethostname()})
    place = messages.get()
    if "place" not in place:
        return 1
    process, ranks = _start(command, place["place"])
    _send(connection, {"started": process.pid})
    threading.Thread(target=_forward, args=(connection, ranks), daemon=True).start()
    code = _attend(connection, messages, process)
    _send(connection, {"exit": code})
    return 0


def _start(command: Sequence[str], settings: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """The command in a session of its own, so that all that it starts ends with it.

    Returns the process, and the descriptor from which its rank can be read once it knows it.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def tied_to_its_node() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    ranks, report = os.pipe()
    changed = [f"{name}={value}" for name, value in {**settings, REPORT: str(report)}.items()]
    process = subprocess.Popen(
        ["env", *changed, *command],
        start_new_session=True, preexec_fn=tied_to_its_node, pass_fds=(report,),
    )  # fmt: skip
    os.close(report)
    return process, ranks


def _forward(connection: socket.socket, ranks: int) -> None:
    with os.fdopen(ranks) as lines:
        for line in lines:
            if line.strip().isdigit():
                _send(connection, {"rank": int(line)})


def _attend(
    connection: socket.socket,
    messages: queue.Queue[dict[str, Any]],
    process: subprocess.Popen[bytes],
) -> int:
    """Wait for the process, beating; returns its exit code, negative for a signal."""
    kill_at, beat_at = float("inf"), 0.0
    while (code := process.poll()) is None:
        now = time.monotonic()
        if now >= beat_at:
            found = vitals_of(process.pid)  # it leads a session of its own
            _send(connection, {"beat": True, "vitals": found and [found.cpu, found.waits]})
            beat_at = now + BEAT
        if now >= kill_at:
            _signal_all(process, signal.SIGKILL)
        try:
            message = messages.get(timeout=0.1)
        except queue.Empty:
            continue
        if "stop" in message:
            _signal_all(process, message["stop"])
            kill_at = min(kill_at, time.monotonic() + float(message["grace"]))
    _signal_all(process, signal.SIGKILL)  # whatever it has left behind
    return code


def _signal_all(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _listen(connection: socket.socket, messages: queue.Queue[dict[str, Any]]) -> None:
    """Put what the supervisor says into the queue; that it is gone means to stop at once."""
    try:
        for line in connection.makefile("rb"):
            message = json.loads(line)
            if "beat" not in message:
                messages.put(message)
    except (OSError, ValueError):
        pass
    messages.put({"stop": int(signal.SIGTERM), "grace": 5.0})


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the listener notices
        connection.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
