"""What explains a graph that does not compute what the imperative net does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity_tests.backends.runs import Arrays
from parity_tests.levels.diagnosis.hypotheses import SLACK, close, explained


def explain_graph(
    quantity: str,
    actual: np.ndarray,
    expected: np.ndarray,
    inputs: Arrays,
    exchanged: Callable[[], np.ndarray] | None,
) -> str:
    """A name for the graph's `actual` values, where the imperative net gives `expected`.

    `exchanged` runs the imperative net on its inputs in the other order, if it has two.
    """
    if actual.shape != expected.shape:
        return ""
    slack = SLACK["float32"]
    if quantity.startswith("output"):
        if exchanged is not None and close(actual, exchanged(), slack):
            return "swapped inputs: it is what the other order of the inputs gives"
        x = inputs[0].astype(np.float32)
        if x.shape == actual.shape and close(actual, x, slack) and not close(expected, x, slack):
            return "missing activation: the graph gives its input back"
    if quantity.endswith("gradient"):
        role = "gradient"
    else:
        role = "output" if quantity.startswith("output") else "weight"
    text = explained(expected, actual, role=role, slack=0.0 if role == "output" else slack)
    return text.replace("Gluon", "the imperative net").replace("torch", "the graph")
