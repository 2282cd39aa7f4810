"""Rows of many steps, gathered: one a quantity, with the first step that left its bound."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Status

# (check, side, dtype, path, quantity without the step)
_Key = tuple[str, str, str, str, str]


@dataclass
class _Entry:
    order: tuple[int, ...]
    step: int
    row: Row
    compared: int = 0
    later: int = 0  # steps after the first that failed likewise


@dataclass
class Ledger:
    """Keeps of every quantity the first step that diverged, or else the worst one.

    A run of 100 steps compares some ten thousand tensors: this is what a reader wants of them.
    """

    entries: dict[_Key, _Entry] = field(default_factory=dict)

    def add(self, step: int, order: tuple[int, ...], row: Row) -> None:
        """Note a row of step `step`, counted from 1; `order` is its place within the step."""
        key = (row.check, row.side, row.dtype, row.path, row.quantity)
        entry = self.entries.get(key)
        if entry is None:
            self.entries[key] = _Entry((step, *order), step, row, compared=row.compared)
            return
        entry.compared += row.compared
        if _rank(row) == _rank(entry.row) > 0:
            entry.later += 1
        elif (_rank(row), row.fraction or 0.0) > (_rank(entry.row), entry.row.fraction or 0.0):
            entry.order, entry.step, entry.row = (step, *order), step, row

    @property
    def failed(self) -> bool:
        return any(_rank(entry.row) > 1 for entry in self.entries.values())

    def rows(self) -> list[Row]:
        """What diverged first, in the order of computation; then the rest, each with its worst
        step."""
        entries = sorted(self.entries.values(), key=lambda e: (-_rank(e.row), e.order))
        return [_row(entry) for entry in entries]


def _rank(row: Row) -> int:
    return {Status.OK: 0, Status.NOTE: 1}.get(row.status, 2)


def _row(entry: _Entry) -> Row:
    row = replace(
        entry.row, quantity=f"step {entry.step} {entry.row.quantity}", compared=entry.compared
    )
    if row.status == Status.OK or not entry.later:
        return row
    return replace(row, detail=f"{row.detail}, and in {entry.later} later steps")
