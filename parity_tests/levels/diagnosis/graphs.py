"""What explains a graph that does not compute what the imperative net does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from parity_tests.backends.runs import Arrays
from parity_tests.levels.diagnosis.hypotheses import SLACK, close, explained

__all__ = ["explain_graph"]


def explain_graph(
    quantity: str,
    made: np.ndarray,
    wanted: np.ndarray,
    inputs: Arrays,
    exchanged: Callable[[], np.ndarray] | None,
) -> str:
    """A name for what the graph `made` of the inputs, where the imperative net gives `wanted`.

    `exchanged` runs the imperative net on its inputs in the other order, if it has two.
    """
    if made.shape != wanted.shape:
        return ""
    slack = SLACK["float32"]
    if quantity.startswith("output"):
        if exchanged is not None and close(made, exchanged(), slack):
            return "swapped inputs: it is what the other order of the inputs gives"
        x = inputs[0].astype(np.float32)
        if x.shape == made.shape and close(made, x, slack) and not close(wanted, x, slack):
            return "missing activation: the graph gives its input back"
    if quantity.endswith("gradient"):
        role = "gradient"
    else:
        role = "output" if quantity.startswith("output") else "weight"
    text = explained(wanted, made, role=role, slack=0.0 if role == "output" else slack)
    return text.replace("Gluon", "the imperative net").replace("torch", "the graph")
