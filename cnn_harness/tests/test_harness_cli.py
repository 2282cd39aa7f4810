import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from cnn_harness.cli import Parser, finite_float, natural, positive, print_json, run
from cnn_harness.errors import CommandError, UsageError


def _raise(error: BaseException):
    def body() -> int:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("bad\nflag"), 2),
        (CommandError("it failed"), 1),
        (ValueError("expected kind"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (SystemExit(0), 0),
        (SystemExit(2), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes_and_one_line(error: BaseException, code: int, capsys) -> None:
    assert run(_raise(error), errors=(ValueError,)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == (0 if isinstance(error, SystemExit) else 1)


@pytest.mark.parametrize(
    ("number", "remedy"), [(2, "check the name"), (28, "make room there, or"), (5, "check that pl")]
)
def test_what_the_system_refuses_ends_with_what_to_do(number: int, remedy: str, capsys) -> None:
    assert run(_raise(OSError(number, "it says why", "/x"))) == 1
    assert capsys.readouterr().err.startswith(f"error: /x: it says why; {remedy}")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(_raise(ZeroDivisionError()), errors=(ValueError,))


def test_bad_usage_is_one_line_and_2(capsys) -> None:
    parser = Parser(prog="prog")
    parser.add_argument("--n", type=positive)
    assert run(lambda: 1 if parser.parse_args(["--n", "0"]) else 0) == 2
    assert capsys.readouterr().err == (
        "prog: error: argument --n: got '0', expected a whole number from 1 to 2147483647 "
        "(see --help)\n"
    )


def test_abbreviated_flags_are_refused(capsys) -> None:
    parser = Parser(prog="prog")
    parser.add_argument("--dataset")
    assert run(lambda: 1 if parser.parse_args(["--data", "x"]) else 0) == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_every_wrong_flag_gets_its_suggestion(refused) -> None:
    parser = Parser(prog="prog")
    for flag in ("--epochs", "--batch-size", "--schedule"):
        parser.add_argument(flag)
    words = ["x", "--epoch=3", "--batchsize", "5", "--shuffle", "1"]
    refused(
        run,
        lambda: 1 if parser.parse_args(words) else 0,
        2,
        "5 --shuffle 1; did you mean --epochs, --batch-size? (see",
    )


@pytest.mark.parametrize("text", ["-1", "x", "nan", "inf", ""])
def test_numbers_that_are_none(text: str) -> None:
    import argparse

    for kind in (positive, natural, finite_float):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            kind(text)


def test_json_takes_numpy_and_refuses_nan(capsys) -> None:
    print_json({"a": np.float32(0.5), "b": np.arange(2)})
    assert json.loads(capsys.readouterr().out) == {"a": 0.5, "b": [0, 1]}
    with pytest.raises(ValueError, match="JSON"):
        print_json({"a": float("nan")})


INTERRUPTED = """
import os, signal, sys
sys.orig_argv = ["python", *sys.argv[1:]]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
import gluon_cnn_parity
if "load" in os.environ["WHERE"]:
    os.kill(os.getpid(), signal.SIGINT)
from gluon_cnn_parity import command_group
from gluon_cnn_parity.cli import run_command
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    return 0
command_group.importlib.import_module = interrupt
if "import" in os.environ["WHERE"]:
    run = lambda: command_group._call(command_group.Command("nothing", ""), [])
else:
    run = interrupt
sys.exit(run_command(run, prog="prog", errors=()))
"""


@pytest.mark.parametrize(
    ("where", "words", "code", "last"),
    [
        ("load", "-m gluon_cnn.train", -signal.SIGINT, ""),
        ("import", "-m gluon_cnn train", -signal.SIGINT, ""),
        ("body", "-m gluon_cnn train", 130, "interrupted"),
        ("load", "somebody.py", -signal.SIGINT, "KeyboardInterrupt"),  # his program is as it was
    ],
)
def test_an_interrupt_gets_lost_nowhere(where: str, words: str, code: int, last: str) -> None:
    """While modules load it ends the process; an exception may get lost in an extension module."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *words.split()], env={**os.environ, "WHERE": where},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr.strip().rpartition("\n")[2] == last
    assert ("Traceback" in done.stderr) == (last == "KeyboardInterrupt")
