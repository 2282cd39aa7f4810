"""Which divergences only follow from another one, which came before them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from parity_tests.backends.runs import NET
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Status

# The levels whose rows are of single layers
BY_LAYER = (Level.STRUCTURE, Level.WEIGHTS, Level.FORWARD, Level.BACKWARD)


def consequences(rows: Sequence[Row]) -> dict[int, Row]:
    """The cause of each row that has one, by the row's `id`.

    A net's own stream carries on what diverged before it: a weight, or an operation that was given
    the same input on both sides. Forward that is what was computed earlier, for a gradient
    whatever differs forward, and what lies nearer to the output. What no such row explains is a
    cause itself.
    """
    place = _places(rows)
    diverged = [r for r in rows if r.status == Status.DIVERGED and r.level in BY_LAYER]
    causes = [r for r in diverged if r.check != Check.INHERITED]
    causes.sort(key=lambda r: BY_LAYER.index(r.level))
    found: dict[int, Row] = {}
    for row in diverged:
        if row.check == Check.INHERITED:
            cause = next((c for c in causes if _carries(c, row, place)), None)
            if cause is not None:
                found[id(row)] = cause
    return found


def in_order_of_backward(rows: Sequence[Row]) -> dict[int, float]:
    """A number for each row by its `id`: gradients are computed from the output to the input."""
    place = _places(rows)
    return {id(r): -place.get(r.path, math.inf) for r in rows if _is_gradient(r)}


def _places(rows: Sequence[Row]) -> dict[str, float]:
    """Where in the order of computation each path is, that of the whole net at its end."""
    levels = (Level.FORWARD, Level.BACKWARD)
    paths = dict.fromkeys(r.path for r in rows if r.check == Check.LOCAL and r.level in levels)
    return {**{path: float(i) for i, path in enumerate(paths)}, NET: math.inf}


def _carries(cause: Row, row: Row, place: dict[str, float]) -> bool:
    """Whether a divergence reaches another row's value."""
    if BY_LAYER.index(cause.level) > BY_LAYER.index(row.level):
        return False
    first, then = place.get(cause.path, -1.0), place.get(row.path, math.inf)
    if not _is_gradient(row):
        return first <= then
    if cause.level != Level.BACKWARD or not _is_gradient(cause) or row.path == NET:
        return True
    return first >= then


def _is_gradient(row: Row) -> bool:
    return row.level == Level.BACKWARD and row.quantity.endswith("gradient")
