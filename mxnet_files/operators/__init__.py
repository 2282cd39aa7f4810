"""The operators, entered into `registry.OPERATORS` by importing the modules that define them."""

from mxnet_files.operators import (  # noqa: F401
    arithmetic,
    boxes,
    indexing,
    loss,
    neural,
    normalise,
    numpy_style,
    ordering,
    pooling,
    quantised,
    recurrent,
    reduction,
    regions,
    resize,
    shape,
)
