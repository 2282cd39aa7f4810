"""Which dtype each operator's result has, by MXNet's rules: the one place that applies them.

A net keeps its structure in every precision, so dtypes are not fixed when it is wired. What is
known then is which values are floating point: learned numbers, and all that is computed from them.
Those get torch's plain operations. Where a value may be an array of integers, the steps that MXNet
takes for integers are wired around the operation; they do nothing to floating point arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any, Protocol

from torch import fx

from mxnet_files.functions import mx_dtype


class Steps(Protocol):
    """What an operator is wired with, as far as dtypes go: `registry.Wiring`."""

    operator: str
    step: str
    floating: set[fx.Node]

    def call(self, function: Callable[..., Any], *arguments: Any, part: str = "") -> fx.Node:
        """Adds a call of the function to the graph."""


class Dtypes(Enum):
    """How the dtype of an operator's results follows from its inputs."""

    UNKNOWN = "nothing is known of it"
    FIRST = "that of the first input, whatever the others are"
    LAST = "that of the last input"
    SAME = "that of the inputs, in which it is computed, or the attribute dtype, or out_dtype"
    REAL = "that of the inputs; integers are computed in float64, and cut back"
    FLOATING = "that of the inputs, which must be floating point"
    MADE = "the attribute dtype, float32 without it"

    def enter(self, w: Steps, inputs: Sequence[fx.Node]) -> list[fx.Node]:
        """The inputs as the operator computes with them."""
        if self not in (Dtypes.REAL, Dtypes.FLOATING) or not w.floating.isdisjoint(inputs):
            return list(inputs)  # one of them is floating point, and MXNet refuses a mixture
        if self is Dtypes.FLOATING:
            first = w.call(mx_dtype.floating, inputs[0], w.operator, part="floats")
            w.floating.add(first)
            return [first, *inputs[1:]]
        w.step = "real"
        return [
            w.call(mx_dtype.widen, x, w.operator, part=f"wide{place or ''}")
            for place, x in enumerate(inputs)
        ]

    def leave(self, w: Steps, inputs: Sequence[fx.Node], output: fx.Node) -> fx.Node:
        """The output in the dtype of the `inputs` that `enter` was given."""
        w.step = ""
        if self is Dtypes.REAL and w.floating.isdisjoint(inputs):
            return w.call(mx_dtype.like, output, inputs[0])
        return output

    def gives_floats(self, w: Steps, a: SimpleNamespace, inputs: Sequence[fx.Node]) -> bool:
        """True where the results are sure to be floating point."""
        if self is Dtypes.MADE:
            return "float" in (getattr(a, "dtype", None) or "float32")
        chosen = getattr(a, "out_dtype", None) or getattr(a, "dtype", None)
        if self is Dtypes.SAME and chosen is not None:
            return "float" in chosen
        if self is Dtypes.FIRST:
            return inputs[0] in w.floating
        if self is Dtypes.LAST:
            return inputs[-1] in w.floating
        if self in (Dtypes.SAME, Dtypes.REAL):
            return not w.floating.isdisjoint(inputs)
        return self is Dtypes.FLOATING
