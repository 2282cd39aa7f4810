"""A console script with sub-commands, each of which is a module that also runs by itself."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gluon_cnn_parity import did_you_mean, started
from gluon_cnn_parity.cli import Parser, run_command
from gluon_cnn_parity.interrupts import fatal


@dataclass(frozen=True)
class Command:
    """One sub-command: `MODULE[:FUNCTION]`, imported when it is asked for.

    The function, `main` where none is named, takes the arguments and returns the exit code.
    """

    target: str
    summary: str  # one line of the group's --help


@dataclass(frozen=True)
class CommandGroup:
    """The commands of one console script, by name.

    `default` is the command that a line means whose first word is a flag, a file or nothing;
    `extras` are those that the commands need altogether.
    """

    script: str
    description: str
    commands: Mapping[str, Command]
    extras: str
    default: str = ""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command that the first word names; returns its exit code, 2 for no such name."""
        words = list(sys.argv[1:] if argv is None else argv)
        return run_command(
            lambda: self._run(words), prog=self.script, errors=(), extras=self.extras
        )

    def _run(self, words: list[str]) -> int:
        name, *rest = words or [""]
        if name in self.commands:
            return _call(self.commands[name], rest)
        if self.default and name not in ("-h", "--help", "--version") and not name.isalpha():
            return _call(self.commands[self.default], words)
        parser = self.parser()
        if name.startswith("-"):
            parser.parse_args(words)  # --help and --version end here, and any other flag
        got = f"no command {name!r}" if name else "no command"
        names = ", ".join(self.commands)
        parser.error(f"{got}, expected one of {names}{did_you_mean(name, self.commands)}")

    def parser(self) -> Parser:
        """Show the commands; their own parsers read what follows a command's name."""
        process = started()
        prog = self.script
        if process is not None:
            prog = process.program.removesuffix(f" {process.command}")
        widest = max(map(len, self.commands))
        lines = [f"  {name:<{widest}}  {each.summary}" for name, each in self.commands.items()]
        default = [f"Without a command: {self.default}, with its flags."] if self.default else []
        parser = Parser(
            prog=self.script,
            description=self.description,
            usage=f"{prog} COMMAND ...",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n".join(
                ["commands:", *lines, "", *default, f"{prog} COMMAND --help shows its flags."]
            ),
        )
        parser.prog = prog  # the command's name that follows is wrong, or missing
        return parser


def _call(command: Command, arguments: list[str]) -> int:
    module, _, function = command.target.partition(":")
    with fatal():
        loaded = importlib.import_module(module)
    code: int = getattr(loaded, function or "main")(arguments)
    return code
