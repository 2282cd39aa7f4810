"""Reads a torch net: its leaves, their kinds and hyper-parameters in the suite's vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import nn

from parity_tests.backends.leaves import OWN_KINDS, Leaf, Tensor, number
from parity_tests.reporting.verdicts import Side

__all__ = ["describe", "leaves"]

# Counts batches for an average that MXNet does not have; nothing reads it while momentum is set.
_IGNORED = ("num_batches_tracked",)


def leaves(net: nn.Module) -> list[Leaf]:
    """The net's leaves in the order of registration; a module used twice appears twice."""
    return list(_walk(net, ""))


def _walk(module: nn.Module, path: str) -> Iterator[Leaf]:
    children = [(name, child) for name, child in module._modules.items() if child is not None]
    own = [p for p in module._parameters.values() if p is not None]
    if not children and isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return
    if not children or own:
        kind, hyper = describe(module)
        yield Leaf(
            Side.TORCH, path, kind, module, hyper, _tensors(module, path), composite=bool(children)
        )
    for name, child in children:
        yield from _walk(child, f"{path}.{name}" if path else name)


def _tensors(module: nn.Module, path: str) -> dict[str, Tensor]:
    # Read from the tensor as it is when asked for, so that a listing stays true after training.
    found = {}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            found[name] = _tensor(module, path, name, parameter.requires_grad, buffer=False)
    for name, value in module._buffers.items():
        hidden = name in _IGNORED or name in module._non_persistent_buffers_set
        if value is not None and not hidden:
            found[name] = _tensor(module, path, name, trainable=False, buffer=True)
    return found


def _tensor(module: nn.Module, path: str, name: str, trainable: bool, buffer: bool) -> Tensor:
    value = getattr(module, name)

    def read() -> np.ndarray:
        return getattr(module, name).detach().cpu().numpy().copy()

    dtype = str(value.dtype).removeprefix("torch.")
    full = f"{path}.{name}" if path else name
    return Tensor(full, tuple(value.shape), dtype, trainable, buffer, read)


def describe(module: nn.Module) -> tuple[str, dict[str, object]]:
    """Kind and hyper-parameters of a leaf; subclasses count as the class they extend."""
    for cls, reader in _READERS:
        if isinstance(module, cls):
            return reader(module)
    name = type(module).__name__
    if name in OWN_KINDS:
        return OWN_KINDS[name], {}
    hyper: dict[str, object] = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key != "training" and isinstance(value, (int, float, str))
    }
    return f"custom:{name}", hyper


def _conv(m: Any) -> tuple[str, dict[str, object]]:
    dimensions = len(m.kernel_size)
    transposed = bool(m.transposed)
    hyper: dict[str, object] = {
        "kernel": number(m.kernel_size, dimensions),
        "stride": number(m.stride, dimensions),
        "pad": _conv_padding(m, dimensions),
        "dilation": number(m.dilation, dimensions),
        "groups": int(m.groups),
    }
    if transposed:
        hyper["output_pad"] = number(m.output_padding, dimensions)
    return f"conv{dimensions}d{'_transpose' if transposed else ''}", hyper


