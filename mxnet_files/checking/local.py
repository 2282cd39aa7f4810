"""Node by node: what one node computes from MXNet's own inputs, against MXNet's own output.

Every node is judged alone: it is fed what MXNet computed for its inputs, so errors do not add up,
and the bound is that of one rounded operation: 16·u·s, with u = 2⁻⁵³ (float64) and s the size of
what was summed (`|W|∗|x| + |b|` for a convolution). What rounds nothing must be bit-equal.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from mxnet_files.functions import mx_index, mx_math, mx_nn, mx_sequence, mx_shape
from mxnet_files.layers import RNN, BatchNorm, Dropout

__all__ = ["BOUND", "FLOAT32_INSIDE", "NodeError", "Walker", "local_errors"]

BOUND = 16.0  # units of u·s, u that of the arrays' dtype
UNITS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}

# MXNet computes these in float32 inside, whatever the dtype of the arrays
FLOAT32_INSIDE = {"LeakyReLU", "degrees", "radians", "erfinv", "gamma", "gammaln"}

ROUNDS_NOTHING: set[Any] = {
    *(torch.relu, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d, torch.clamp),
    *(torch.flatten, torch.reshape, torch.cat, torch.stack, torch.permute, torch.transpose),
    *(torch.unsqueeze, torch.squeeze, torch.flip, torch.tile, torch.detach, torch.movedim),
    *(torch.abs, torch.neg, torch.zeros_like, torch.ones_like, operator.getitem, "type_as", "to"),
    *(getattr(mx_shape, name) for name in mx_shape.__all__),
    *(getattr(mx_sequence, name) for name in mx_sequence.__all__),
    *(getattr(mx_index, name) for name in mx_index.__all__ if name != "arange_like"),
    *(mx_math.maximum, mx_math.minimum, mx_math.reduce_max, mx_math.reduce_min),
    *(mx_math.argmax, mx_math.argmin, mx_nn.embedding, F.pad),
}
# s is the same operation on absolute values
LINEAR: dict[Any, Callable[..., Any]] = {
    **{conv: conv for conv in (torch.conv1d, torch.conv2d, torch.conv3d)},
    **{conv: conv for conv in (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)},
    **{pool: pool for pool in (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)},
    **{mean: mean for mean in (F.adaptive_avg_pool2d, mx_math.reduce_mean, mx_math.reduce_sum)},
    **{product: product for product in (F.linear, torch.matmul, mx_math.dot)},
    mx_nn.deconvolution_to: mx_nn.deconvolution_to,
    operator.add: operator.add,
    operator.sub: operator.add,
}


@dataclass(frozen=True)
class NodeError:
    """The worst element of one node's output, in units of u·s (0: bit-equal)."""

    name: str
    op: str
    units: float
    exact: bool  # the operation rounds nothing

    @property
    def ok(self) -> bool:
        return self.units == 0 if self.exact else self.units <= BOUND


def local_errors(
    module: fx.GraphModule,
    inputs: Sequence[np.ndarray],
    expected: Mapping[tuple[str, int], np.ndarray],
) -> list[NodeError]:
    """Errors of every node that `expected` (MXNet's outputs) holds, in the dtype of the module."""
    walker = _Judge(module, expected)
    with torch.no_grad():
        walker.run(*(torch.from_numpy(x) for x in inputs))
    return walker.errors


