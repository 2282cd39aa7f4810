"""What a command says when it cannot go on: one line, and an exit code."""

from __future__ import annotations


class CommandError(Exception):
    """A failure the user can act on: what arrived, what was expected, what to do (exit code 1)."""

    exit_code = 1
    hint: str | None = None  # where there is one, the line begins with the command and ends so


class UsageError(CommandError):
    """The command line itself is wrong (exit code 2)."""

    exit_code = 2
    hint = " (see --help)"


class MissingExtra(CommandError):
    """A package is not installed that only some commands need (exit code 2)."""

    exit_code = 2
    hint = ""
