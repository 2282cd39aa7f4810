"""Reads a Gluon net: its leaves, their kinds and hyper-parameters in the suite's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import Block, Parameter, nn
from mxnet.gluon.contrib import nn as contrib

from parity_tests.backends.leaves import OWN_KINDS, Leaf, ParityError, Tensor, number
from parity_tests.reporting.verdicts import Side

__all__ = ["describe", "leaves", "role_of"]


def leaves(net: Block) -> list[Leaf]:
    """The net's leaves in the order of registration; a block used twice appears twice.

    Raises ParityError for parameters that are not initialised yet.
    """
    return list(_walk(net, ""))


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
    if kind == "prelu" and name == "alpha":
        return "weight"
    return {"gamma": "weight", "beta": "bias"}.get(name, name)


def _unused(block: Any, name: str, parameter: Parameter) -> bool:
    # fix_gamma computes with 1 whatever is stored; an untrained beta of zeros adds nothing.
    if name == "gamma":
        return bool(block._kwargs["fix_gamma"])
    untrained = name == "beta" and parameter.grad_req == "null" and parameter._data is not None
    return untrained and not parameter.data(parameter.list_ctx()[0]).asnumpy().any()


def _tensor(parameter: Parameter, name: str) -> Tensor:
    if parameter._data is None:
        raise ParityError(
            f"the Gluon parameter {name} holds no values yet; call initialize() and run the net "
            "once on its input, so that every shape is known"
        )

    def read() -> np.ndarray:
        return parameter.data(parameter.list_ctx()[0]).asnumpy()

    trainable = parameter.grad_req != "null"
    constant = isinstance(parameter, mx.gluon.Constant) or not parameter._differentiable
    dtype = np.dtype(parameter.dtype).name
    return Tensor(name, tuple(parameter.shape), dtype, trainable, constant, read)


def describe(block: Block) -> tuple[str, dict[str, object]]:
    """Kind and hyper-parameters of a leaf; subclasses count as the class they extend."""
    for cls, reader in _READERS:
        if isinstance(block, cls):
            return reader(block)
    name = type(block).__name__
    if name in OWN_KINDS:
        return OWN_KINDS[name], {}
    hyper: dict[str, object] = {
        key.lstrip("_"): value
        for key, value in vars(block).items()
        if key not in _BLOCK_ATTRIBUTES and isinstance(value, (int, float, str))
    }
    return f"custom:{name}", hyper


_BLOCK_ATTRIBUTES = frozenset(vars(mx.gluon.HybridBlock()))


def _conv(b: Any) -> tuple[str, dict[str, object]]:
    options = b._kwargs
    dimensions = len(options["kernel"])
    transposed = b._op_name == "Deconvolution"
    hyper: dict[str, object] = {
        "kernel": number(options["kernel"], dimensions),
        "stride": number(options["stride"], dimensions),
        "pad": number(options["pad"], dimensions),
        "dilation": number(options["dilate"], dimensions),
        "groups": int(options["num_group"]),
    }
    if transposed:
        hyper["output_pad"] = number(options.get("adj", 0), dimensions)
    if not str(options["layout"]).startswith("NC"):
        hyper["layout"] = options["layout"]
    return f"conv{dimensions}d{'_transpose' if transposed else ''}", hyper


def _dense(b: Any) -> tuple[str, dict[str, object]]:
    return "dense", {}


def _pool(b: Any) -> tuple[str, dict[str, object]]:
    options = b._kwargs
    dimensions = len(options["kernel"])
    kind = f"{options['pool_type']}_pool{dimensions}d"
    if options["global_pool"]:
        return f"global_{kind}", {}
    hyper: dict[str, object] = {
        "kernel": number(options["kernel"], dimensions),
        "stride": number(options["stride"], dimensions),
        "pad": number(options["pad"], dimensions),
        "ceil": options["pooling_convention"] == "full",
    }
    if options["pool_type"] == "avg":
        hyper["count_include_pad"] = bool(options.get("count_include_pad", True))
        hyper["divisor"] = None
    else:
        hyper["dilation"] = (1,) * dimensions
    return kind, hyper


def _batch_norm(b: Any) -> tuple[str, dict[str, object]]:
    if getattr(b, "fuse_relu", False):
        return f"custom:{type(b).__name__}", {}
    return "batchnorm", {
        "eps": float(b._kwargs["eps"]),
        "kept": float(b._kwargs["momentum"]),
        "scale": not b._kwargs["fix_gamma"],
        "shift": b.beta.grad_req != "null",
        "axis": int(b._kwargs["axis"]),
        "global_stats": bool(b._kwargs["use_global_stats"]),
    }


def _activation(b: Any) -> tuple[str, dict[str, object]]:
    name = {"softrelu": "softplus"}.get(b._act_type, b._act_type)
    return name, {"beta": 1.0} if name == "softplus" else {}


def _function(b: Any) -> tuple[str, dict[str, object]]:
    """A `Lambda('softmax')` is known by its operator's name; any other function is opaque."""
    function = getattr(b, "_func_impl", None) or b._func
    # HybridLambda('tanh') wraps the operator; a function of the user's own may have any name.
    wrapped = isinstance(b, nn.HybridLambda) and function.__module__ == nn.HybridLambda.__module__
    name = b._func_name if wrapped else ""
    if name in ("relu", "sigmoid", "tanh", "identity"):
        return name, {}
    if name in ("softmax", "log_softmax"):
        return name, {"axis": -1}
    if name == "flatten":
        return "flatten", {"start": 1, "end": -1}
    return f"custom:{type(b).__name__}", {}


def _plain(kind: str, **attributes: str) -> Callable[[Any], tuple[str, dict[str, object]]]:
    return lambda b: (kind, {name: getattr(b, source) for name, source in attributes.items()})


_READERS: list[tuple[Any, Callable[[Any], tuple[str, dict[str, object]]]]] = [
    (nn.conv_layers._Conv, _conv),
    (nn.Dense, _dense),
    (nn.conv_layers._Pooling, _pool),
    # MXNet before 1.8 has no class above its BatchNorm
    (getattr(nn.basic_layers, "_BatchNorm", nn.BatchNorm), _batch_norm),
    (nn.Activation, _activation),
    (nn.LeakyReLU, _plain("leaky_relu", slope="_alpha")),
    (nn.ELU, _plain("elu", alpha="_alpha")),
    (nn.SELU, _plain("selu")),
    (nn.GELU, lambda b: ("gelu", {"approximate": "none"})),
    (nn.Swish, _plain("silu", beta="_beta")),
    (nn.PReLU, _plain("prelu")),
    (nn.Dropout, lambda b: ("dropout", {"p": float(b._rate), "axes": tuple(b._axes)})),
    (nn.Flatten, lambda b: ("flatten", {"start": 1, "end": -1})),
    (contrib.Identity, _plain("identity")),
    (nn.Embedding, _plain("embedding")),
    ((nn.Lambda, nn.HybridLambda), _function),
]
