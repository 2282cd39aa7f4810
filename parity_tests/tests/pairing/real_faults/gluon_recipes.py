"""Faults at any operation of a Gluon net.

Framework specific (mxnet): each changes what an operator of a block's `F` is called with or gives,
or a parameter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.backends.gluon.clones import as_is
from parity_tests.reporting.verdicts import Level, Side
from parity_tests.tests.pairing.real_faults.planting import Call, NotHere, Site
from parity_tests.tests.pairing.real_faults.recipes import Plant, Recipe, at_call, table


def _complement(call: Call) -> Any:
    return call.run(momentum=1 - call.kwargs["momentum"])


def _other_pool(call: Call) -> Any:
    other = {"max": "avg", "avg": "max"}[call.kwargs["pool_type"]]
    return call.run(pool_type=other)


def _full(call: Call) -> Any:
    full = call.kwargs.get("pooling_convention") == "full"
    return call.run(pooling_convention="valid" if full else "full")


def _not_counted(call: Call) -> Any:
    return call.run(count_include_pad=not call.kwargs.get("count_include_pad", True))


def _reversed(call: Call) -> Any:
    return call.function(*call.args[::-1], **call.kwargs)


def _without_bias(call: Call) -> Any:
    x, weight, *bias = call.args
    if not bias or bias[0] is None:
        raise NotHere("no bias")
    return call.function(x, weight, None, **{**call.kwargs, "no_bias": True})


def _edited(change: Any, fits: Any) -> Plant:
    """Planted into a weight, after torch's were transferred from it."""

    def plant(site: Site, net: Any) -> None:
        parameter = site.op.parameters.get("weight")
        if parameter is None:
            raise NotHere("no weight")
        held = net._collect_params_with_prefix()[parameter.name]
        value = held.data().asnumpy()
        if not fits(value):
            raise NotHere("its weight does not fit")
        held.set_data(as_is(np.ascontiguousarray(change(value).astype(np.float32))))

    return plant


def _dilated(call: Call) -> Any:
    if tuple(call.kwargs["kernel"]) != (3, 3) or tuple(call.kwargs["pad"]) != (1, 1):
        raise NotHere("not 3 × 3 with padding")
    return call.run(dilate=(2, 2), pad=(2, 2))


_MAPS = "Convolution BatchNorm Activation clip"

GLUON: tuple[Recipe, ...] = (
    *table(
        Side.GLUON, Level.STRUCTURE,
        ("Gluon: epsilon", "BatchNorm", ("eps value",), at_call(lambda call: call.run(eps=1e-3))),
        ("Gluon: momentum complement", "BatchNorm", ("momentum complement",),
         at_call(_complement)),
        ("Gluon: gamma fixed", "BatchNorm", ("gamma ≡ 1",),
         at_call(lambda call: call.run(fix_gamma=True))),
        ("Gluon: another pooling", "Pooling",
         ("average for maximum pooling", "maximum for average pooling"), at_call(_other_pool)),
        ("Gluon: pooling rounds up", "Pooling", ("pooling rounds up",), at_call(_full)),
        ("Gluon: padding counted", "Pooling", ("padding counted",), at_call(_not_counted)),
        ("Gluon: another activation", "Activation", ("another activation",),
         at_call(lambda call: call.run(act_type="softrelu"))),
        ("Gluon: clip bound", "clip", (),
         at_call(lambda call: call.function(call.first, 0.0, 4.0))),
        ("Gluon: dilation", "Convolution", ("dilation", "padding"), at_call(_dilated)),
        ("Gluon: bias dropped", "Convolution FullyConnected", ("bias ignored",),
         at_call(_without_bias)),
        ("Gluon: branches in another order", "Concat", ("branches in another order",),
         at_call(_reversed, lambda op: len(op.inputs) == 2)),
        ("Gluon: dropout rate", "Dropout", ("dropout rate",),
         at_call(lambda call: call.run(p=0.75))),
    ),
    *table(
        Side.GLUON, Level.STRUCTURE,
        ("Gluon: missing activation", "Activation clip", ("additional activation",),
         at_call(lambda call: call.first)),
        ("Gluon: constant factor", _MAPS, ("constant factor",),
         at_call(lambda call: call.run() * (1 + 3e-6))),
        ("Gluon: maps mirrored", _MAPS, ("mirrored",),
         at_call(lambda call: call.run().flip(axis=3), lambda op: len(op.shapes[0]) == 4)),
        behind=True,
    ),
    *table(
        Side.GLUON, Level.WEIGHTS,
        ("Gluon: weights off by a factor", "Convolution FullyConnected", ("constant factor",),
         _edited(lambda w: w * (1 + 3e-6), lambda w: w.size > 8)),
        ("Gluon: flipped kernel", "Convolution", ("flipped kernel",),
         _edited(lambda w: w[:, :, ::-1, ::-1], lambda w: w.ndim == 4 and w.shape[2] > 1)),
    ),
    *table(
        Side.GLUON, Level.FORWARD,
        ("Gluon: moving averages in training", "BatchNorm", ("running statistics in training",),
         at_call(lambda call: call.run(use_global_stats=True))),
    ),
    *table(
        Side.GLUON, Level.BACKWARD,
        ("Gluon: gradient stopped", _MAPS, ("stopped gradient",),
         at_call(lambda call: call.library.BlockGrad(call.run()),
                 lambda op: bool(op.index) and len(op.shapes[0]) == 4)),
        behind=True,
    ),
)  # fmt: skip
