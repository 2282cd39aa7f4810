"""Memory that the system refuses: one line, through the commands too, whatever native code does."""

import errno
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gluon_cnn_parity import memory
from cnn_harness.tests.runs import one_thread

MIB = 2**20
IMAGES = 4000  # in one batch

# What native libraries were seen to say, MXNet's and torch's with `ulimit -v`
REFUSALS = [
    "MXNetError: Failed to allocate CPU Memory",
    "std::bad_alloc",
    "MXNetError: could not create a memory object",
    "could not create a primitive",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 147456000 bytes. Error code 12 (Cannot allocate memory)",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "cudaMalloc retry failed: out of memory",
    "libtorch_cpu.so: failed to map segment from shared object",
    "Failed to allocate memory for requested buffer of size 78643200",
    "can't start new thread",
]
OTHERS = [
    "shapes differ: (2, 3) and (3, 2)",
    "could not create a primitive descriptor for a convolution forward propagation primitive",
    "libgomp.so.1: cannot allocate memory in static TLS block",  # order of imports, not memory
    "the memory of this net",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_words_of_native_libraries_are_known(words: str) -> None:
    assert memory.refused(RuntimeError(f"{words}\n")) == words


@pytest.mark.parametrize("words", OTHERS)
def test_other_errors_are_no_lack_of_memory(words: str) -> None:
    assert memory.refused(RuntimeError(words)) is None


def test_pythons_own_refusals_are_known_and_what_follows_from_one() -> None:
    with pytest.raises(MemoryError) as array:
        np.empty(1 << 60, np.uint8)
    assert "Unable to allocate" in str(memory.refused(array.value))
    assert memory.refused(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert memory.refused(OSError(errno.ENOSPC, "No space left on device")) is None
    assert memory.refused(SystemError("error return without exception set")) is None
    wrapped = ImportError("Error importing numpy")
    wrapped.__cause__ = ImportError("libopenblas.so: failed to map segment from shared object")
    assert memory.refused(wrapped) == str(wrapped.__cause__)


def _limited(mib: int, *words: str, check: bool = True) -> tuple[int, list[str]]:
    """The exit code of a Python that may have so much memory, and its lines on stderr."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mib * MIB, mib * MIB))

    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=limit, env=one_thread(),
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.splitlines()


def _training(package: str, mib: int, folder: Path) -> tuple[int, list[str]]:
    """As `_limited`, of one epoch of training whose batch takes 1 GB in torch, more in MXNet."""
    words = f"-m {package}.train --model cifar_cnn --epochs 1 --batch-size {IMAGES} --out {folder}"
    return _limited(mib, *words.split())


def _is_one_line(ended: tuple[int, list[str]], *, mib: int) -> None:
    code, (*before, last) = ended
    assert code == 1
    assert all(line.startswith(("warning: ", "epoch:")) for line in before)
    assert "error: not enough memory: " in last or f"where memory is limited to {mib} MiB" in last
    assert last.endswith(memory.REMEDY)


@pytest.mark.parametrize(
    ("package", "mib"),
    # Refused while modules load, a batch, and what MXNet 1.9.1 ends by SIGABRT afterwards
    [("gluon_cnn", 200), ("gluon_cnn", 1500), ("torch_ref", 300), ("torch_ref", 850)],
)
def test_a_training_that_is_refused_memory_ends_in_one_line(
    package: str, mib: int, tmp_path: Path
) -> None:
    _is_one_line(_training(package, mib, tmp_path / "run"), mib=mib)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["gluon_cnn", "torch_ref"])
def test_no_limit_ends_a_training_in_anything_else(package: str, tmp_path: Path) -> None:
    refused = 0
    for mib in (50, 150, 250, *range(700, 2700, 200)):
        ended = _training(package, mib, tmp_path / str(mib))
        if ended[0]:
            refused += 1
            _is_one_line(ended, mib=mib)
    assert refused > 3


# A command that does what the last word says; `watch` is what this distribution calls first
COMMAND = """
import os, sys
from gluon_cnn_parity import memory
memory.watch("command")
print(os.getpid(), flush=True)
exec(sys.argv[1])
"""


def test_native_code_that_dies_under_a_limit_is_one_line() -> None:
    code, lines = _limited(4096, "-c", COMMAND, "os.abort()")
    assert code == 1
    assert lines == [
        "command: error: native code was ended by SIGABRT where memory is limited to 4096 MiB; "
        f"{memory.REMEDY}"
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("sys.exit(7)", 7),
        ("os._exit(0)", 0),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
        ("os.kill(os.getppid(), 15); import time; time.sleep(60)", -signal.SIGTERM),
        ("memory.end_quietly(); sys.exit(1)", 1),
    ],
)
def test_a_command_under_a_limit_ends_as_it_would_without(body: str, code: int) -> None:
    assert _limited(4096, "-c", COMMAND, body) == (code, [])


def test_a_command_under_a_limit_gets_the_signals_that_its_parent_gets() -> None:
    waits = "import signal; signal.signal(2, lambda *_: os._exit(5)); print(flush=True); " + (
        "import time; time.sleep(60)"
    )
    process = subprocess.Popen(
        ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", sys.executable, "-c", COMMAND, waits],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    child = int(process.stdout.readline())
    assert child != process.pid
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 5


def test_a_command_under_a_limit_dies_with_its_parent() -> None:
    waits = "import time; time.sleep(60)"
    process = subprocess.Popen(
        ["sh", "-c", 'ulimit -v 4000000; exec "$@"', "sh", sys.executable, "-c", COMMAND, waits],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait(30)
    assert process.stdout.read() == ""  # its end is that of every process that holds it
    assert process.returncode == -signal.SIGKILL


def test_without_a_limit_a_command_is_one_process() -> None:
    code = f"{COMMAND}\nprint(os.getpid())"
    done = subprocess.run(
        [sys.executable, "-c", code, "pass"], capture_output=True, text=True, check=True
    )
    one, same = done.stdout.split()
    assert one == same
