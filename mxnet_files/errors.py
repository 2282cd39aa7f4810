"""The one error of the importer."""

from __future__ import annotations

__all__ = ["SymbolError"]


class SymbolError(ValueError):
    """The files cannot be imported: damaged, incomplete, or outside what is supported.

    The message is one line that names the node or key, what arrived and what was expected.
    """
