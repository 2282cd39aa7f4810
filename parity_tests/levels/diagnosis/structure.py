"""Names for differences of structure, where running both listings shows them to be all there is."""

from __future__ import annotations

import math

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.runs import Arrays
from parity_tests.levels.diagnosis.hypotheses import SLACK, close
from parity_tests.levels.referee import DidNotRun, attempt
from parity_tests.numerics.operators.table import operator_of
from parity_tests.numerics.reference import reference_value
from parity_tests.pairing.align import Pair, Pairing
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Side

_POOLS = {
    ("max", "avg"): "average for maximum pooling",
    ("avg", "max"): "maximum for average pooling",
}
_NAMES = {
    "eps": "eps value",
    "ceil": "pooling rounds up",
    "count_include_pad": "padding counted",
    "stride": "stride",
    "pad": "padding",
    "dilation": "dilation",
    "groups": "groups",
    "slope": "slope value",
    "approximate": "GELU approximation",
    "p": "dropout rate",
}


def explain_structure(row: Row, pairing: Pairing, inputs: Arrays | None = None) -> str:
    """The name of a leaf that is missing, added, moved or of another kind, or of a number in it.

    `inputs` are what the leaf is tried on; without them numbers are made up.
    """
    if row.quantity == "leaf":
        return _alone(row, pairing)
    pair = next((p for p in pairing.pairs if p.path == row.path), None)
    if pair is None:
        return ""
    ours, theirs = pair.gluon.kind, pair.torch.kind
    if row.quantity == "kind":
        operators = (operator_of(pair.gluon.family), operator_of(pair.torch.family))
        if all(operator.activation for operator in operators):
            return f"another activation: {ours} in Gluon, {theirs} in torch"
        pools = (operators[0].pool, operators[1].pool)
        if pools in _POOLS and ours.replace(*pools) == theirs:
            return f"{_POOLS[pools]}: in torch, with the same windows"
        return ""
    name = _number(row.quantity, pair)
    if not name or not _all_there_is(pair, inputs):
        return ""
    a, b = pair.gluon.hyper.get(row.quantity), pair.torch.hyper.get(row.quantity)
    return f"{name}: {a} in Gluon, {b} in torch; each computes by its own"


def _alone(row: Row, pairing: Pairing) -> str:
    leaf = next((x for x in pairing.alone if x.path == row.path and str(x) in row.detail), None)
    if leaf is None:
        return ""
    for other in pairing.alone:
        if other.side != leaf.side and other.kind == leaf.kind:
            return f"moved layer: {leaf.kind} is at {leaf.path} and at {other.path}"
    if not operator_of(leaf.family).activation:
        return ""
    if leaf.side == Side.GLUON:
        return f"missing activation: torch has no {leaf.kind} there"
    return f"additional activation: Gluon has no {leaf.kind} there"


def _number(quantity: str, pair: Pair) -> str:
    a, b = pair.gluon.hyper.get(quantity), pair.torch.hyper.get(quantity)
    if quantity == "kept" and isinstance(a, float) and isinstance(b, float):
        return "momentum complement" if math.isclose(a, 1 - b, rel_tol=1e-6) else "momentum value"
    if quantity == "axis" and pair.torch.kind == "softmax":
        return "softmax axis"
    if quantity == "pad" and isinstance(b, str):
        return "asymmetric padding" if "asymmetric" in b else ""
    return _NAMES.get(quantity, "")


def _all_there_is(pair: Pair, inputs: Arrays | None) -> bool:
    """Whether each side computes what its own listing says: then the listing is the difference."""
    if pair.torch.kind == "dropout":
        return True  # the rate is the listing's alone: it passes its input on here
    operator = operator_of(pair.torch.family)
    if inputs is None:
        shapes = {role: tensor.shape for role, tensor in pair.torch.tensors.items()}
        shape = operator.shape(pair.torch.hyper, shapes)
        inputs = (np.random.default_rng(1).standard_normal(shape).astype(np.float32),)
    train = operator.by_mode
    for leaf in (pair.gluon, pair.torch):
        single = operator.single_precision and leaf.side == Side.GLUON
        dtype = "float32" if single else "float64"
        try:
            run_alone = attempt(
                leaf.side, backend(leaf.side).run_leaf, leaf, inputs, dtype, train=train
            )
        except DidNotRun:
            return False
        expected = reference_value(leaf, inputs, train=train)
        slack = SLACK["float32" if operator.single_precision else dtype]
        if expected is None or not close(run_alone["output"], expected["output"], slack):
            return False
    return True
