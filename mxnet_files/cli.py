"""From the body of a command to its exit status; `mxnet_files` uses no other package's commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

from gluon_cnn_parity import EXTRAS, missing, one_line, program
from mxnet_files.errors import SymbolError, UsageError

__all__ = ["print_json", "run"]


def run(body: Callable[[], int], prog: str) -> int:
    """Run the body of a command; its exit status: 0 done, 1 failed, 2 bad usage or missing extra.

    What the files, the command line or the system refuse is one line on stderr. `prog` names a
    command that was not started by the user, but called.
    """
    prog = program(prog)
    try:
        return body()
    except SystemExit as stop:  # argparse: --help, or bad usage
        return stop.code if isinstance(stop.code, int) else 1
    except BrokenPipeError:
        # The reader of our stdout left (`… | head`); Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return _say(f"{prog}: error: {missing(error.name)}", 2)
    except UsageError as error:
        return _say(f"{prog}: error: {one_line(error)} (see --help)", 2)
    except SymbolError as error:
        return _say(f"error: {one_line(error)}", 1)
    except OSError as error:
        reason = error.strerror or str(error)
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"error: {one_line(where + reason)}", 1)


def _say(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


def print_json(value: object) -> None:
    """Print one JSON object on stdout; NaN and infinity are not JSON, and are refused."""
    print(json.dumps(value, allow_nan=False))
