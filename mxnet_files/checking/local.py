"""Node by node: what one node computes from MXNet's own inputs, against MXNet's own output.

Every node is judged alone: it is fed what MXNet computed for its inputs, so errors do not add up,
and the bound is that of one rounded operation: 16·u·s, with u = 2⁻⁵³ (float64) and s the size of
what was summed (`|W|∗|x| + |b|` for a convolution). A sum of n terms that MXNet adds one after the
other, as pooling, reductions and normalisation do, has (16 + n)·u·s: each addition rounds, and
where values repeat, all in the same direction. So has a product of matrices
(80 units were met, in GluonCV's DANet), and a convolution or dense layer in float64, which is a
product of matrices there (61.2 at n = 1152 in AlphaPose). In float32 oneDNN adds in blocks, whose
errors go either way: (16 + √n)·u·s. What rounds nothing must be bit-equal. Where MXNet has no
float64, the same is done in float32 with 32 for 16: there both sides may be 16·u·s from what is
right.

Of `argsort` and `topk`, another order of equal elements agrees: MXNet's CPU leaves them to
`std::sort`. Such a node is `tied`, and what depends on its order is the caller's to say.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from mxnet_files.functions import (
    mx_dtype,
    mx_index,
    mx_math,
    mx_nn,
    mx_regions,
    mx_resize,
    mx_sequence,
    mx_shape,
)
from mxnet_files.layers import RNN, BatchNorm, Control, Dropout, While
from mxnet_files.running import Named

BOUND = 16.0  # units of u·s, u that of the arrays' dtype
UNITS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}

# MXNet computes these in float32 inside, whatever the dtype of the arrays; and the plain recurrent
# layer with ReLU
FLOAT32_INSIDE = {
    *("LeakyReLU", "Pooling_v1", "_contrib_BilinearResize2D"),
    # in float64, but not to its last digits: MXNet beside ±1, the import by way of a logarithm
    *("erfinv", "gamma"),
}

ROUNDS_NOTHING: set[Any] = {
    *(torch.relu, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d, torch.clamp),
    *(torch.flatten, torch.reshape, torch.cat, torch.stack, torch.permute, torch.transpose),
    *(torch.unsqueeze, torch.squeeze, torch.flip, torch.tile, torch.detach, torch.movedim),
    *(torch.abs, torch.neg, torch.zeros_like, torch.ones_like, operator.getitem, "type_as", "to"),
    *(getattr(mx_shape, name) for name in mx_shape.__all__),
    *(getattr(mx_sequence, name) for name in mx_sequence.__all__),
    *(getattr(mx_index, name) for name in mx_index.__all__ if name != "arange_like"),
    *(mx_math.maximum, mx_math.minimum, mx_math.reduce_max, mx_math.reduce_min),
    *(mx_math.argmax, mx_math.argmin, mx_math.clip, mx_nn.embedding, F.pad),
    *(torch.clamp_min, torch.clamp_max, *(getattr(mx_dtype, name) for name in mx_dtype.__all__)),
}
# The axis of what gives an order of its first argument, from the arguments
ORDERS: dict[Any, Callable[..., int | None]] = {
    mx_index.argsort: lambda x, axis, *_: axis,
    **dict.fromkeys(
        (mx_index.topk, mx_index.topk_indices, mx_index.topk_mask), lambda x, k, axis, *_: axis
    ),
}
# MXNet's operators whose result jumps where numbers that nearly tie change places
CHOOSING = {
    *("topk", "argsort", "sort", "argmax", "argmin", "argmax_channel", "ROIPooling"),
    *("_contrib_box_nms", "_contrib_bipartite_matching", "_contrib_MultiBoxDetection"),
}
# Of these, what gives values of the same places, perhaps others: s stays where it is
VALUES_PASS = (torch.relu, torch.clamp, torch.abs, torch.neg, torch.detach)
QUOTIENTS = (operator.truediv, mx_math.divide, mx_math.divide_number)
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


def _per_output(*args: Any) -> int:
    """Terms of a reduction: elements in over elements out."""
    return args[0].numel() // max(1, args[-1].numel())


RESIZES = tuple(getattr(mx_resize, name) for name in mx_resize.__all__)


def _features(x: Tensor, *_: Any) -> int:
    return x[0].numel()


def _filter(x: Tensor, weight: Tensor, *_: Any) -> int:
    terms = weight[0].numel()
    return terms if weight.dtype == torch.float64 else math.isqrt(terms)


# Terms of the sums that are added one by one, from the arguments and the result
LENGTHS: dict[Any, Callable[..., int]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d, F.linear), _filter),
    mx_regions.deformable_convolution: lambda x, offset, mask, weight, *_: _filter(x, weight),
    **dict.fromkeys(
        (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), lambda x, kernel, *_: math.prod(kernel)
    ),
    **dict.fromkeys(
        (mx_nn.pool, mx_nn.pool_1d, mx_nn.pool_v1), lambda x, kind, kernel, *_: math.prod(kernel)
    ),
    # windows of an adaptive pooling may overlap: a pixel more on each side
    F.adaptive_avg_pool2d: lambda x, size, y: math.prod(
        -(-x.size(i) // y.size(i)) + 1 for i in (-2, -1)
    ),
    **dict.fromkeys((mx_math.reduce_mean, mx_math.reduce_sum, mx_math.reduce_nansum), _per_output),
    **dict.fromkeys((mx_math.reduce_prod, mx_math.reduce_nanprod, mx_math.norm), _per_output),
    mx_nn.global_pool: _per_output,
    **dict.fromkeys((torch.softmax, torch.log_softmax), lambda x, axis, *_: x.size(axis)),
    mx_math.softmax_length: lambda x, length, axis, *_: x.size(axis),
    **dict.fromkeys((mx_nn.layer_norm, mx_nn.layer_norm_statistics, mx_nn.group_norm), _features),
    **dict.fromkeys((mx_nn.l2_normalize, torch.instance_norm), _features),
    torch.matmul: lambda x, *_: x.size(-1),
    # x (a, n), y (n, b), the result (a, b): n² = |x|·|y| / |xy|
    mx_math.dot: lambda x, y, *rest: math.isqrt(x.numel() * y.numel() // max(1, rest[-1].numel())),
    F.local_response_norm: lambda x, size, *_: size,
    # a coordinate that float32 rounds, times the difference of two neighbours
    **dict.fromkeys(RESIZES, lambda x, *_: x.size(-2) + x.size(-1)),
}


@dataclass(frozen=True)
class NodeError:
    """The worst element of one node's output, in units of u·s (0: bit-equal)."""

    name: str
    op: str
    units: float
    exact: bool  # the operation rounds nothing
    bound: float = BOUND
    differs: str = ""  # another shape or dtype than MXNet's, in words
    tied: tuple[int, int] | None = None  # equal elements stand in another order: node, output
    unwritten: bool = False  # MXNet left rows as they were: its loop ended before its last turn

    @property
    def ok(self) -> bool:
        if self.differs:
            return False
        return self.units == 0 if self.exact else self.units <= self.bound

    @property
    def problem(self) -> str:
        """What is wrong, in words."""
        said = self.differs or f"is {self.units:.3g} units from MXNet"
        return f"{self.op} {self.name} {said}"


