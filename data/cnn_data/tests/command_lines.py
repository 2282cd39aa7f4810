"""Hostile command lines by the thousand: a command must do as told or refuse in one line."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# How many command lines a test tries
AMOUNTS = [
    pytest.param(40, id="few"),
    pytest.param(3_000, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
]
_HERE = frozenset({"file", "pipe", "empty"})
_COMMON = ("--json", "--help", "--", "-", "-x", "--no-such")
_VALUES = [
    "", " ", "0", "-1", "1e400", "nan", "9" * 400, "2147483648", "٣", "1_0", "0x10", "lenet",
    "alexnet", "lenet5", "gpu:0", "cpu:9999", "cpu:", "previous", "folder:", "folder:/",
    "folder:/dev/null",
    "/dev/null", "/dev/zero", "/", "/proc/self/mem", "/none/x", "..", "file", "pipe", "empty",
    "a\nb", "\x1b[31m", "é" * 50, "\udcff", "a" * 5_000, "%s%n", "{0}", "$(id)", "mnist", "cifar10",
]  # fmt: skip


def lay_out(folder: Path) -> None:
    """Put there what a command might stumble over: a file, a pipe nobody writes to, a folder."""
    folder.mkdir()
    (folder / "file").write_bytes(b"{}")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")


def check_command_lines(
    main: Callable[[list[str]], int], flags: Sequence[str], examples: int, folder: Path
) -> None:
    """Call a command with so many lines of flags and odd values, in `folder`, the current one.

    It must exit 0, 1 or 2, say one line where it refuses, and leave nothing behind in the folder
    that `lay_out` made. What would take long or leave the machine, the caller replaces.
    """
    few = examples < 500
    words = st.sampled_from([*flags, *_COMMON]) | st.sampled_from(_VALUES)
    if not few:
        words = words | st.text(st.characters(exclude_characters="\0"), max_size=20)

    def check(argv: list[str]) -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(argv)
        assert code in (0, 1, 2), argv
        if code:
            lines = err.getvalue().strip("\n").splitlines()
            assert len(lines) == 1, (argv, lines)
        assert {path.name for path in folder.iterdir()} == _HERE, argv

    settings(
        max_examples=examples, deadline=20_000, database=None, derandomize=few,
        suppress_health_check=list(HealthCheck),
    )(given(argv=st.lists(words, max_size=7))(check))()  # fmt: skip
