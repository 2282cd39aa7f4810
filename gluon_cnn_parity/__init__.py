"""What all packages of this distribution share: its version, extras, Python, and command lines.

Standard library alone, and readable by any Python from 3.8 on: it is imported before everything
else, and says in one line what is missing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from gluon_cnn_parity import memory
from gluon_cnn_parity.interrupts import stay_fatal

__all__ = [
    "DISTRIBUTION",
    "EXTRAS",
    "Started",
    "__version__",
    "cache_folder",
    "did_you_mean",
    "is_installed",
    "lists_commands",
    "missing",
    "nearest",
    "needs",
    "program",
    "refuse",
    "require",
    "started",
    "version_of",
]

DISTRIBUTION = "gluon-cnn-parity"
PYTHONS = ((3, 11), (3, 12), (3, 13))  # as python_requires in setup.cfg

# Console script → the package whose commands it runs
SCRIPTS = {"gluon-cnn": "gluon_cnn", "gluon-parity": "parity_tests", "mxnet-files": "mxnet_files"}
PACKAGES = (*SCRIPTS.values(), "cnn_data", "torch_ref")

# Package that only some commands need → the extras that bring it, and what uses it, along
EXTRAS = {
    "mxnet": "cpu",
    "torch": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "jinja2": "parity",
    "markupsafe": "parity",
}

_MODULE_FLAG = re.compile(r"-[bBdEhiIOPqsSuvVx?]*m(.*)", re.DOTALL)
_CODE_FLAG = re.compile(r"-[bBdEhiIOPqsSuvVx?]*c.*", re.DOTALL)
_FLAGS_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


class Started(NamedTuple):
    """Which command of this distribution a process runs."""

    program: str  # as the user typed it: "python -m gluon_cnn.train", "gluon-cnn train"
    package: str  # "gluon_cnn"
    command: str  # "train"; empty for the package's own, as in `gluon-cnn --help`


def started(argv: Sequence[str] | None = None) -> Started | None:
    """The command that a command line such as `sys.orig_argv` (the default) starts.

    None where it starts somebody else's program, whatever flags that program has.

    >>> started(["python", "-m", "gluon_cnn.train", "--epochs", "1"])
    Started(program='python -m gluon_cnn.train', package='gluon_cnn', command='train')
    >>> started(["python", "/usr/bin/gluon-cnn", "train"])
    Started(program='gluon-cnn train', package='gluon_cnn', command='train')
    >>> started(["python", "script.py", "-m", "gluon_cnn.train"])
    """
    words = list(_command_line() if argv is None else argv)[1:]
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        if module := _MODULE_FLAG.fullmatch(flag):
            name = module[1] or (words.pop(0) if words else "")
            return _started_module(name, words)
        if _CODE_FLAG.fullmatch(flag):
            return None
        if flag in _FLAGS_WITH_VALUE:
            del words[:1]
    script = Path(words.pop(0)).name if words else ""
    return _with_command(script, SCRIPTS[script], words) if script in SCRIPTS else None


def _command_line() -> Sequence[str]:
    """`sys.orig_argv`, which Python has from 3.10 on."""
    if hasattr(sys, "orig_argv"):
        return sys.orig_argv
    try:
        return Path("/proc/self/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    except OSError:  # not on Linux
        return sys.argv


def _started_module(name: str, arguments: Sequence[str]) -> Started | None:
    package, _, command = name.partition(".")
    if package not in PACKAGES:
        return None
    if command in ("", "__main__"):
        return _with_command(f"python -m {package}", package, arguments)
    return Started(f"python -m {name}", package, command)


def _with_command(program: str, package: str, arguments: Sequence[str]) -> Started:
    command = arguments[0] if arguments and re.fullmatch(r"[a-z]+", arguments[0]) else ""
    return Started(f"{program} {command}".rstrip(), package, command)


def cache_folder() -> Path:
    """Where this distribution keeps what it can find out again, `XDG_CACHE_HOME` heeded."""
    home = os.getenv("XDG_CACHE_HOME", "")
    # The specification: a relative path is to be ignored
    root = Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()
    return root / "gluon_cnn"


def lists_commands(package: str) -> bool:
    """Whether this process is a package's `--help` or `--version` alone, which computes nothing."""
    process = started()
    asked = sys.argv[1:2] in (["-h"], ["--help"], ["--version"])
    return asked and process is not None and process[1:] == (package, "")


def program(default: str) -> str:
    """How the user started this process, where it is a command of this distribution."""
    process = started()
    return default if process is None else process.program


def did_you_mean(name: str, known: Iterable[str], where: str = "") -> str:
    """The end of a message about an unknown name: the nearest known one, if any is near.

    `where` is said before the name, such as the folder that it is in.

    >>> did_you_mean("lenett", ["alexnet", "lenet"])
    '; did you mean lenet?'
    """
    found = nearest(name, known)
    return f"; did you mean {where}{found}?" if found else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like another; empty where none is near.

    >>> nearest("--epoch", ["--epochs", "--lr"]), nearest("--shuffle", ["--schedule"])
    ('--epochs', '')
    """
    by_lower = {each.lower().lstrip("-"): each for each in known}  # dashes make all flags alike
    name = name.lower().lstrip("-")
    cutoff = 0.6 if len(name) <= 4 else 0.7  # a short one is another by one letter in three
    found = get_close_matches(name, list(by_lower), n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else ""


def missing(package: str, extras: str = "") -> str:
    """What to say where a package is missing: the extras, such as `cpu,parity`, that bring it."""
    return f"{package} is not installed: pip install -e '.[{extras or EXTRAS[package]}]'"


@contextmanager
def needs(extras: str = "") -> Iterator[None]:
    """Around imports of packages that extras bring: one that is missing is named with its extras.

    Raises: ModuleNotFoundError, with what to install as its message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise ModuleNotFoundError(missing(error.name, extras), name=error.name) from None


def refuse(program: str, message: str) -> SystemExit:
    """Print one line on stderr; the exception to raise ends the process with exit status 2."""
    print(f"{program}: error: {message}", file=sys.stderr)
    return SystemExit(2)


def require(*packages: str, extras: str, program: str) -> None:
    """End a command in one line, with exit status 2, where a package that it needs is missing."""
    for package in packages:
        if not is_installed(package):
            raise refuse(program, missing(package, extras))


def is_installed(package: str) -> bool:
    """Whether a top-level package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # an import hook's own refusal
        return False


def _require_python() -> None:
    if sys.version_info[:2] in PYTHONS:
        return
    supported = ", ".join(".".join(map(str, python)) for python in PYTHONS)
    here = ".".join(map(str, sys.version_info[:3]))
    message = f"{DISTRIBUTION} runs on Python {supported}, this is {here} ({sys.executable})"
    command = started()
    if command is not None:
        raise refuse(command.program, message)
    raise ImportError(message)


def version_of(package: str) -> str | None:
    """The version of an installed distribution; None where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_require_python()
if (_command := started()) is not None:  # this is imported before everything else
    memory.watch(_command.program)
    stay_fatal()
__version__ = version_of(DISTRIBUTION) or "0+unknown"  # of a source tree alone, on PYTHONPATH