def local_errors(
    module: fx.GraphModule,
    inputs: Sequence[np.ndarray],
    expected: Mapping[tuple[int, int], np.ndarray],
) -> list[NodeError]:
    """Errors of every node that `expected` holds, in the dtype of the module.

    `expected` has MXNet's outputs by the node's number in the file and the output's.
    """
    walker = _Judge(module, expected)
    with torch.no_grad():
        walker.run(*(torch.from_numpy(x) for x in inputs))
    return walker.errors


class Walker(Named):
    """Runs a module node by node; `seen` is told what each of MXNet's nodes gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        # of the steps within one of MXNet's nodes: s where something is rounded, and its terms
        self.sizes: dict[fx.Node, Any] = {}
        self.lengths: dict[fx.Node, int] = {}

    def seen(self, n: fx.Node, result: Any) -> Any:
        """What to pass on in the place of `result`; None for a node that is not looked at."""
        raise NotImplementedError

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if "mxnet" not in n.meta and n.op.startswith("call_"):
            size = self.size(n, result)
            if size is not None:
                self.sizes[n] = size
            self.lengths[n] = self.length(n, result)
        elif n.meta.get("mxnet", ("null", "", 0))[0] != "null":
            passed = self.seen(n, result)
            if passed is not None:
                return passed
        return result

    def absolute(self, n: fx.Node) -> tuple[Any, ...]:
        """The arguments with the absolute values of arrays and numbers."""
        return tuple(
            abs(value) if isinstance(value, (Tensor, float)) else value
            for value in self.sized_arguments(n)
        )

    def sized_arguments(self, n: fx.Node) -> list[Any]:
        """The arguments with the sizes of steps of the same node in the place of their values."""
        return [
            self.sizes[arg] if isinstance(arg, fx.Node) and arg in self.sizes else value
            for arg, value in zip(n.args, self.fetch_args_kwargs_from_env(n)[0], strict=True)
        ]

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
        inside = {
            node.meta.get("mxnet", ("",))[0]
            for part in (layer.modules() if isinstance(layer, Control) else ())
            if isinstance(part, fx.GraphModule)
            for node in part.graph.nodes
        }
        relu = isinstance(layer, RNN) and layer.relu
        return relu or not FLOAT32_INSIDE.isdisjoint({n.meta["mxnet"][0], *inside})

    def length(self, n: fx.Node, y: Any) -> int:
        """Of how many terms, added one by one, an output is the sum."""
        target: Any = n.target
        args, _ = self.fetch_args_kwargs_from_env(n)
        own = LENGTHS[target](*args, y) if target in LENGTHS else 1
        layer: Any = self.fetch_attr(str(target)) if n.op == "call_module" else None
        if isinstance(layer, Control):  # each turn rounds as an operation does
            own = int(BOUND) * layer.turns([tuple(x.shape) for x in args])
        steps = [self.lengths.get(arg, 1) for arg in n.args if isinstance(arg, fx.Node)]
        if target in (operator.add, operator.sub):
            return sum(steps)
        return own * max(steps, default=1)

    def size(self, n: fx.Node, y: Any) -> Any:
        """s, also where MXNet computes in float32 whatever it is given."""
        target: Any = self.fetch_attr(str(n.target)) if n.op == "call_module" else n.target
        args, _ = self.fetch_args_kwargs_from_env(n)
        if target in ROUNDS_NOTHING or isinstance(target, (nn.Dropout, Dropout)):
            return self.moved(n, target, y)
        if isinstance(y, (tuple, list)):
            return [part.abs() + part.abs().max() if is_rounded(part) else None for part in y]
        if not is_rounded(y):
            return None
        if target in LINEAR:
            return LINEAR[target](*self.absolute(n))
        if target in (mx_nn.pool, mx_nn.pool_1d, mx_nn.global_pool):
            if args[1] == "max":
                return None
            if args[1] != "lp":
                return target(*self.absolute(n))
        if target is mx_regions.deformable_convolution:  # linear, but in the offsets
            return target(*(args[1] if i == 1 else x for i, x in enumerate(self.absolute(n))))
        if isinstance(target, BatchNorm):
            return _batch_norm_scale(target, *args)
        if target is torch.softmax:
            x, axis = args[0], args[1]
            return y.abs() * (1 + (x - x.amax(axis, keepdim=True)).abs())
        if target is torch.log_softmax:
            return y.abs() + args[0].abs()
        if target in RESIZES:
            return y.abs() + args[0].abs().max()
        if target in (operator.mul, *QUOTIENTS, torch.sigmoid, torch.tanh, F.softplus):
            return y.abs()
        # no closer analysis: the size of the largest output
        return y.abs() + y.abs().max()

    def moved(self, n: fx.Node, target: Any, y: Any) -> Any:
        """s of what rounds nothing itself: that of a step before it in the same node, moved too."""
        if not any(isinstance(arg, fx.Node) and arg in self.sizes for arg in n.args):
            return None
        if target in VALUES_PASS or isinstance(target, nn.Module):
            return self.sizes[n.args[0]]  # type: ignore[index]
        first, *rest = self.sized_arguments(n)
        return getattr(first, target)(*rest) if n.op == "call_method" else target(first, *rest)


def broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    """An array of `shape` can stand for one of the shape `to`."""
    return len(shape) == len(to) and all(a in (1, b) for a, b in zip(shape, to, strict=True))


def is_rounded(y: Any) -> bool:
    """Holds floating-point numbers, and any at all."""
    return isinstance(y, Tensor) and y.is_floating_point() and y.numel() > 0


class _Judge(Walker):
    """Feeds every node with what MXNet computed, and measures what it makes of that."""

    def __init__(
        self, module: fx.GraphModule, expected: Mapping[tuple[int, int], np.ndarray]
    ) -> None:
        super().__init__(module)
        self.expected = expected
        self.errors: list[NodeError] = []
        self.ordered: dict[fx.Node, Tensor] = {}  # what a sort was given

    def run_node(self, n: fx.Node) -> Any:
        if n.target in ORDERS:
            self.ordered[n] = self.env[n.args[0]]  # type: ignore[index]
        return super().run_node(n)

    def seen(self, n: fx.Node, result: Any) -> Any:
        op, name, index = n.meta["mxnet"]
        entry = (n.meta["mxnet_number"], index)
        if entry not in self.expected:
            return None
        wanted = torch.from_numpy(self.expected[entry])
        if "mxnet_unsized" in n.meta and broadcasts(result.shape, wanted.shape):
            result = result.expand(wanted.shape)
        for what in ("shape", "dtype"):
            ours, theirs = (_shown(getattr(value, what)) for value in (result, wanted))
            if ours != theirs:
                said = f"has {what} {ours}, MXNet's is {theirs}"
                self.errors.append(NodeError(name, op, math.inf, exact=False, differs=said))
                return wanted
        written = self.written(n, wanted)
        if self.only_ties(n, result, wanted):
            self.errors.append(NodeError(name, op, 0.0, exact=True, tied=entry))
            return wanted
        if self.draws(n):
            said = "draws numbers of its own in inference: nothing can be compared with it"
            self.errors.append(NodeError(name, op, math.inf, exact=False, differs=said))
            return wanted
        scale = self.scale(n, written) if wanted.is_floating_point() else None
        # in float32 both sides may be that far from what is right
        sides = 2 if wanted.dtype == torch.float32 else 1
        bound = sides * BOUND + (0 if (length := self.length(n, wanted)) == 1 else length)
        error = units(result, written, scale)
        left = written is not wanted
        self.errors.append(NodeError(name, op, error, scale is None, bound, unwritten=left))
        return wanted

    def written(self, n: fx.Node, theirs: Tensor) -> Tensor:
        """MXNet's output; of a loop that ended early, 0 in the rows that it left as they were."""
        if n.target is not operator.getitem or not isinstance(source := n.args[0], fx.Node):
            return theirs
        layer: Any = self.fetch_attr(str(source.target)) if source.op == "call_module" else None
        if not isinstance(layer, While) or n.meta["mxnet"][2] >= layer.outputs:
            return theirs
        turns = int(self.env[source][-1])
        if turns == len(theirs):
            return theirs
        rows = theirs.clone()
        rows[turns:] = 0
        return rows

    def draws(self, n: fx.Node) -> bool:
        """Dropout that inference does not turn off."""
        layer: Any = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        return isinstance(layer, Dropout) and layer.always and layer.p > 0

    def only_ties(self, n: fx.Node, ours: Tensor, theirs: Tensor) -> bool:
        """Two orders of one array that differ, and only among elements that are equal."""
        source: Any = n
        part: Any = 1
        if n.target is operator.getitem:
            source, part = n.args
        if source.target not in ORDERS or part != 1 or torch.equal(ours, theirs):
            return False
        x, axis = self.ordered[source], ORDERS[source.target](*source.args)
        same = same_selection if source.target is mx_index.topk_mask else same_order
        return same(x, ours, theirs, axis)


