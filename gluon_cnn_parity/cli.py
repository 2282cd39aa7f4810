"""Command lines: argparse with one-line errors, and the step from an exception to an exit code."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

from gluon_cnn_parity import (
    DISTRIBUTION,
    EXTRAS,
    __version__,
    did_you_mean,
    memory,
    missing,
    nearest,
    program,
)
from gluon_cnn_parity.interrupts import raised
from gluon_cnn_parity.terminal import coloured

_P = ParamSpec("_P")
Command = Callable[_P, int]  # gives an exit code

# What people type who come from other trainers -> wherever a command has the first, it has the rest
ALIASES = {
    "--ctx": ("--device",),
    "--image-size": ("--img-size",),
    "--initialiser": ("--initializer",),
    "--lr": ("--learning-rate",),
    "--mixup": ("--mixup-alpha",),
    "--normalise": ("--normalize",),
    "--optimizer": ("--opt",),
    "--out": ("--output",),
    "--schedule": ("--sched",),
    "--top": ("--topk",),
    "--wd": ("--weight-decay",),
}


def spellings(*flags: str) -> tuple[str, ...]:
    """The flags, and their aliases.

    >>> spellings("--out")
    ('--out', '--output')
    """
    return (*flags, *(alias for flag in flags for alias in ALIASES.get(flag, ())))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default that is a word, number or path: None, False and [] say that none is set."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if (
            not isinstance(action.default, str | int | float | os.PathLike)
            or action.default is False
        ):
            return action.help
        return super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """`--out, --output DIR`, where argparse before 3.13 says DIR twice."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that shows defaults in `--help` and reports bad usage in one line.

    Errors go to stderr as `PROG: error: MESSAGE` and exit with status 2. Abbreviated flags are
    off: a script that says `--data` must not change meaning when a flag `--dataset` is added.
    `prog` names a command where it was not started by the user, but called; `origin` begins the
    message where the words are not those of the command line, but of a file.
    """

    origin = ""

    def __init__(self, *, prog: str, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(prog=program(prog), **kwargs)
        if self.add_help:
            self.add_argument(
                "--version", action="version", version=f"{DISTRIBUTION} {__version__}",
                help="show the version of this project and exit",
            )  # fmt: skip

    def add_argument(self, *flags: Any, **options: Any) -> argparse.Action:
        return super().add_argument(*spellings(*flags), **options)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            nearest = did_you_mean(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, f"{error.message}{nearest}") from None

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """An empty word is an unset variable of a shell, and would mean this folder as a path."""
        if "" in arg_strings and action.nargs != argparse.REMAINDER:
            raise argparse.ArgumentError(action, "got '', expected a value")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            flags = (word.partition("=")[0] for word in message.split() if word[:2] == "--")
            if found := list(filter(None, (nearest(flag, self.flags()) for flag in flags))):
                message += f"; did you mean {', '.join(found)}?"
        line = f"{self.prog}: error: {one_line(self.origin + message)} (see --help)"
        self.exit(2, _in_colour(line) + "\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Without argparse's silence where --help or --version cannot be written."""
        if message and file is not None and file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)

    def flags(self) -> list[str]:
        """Every spelling of every flag."""
        return list(self._option_string_actions)


def printable(name: object) -> str:
    """A name as it can be written and drawn: bytes of a file's name that are not UTF-8 are escaped.

    Python reads such bytes as lone surrogates, which no encoding takes. Streams and JSON write the
    same escapes.

    >>> printable("n\\udcff.jpg")
    'n\\\\udcff.jpg'
    """
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def not_utf8(name: str | os.PathLike[str]) -> str:
    """Why a name is no text, and what to do; empty where it is.

    >>> not_utf8("k\\u00e4se"), not_utf8("k\\udce4se")
    ('', 'the name is not UTF-8; rename it, or name another')
    """
    try:
        os.fspath(name).encode("utf-8")
        return ""
    except UnicodeEncodeError:
        pass
    try:
        os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return "the name is not UTF-8; rename it, or name another"
    # LC_ALL=C and the like, where Python's own way out of it is turned off
    here = sys.getfilesystemencoding()
    return f"this Python reads names as {here}, and the name is UTF-8: run it with PYTHONUTF8=1"


def one_line(message: object) -> str:
    """The message with every run of white space folded to one space, and nothing unprintable.

    Names out of files end in messages; a terminal would obey the control characters in them.

    >>> one_line("a\\n b\\x1b[31m")
    'a b\\\\x1b[31m'
    """
    folded = " ".join(str(message).split())
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in folded
    )


