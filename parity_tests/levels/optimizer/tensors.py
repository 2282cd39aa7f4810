"""The tensors of a course: the same parameters and gradients for the optimizers of both sides."""

from __future__ import annotations

from functools import cache

import numpy as np

# More parameters than MXNet's SGD updates at once (4), of several ranks, one of a single value.
SHAPES = {
    "kernel": (7, 5, 3, 3),
    "kernel bias": (7,),
    "dense": (11, 9),
    "gamma": (131,),
    "scalar": (1,),
}


def first_weights(dtype: str) -> dict[str, np.ndarray]:
    """Normal values, equal in both dtypes."""
    generator = np.random.default_rng(6)
    return {n: generator.normal(size=s).astype("float32").astype(dtype) for n, s in SHAPES.items()}


@cache
def gradients(step: int, dtype: str) -> dict[str, np.ndarray]:
    """Of many sizes, some exactly 0, equal in both dtypes; not to be written to."""
    generator = np.random.default_rng([5, step])
    drawn = {}
    for name, shape in SHAPES.items():
        values = generator.normal(size=shape) * 10 ** generator.uniform(-6, 1, shape)
        # the lone scalar never: a tensor of zeros alone would compare nothing
        values *= (generator.random(shape) > 0.1) | (values.size == 1)
        drawn[name] = values.astype("float32").astype(dtype)
    return drawn
