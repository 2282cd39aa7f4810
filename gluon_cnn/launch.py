"""Start a distributed job with the launcher that ships in MXNet: `python -m gluon_cnn.launch`.

MXNet's wheel holds dmlc_tracker, which its `tools/launch.py` drives: it starts a scheduler, servers
and workers on this machine or through ssh, mpirun, srun and others, and tells them of each other.
It does not notice that one of them dies, and the others wait for ever. So each process is started
under a `cnn_harness.jobs.node`, and a `cnn_harness.jobs.supervise` here ends the job when one is
lost.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import ipaddress
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gluon_cnn_parity import is_installed, missing
from cnn_harness.cli import Parser, as_command, natural, positive
from cnn_harness.errors import CommandError, MissingExtra, UsageError
from cnn_harness.jobs.node import encode
from cnn_harness.jobs.supervise import JobFailed, Limits, Supervisor
from cnn_harness.jobs.vitals import STALL
from gluon_cnn.runtime import settings as runtime
from gluon_cnn_parity.cli import one_line
from gluon_cnn_parity.stderr import say_if_read
from gluon_cnn_parity.terminal import coloured

__all__ = ["LAUNCHERS", "SERVE", "main", "read_hosts", "require_plain", "submit"]

LAUNCHERS = ("local", "ssh", "mpi", "slurm", "sge", "kubernetes", "yarn")
LOOPBACK = "127.0.0.1"
# Variables that dmlc_tracker exports on the other hosts, where they are set here
PASSED_BY_SSH = (
    "OMP_NUM_THREADS", "KMP_AFFINITY", "LD_LIBRARY_PATH", "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY", "DMLC_INTERFACE",
)  # fmt: skip

# MXNet 1.9.1's server never sets the flag that makes it keep everything but float32 in a float32
# copy: it is whatever the heap held. Where it was not 0, sums of float64 are rounded, or wrong. So
# servers run with a heap that is filled with zeros (glibc fills with the complement of the number,
# and not what comes from its per-thread cache).
ZEROED = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.perturb=255"
# MXNet becomes a server or the scheduler while it is imported.
SERVE = ("env", ZEROED, sys.executable, "-c", "import gluon_cnn")


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no command: put it after --, such as -- python -m gluon_cnn.train")
    if args.launcher == "local" and shutil.which(command[0]) is None:
        raise UsageError(f"no program is called {command[0]!r} here, or it may not be run")
    if args.launcher in ("ssh", "mpi") and args.hostfile is None:
        raise UsageError(f"--launcher {args.launcher} needs -H, a file with a host a line")
    if args.hostfile is not None:
        read_hosts(Path(args.hostfile))
    if args.launcher == "ssh":
        require_plain({"this folder": os.getcwd(), "Python's path": sys.executable,
                       **{name: os.getenv(name, "") for name in PASSED_BY_SSH}})  # fmt: skip
    if not is_installed("dmlc_tracker"):  # it lies in MXNet's wheel
        raise MissingExtra(missing("mxnet"))
    address = args.address or _address(args.launcher)
    settings = {}
    if args.launcher == "local":
        # Every process is here: no traffic leaves the loopback interface, and cores are shared.
        settings["DMLC_NODE_HOST"] = LOOPBACK
        settings["OMP_NUM_THREADS"] = str(max(1, runtime.cores() // args.workers))
    token = secrets.token_hex(16)
    supervisor = Supervisor(
        args.workers, args.servers, token,
        limits=Limits(start=args.start_timeout, stall=args.stall_timeout), settings=settings,
        say=say_if_read,
    )  # fmt: skip

    def start(port: int) -> None:
        words = [f"{address}:{port}", token, encode(command), encode(SERVE)]
        submit([sys.executable, "-m", "cnn_harness.jobs.node", *words], args, address)

    try:
        asyncio.run(supervisor.run(address, start))
    except JobFailed as failure:  # a worker may hang since nobody reads what all of them write
        say_if_read(f"{coloured('error:', 'red', sys.stderr)} {one_line(failure)}")
        return failure.exit_code
    except OSError as error:
        raise CommandError(f"--address {address} cannot be listened on: {error.strerror}") from None
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m gluon_cnn.launch",
        description="Run a training command on several workers, over MXNet's parameter server.",
        epilog="Each worker gets an equal part of every batch, so --batch-size is the job's, not "
        "a worker's. Worker 0 evaluates and writes the run folder. Exit status: 0 when every "
        "worker ended well; that of the process that failed, or 1 where one was killed or lost.",
    )
    parser.add_argument("-n", "--workers", type=positive, required=True, help="worker processes")
    parser.add_argument("-s", "--servers", type=positive, default=1, help="parameter servers")
    parser.add_argument(
        "-H", "--hostfile", metavar="FILE", help="a host a line, HOST or HOST:PORT (ssh, mpi)"
    )
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, default="local", help="how processes are started"
    )
    parser.add_argument(
        "--address", metavar="IP",
        help="address of this machine that all hosts reach; unset: 127.0.0.1 for local, else the "
        "address of the host's name",
    )  # fmt: skip
    parser.add_argument(
        "--start-timeout", type=positive, default=180, metavar="SECONDS",
        help="how long to wait for all processes to start",
    )  # fmt: skip
    parser.add_argument(
        "--stall-timeout", type=natural, default=int(STALL), metavar="SECONDS",
        help="end the job when a process is stopped, or no worker computes, for so long; 0: never",
    )  # fmt: skip
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND",
        help="such as -- python -m gluon_cnn.train --model lenet",
    )  # fmt: skip
    return parser


def read_hosts(path: Path) -> list[str]:
    """The hosts in a hostfile, checked: dmlc_tracker hands them to a shell as they are.

    Raises: CommandError for a file that cannot be read, has no host, or a line that is none.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"-H {path} cannot be read: {error}") from None
    hosts = [line for line in lines if line]
    if not hosts:
        raise CommandError(f"-H {path} names no host, expected one a line")
    known = r"[A-Za-z0-9_][A-Za-z0-9_.-]*(@[A-Za-z0-9_][A-Za-z0-9_.-]*)?(:\d{1,5})?( +slots=\d+)?"
    for host in hosts:
        if not re.fullmatch(known, host):
            raise CommandError(f"-H {path} has the line {host!r}, expected HOST or HOST:PORT")
    return hosts


