"""Reads a Gluon net: its leaves, their kinds and hyper-parameters in the suite's vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, Parameter, nn

from parity_tests.backends.executed import is_statistic
from parity_tests.backends.gluon.executed import ExecutedGluonNet
from parity_tests.backends.leaves import Leaf, ParityError, Tensor
from parity_tests.numerics.operators import table as operators
from parity_tests.reporting.verdicts import Side


def leaves(net: Block) -> list[Leaf]:
    """The net's leaves in the order of registration; a block used twice appears twice.

    Raises ParityError for parameters that are not initialised yet.
    """
    if isinstance(net, ExecutedGluonNet):
        return [_executed(block) for block in net._children.values()]
    return list(_walk(net, ""))


def _executed(block: Any) -> Leaf:
    layout = block.program.layout
    tensors = {}
    for name, role in layout.segment.parameters.items():
        tensor = _tensor(block._reg_params[role], name, layout.pair.parameter_shapes[role])
        constant = isinstance(block._reg_params[role], mx.gluon.Constant)
        tensors[role] = replace(tensor, buffer=is_statistic(role), constant=constant)
    return Leaf(Side.GLUON, layout.pair.path, layout.kind, block, layout.hyper, tensors)


def _walk(block: Block, path: str) -> Iterator[Leaf]:
    children = list(block._children.items())
    containers = (nn.Sequential, nn.HybridSequential)
    if not children and isinstance(block, containers):
        return
    if not children or block._reg_params:
        kind, hyper = describe(block)
        activated = getattr(block, "act", None) is not None and len(children) == 1
        yield Leaf(
            Side.GLUON,
            path,
            kind,
            block,
            hyper,
            _tensors(block, kind, path),
            opaque=isinstance(block, (nn.Lambda, nn.HybridLambda)),
            composite=bool(children) and not activated,
        )
    for name, child in children:
        yield from _walk(child, f"{path}.{name}" if path else name)


def _tensors(block: Block, kind: str, path: str) -> dict[str, Tensor]:
    found = {}
    for name, parameter in block._reg_params.items():
        if kind == "batchnorm" and _unused(block, name, parameter):
            continue
        found[role_of(kind, name)] = _tensor(parameter, f"{path}.{name}" if path else name)
    return found


def role_of(kind: str, name: str) -> str:
    """PyTorch's name for a leaf's parameter: gamma and beta are weight and bias there."""
    roles = {"gamma": "weight", "beta": "bias", **operators.operator_of(kind).roles}
    return roles.get(name, name)


def _unused(block: Any, name: str, parameter: Parameter) -> bool:
    # fix_gamma computes with 1 whatever is stored; an untrained beta of zeros adds nothing.
    if name == "gamma":
        return bool(block._kwargs["fix_gamma"])
    untrained = name == "beta" and parameter.grad_req == "null" and parameter._data is not None
    return untrained and not values_of(parameter).any()


def values_of(parameter: Parameter) -> np.ndarray:
    """A copy of a parameter's values, once nothing runs that may lay them out anew.

    In inference oneDNN's convolutions change the layout of their weights in place. MXNet 1.9.1's
    `asnumpy` waits for what writes an array by then, and holds nothing up while it copies: beside
    a forward that nobody waited for, it gives weights that are half in one layout, half in another.
    """
    mx.nd.waitall()
    values: np.ndarray = parameter.data(parameter.list_ctx()[0]).asnumpy()
    return values


def _tensor(parameter: Parameter, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    if parameter._data is None:
        raise ParityError(
            f"the Gluon parameter {name} holds no values yet; call initialize() and run the net "
            "once on its input, so that every shape is known; of a layer that this input does not "
            "reach, give in_units or in_channels"
        )

    def read() -> np.ndarray:
        return values_of(parameter).reshape(shape or ())

    own = tuple(parameter.data(parameter.list_ctx()[0]).shape)  # an imported symbol's are not told
    if shape is None or math.prod(shape) != math.prod(own):
        shape = own  # else it is torch's, of the same numbers
    trainable = parameter.grad_req != "null"
    constant = isinstance(parameter, mx.gluon.Constant) or not parameter._differentiable
    dtype = np.dtype(parameter.dtype).name
    return Tensor(name, shape, dtype, trainable, constant, read)


def describe(block: Block) -> tuple[str, dict[str, object]]:
    """Kind and hyper-parameters of a leaf; subclasses count as the class they extend."""
    hyper: dict[str, object] = {
        key.lstrip("_"): value
        for key, value in vars(block).items()
        if key not in _BLOCK_ATTRIBUTES and isinstance(value, (int, float, str))
    }
    return operators.describe(block, Side.GLUON) or (f"custom:{type(block).__name__}", hyper)


_BLOCK_ATTRIBUTES = frozenset(vars(mx.gluon.HybridBlock()))
