"""What the importer and its commands refuse."""

from __future__ import annotations

__all__ = ["NotComparable", "SymbolError", "UsageError"]


class SymbolError(ValueError):
    """The files cannot be imported: damaged, incomplete, or outside what is supported.

    The message is one line that names the node or key, what arrived and what was expected.
    """


class UsageError(SymbolError):
    """The command line is wrong: what arrived, what was expected (exit code 2)."""

    exit_code = 2
    hint = " (see --help)"


class NotComparable(SymbolError):
    """MXNet itself cannot run a graph that the import runs, such as NHWC convolutions on a CPU."""
