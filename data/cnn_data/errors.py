"""The one error of this package."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """Data that cannot be used: one line saying what arrived, what was expected, what to do."""
