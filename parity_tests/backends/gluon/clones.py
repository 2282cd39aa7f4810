"""Copies of Gluon leaves and nets, with their own values or with others.

A clone is never hybridized, lives on the CPU, and has parameters of its own, so that gradients,
running statistics and hooks of the original stay as they are, whatever happens to it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, HybridBlock, Parameter
from mxnet.gluon.block import _BlockScope

from parity_tests.backends.cloning import duplicate
from parity_tests.backends.gluon.executed import ExecutedBlock
from parity_tests.backends.gluon.leaves import leaves, role_of, values_of
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import rounded


def clone(net: Block, dtype: str | None, *, gradients: bool = True) -> Block:
    """An independent copy with parameters rounded through float32 to `dtype`, or as they are."""
    memo: dict[int, Any] = {}
    for block in _blocks(net):
        if isinstance(block, HybridBlock):
            # Compiled graphs cannot be copied, and the clone must not run them.
            memo[id(block._cached_op)] = None
            memo[id(block._cached_graph)] = ()
        shared = block.params._shared or {}
        for parameter in (*block._reg_params.values(), *block.params.values(), *shared.values()):
            if id(parameter) not in memo:
                memo[id(parameter)] = _parameter(parameter, dtype, gradients)
    copied = duplicate(net, memo)
    for block in _blocks(copied):
        if isinstance(block, HybridBlock):
            block._active = False
        elif isinstance(block, ExecutedBlock):
            block.dtype = dtype or block.dtype
    return copied


def _blocks(block: Block) -> Iterator[Block]:
    yield block
    for child in block._children.values():
        yield from _blocks(child)


def _parameter(source: Parameter, dtype: str | None, gradients: bool) -> Parameter:
    if source._data is None:  # declared and never used
        kind = dtype or source.dtype
        return Parameter(source.name, shape=source.shape, dtype=kind, allow_deferred_init=True)
    own = source.data(source.list_ctx()[0]).as_nd_ndarray()
    if dtype is None or own.dtype not in (np.float32, np.float64, np.float16):
        values = own.copyto(mx.cpu())
    elif own.dtype == np.float32:  # as nearly all are: one copy
        values = own.as_in_context(mx.cpu()).astype(dtype)
    else:
        values = as_is(rounded(values_of(source), dtype))
    differentiable = source._differentiable and not isinstance(source, mx.gluon.Constant)
    twin = Parameter(
        source.name,
        grad_req=("write" if source.grad_req != "null" else "null") if gradients else "null",
        shape=values.shape,
        dtype=values.dtype,
        differentiable=differentiable,
        lr_mult=source.lr_mult,
        wd_mult=source.wd_mult,
    )
    twin._init_impl(values, [mx.cpu()])
    twin._grad_req = source.grad_req  # nothing is allocated for it; a clone of this one may
    return twin


def alone(leaf: Leaf, dtype: str | None, *, gradients: bool = True) -> Block:
    """A `clone` of one leaf, without the activation that Dense and Conv may carry as a child."""
    block = copy.copy(leaf.block)
    block.__dict__["_scope"] = _BlockScope(block)  # the original's scope leads to the original
    if block._children:
        block.__dict__["_children"] = type(block._children)()
        block.__dict__["act"] = None
    return clone(block, dtype, gradients=gradients)


def release(cloned: Block) -> None:
    """Let go of a clone's arrays, which nobody uses after this.

    A block and its scope hold each other, so that only the cyclic collector would free them, and
    that counts objects: a layer of VGG16 is a few hundred, and gigabytes.
    """
    for block in list(_blocks(cloned)):
        vars(block).clear()


def roles(leaf: Leaf, block: Block) -> list[tuple[str, Parameter]]:
    """The clone's parameters under the roles that the leaf's listing gave them."""
    roles = [(role_of(leaf.kind, name), p) for name, p in block._reg_params.items()]
    return [(role, p) for role, p in roles if role in leaf.tensors]


def with_values(net: Block, values: Mapping[tuple[str, str], np.ndarray]) -> Block:
    """A copy of the net with other values by (path, role), and without memory for gradients."""
    copied = clone(net, None, gradients=False)
    for leaf in leaves(copied):
        set_values(
            leaf, {r: values[leaf.path, r] for r in leaf.tensors if (leaf.path, r) in values}
        )
    return copied


def leaf_with_values(leaf: Leaf, values: Mapping[str, np.ndarray]) -> Leaf:
    """A copy of the leaf with other values by role, and without memory for gradients."""
    copied = replace(leaf, block=alone(leaf, None, gradients=False))
    set_values(copied, values)
    return copied


def set_values(leaf: Leaf, values: Mapping[str, np.ndarray]) -> None:
    """Put other values, by role, into the leaf itself."""
    for role, parameter in roles(leaf, leaf.block):
        if role in values:
            parameter.set_data(as_is(values[role].reshape(parameter.shape)))


def ndarray(value: np.ndarray, dtype: str) -> mx.nd.NDArray:
    """Floats as an NDArray of `dtype`, other types as they are."""
    return as_is(rounded(value, dtype))


def as_is(value: np.ndarray) -> mx.nd.NDArray:
    """The same numbers in the same dtype; six times as fast as `mx.nd.array`."""
    if value.ndim == 0:
        return mx.nd.array(value, dtype=value.dtype)
    made = mx.nd.empty(value.shape, dtype=value.dtype)
    made._sync_copyfrom(value)
    return made
