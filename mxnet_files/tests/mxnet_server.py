"""MXNet in a process of its own, that computes the graphs it is sent: odd input may crash it.

`Server.run` gives what MXNet computed, a `Refusal` with its message, or a `Crash`, after which the
next call starts another process.
"""

from __future__ import annotations

import os
import pickle
import select
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

SECONDS = 60.0  # for one graph
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MXNET_ENGINE_TYPE": "NaiveEngine",
    "MXNET_SUBGRAPH_BACKEND": "NONE",  # the default one is wrong about some graphs
    "DMLC_LOG_STACK_TRACE_DEPTH": "0",
}


# Beside oneDNN, MXNet refuses, dies of or hangs in what it computes without it
WITHOUT_ONEDNN = ("amp_multicast",)


class Refusal(str):
    """Why MXNet did not compute a graph."""


class Crash(Refusal):
    """Its process died."""


def send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    size = stream.read(8)
    if len(size) < 8:
        raise EOFError
    return pickle.loads(stream.read(int.from_bytes(size, "little")))


class Server:
    """Graphs in, arrays out."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by whether oneDNN is on

    def run(self, text: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray] | Refusal:
        """The outputs of the symbol `text` on `arrays`, which have its variables by name."""
        without = any(f'"op": "{name}"' in text for name in WITHOUT_ONEDNN)
        onednn = "0" if without else "1"
        if onednn not in self._processes:
            self._processes[onednn] = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT, "MXNET_MKLDNN_ENABLED": onednn},
            )
        process = self._processes[onednn]
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            send(process.stdin, (text, dict(arrays)))
            ready, _, _ = select.select([process.stdout], [], [], SECONDS)
            if not ready:
                process.kill()
            answer = receive(process.stdout)
        except (EOFError, BrokenPipeError):
            process.wait()
            del self._processes[onednn]
            return Crash(f"MXNet's process ended with status {process.returncode}")
        return Refusal(answer) if isinstance(answer, str) else answer

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()


def compute(mx: Any, text: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """One forward pass in inference mode; () is a shape where operators of mx.np take part."""
    with mx.util.np_shape('"op": "_np' in text):
        return forward(mx, text, arrays)


def forward(mx: Any, text: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    symbol = mx.sym.load_json(text)
    given = {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}
    executor = symbol.bind(
        mx.cpu(),
        {name: given[name] for name in symbol.list_arguments()},
        grad_req="null",
        aux_states={name: given[name] for name in symbol.list_auxiliary_states()},
    )
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what MXNet prints is no answer
    import mxnet_compat

    mxnet_compat.install()
    import mxnet as mx

    while True:
        try:
            text, arrays = receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            send(answers, compute(mx, text, arrays))
        except (mx.MXNetError, ValueError, TypeError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            send(answers, lines[-1] if lines else type(error).__name__)


if __name__ == "__main__":
    main()