def same_order(x: Tensor, ours: Tensor, theirs: Tensor, axis: int | None) -> bool:
    """Places along `axis` (of the flattened x without one) that give the same values.

    >>> x = torch.tensor([3.0, 1.0, 3.0])
    >>> same_order(x, torch.tensor([0, 2, 1]), torch.tensor([2, 0, 1]), 0)
    True
    >>> same_order(x, torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]), 0)  # one of them twice
    False
    """
    if axis is None:
        x, ours, theirs, axis = x.reshape(-1), ours.reshape(-1), theirs.reshape(-1), 0
    a, b = ours.to(torch.int64), theirs.to(torch.int64)
    if not bool(((b >= 0) & (b < x.size(axis))).all()):
        return False
    chosen = b.sort(axis).values
    once = bool((chosen.diff(dim=axis) > 0).all())
    return once and units(x.gather(axis, a), x.gather(axis, b), None) == 0


def same_selection(x: Tensor, ours: Tensor, theirs: Tensor, axis: int | None) -> bool:
    """Masks of 0 and 1 along `axis` (of all of x without one) that select the same values."""
    if axis is None:
        x, ours, theirs, axis = x.reshape(-1), ours.reshape(-1), theirs.reshape(-1), 0
    if not bool(((theirs == 0) | (theirs == 1)).all()):
        return False
    if not torch.equal(ours.sum(axis), theirs.sum(axis)):
        return False
    least = torch.full_like(x, -math.inf)
    a, b = (torch.where(mask != 0, x, least).sort(axis).values for mask in (ours, theirs))
    return units(a, b, None) == 0


