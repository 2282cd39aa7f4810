"""Level structure: every leaf has its partner, and the two have the same numbers and shapes."""

from __future__ import annotations

from collections.abc import Iterator

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
        if gluon is not None and torch is not None:
            before = torch.path
            path = torch.path or NET
            coverage.expect("leaves", path)
            coverage.done("leaves", path)
            rows += _pair_rows(path, Pair(gluon, torch))
            continue
        leaf = gluon or torch
        assert leaf is not None  # a step has one side at least
        row = _alone_row(leaf, before)
        if row.status != Status.NOTE:
            coverage.expect("leaves", f"{row.path or NET} ({leaf.side})")
        rows.append(row)
    return rows, coverage


def _pair_rows(path: str, pair: Pair) -> Iterator[Row]:
    gluon, torch = pair
    different = [
        (quantity, f"Gluon has {a}, torch has {b}") for quantity, a, b in differences(gluon, torch)
    ]
    if gluon.kind != torch.kind:
        if pair.comparable:
            yield _row(path, "kind", f"{gluon} is taken for {torch}", Status.NOTE, compared=0)
        else:
            different.insert(0, ("kind", f"Gluon has {gluon}, torch has {torch}"))
    ours, theirs = (sum(t.size for t in leaf.tensors.values()) for leaf in pair)
    if ours != theirs:
        different.append(("parameter count", f"Gluon has {ours}, torch has {theirs}"))
    for quantity, detail in different:
        yield _row(path, quantity, detail)
    if not different:
        compared = 2 + len(gluon.hyper) + 3 * len(gluon.tensors)
        yield _row(path, "leaf", "", Status.OK, compared=compared)


def _alone_row(leaf: Leaf, before: str) -> Row:
    after = f"after {before}" if before else "at the start"
    detail = f"{leaf} is in {'Gluon' if leaf.side == Side.GLUON else 'torch'} only, {after}"
    if operator_of(leaf.family).absorbed:
        return _row(leaf.path, "leaf", f"{detail}; it moves no value", Status.NOTE, compared=0)
    return _row(leaf.path, "leaf", detail)


def _row(
    path: str, quantity: str, detail: str, status: Status = Status.DIVERGED, compared: int = 1
) -> Row:
    return Row(
        level=Level.STRUCTURE,
        path=path,
        quantity=quantity,
        status=status,
        detail=detail,
        compared=compared,
    )
