"""Start the mirror in several processes of this machine: `python -m torch_ref.launch`.

The processes are torchrun's. But torchrun has them meet at a port of every interface, and ends in a
traceback where that is taken: here it is one of loopback that the system has found free.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence

from gluon_cnn_parity import require

if __name__ == "__main__":
    require("torch", extras="torch", program="python -m torch_ref.launch")

from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from cnn_harness.cli import Parser, as_command, positive
from cnn_harness.errors import UsageError
from cnn_harness.jobs.supervise import ENDED, how_ended
from cnn_harness.jobs.watchdog import SAID
from gluon_cnn_parity.stderr import say_if_read
from gluon_cnn_parity.terminal import coloured

__all__ = ["main"]

LOOPBACK = "127.0.0.1"


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parser().parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no command: put it after --, such as -- python -m torch_ref.train")
    if shutil.which(command[0]) is None:
        raise UsageError(f"no program is called {command[0]!r} here, or it may not be run")
    if os.getenv("OMP_NUM_THREADS") is None:
        cores = len(os.sched_getaffinity(0))
        command = ["env", f"OMP_NUM_THREADS={max(1, cores // args.workers)}", *command]
    # What torchrun says of a worker that fails is said below, in a line
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as logs:
        store = _listen(args.workers)
        config = LaunchConfig(
            1, 1, args.workers, logs_specs=DefaultLogsSpecs(logs), run_id="torch_ref",
            rdzv_backend="static", rdzv_endpoint=f"{LOOPBACK}:{store.port}",
            rdzv_configs={"rank": 0}, max_restarts=0,
        )  # fmt: skip
        try:
            # The agent replaces names after a $ in the arguments, and $$ by $
            elastic_launch(config, command[0])(*(word.replace("$", "$$") for word in command[1:]))
        except SignalException as stop:
            return _failed(stop.sigval.name + ":", 128 + stop.sigval)
        except ChildFailedError as failed:
            if any(each.exitcode == SAID for each in failed.failures.values()):
                return 1
            rank, first = failed.get_first_failure()
            how = f"process {rank} (pid {first.pid}) {how_ended(first.exitcode)};"
            return _failed(how, first.exitcode if first.exitcode > 0 else 1)
    return 0


def _failed(what: str, exit_code: int) -> int:
    """Say why the job ended, where somebody reads it: a process may hang since nobody does."""
    say_if_read(f"{coloured('error:', 'red', sys.stderr)} {what} {ENDED}")
    return exit_code


def _listen(workers: int) -> TCPStore:
    """Where the processes meet; torchrun's own store of this process and port is this one."""
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        return TCPStore(
            LOOPBACK, port, workers, True, wait_for_workers=False, multi_tenant=True,
            master_listen_fd=server.detach(),
        )  # fmt: skip


def _parser() -> Parser:
    parser = Parser(
        prog="python -m torch_ref.launch",
        description="Run a training command in several processes of this machine, over loopback.",
        epilog="Each process gets an equal part of every batch, so --batch-size is the job's. "
        "Process 0 evaluates and writes the run folder. On several machines: torchrun. "
        "Exit status: 0 when every process ended well; that of the process that failed, or 1 "
        "where one was killed.",
    )
    parser.add_argument("-n", "--workers", type=positive, required=True, help="processes")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- COMMAND",
        help="such as -- python -m torch_ref.train --model lenet",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
