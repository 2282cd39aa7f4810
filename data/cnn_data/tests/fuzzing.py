"""Damaged files by the thousand: readers must accept them or refuse them in one line.

A target is a reader with whole files to start from. `fuzz` damages them with hypothesis; the
command

    python -m cnn_data.tests.fuzzing cnn_data.tests.targets idx -max_total_time=60

hands one target to atheris, which looks for new paths (`pip install -e '.[fuzz]'`); what stands
after the target's name goes to libFuzzer.
"""

from __future__ import annotations

import importlib
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MEMORY = 2 * 2**30  # bytes that a reader may ask for beyond what the process has
SECONDS = 20.0  # that one file may take, on a busy machine

# Lengths and counts that a header may promise.
_NUMBERS = [
    value.to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)
    for order in ("little", "big")
]


@dataclass(frozen=True)
class Target:
    """`check` raises where the reader did something else than accept or refuse the file."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


@contextmanager
def one_line_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Let the reader refuse with these errors, whose message is one line."""
    try:
        yield
    except kinds as error:
        message = str(error)
        assert message.strip(), "an error that says nothing"
        assert len(message.splitlines()) == 1, message
        assert len(message) < 2_000, message


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A whole file with up to six faults: bits, numbers, cuts, repeats, insertions."""
    content = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(content) - 1)) | st.integers(0, 64))
        length = draw(st.integers(0, 32))
        match draw(st.sampled_from(["flip", "number", "bytes", "cut", "end", "repeat", "insert"])):
            case "flip" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "number":
                number = draw(st.sampled_from(_NUMBERS))
                content[place : place + len(number)] = number
            case "bytes":
                content[place : place + length] = draw(st.binary(max_size=32))
            case "cut":
                del content[place : place + length]
            case "end":
                del content[place:]
            case "repeat":
                content[place:place] = content[place : place + length] * draw(st.integers(1, 50))
            case "insert":
                content[place:place] = draw(st.binary(max_size=32))
    return bytes(content)


@contextmanager
def limited_memory() -> Iterator[None]:
    """Make an allocation of more than `MEMORY` fail, here and in the libraries below."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(target: Target, examples: int) -> None:
    """Check a target on so many damaged files, under limits of memory and time."""
    seeds = target.seeds()
    for seed in seeds:
        target.check(seed)
    run = settings(
        max_examples=examples,
        deadline=SECONDS * 1000,
        database=None,
        derandomize=examples < 1000,  # the few are the same each time, the many are not
        suppress_health_check=list(HealthCheck),
    )(given(content=damaged(seeds))(lambda content: target.check(content)))
    with limited_memory():
        run()


def main(argv: Sequence[str]) -> None:
    module, name, *flags = argv
    import atheris

    # `-m` has imported this room already: once more, so that atheris sees its branches.
    for known in [name for name in sys.modules if name.partition(".")[0] == "cnn_data"]:
        del sys.modules[known]
    with atheris.instrument_imports(
        include=["cnn_data", "cnn_harness", "gluon_cnn", "torch_ref", "mxnet_files"]
    ):
        target: Target = importlib.import_module(module).TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            target.check(seed)
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], "-rss_limit_mb=4096", *flags, corpus], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