class Walker(fx.Interpreter):
    """Runs a module node by node; `seen` is told what each of MXNet's nodes gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.sizes: dict[fx.Node, Tensor] = {}  # s of a linear step within one of MXNet's nodes

    def seen(self, n: fx.Node, result: Any) -> Any:
        """What to pass on in the place of `result`; None for a node that is not looked at."""
        raise NotImplementedError

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.meta.get("mxnet", ("null", "", 0))[0] != "null":
            passed = self.seen(n, result)
            if passed is not None:
                return passed
        if n.op == "call_function" and n.target in LINEAR:
            self.sizes[n] = LINEAR[n.target](*self.absolute(n))
        return result

    def absolute(self, n: fx.Node) -> tuple[Any, ...]:
        """The arguments with the absolute values of arrays and numbers."""
        arguments = [
            self.sizes[arg] if isinstance(arg, fx.Node) and arg in self.sizes else value
            for arg, value in zip(n.args, self.fetch_args_kwargs_from_env(n)[0], strict=True)
        ]
        return tuple(
            abs(value) if isinstance(value, (Tensor, float)) else value for value in arguments
        )

    def scale(self, n: fx.Node, y: Tensor) -> Tensor | None:
        """s in the dtype of y, which the operation gives; None where nothing is rounded."""
        scale = self.size(n, y)
        if self.in_float32(n) and scale is not None and y.dtype == torch.float64:
            return scale * 2.0 ** (53 - 24)
        return scale

    def in_float32(self, n: fx.Node) -> bool:
        """True where MXNet computes in float32 whatever it is given."""
        source = n.args[0] if n.target is operator.getitem else n
        layer: Any = None
        if isinstance(source, fx.Node) and source.op == "call_module":
            layer = self.fetch_attr(str(source.target))
        return n.meta["mxnet"][0] in FLOAT32_INSIDE or (isinstance(layer, RNN) and layer.relu)

    def size(self, n: fx.Node, y: Tensor) -> Tensor | None:
        """s, also where MXNet computes in float32 whatever it is given."""
        target: Any = self.fetch_attr(str(n.target)) if n.op == "call_module" else n.target
        args, _ = self.fetch_args_kwargs_from_env(n)
        if target is operator.getitem and isinstance(n.args[0], fx.Node):  # of several outputs
            whole = n.args[0]
            exact = whole.op == "call_function" and whole.target in ROUNDS_NOTHING
            return None if exact else y.abs() + y.abs().max()
        if target in ROUNDS_NOTHING or isinstance(target, (nn.Dropout, Dropout)):
            return None
        if target in LINEAR:
            return LINEAR[target](*self.absolute(n))
        if target in (mx_nn.pool, mx_nn.pool_1d, mx_nn.global_pool):
            if args[1] == "max":
                return None
            if args[1] != "lp":
                return target(*self.absolute(n))
        if isinstance(target, BatchNorm):
            return _batch_norm_scale(target, *args)
        if target is torch.softmax:
            x, axis = args[0], args[1]
            return y.abs() * (1 + (x - x.amax(axis, keepdim=True)).abs())
        if target is torch.log_softmax:
            return y.abs() + args[0].abs()
        if target in (operator.mul, operator.truediv, torch.sigmoid, torch.tanh, F.softplus):
            return y.abs()
        return y.abs() + y.abs().max()  # no closer analysis: the size of the largest output


class _Judge(Walker):
    """Feeds every node with what MXNet computed, and measures what it makes of that."""

    def __init__(
        self, module: fx.GraphModule, expected: Mapping[tuple[str, int], np.ndarray]
    ) -> None:
        super().__init__(module)
        self.expected = expected
        self.errors: list[NodeError] = []

    def seen(self, n: fx.Node, result: Any) -> Any:
        op, name, index = n.meta["mxnet"]
        if (name, index) not in self.expected:
            return None
        wanted = torch.from_numpy(self.expected[name, index])
        if wanted.shape != result.shape:
            self.errors.append(NodeError(name, op, float("inf"), exact=False))
            return wanted
        scale = self.scale(n, wanted)
        self.errors.append(NodeError(name, op, units(result, wanted, scale), scale is None))
        return wanted


def units(a: Tensor, b: Tensor, scale: Tensor | None) -> float:
    """max |a − b| / (u·s); without a scale 0 or infinity."""
    if scale is None:
        return 0.0 if torch.equal(a, b) else float("inf")
    if a.numel() == 0:
        return 0.0
    ratio = (a - b).abs() / (UNITS.get(b.dtype, UNITS[torch.float64]) * scale)
    ratio = torch.where(a == b, torch.zeros_like(ratio), ratio)
    return float(torch.nan_to_num(ratio, nan=float("inf")).max())


def _batch_norm_scale(
    layer: BatchNorm, x: Tensor, gamma: Tensor | None, beta: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """|γ/σ|·(|x| + |μ|) + |β|."""
    shape = [1] * x.dim()
    shape[layer.axis] = -1
    size = torch.rsqrt(var + layer.eps) * (1.0 if gamma is None else gamma.abs())
    return size.reshape(shape) * (x.abs() + mean.abs().reshape(shape)) + beta.abs().reshape(shape)
