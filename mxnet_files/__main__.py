"""`mxnet-files COMMAND`, or `python -m mxnet_files COMMAND`: MXNet's files into PyTorch.

`python -m mxnet_files x-symbol.json x-0000.params …` is `convert`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from gluon_cnn_parity import Parser, did_you_mean, started
from mxnet_files.cli import run

__all__ = ["COMMANDS", "main"]

# Name → module:function that takes the arguments, imported when asked for, and a line of --help
COMMANDS = {
    "convert": ("mxnet_files.convert:main", "write a torch.export program, and ONNX"),
    "check": ("mxnet_files.convert:check", "compare the import with MXNet, node by node"),
    "zoo": ("mxnet_files.checking.zoo:main", "compare the 34 models of MXNet's model zoo"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names; returns its exit status, 2 for no such name."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run(lambda: _run(words), "mxnet-files")


def _run(words: list[str]) -> int:
    name, *arguments = words or [""]
    if name in COMMANDS:
        return _call(name, arguments)
    is_flag = name.startswith("-")
    if name and name not in ("-h", "--help", "--version") and (is_flag or not name.isalpha()):
        return _call("convert", words)  # a file's name: the form without a command
    parser = _parser()
    if is_flag:
        parser.parse_args(words)  # ends with --help or --version
    got = f"no command {name!r}" if name else "no command"
    parser.error(f"{got}, expected one of {', '.join(COMMANDS)}{did_you_mean(name, COMMANDS)}")


def _call(name: str, arguments: list[str]) -> int:
    module, _, function = COMMANDS[name][0].partition(":")
    status: int = getattr(importlib.import_module(module), function)(arguments)
    return status


def _parser() -> Parser:
    process = started()
    prog = "mxnet-files"
    if process is not None:
        prog = process.program.removesuffix(f" {process.command}")
    lines = [f"  {name:<8} {summary}" for name, (_, summary) in COMMANDS.items()]
    parser = Parser(
        prog=prog,
        description="Open MXNet's symbol and parameter files in PyTorch, without MXNet.",
        usage=f"{prog} COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(["commands:", *lines, "", f"{prog} COMMAND --help shows its flags."]),
    )
    parser.prog = prog  # the command that follows is wrong, or missing
    return parser


if __name__ == "__main__":
    sys.exit(main())
