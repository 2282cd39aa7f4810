"""Medians, their spread, and ratios of what was measured in the same turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Middle:
    """A median with the least and the greatest of its `count` values."""

    median: float
    least: float
    most: float
    count: int


def middle(numbers: Sequence[float]) -> Middle:
    """Raises: ValueError for no numbers."""
    if not numbers:
        raise ValueError("no numbers, expected at least one")
    return Middle(statistics.median(numbers), min(numbers), max(numbers), len(numbers))


def values(
    result: Mapping[str, Any], side: str, quantity: str = "images_per_second"
) -> list[float]:
    """What each turn of a side measured, in a process of its own or beside `auto`; empty where it
    failed."""
    runs = result["runs"].get(side) or [
        run["beside"][side]
        for run in result["runs"].get("auto", ())
        if side in run.get("beside", ())
    ]
    return [run[quantity] for run in runs if quantity in run]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Middle:
    """Ours over theirs, turn by turn: what slows the machine for a while slows both.

    Raises: ValueError where the two were not measured equally often.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} turns, expected equally many")
    return middle([a / b for a, b in zip(ours, theirs, strict=True)])


def best(result: Mapping[str, Any], sides: Sequence[str]) -> str:
    """Which of the sides has the highest median. Raises: ValueError where none was measured."""
    found = {side: middle(v).median for side in sides if (v := values(result, side))}
    if not found:
        raise ValueError(f"none of {', '.join(sides)} was measured")
    return max(found, key=lambda side: found[side])


def reached(curve: Sequence[Sequence[float]], accuracy: float) -> float | None:
    """Seconds of training until the test accuracy was reached first; None where it never was."""
    return next((seconds for seconds, found in curve if found >= accuracy), None)
