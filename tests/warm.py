"""Commands that need not import the frameworks first: forks of a process that has, and no more.

`python warm.py SOCKET -m MODULE …`, `-c CODE` or `SCRIPT …` is what `python` makes of these words
in this folder, with this environment and these streams.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["warm_python"]

SERVE = "serve"


# MXNet first, its threads settled; torch's compiler is imported by exports and by optimizers
FRAMEWORKS = ("gluon_cnn", "torch._dynamo")


@contextmanager
def warm_python(folder: Path, imported: Sequence[str] = FRAMEWORKS) -> Iterator[list[str]]:
    """The words of a command that stands for `python` while this lasts, with these modules.

    What its processes start by `sys.executable` is such a fork, too.
    """
    import shlex
    import subprocess

    place, script = str(folder / "socket"), folder / "python"
    words = [sys.executable, "-I", "-S", __file__, place]
    script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(place)
        listening.listen()
        number = listening.fileno()
        command = [sys.executable, __file__, SERVE, str(number), str(script), *imported]
        server = subprocess.Popen(command, pass_fds=[number])
    try:
        yield words
    finally:
        server.kill()
        server.wait()


def serve(listening: socket.socket, python: str, imported: Sequence[str]) -> None:
    """Import, and fork for everyone who asks."""
    import gc
    import importlib

    for name in imported:
        importlib.import_module(name)
    del sys.path[0]  # the folder of this file
    sys.executable = python
    gc.freeze()
    while True:
        connection, _ = listening.accept()
        if not os.fork():
            listening.close()
            _be(connection)
        connection.close()


def _be(connection: socket.socket) -> None:
    """Become what a client asks for; does not return."""
    import atexit
    import traceback

    status = 1
    try:
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        words, folder, environment = json.loads(message)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        try:
            _run(words)
            status = 0
        except SystemExit as ended:
            if isinstance(ended.code, str):
                print(ended.code, file=sys.stderr)
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status]))
    finally:
        os._exit(status)


def _run(words: list[str]) -> None:
    import runpy
    import types

    if words[0] == "-m":
        sys.argv, sys.path[:0] = words[1:], [os.getcwd()]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[:0] = ["-c", *words[2:]], [""]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    else:
        sys.argv, sys.path[:0] = words[:], [os.path.dirname(os.path.abspath(words[0]))]
        runpy.run_path(words[0], run_name="__main__")


def ask(place: str, words: list[str]) -> int:
    """Have a fork run `words`; its exit status, 1 where it died."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(place)
        message = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(connection, [message], [0, 1, 2])
        return (connection.recv(1) or b"\x01")[0]


if __name__ == "__main__":
    if sys.argv[1] == SERVE:
        serve(socket.socket(fileno=int(sys.argv[2])), sys.argv[3], sys.argv[4:])
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
