"""Batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.numerics.operators.batch_norm import OWN, batch_norm_scales
from parity_tests.numerics.operators.cases import ReferenceCase
from parity_tests.numerics.operators.record import (
    Hyper,
    Operator,
    Reader,
    Tolerance,
    plus_length,
    plus_root,
)

_UNBLOCKED = Tolerance(
    plus_root,
    "MXNet's CPU BatchNorm adds a channel's n values one by one in the dtype of the input. "
    "The error of such a sum grows like a random walk, √n·u·Σ|x| (Higham and Mary 2019, "
    "doi 10.1137/18M1226312), and mean and variance both carry it; 87 was seen at n = 16,384, "
    "where √n = 128, and 144 at 65,536, where it is 256. What the walk does not cover, values that "
    "repeat, is computed on the values themselves (batch_norm._drift) and allowed twice",
)
_BOTH_UNBLOCKED = Tolerance(
    plus_length,
    "in float64 both frameworks add one by one, in different orders: running statistics differ by "
    "no more than n·u (Higham 2002, section 4.2). Outputs and gradients keep to 16",
)


def _gluon(b: Any) -> Hyper:
    return {
        "eps": float(b._kwargs["eps"]),
        "kept": float(b._kwargs["momentum"]),
        "scale": not b._kwargs["fix_gamma"],
        "shift": b.beta.grad_req != "null",
        "axis": int(b._kwargs["axis"]),
        "global_stats": bool(b._kwargs["use_global_stats"]),
    }


def _is_plain(b: Any) -> bool:
    return not getattr(b, "fuse_relu", False)


def _torch(m: Any) -> Hyper:
    return {
        "eps": float(m.eps),
        # the fraction of the running value that a step keeps
        "kept": None if m.momentum is None else 1.0 - float(m.momentum),
        "scale": bool(m.affine),
        "shift": bool(m.affine),
        "axis": 1,
        "global_stats": m.running_mean is not None
        and (not m.track_running_stats or _stays_in_inference(m)),
    }


def _stays_in_inference(m: Any) -> bool:
    """Whether a class of the user's own keeps its modules out of training (frozen statistics)."""
    if type(m).train.__module__.startswith("torch.nn"):
        return False
    mode = m.training
    try:
        m.train(True)
        return not m.training
    finally:
        m.training = mode


def _reference(c: ReferenceCase) -> Any:
    def spread(values: Any) -> Any:
        return values.reshape(1, -1, *(1,) * (c.x.ndim - 2))

    axes = (0, *range(2, c.x.ndim))
    own = c.hyper["kept"] == OWN  # no formula says what becomes of the statistics
    eps, kept = float(c.hyper["eps"]), 0.0 if own else float(np.float32(c.hyper["kept"]))
    old_mean, old_variance = c.tensors["running_mean"], c.tensors["running_var"]
    count = c.x.numel() // c.x.shape[1]
    batch = c.train and not c.hyper["global_stats"]
    batch = batch or c.fault == "batch statistics in inference"
    batch = batch and c.fault != "running statistics in training"
    mean, variance = old_mean, old_variance
    if batch:
        mean, variance = c.x.mean(axes), c.x.var(axes, unbiased=False)
    stored = [mean.detach(), variance.detach()]
    ratio = count / max(1, count - 1)
    if c.fault == "variance ratio n/(n−1) stored":
        stored[1] = stored[1] * ratio
    if c.fault == "momentum complement":
        kept = 1 - kept
    updates = 1 if batch and c.train else 0
    updates = {"update missed": 0, "update made twice": 2}.get(c.fault, updates)
    names = () if own else ("running_mean", "running_var")
    for name, old, new in zip(names, (old_mean, old_variance), stored, strict=False):
        for _ in range(updates):
            old = old * kept + new * (1 - kept)
        c.buffers[name] = old.detach().numpy().copy()
    if c.fault == "variance ratio n/(n−1)" and batch:
        variance = variance * ratio
    if c.fault == "statistics held constant":
        mean, variance = mean.detach(), variance.detach()
    deviation = variance.sqrt() + eps if c.fault == "eps placement" else (variance + eps).sqrt()
    y = (c.x - spread(mean)) / spread(deviation)
    if "weight" in c.tensors:
        gamma = c.tensors["weight"]
        y = y * spread(gamma * 0 + 1 if c.fault == "gamma ≡ 1" else gamma)
    if "bias" in c.tensors:
        beta = c.tensors["bias"]
        y = y + spread(beta * 0 if c.fault == "bias ignored" else beta)
    return y


_FAULTS = (
    "eps placement", "variance ratio n/(n−1)", "gamma ≡ 1", "bias ignored",
    "batch statistics in inference", "running statistics in training", "momentum complement",
    "update missed", "update made twice", "statistics held constant",
)  # fmt: skip

_TOLERANCES = {
    ("train", "gluon", "float32"): _UNBLOCKED,
    ("statistics", "gluon", "float32"): _UNBLOCKED,
    ("statistics", "gluon", "float64"): _BOTH_UNBLOCKED,
}
_OTHER_MOMENTUM = Tolerance(
    lambda n: plus_length(n) + 2 * 2.0**29,
    "MXNet rounds the momentum to float32, and code of the net's own need not: both of its parts "
    "are off by up to one unit of float32",
)

OPERATORS = (
    Operator(
        kind="batchnorm",
        # MXNet before 1.8 has no class above its BatchNorm
        gluon=(Reader("_BatchNorm", _gluon, _is_plain), Reader("BatchNorm", _gluon, _is_plain)),
        torch=(Reader("_BatchNorm", _torch),),
        scale=batch_norm_scales,
        tolerances=_TOLERANCES,
        single=("momentum",),
        torch_names=("batch_norm", "_BatchNorm"),
        by_mode=True,
        shape=lambda hyper, shapes: (3, *shapes["running_mean"], 5, 4),
        reference=_reference,
        faults=(
            ("variance ratio n/(n−1) stored", "variance ratio n/(n−1)"),
            *((name, name) for name in _FAULTS),
        ),
    ),
    # whose running statistics the net's own code keeps
    Operator(
        kind="own_batchnorm",
        scale=batch_norm_scales,
        tolerances={**_TOLERANCES, ("statistics", "gluon", "float64"): _OTHER_MOMENTUM},
        by_mode=True,
    ),
)
