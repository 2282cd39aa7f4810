"""Command lines: argparse with one-line errors, and the step from an exception to an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gluon_cnn_parity import EXTRAS, Parser, missing, one_line, program
from cnn_harness.errors import CommandError, MissingExtra, UsageError
from cnn_harness.jobs.stop import Interrupted

__all__ = ["Parser", "finite_float", "natural", "positive", "print_json", "run"]


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
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a finite number, 0 or more")
    return value


def print_json(value: object) -> None:
    """Print one JSON object on stdout; NaN and infinity are not JSON, and are refused."""
    print(json.dumps(value, allow_nan=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def run(body: Callable[[], int], errors: tuple[type[Exception], ...] = (), extras: str = "") -> int:
    """Run the body of a command and return its exit code; no expected error shows a traceback.

    A package of `gluon_cnn_parity.EXTRAS` that is missing is one line too; `extras` are those that
    the command needs altogether, such as `cpu,parity`.

    `CommandError` (with its own exit code), the exception types in `errors`, and the system's
    own refusals (`OSError`: no permission, no space, no such file) become one line on stderr.
    Anything else is a bug in this project and keeps its traceback.
    """
    prog = program(_main_module())
    try:
        return body()
    except SystemExit as stop:  # argparse: --help, or bad usage
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        # The reader of our stdout left (`… | head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Interrupted as interrupted:
        print(one_line(interrupted), file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        print(f"{prog}: error: {missing(error.name, extras)}", file=sys.stderr)
        return 2
    except MissingExtra as error:
        print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except UsageError as error:
        print(f"{prog}: error: {one_line(error)} (see --help)", file=sys.stderr)
        return error.exit_code
    except CommandError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except errors as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {one_line(_system_message(error))}", file=sys.stderr)
        return 1


def _main_module() -> str:
    """How a process was started that is no command of this distribution, such as a benchmark."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "command"


def _system_message(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
