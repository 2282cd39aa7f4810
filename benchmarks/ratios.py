"""Medians, their spread, and ratios of what was measured in the same turn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["BARS", "Bar", "Middle", "better", "middle", "ratio", "reached", "values"]


@dataclass(frozen=True)
class Middle:
    """A median with the least and the greatest of its `count` values."""

    median: float
    least: float
    most: float
    count: int


@dataclass(frozen=True)
class Bar:
    """Ours against `other` in a group has to be at least `least`; `best` is the better layout."""

    group: str
    other: str
    least: float


def _bars() -> tuple[Bar, ...]:
    found = []
    for group, eager, best, untuned in (
        ("lenet 64", 1.0, 1.0, 1.3),
        ("lenet 500", 1.0, 0.9, 1.3),
        ("alexnet 32", 1.05, 1.0, 1.7),
        ("vgg16 8", 1.25, 1.15, 1.7),
    ):
        found += [
            Bar(f"train {group}", "eager", eager),
            Bar(f"train {group}", "best", best),
            Bar(f"train {group}", "untuned", untuned),
            Bar(f"infer {group}", "eager", 1.2),
            Bar(f"infer {group}", "best", 1.0),
        ]
    return tuple(found)


BARS = _bars()


def middle(numbers: Sequence[float]) -> Middle:
    """Raises: ValueError for no numbers."""
    if not numbers:
        raise ValueError("no numbers, expected at least one")
    return Middle(statistics.median(numbers), min(numbers), max(numbers), len(numbers))


def values(
    result: Mapping[str, Any], side: str, quantity: str = "images_per_second"
) -> list[float]:
    """What each turn of a side measured; empty where it failed."""
    return [run[quantity] for run in result["runs"].get(side, [])]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Middle:
    """Ours over theirs, turn by turn: what slows the machine for a while slows both.

    Raises: ValueError where the two were not measured equally often.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} turns, expected equally many")
    return middle([a / b for a, b in zip(ours, theirs, strict=True)])


def better(result: Mapping[str, Any], sides: Sequence[str] = ("eager", "channels_last")) -> str:
    """Which of the sides has the higher median. Raises: ValueError where none was measured."""
    found = {side: middle(v).median for side in sides if (v := values(result, side))}
    if not found:
        raise ValueError(f"none of {', '.join(sides)} was measured")
    return max(found, key=lambda side: found[side])


def reached(curve: Sequence[Sequence[float]], accuracy: float) -> float | None:
    """Seconds of training until the test accuracy was reached first; None where it never was."""
    return next((seconds for seconds, found in curve if found >= accuracy), None)
