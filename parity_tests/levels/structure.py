"""Level structure: every leaf has its partner, and the two have the same numbers and shapes."""

from __future__ import annotations

from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import NET
from parity_tests.numerics.operators.table import operator_of
from parity_tests.pairing.align import Pair, Pairing, differences
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import Level, Side, Status

__all__ = ["structure_rows"]


def structure_rows(pairing: Pairing) -> tuple[list[Row], Coverage]:
    """One row for every leaf that agrees, and one for every single difference."""
    rows: list[Row] = []
    coverage = Coverage()
    before = ""
    for gluon, torch in pairing.steps:
        if gluon is None or torch is None:
            row = _alone(gluon or torch, before)  # type: ignore[arg-type]
            if row.status != Status.NOTE:
                coverage.expect("leaves", f"{row.path or NET} ({(gluon or torch).side})")  # type: ignore[union-attr]
            rows.append(row)
            continue
        before = torch.path
        path = torch.path or NET
        coverage.expect("leaves", path)
        coverage.done("leaves", path)
        found = [
            _row(path, q, f"Gluon has {a}, torch has {b}") for q, a, b in differences(gluon, torch)
        ]
        counts = {leaf.side: sum(t.size for t in leaf.tensors.values()) for leaf in (gluon, torch)}
        if not Pair(gluon, torch).comparable and gluon.kind != torch.kind:
            found.insert(0, _row(path, "kind", f"Gluon has {gluon}, torch has {torch}"))
        elif gluon.kind != torch.kind:
            rows.append(
                Row(
                    level=Level.STRUCTURE,
                    path=path,
                    quantity="kind",
                    status=Status.NOTE,
                    detail=f"{gluon} is taken for {torch}",
                )
            )
        if counts[Side.GLUON] != counts[Side.TORCH]:
            found.append(
                _row(
                    path,
                    "parameter count",
                    f"Gluon has {counts[Side.GLUON]}, torch has {counts[Side.TORCH]}",
                )
            )
        compared = 2 + len(gluon.hyper) + 3 * len(gluon.tensors)
        rows.extend(
            found
            or [
                Row(
                    level=Level.STRUCTURE,
                    path=path,
                    quantity="leaf",
                    status=Status.OK,
                    compared=compared,
                )
            ]
        )
    return rows, coverage


def _row(path: str, quantity: str, detail: str) -> Row:
    return Row(
        level=Level.STRUCTURE,
        path=path,
        quantity=quantity,
        status=Status.DIVERGED,
        detail=detail,
        compared=1,
    )


def _alone(leaf: Leaf, before: str) -> Row:
    after = f"after {before}" if before else "at the start"
    detail = f"{leaf} is in {'Gluon' if leaf.side == Side.GLUON else 'torch'} only, {after}"
    if operator_of(leaf.family).absorbed:
        return Row(
            level=Level.STRUCTURE,
            path=leaf.path,
            quantity="leaf",
            status=Status.NOTE,
            detail=f"{detail}; it moves no value",
        )
    return Row(
        level=Level.STRUCTURE,
        path=leaf.path,
        quantity="leaf",
        status=Status.DIVERGED,
        detail=detail,
        compared=1,
    )
