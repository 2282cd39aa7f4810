"""Operators that move values: flatten, identity, dropout (which passes its input on here)."""

from __future__ import annotations

from typing import Any

from parity_tests.numerics.operators.cases import ReferenceCase
from parity_tests.numerics.operators.formulas import MEASURED, exact, measured
from parity_tests.numerics.operators.record import (
    Operator,
    Reader,
    Rounds,
    attributes,
    gluon_function,
)


def _flatten(c: ReferenceCase) -> Any:
    return c.x.flatten(c.hyper["start"], c.hyper["end"])


def _torch_dropout(name: str, axes: tuple[int, ...]) -> Reader:
    return Reader(name, lambda m: {"p": float(m.p), "axes": axes})


OPERATORS = (
    Operator(
        kind="flatten",
        gluon=(
            Reader("Flatten", lambda b: {"start": 1, "end": -1}),
            gluon_function("flatten", start=1, end=-1),
        ),
        torch=(Reader("Flatten", attributes(start="start_dim", end="end_dim")),),
        rounds=Rounds.NOTHING,
        scale=exact,
        absorbed=True,
        shape=lambda hyper, shapes: (2, 3, 5, 4),
        reference=_flatten,
    ),
    Operator(
        kind="identity",
        gluon=(Reader("Identity"), gluon_function("identity")),
        torch=(Reader("Identity"),),
        rounds=Rounds.NOTHING,
        scale=exact,
        absorbed=True,
        reference=lambda c: c.x * 1,
    ),
    Operator(
        kind="dropout",
        gluon=(Reader("Dropout", lambda b: {"p": float(b._rate), "axes": tuple(b._axes)}),),
        torch=(
            _torch_dropout("Dropout", ()),
            _torch_dropout("Dropout1d", (2,)),
            _torch_dropout("Dropout2d", (2, 3)),
            _torch_dropout("Dropout3d", (2, 3, 4)),
        ),
        rounds=Rounds.NOTHING,
        scale=exact,
        reference=lambda c: c.x * 1,
    ),
    Operator(
        kind="embedding",
        gluon=(Reader("Embedding"),),
        torch=(Reader("Embedding"),),
        scale=measured,
        tolerances=MEASURED,
        reference=lambda c: c.functional.embedding(c.x.long(), c.tensors["weight"]),
    ),
)
