"""A process that is ready and warm, and takes a turn whenever it is told to.

`python -m benchmarks.child CASE` gets one case of `python -m benchmarks` ready. For each line with
the number of a turn it prints one JSON object with what the turn measured; before the first, one
that says that it is ready. The side decides what is imported, and in which order: MXNet before
`gluon_cnn` stays untuned.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from benchmarks.cases import IMPORTED, Case, Turn
from cnn_harness.errors import CommandError

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
TIMEOUT = 900.0  # seconds for getting ready, and for one turn

Item = TypeVar("Item")


class Failure(CommandError):
    """A measurement that did not come to its end; one line."""


def in_turn(items: Sequence[Item], repeats: int) -> Iterator[tuple[int, Item]]:
    """The number of the turn, from 0, and whose it is; the order of the items changes with them."""
    for turn in range(repeats):
        shift = turn % len(items)
        for item in (*items[shift:], *items[:shift]):
            yield turn, item


class Child:
    """A process that `serve`s: started here, ready after `wait`; called, it takes the turn.

    Between turns it is stopped: none of its threads waits for work by turning, and a machine with
    children that wait looks as quiet as it is. It ends with the thread that started it.

    Raises: Failure naming the label and the reason.
    """

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self._label = label
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the process)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
                text=True, env=env, cwd=cwd, process_group=0,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise Failure(f"{label}: {error}") from None

    def __enter__(self) -> Child:
        try:
            self.wait()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def wait(self) -> None:
        """Until it is ready. Raises: Failure."""
        self._answer()

    def __call__(self, turn: int) -> Mapping[str, Any]:
        """What the turn measured. Raises: Failure."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{turn}\n")
            self._process.stdin.flush()
        return self._answer()

    @property
    def peak_mb(self) -> float:
        """The most memory that it had so far."""
        return peak_mb(self._process.pid)

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.communicate()
        self._said.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _answer(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], TIMEOUT)[0]:
            raise Failure(f"{self._label}: no result after {TIMEOUT:g} s")
        line = self._process.stdout.readline()
        if not line and (code := self._process.wait()):
            self._said.seek(0)
            last = (self._said.read().strip().splitlines() or ["no message"])[-1]
            raise Failure(f"{self._label}: exit code {code}: {last}")
        self._signal(signal.SIGSTOP)
        try:
            found: Mapping[str, Any] = json.loads(line)
        except ValueError:
            raise Failure(f"{self._label}: printed no result") from None
        return found


def serve(get_ready: Callable[[], Turn]) -> None:
    """The child's part: gets ready, and takes the turn whose number it reads, until no more come.

    What anything else prints on stdout goes to stderr.
    """
    # Whoever is stopped would not see that its input has ended
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        turn = get_ready()
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(turn(int(line)), allow_nan=False), file=answers, flush=True)


def peak_mb(process: int | str = "self") -> float:
    """The most memory that a process had since it was started; 0 where it has ended.

    Not `ru_maxrss`, which begins with what the process had that started it.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def main(argv: list[str] | None = None) -> int:
    """The process; returns 0."""
    (text,) = sys.argv[1:] if argv is None else argv
    case = Case(**json.loads(text))

    def get_ready() -> Turn:
        turn = _begin(case)

        def measured(number: int) -> dict[str, Any]:
            found = turn(number)
            return {**found, "peak_mb": found.get("peak_mb") or peak_mb()}

        return measured

    serve(get_ready)
    return 0


def _begin(case: Case) -> Turn:
    if case.part == "import":
        return _import(case)
    if case.side == "numpy":
        from benchmarks import numpy_side

        return numpy_side.begin(case)
    if case.side in ("untuned", "source"):
        warnings.simplefilter("ignore")  # gluon_cnn says that MXNet came first: it is meant to
        import mxnet_compat

        mxnet_compat.install()  # MXNet beside a current numpy; it settles no threads
        import mxnet  # noqa: F401
    if case.side == "source":
        from benchmarks import source_script

        return source_script.begin(case)
    if case.side in ("onnxruntime", "openvino"):
        from benchmarks import numpy_side

        return numpy_side.begin_engine(case)
    if case.side in ("untuned", "own_loop", "ours", "auto"):
        from benchmarks import gluon_side

        return gluon_side.begin(case)
    from benchmarks import torch_side

    return torch_side.begin(case)


def _import(case: Case) -> Turn:
    """Seconds until a new process has imported a side's package, its own start left out."""
    code = f"import time; t = time.perf_counter(); {IMPORTED[case.side]}; s = time.perf_counter()"
    command = [sys.executable, "-W", "ignore", "-c", f"{code}; print(s - t)"]

    def turn(_: int) -> dict[str, Any]:
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        return {"seconds": float(said)}

    return turn


if __name__ == "__main__":
    sys.exit(main())
