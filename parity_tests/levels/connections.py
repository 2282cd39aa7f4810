"""What happens between leaves, in a net's own `forward`, where no listing of modules shows it.

Every leaf computes the same alone, and one has another input: what it is on one side is computed
from what it is on the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from parity_tests.backends.runs import NET, NetRun
from parity_tests.levels.diagnosis.hypotheses import (
    SLACK,
    Explanation,
    close,
    factor_of,
    only_explanation,
    rearranged,
)
from parity_tests.levels.referee import Subject, attempt
from parity_tests.numerics.reference import common_activations
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Mode, Side


def _softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def explain_connections(row: Row, subject: Subject) -> str:
    """What was done to the input of a leaf, or to the net's output, on one side only."""
    train = row.mode == Mode.TRAIN
    ours = attempt(Side.GLUON, subject.run_gluon, "float64", train=train)
    theirs = subject.run(Side.TORCH, "float64", train=train)
    if row.path == NET:
        return only_explanation(
            explanations(ours.outputs[0], theirs.outputs[0], theirs, is_output=True)
        )
    pair = next(p for p in subject.pairing.pairs if p.path == row.path)
    a = ours.calls[pair.gluon.path][0].inputs[0]
    b = theirs.calls[pair.torch.path][0].inputs[0]
    return only_explanation(explanations(a, b, theirs, is_output=False))


_SLACK = SLACK["float64"]


def explanations(
    a: np.ndarray, b: np.ndarray, run: NetRun, *, is_output: bool
) -> Iterator[Explanation]:
    """How a value of Gluon's follows from torch's, or the other way round."""
    if a.size != b.size:
        return
    maps = a if a.ndim >= b.ndim else b
    if a.ndim != b.ndim:  # one side flattened before the leaf, the other flattens in it
        flat = a.reshape(b.shape) if a.ndim > b.ndim else b.reshape(a.shape)
        if maps.ndim == 4:
            other = b if maps is a else a
            last = maps.transpose(0, 2, 3, 1).reshape(other.shape)
            if close(last, other, _SLACK) and not close(flat, other, _SLACK):
                yield Explanation("NHWC flatten order", "the maps are flattened channels last")
        a, b = a.reshape(maps.shape), b.reshape(maps.shape)
    if close(a, b, _SLACK):
        return  # its input is not what differs
    if is_output:
        if close(_softmax(a), b, _SLACK) or close(_softmax(b), a, _SLACK):
            yield Explanation("softmax on the output", "one side gives probabilities")
    else:
        for name, value in common_activations(b).items():
            if close(value, a, _SLACK):
                yield Explanation("missing activation", f"Gluon has a {name} here, torch has none")
        for name, value in common_activations(a).items():
            if close(value, b, _SLACK):
                yield Explanation("additional activation", f"torch has a {name} here")
        yield from _shortcuts(a, b, run)
    for name, changed in rearranged(a, "image"):
        if close(changed, b, _SLACK):
            yield Explanation(name, "what Gluon gives, so changed, is what torch gives")
    yield from _branches(a, b)
    yield from factor_of(a, b, "", _SLACK, 0)


def _shortcuts(a: np.ndarray, b: np.ndarray, run: NetRun) -> Iterator[Explanation]:
    known = {
        path: value
        for path, calls in run.calls.items()
        for call in calls
        for value in (*call.inputs, *call.outputs)
        if value.shape == a.shape
    }
    inputs = {
        f"what {path} is given": call.inputs[0]
        for path, calls in run.calls.items()
        for call in calls
        if call.inputs[0].shape == a.shape
    }
    for name, value in {**{f"the output of {p}": v for p, v in known.items()}, **inputs}.items():
        if close(b + value, a, _SLACK):
            yield Explanation("missing shortcut", f"torch does not add {name}")
        if close(a + value, b, _SLACK):
            yield Explanation("additional shortcut", f"torch adds {name}")


def _branches(a: np.ndarray, b: np.ndarray) -> Iterator[Explanation]:
    if a.ndim < 2:
        return
    for first in range(1, a.shape[1]):
        if close(np.roll(a, first, axis=1), b, _SLACK):
            detail = f"the last {first} of {a.shape[1]} channels come first in torch"
            yield Explanation("branches in another order", detail)