def _conv_padding(m: Any, dimensions: int) -> object:
    if m.padding_mode != "zeros":
        return f"{m.padding} filled by {m.padding_mode}"
    if m.padding == "valid":
        return (0,) * dimensions
    if m.padding != "same":
        return number(m.padding, dimensions)
    total = [d * (k - 1) for d, k in zip(m.dilation, m.kernel_size, strict=True)]
    return tuple(t // 2 for t in total) if not any(t % 2 for t in total) else "same, asymmetric"


def _linear(m: Any) -> tuple[str, dict[str, object]]:
    return "dense", {}


def _max_pool(m: Any) -> tuple[str, dict[str, object]]:
    return _pool(m, "max", {"dilation": number(m.dilation, _dimensions(m))})


def _avg_pool(m: Any) -> tuple[str, dict[str, object]]:
    extra = {
        "count_include_pad": bool(m.count_include_pad),
        "divisor": getattr(m, "divisor_override", None),
    }
    return _pool(m, "avg", extra)


def _pool(m: Any, kind: str, extra: dict[str, object]) -> tuple[str, dict[str, object]]:
    dimensions = _dimensions(m)
    stride = m.kernel_size if m.stride is None else m.stride
    return f"{kind}_pool{dimensions}d", {
        "kernel": number(m.kernel_size, dimensions),
        "stride": number(stride, dimensions),
        "pad": number(m.padding, dimensions),
        "ceil": bool(m.ceil_mode),
        **extra,
    }


def _dimensions(m: nn.Module) -> int:
    names = [cls.__name__ for cls in type(m).__mro__]
    return int(next(name[-2] for name in names if name[-1:] == "d" and name[-2:-1].isdigit()))


def _adaptive(kind: str) -> Callable[[Any], tuple[str, dict[str, object]]]:
    def read(m: Any) -> tuple[str, dict[str, object]]:
        dimensions = _dimensions(m)
        size = m.output_size
        size = (size,) * dimensions if isinstance(size, int) or size is None else tuple(size)
        if size == (1,) * dimensions:
            return f"global_{kind}_pool{dimensions}d", {}
        return f"adaptive_{kind}_pool{dimensions}d", {"output": size}

    return read


def _batch_norm(m: Any) -> tuple[str, dict[str, object]]:
    momentum = None if m.momentum is None else 1.0 - float(m.momentum)
    return "batchnorm", {
        "eps": float(m.eps),
        "kept": momentum,  # the fraction of the running value that a step keeps
        "scale": bool(m.affine),
        "shift": bool(m.affine),
        "axis": 1,
        "global_stats": not m.track_running_stats and m.running_mean is not None,
    }


def _dropout(axes: tuple[int, ...]) -> Callable[[Any], tuple[str, dict[str, object]]]:
    return lambda m: ("dropout", {"p": float(m.p), "axes": axes})


def _plain(kind: str, **attributes: str) -> Callable[[Any], tuple[str, dict[str, object]]]:
    return lambda m: (kind, {name: getattr(m, source) for name, source in attributes.items()})


_READERS: list[tuple[Any, Callable[[Any], tuple[str, dict[str, object]]]]] = [
    (nn.modules.conv._ConvNd, _conv),
    (nn.Linear, _linear),
    (nn.modules.pooling._MaxPoolNd, _max_pool),
    (nn.modules.pooling._AvgPoolNd, _avg_pool),
    (nn.modules.pooling._AdaptiveAvgPoolNd, _adaptive("avg")),
    (nn.modules.pooling._AdaptiveMaxPoolNd, _adaptive("max")),
    (nn.modules.batchnorm._BatchNorm, _batch_norm),
    (nn.Dropout, _dropout(())),
    (nn.Dropout1d, _dropout((2,))),
    (nn.Dropout2d, _dropout((2, 3))),
    (nn.Dropout3d, _dropout((2, 3, 4))),
    (nn.ReLU, _plain("relu")),
    (nn.Sigmoid, _plain("sigmoid")),
    (nn.Tanh, _plain("tanh")),
    (nn.Softplus, _plain("softplus", beta="beta")),
    (nn.Softsign, _plain("softsign")),
    (nn.LeakyReLU, _plain("leaky_relu", slope="negative_slope")),
    (nn.ELU, _plain("elu", alpha="alpha")),
    (nn.SELU, _plain("selu")),
    (nn.GELU, _plain("gelu", approximate="approximate")),
    (nn.SiLU, lambda m: ("silu", {"beta": 1.0})),
    (nn.PReLU, _plain("prelu")),
    (nn.Softmax, _plain("softmax", axis="dim")),
    (nn.LogSoftmax, _plain("log_softmax", axis="dim")),
    (nn.Flatten, _plain("flatten", start="start_dim", end="end_dim")),
    (nn.Identity, _plain("identity")),
    (nn.Embedding, _plain("embedding")),
]
