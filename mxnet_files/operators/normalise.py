"""Normalisation: over the batch, a layer, an instance, a group, neighbours, or to unit length."""

from __future__ import annotations

import operator
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.dtypes import Dtypes
from mxnet_files.functions import mx_nn
from mxnet_files.layers import BatchNorm, BatchNormWithStatistics
from mxnet_files.registry import (
    OPERATORS,
    Wired,
    Wiring,
    outputs_of,
    register,
    register_call,
    registered,
)


def batch_norm(w: Wiring, a: SimpleNamespace, x: fx.Node, gamma: fx.Node, *rest: fx.Node) -> Wired:
    beta, mean, var = rest
    found = w.shape(beta)
    for node, what in ((gamma, "gamma"), (mean, "moving_mean"), (var, "moving_var")):
        w.expect(node, (None,) if found is None else found, what)
    if a.eps <= 0:
        raise w.refuse(f"eps={a.eps}, expected a positive number")
    kind = BatchNormWithStatistics if a.output_mean_var else BatchNorm
    layer = kind(a.eps, a.momentum, a.use_global_stats, getattr(a, "axis", 1))
    y = w.layer(layer, x, None if a.fix_gamma else gamma, beta, mean, var)
    return outputs_of(w, y, 3) if a.output_mean_var else y


STATISTICS = (
    "momentum: real = 0.9, fix_gamma: boolean = True, use_global_stats: boolean = False, "
    "output_mean_var: boolean = False"
)
BATCH_NORM_V1 = f"eps: real = 0.001, {STATISTICS}"
INPUTS = "data gamma beta moving_mean moving_var"


def count(a: SimpleNamespace) -> int:
    return 3 if a.output_mean_var else 1


register(
    "BatchNorm",
    batch_norm,
    INPUTS,
    # an omitted eps is the float32 number, read as a double
    f"eps: double = 0.0010000000474974513, {STATISTICS}, axis: integer = 1, cudnn_off: ignored, "
    "min_calib_range: ignored, max_calib_range: ignored",
    count,
    dtypes=Dtypes.FLOATING,
)


@registered(
    "_contrib_BatchNormWithReLU",
    INPUTS,
    OPERATORS["BatchNorm"].attributes,
    count,
    dtypes=Dtypes.FLOATING,
)
def batch_norm_with_relu(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    y = batch_norm(w, a, *inputs)
    if isinstance(y, tuple):
        return (w.call(torch.relu, y[0], part="relu"), *y[1:])
    return w.call(torch.relu, y, part="relu")


register("BatchNorm_v1", batch_norm, INPUTS, BATCH_NORM_V1, count, dtypes=Dtypes.FLOATING)
register(  # the statistics of several devices at once, which is one batch here
    "_contrib_SyncBatchNorm",
    batch_norm,
    INPUTS,
    f"{BATCH_NORM_V1}, ndev: ignored, key: ignored",
    count,
    dtypes=Dtypes.FLOATING,
)


@registered("InstanceNorm", "data gamma beta", "eps: real = 0.001", dtypes=Dtypes.FLOATING)
def instance_norm(w: Wiring, a: SimpleNamespace, x: fx.Node, *scale: fx.Node) -> Wired:
    return w.call(torch.instance_norm, x, *scale, None, None, True, 0.0, a.eps, False)


@registered(
    "LayerNorm",
    "data gamma beta",
    "axis: integer = -1, eps: real = 1e-05, output_mean_var: boolean = False",
    count,
    dtypes=Dtypes.FLOATING,
)
def layer_norm(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    if not a.output_mean_var:
        return w.call(mx_nn.layer_norm, *inputs, a.axis, a.eps)
    y = w.call(mx_nn.layer_norm_statistics, *inputs, a.axis, a.eps, part="all")
    return outputs_of(w, y, 3)


@registered(
    "GroupNorm",
    "data gamma beta",
    "num_groups: integer = 1, eps: real = 1e-05, output_mean_var: boolean = False",
    count,
    dtypes=Dtypes.FLOATING,
)
def group_norm(w: Wiring, a: SimpleNamespace, *inputs: fx.Node) -> Wired:
    if a.num_groups < 1:
        raise w.refuse(f"num_groups={a.num_groups}, expected at least 1")
    y = w.call(mx_nn.group_norm, *inputs, a.num_groups, a.eps, part="all")
    return outputs_of(w, y, 3) if a.output_mean_var else w.call(operator.getitem, y, 0)


@registered(
    "LRN",
    "data",
    "nsize: integer, alpha: real = 0.0001, beta: real = 0.75, knorm: real = 2.0",
    dtypes=Dtypes.FLOATING,
)
def local_response(w: Wiring, a: SimpleNamespace, x: fx.Node) -> Wired:
    if a.nsize < 1 or a.nsize % 2 == 0:
        raise w.refuse(f"nsize={a.nsize}, expected an odd number of channels")
    return w.call(F.local_response_norm, x, a.nsize, a.alpha, a.beta, a.knorm)


register_call(
    "L2Normalization",
    mx_nn.l2_normalize,
    "data",
    "mode: (instance|channel|spatial) = instance, eps: real = 1e-10",
    dtypes=Dtypes.FLOATING,
)
