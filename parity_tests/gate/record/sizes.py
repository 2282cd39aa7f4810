"""What the rounding of a tensor in a net is relative to: the size of what it counts beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from parity_tests.backends.runs import NetRun
from parity_tests.gate.record.noise import largest

Key = tuple[str, str]  # (path, quantity)
TensorsByKey = dict[Key, np.ndarray]


class Sizes:
    """The size of every tensor of a run.

    A leaf's gradients of parameters count together, and so do its slots of one kind in one step:
    a bias before a BatchNorm has a gradient of rounding alone, which counts on the scale of the
    weights' gradient, or of its own terms (`sums`, by path, see `bias_sums`).
    """

    def __init__(self, values: TensorsByKey, sums: Mapping[str, float]) -> None:
        self._sums = sums
        self._largest: dict[tuple[str, str], float] = {}
        for key, value in values.items():
            group, _ = _parsed(*key)
            self._largest[group] = max(self._largest.get(group, 0.0), largest(value))

    def of(self, key: Key) -> float:
        """The size of one tensor."""
        group, role = _parsed(*key)
        return self._largest[group] * (self._sums.get(key[0], 1.0) if role == "bias" else 1.0)


def _parsed(path: str, name: str) -> tuple[tuple[str, str], str]:
    """The group of a tensor, and whose gradient or slot it is: "weight", "bias", … or ""."""
    words = name.split()
    if words[0] == "step" and len(words) == 4:  # step 1 weight mom
        return (path, f"{words[1]} {words[3]}"), words[2]
    if words[-1] == "gradient" and words[0] not in ("input", "output"):  # weight gradient
        return (path, "gradients"), words[0]
    return (path, name), ""


def bias_sums(run: NetRun) -> dict[str, float]:
    """How many times the largest gradient of a leaf its bias sums, by path; at least 1.

    A bias has the sum of what comes back to its channel as its gradient. Before a BatchNorm these
    terms cancel, whatever they are, and noise in the net does not show how they round.
    """
    most: dict[str, float] = {}
    for (path, _), gradient in run.gradients.items():
        most[path] = max(most.get(path, 0.0), largest(gradient))
    sums = {}
    for (path, role), gradient in run.gradients.items():
        if role != "bias":
            continue
        terms = np.zeros(gradient.shape)
        for call in run.calls[path]:
            for back in _coming_back(run, call.outputs[0]):
                if back.shape[1:2] == gradient.shape:
                    terms += np.abs(back).sum(axis=(0, *range(2, back.ndim)))
        sums[path] = max(1.0, float(terms.max(initial=0.0)) / most[path]) if most[path] else 1.0
    return sums


def _coming_back(run: NetRun, output: np.ndarray) -> Iterator[np.ndarray]:
    """The gradients that every leaf which was given this output sends back."""
    for calls in run.calls.values():
        for call in calls:
            for x, back in zip(call.inputs, call.input_gradients, strict=False):
                if back is not None and np.array_equal(x, output):
                    yield back
