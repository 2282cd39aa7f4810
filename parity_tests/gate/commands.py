"""The gate's commands by their first word; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from cnn_harness.cli import run
from parity_tests.backends.leaves import ParityError

__all__ = ["COMMANDS", "asked", "main"]

COMMANDS = {"snapshot": "parity_tests.gate.snapshot", "compare": "parity_tests.gate.compare"}


def asked(argv: Sequence[str]) -> bool:
    """Whether a command line is one of the gate's."""
    return bool(argv) and argv[0] in COMMANDS


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""

    def body() -> int:
        return importlib.import_module(COMMANDS[argv[0]]).main(argv[1:])

    return run(body, errors=(ParityError,))