def require_plain(values: Mapping[str, str]) -> None:
    """Raise CommandError for a value with characters that a shell reads.

    dmlc_tracker writes these as they are into the command that ssh gives to the other host's shell.
    """
    for name, value in values.items():
        read = "".join(sorted(set(re.findall(r"[^\w./:+,=@%-]", value))))
        if read:  # the value may be a secret: only these characters are shown
            raise CommandError(
                f"--launcher ssh cannot pass on {name}, which has {read!r}, read by a shell; "
                "expected letters, digits and . / : + , = @ % - _"
            )


def _address(launcher: str) -> str:
    if launcher == "local":
        return LOOPBACK
    try:
        address = socket.gethostbyname(socket.getfqdn())
    except OSError as error:
        raise CommandError(f"this host's name has no address ({error}): pass --address") from None
    if ipaddress.ip_address(address).is_loopback:
        raise CommandError(
            f"this host's name means {address}, which other hosts cannot reach: pass --address"
        )
    return address


def submit(node: Sequence[str], args: Any, address: str) -> None:
    """Have dmlc_tracker start `node` once for the scheduler and for each server and worker.

    Returns when the scheduler has ended. Raises: CommandError where a launcher's own program fails.
    """
    # dmlc_tracker was written for Python before 3.9, which removed this name.
    threading.Thread.isAlive = threading.Thread.is_alive  # type: ignore[attr-defined]
    threading.excepthook = _quiet
    logging.getLogger().setLevel(logging.WARNING)
    tracker: Any = importlib.import_module("dmlc_tracker.tracker")
    options = importlib.import_module("dmlc_tracker.opts")
    cluster = importlib.import_module(f"dmlc_tracker.{args.launcher}")
    tracker.get_host_ip = lambda *_: address  # its own guess asks for a route to 10.255.255.255
    first = _free_port(address)
    whole = tracker.PSTracker
    tracker.PSTracker = lambda **kwargs: whole(**kwargs, port=first, port_end=first + 100)
    arguments = [
        "--cluster", args.launcher, "--num-workers", str(args.workers),
        "--num-servers", str(args.servers), "--host-ip", address,
    ]  # fmt: skip
    if args.hostfile is not None:
        arguments += ["--host-file", args.hostfile]
    try:
        cluster.submit(options.get_opts([*arguments, *node]))
    finally:
        tracker.PSTracker = whole


def _quiet(args: threading.ExceptHookArgs) -> None:
    """dmlc_tracker's threads raise where a process of theirs fails: one line is enough."""
    say_if_read(f"launcher: {args.exc_type.__name__}: {str(args.exc_value)[:300]}")


def _free_port(address: str) -> int:
    """A port that is free now; two jobs that start at once would else take the tracker's first."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return min(probe.getsockname()[1], 65_400)


if __name__ == "__main__":
    sys.exit(main())
