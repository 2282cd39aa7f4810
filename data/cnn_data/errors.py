"""The one error of this package."""

from __future__ import annotations


class DataError(ValueError):
    """Data that cannot be used: one line saying what arrived, what was expected, what to do."""


class UnknownDataset(DataError):
    """A name that no data set has: bad usage, so a command ends with 2."""

    exit_code = 2
