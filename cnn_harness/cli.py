"""Command lines: argparse with one-line errors, and the step from an exception to an exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

from cnn_harness.errors import CommandError
from gluon_cnn_parity.cli import Command, Parser, run_by, run_command

__all__ = [
    "Parser",
    "above_zero",
    "as_command",
    "finite_float",
    "json_text",
    "natural",
    "positive",
    "print_json",
    "run",
]

_P = ParamSpec("_P")


def positive(text: str) -> int:
    """argparse type: a whole number of at least 1."""
    return _whole(text, least=1)


def natural(text: str) -> int:
    """argparse type: a whole number of at least 0."""
    return _whole(text, least=0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value < 2**31:  # MXNet and the seeds take 32-bit numbers
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a whole number from {least} to 2147483647"
        )
    return value


def finite_float(text: str) -> float:
    """argparse type: a finite number of at least 0."""
    return _finite(text, lambda value: value >= 0.0, ", 0 or more")


def above_zero(text: str) -> float:
    """argparse type: a finite number of more than 0."""
    return _finite(text, lambda value: value > 0.0, " above 0")


def _finite(text: str, fits: Callable[[float], bool], which: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (fits(value) and value < float("inf")):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a finite number{which}")
    return value


def print_json(value: object) -> None:
    """Print one JSON object on stdout; NaN and infinity are not JSON, and are refused."""
    print(json_text(value))


def json_text(value: object) -> str:
    """A value as JSON, paths and numpy's arrays included."""
    return json.dumps(value, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def run(body: Callable[[], int], errors: tuple[type[Exception], ...] = (), extras: str = "") -> int:
    """Run the body of a command and return its exit code: see `gluon_cnn_parity.cli.run_command`.

    `CommandError`, with its own exit code, is expected of every command.
    """
    return run_command(body, prog=_main_module(), errors=(CommandError, *errors), extras=extras)


def as_command(*errors: type[Exception], extras: str = "") -> Callable[[Command[_P]], Command[_P]]:
    """Around the body of a command: a call of it is `run`."""
    return run_by(run, errors=errors, extras=extras)


def _main_module() -> str:
    """How a process was started that is no command of this distribution, such as a benchmark."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "command"
