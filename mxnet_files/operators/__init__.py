"""The operators, entered into `registry.OPERATORS` by importing the modules that define them."""

from mxnet_files.operators import (
    arithmetic,
    indexing,
    loss,
    neural,
    normalise,
    ordering,
    pooling,
    recurrent,
    reduction,
    resize,
    shape,
)

__all__ = [
    "arithmetic",
    "indexing",
    "loss",
    "neural",
    "normalise",
    "ordering",
    "pooling",
    "recurrent",
    "reduction",
    "resize",
    "shape",
]
