"""Between backward and update: gradients added up over the parts of a batch, and clipped."""

from __future__ import annotations

import mxnet as mx
from mxnet import gluon

__all__ = ["accumulate", "clear", "clip_norm"]


def accumulate(net: gluon.HybridBlock, parts: int) -> None:
    """Let each backward add to the gradients instead of replacing them, where parts are several."""
    if parts > 1:
        for parameter in net.collect_params().values():
            if parameter.grad_req == "write":
                parameter.grad_req = "add"


def clear(trainer: gluon.Trainer) -> None:
    """Begin a batch whose parts' gradients are added."""
    for parameter in trainer._params:
        if parameter.grad_req == "add":
            parameter.zero_grad()


def clip_norm(trainer: gluon.Trainer, limit: float) -> None:
    """Scale the gradients so that their norm, over all parameters together, is `limit` at most.

    As Pascanu, Mikolov, Bengio 2012, section 3.2. For gradients that are added over devices and
    workers already: each device scales its own copy, by the same factor. Nothing is read.
    """
    parameters = [p for p in trainer._params if p.grad_req != "null"]
    for number in range(len(trainer._contexts)):
        gradients = [parameter.list_grad()[number] for parameter in parameters]
        squares = mx.nd.add_n(*[mx.nd.sum(mx.nd.square(g)) for g in gradients])
        factor = limit / mx.nd.maximum(mx.nd.sqrt(squares), limit)  # 1 where nothing is clipped
        for gradient in gradients:
            mx.nd.broadcast_mul(gradient, factor.reshape((1,) * gradient.ndim), out=gradient)