def run_command(
    body: Callable[[], int], *, prog: str, errors: tuple[type[Exception], ...], extras: str = ""
) -> int:
    """Run the body of a command and return its exit code; no expected error shows a traceback.

    One line on stderr is said of the exception types in `errors`, of the system's own refusals
    (`OSError`: no permission, no space, no such file; no memory), and of a package of `EXTRAS` that
    is missing; `extras` are those that the command needs altogether, such as `cpu,parity`. An error
    may have an `exit_code` of its own (1 without), and a `hint`: its line then begins with the
    command and ends with the hint. Anything else is a bug and keeps its traceback. `prog` names a
    command that was not started by the user, but called.
    """
    prog = program(prog)
    _prepare_streams()
    try:
        with raised():
            code = _ended(body)
            sys.stdout.flush()  # what fails while Python exits, it says in two lines of its own
            return code
    except BrokenPipeError:  # the reader of our stdout left (`… | head`)
        _give_up_stdout()
        return 1
    except KeyboardInterrupt as interrupt:
        return _say(str(interrupt) or "interrupted", getattr(interrupt, "exit_code", 130))
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return _say(f"{prog}: error: {missing(error.name, extras)}", 2)
    except errors as error:
        if memory.refused(error) is not None:
            memory.end_quietly()
        hint = getattr(error, "hint", None)
        line = f"error: {error}" if hint is None else f"{prog}: error: {error}{hint}"
        return _say(line, getattr(error, "exit_code", 1))
    except Exception as error:
        if (reason := memory.refused(error)) is not None:
            memory.end_quietly()
            return _say(f"error: not enough memory: {reason}; {memory.REMEDY}", 1)
        if not isinstance(error, OSError):
            raise
        return _say(_of_the_system(error), 1)


def run_by(run: Callable[..., int], **options: Any) -> Callable[[Command[_P]], Command[_P]]:
    """Around the body of a command: a call of it runs it by `run`, which is like `run_command`.

    >>> @run_by(run_command, prog="halve", errors=(ValueError,))
    ... def halve(number):
    ...     return number // 2
    >>> halve(6)
    3
    """

    def decorated(body: Command[_P]) -> Command[_P]:
        @wraps(body)
        def command(*args: _P.args, **named: _P.kwargs) -> int:
            return run(lambda: body(*args, **named), **options)

        return command

    return decorated


def _of_the_system(error: OSError) -> str:
    """What the system refused, and what to do."""
    if isinstance(error, FileNotFoundError) and not error.filename:  # of os.getcwd
        return "error: the folder that this was started in is gone; change to another"
    reason = error.strerror or error
    if not error.filename and _stdout_fails():
        _give_up_stdout()
        return (
            f"error: what this prints cannot be written: {reason}; make room there, or send it "
            "to another place"
        )
    where = f"{error.filename}: " if error.filename else ""
    remedy = _REMEDIES.get(error.errno or 0, "check that place, or name another")
    return f"error: {where}{reason}; {remedy}"


_REMEDIES = {
    errno.ENOENT: "check the name",
    errno.EACCES: "change its permissions, or name another",
    errno.EPERM: "change its permissions, or name another",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.ENOSPC: "make room there, or name another place",
    errno.EDQUOT: "make room there, or name another place",
    errno.EFBIG: "allow larger files there, or name another place",
    errno.EROFS: "name another place",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.EMFILE: "allow more open files with ulimit -n",
}


def _ended(body: Callable[[], int]) -> int:
    """The exit code of the body, whether it returns or exits."""
    try:
        return body()
    except SystemExit as stop:  # argparse: --help, or bad usage
        return stop.code if isinstance(stop.code, int) else 1


def _stdout_fails() -> bool:
    """Whether nothing can be written on stdout: a buffer keeps what failed, and fails again."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"")  # without a buffer; a device is full for no byte too
    except io.UnsupportedOperation:  # a test's or notebook's, that is no file
        return False
    except OSError:
        return True
    return False


def _give_up_stdout() -> None:
    """Send what is left to nowhere: Python would complain again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Let every text be printed: where there is no stream, and where it is not of UTF-8."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started this process
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say(line: str, exit_code: int) -> int:
    print(_in_colour(one_line(line)), file=sys.stderr)
    return exit_code


def _in_colour(line: str) -> str:
    return line.replace("error:", coloured("error:", "red", sys.stderr), 1)