def _shown(value: Any) -> str:
    return str(tuple(value)) if isinstance(value, torch.Size) else str(value).split(".")[-1]


def units(a: Tensor, b: Tensor, scale: Tensor | None) -> float:
    """max |a − b| / (u·s); without a scale 0 or infinity. NaN agrees with NaN alone."""
    both = a.isnan() & b.isnan() if a.is_floating_point() else torch.zeros_like(a, dtype=torch.bool)
    if scale is None:
        return 0.0 if bool(((a == b) | both).all()) else math.inf
    if a.numel() == 0:
        return 0.0
    ratio = (a - b).abs() / (UNITS.get(b.dtype, UNITS[torch.float64]) * scale)
    ratio = torch.where((a == b) | both, torch.zeros_like(ratio), ratio)
    return float(torch.nan_to_num(ratio, nan=math.inf).max())


def _batch_norm_scale(
    layer: BatchNorm, x: Tensor, gamma: Tensor | None, beta: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """|γ/σ|·(|x| + |μ|) + |β|."""
    shape = [1] * x.dim()
    shape[layer.axis] = -1
    size = torch.rsqrt(var + layer.eps) * (1.0 if gamma is None else gamma.abs())
    return size.reshape(shape) * (x.abs() + mean.abs().reshape(shape)) + beta.abs().reshape(shape)
