"""Nodes that become layers with weights of their own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files import layers
from mxnet_files.functions import mx_nn, mx_shape
from mxnet_files.writing import parts
from mxnet_files.writing.layout import Brackets, Expr, call, literal
from mxnet_files.writing.ops import Context, Layer, Op, arguments, is_parameter, one, subject

EPS_5 = 9.999999747378752e-06  # MXNet's float32 1e-5, read as a double


@dataclass(frozen=True)
class MovedAxis:
    """A layer of channels at axis 1 on arrays that have them elsewhere."""

    axis: int

    @property
    def key(self) -> tuple[Any, ...]:
        return ("axis", self.axis)

    def __call__(self, args: Sequence[Expr], own: str) -> Expr:
        moved = call(f"{subject(args[0])}.movedim", literal(self.axis), literal(1))
        return Brackets(own, (moved,), after=f".movedim(1, {self.axis})")


def batch_norm(self: Context, node: fx.Node, name: str, layer: layers.BatchNorm) -> Op | None:
    x, gamma, beta, mean, var = arguments(node)
    state = self.state(node, x, weight=gamma, bias=beta, running_mean=mean, running_var=var)
    if state is None or any(arg is None for arg in (beta, mean, var)):
        return None
    args = {
        "channels": self.tensor(beta).numel(),
        "eps": float(layer.eps) if layer.eps != EPS_5 else 1e-5,
        "momentum": round(1 - layer.momentum, 6),
        "scale": gamma is not None,
        "frozen": layer.use_global_stats,
    }
    defaults = {"eps": 1e-5, "momentum": 0.1, "scale": True, "frozen": False}
    made = Layer("BatchNorm", args, defaults, state, parts.BatchNorm)
    wrap = None if layer.axis == 1 else MovedAxis(layer.axis)
    return self.layer(node, name, "BatchNorm", made, [x], wrap)


@dataclass(frozen=True)
class _WithState:
    """torch's recurrent layers: `layer(x, (h, c))`, of whose results the first may be all."""

    states: int
    alone: bool

    @property
    def key(self) -> tuple[Any, ...]:
        return ("states", self.states, self.alone)

    def __call__(self, args: Sequence[Expr], own: str) -> Expr:
        first, *rest = args
        pair = [Brackets("", tuple(rest))] if len(rest) > 1 else rest
        return Brackets(own, (first, *pair), after="[0]" if self.alone else "")


def recurrent(self: Context, node: fx.Node, name: str, layer: Any) -> Op | None:
    """torch's own LSTM, GRU or RNN, where the parameters are the file's and the state is simple."""
    x, vector, *states = arguments(node)
    is_lstm = isinstance(layer, layers.LSTM)
    if is_parameter(x) or len(states) != (2 if is_lstm else 1):
        return None  # sequences of different lengths
    if is_lstm and layer.projection_size >= layer.state_size:
        return None  # nn.LSTM projects to fewer
    pieces = constant_parts(vector)
    size = x.meta.get("shape") if isinstance(x, fx.Node) else None
    if pieces is None or size is None or not all(is_parameter(piece) for piece in pieces):
        return None
    begins = [state for state in states if not (is_parameter(state) and is_zero(self, state))]
    if begins and len(begins) < len(states):
        return None
    if any(is_parameter(state) for state in begins):
        return None
    if any(len(piece.users) > 1 for piece in pieces) or len(vector.users) > 1:
        return None
    flat = torch.cat([self.tensor(piece).detach().reshape(-1) for piece in pieces])
    tensors = layer.split(flat, size[2])
    projection = layer.projection_size if is_lstm else 0
    kinds = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", *(["weight_hr"] if projection else [])]
    ends = [
        f"_l{number}{end}"
        for number in range(layer.num_layers)
        for end in (("", "_reverse") if layer.bidirectional else ("",))
    ]
    keys = [kind + end for end in ends for kind in kinds]
    own = f"{node.name}: "
    state = {key: own + key for key in keys}
    if len(pieces) == len(keys) and not projection:  # weights of every layer, then biases
        order = [2 * number + part for number in range(len(ends)) for part in (0, 1)]
        biases = [2 * len(ends) + place for place in order]
        for number in range(len(ends)):
            places = [*order[2 * number : 2 * number + 2], *biases[2 * number : 2 * number + 2]]
            for place, key in zip(places, keys[4 * number :], strict=False):
                state[key] = str(pieces[place].target)
    else:
        self.computed.update({own + key: value for key, value in zip(keys, tensors, strict=True)})
    args: dict[str, Any] = {"input_size": size[2], "hidden_size": layer.state_size}
    defaults: dict[str, Any] = {
        "num_layers": 1, "nonlinearity": "tanh", "dropout": 0.0, "bidirectional": False,
        "proj_size": 0,
    }  # fmt: skip
    args["num_layers"] = layer.num_layers
    if isinstance(layer, layers.RNN):
        args["nonlinearity"] = "relu" if layer.relu else "tanh"
    args["dropout"] = round(layer.p, 6)
    args["bidirectional"] = layer.bidirectional
    args["proj_size"] = projection
    kind = type(layer).__name__
    made = Layer(f"nn.{kind}", args, defaults, state)
    users = list(node.users)
    alone = all(user.target is operator.getitem and user.args[1] == 0 for user in users)

    wrap = _WithState(len(begins), alone)
    op = self.layer(node, name, kind, made, [x, *begins], wrap)
    op.first_alone = alone
    return op


def constant_parts(vector: Any) -> list[Any] | None:
    """The parameters that a vector is joined of, one after the other."""
    if is_parameter(vector):
        return [vector]
    if not isinstance(vector, fx.Node):
        return None
    first: Any
    second: Any
    first, second, *_ = [*arguments(vector), None, None]
    if vector.target is torch.cat and second in (0, -1):
        found: list[Any] = []
        for piece in first:
            inner = constant_parts(piece)
            if inner is None:
                return None
            found += inner
        return found
    if vector.target in (torch.reshape, mx_shape.reshape) and tuple(second) == (-1,):
        return constant_parts(first)
    return None


def is_zero(self: Context, node: Any) -> bool:
    """A constant of zeros, which torch's layers begin with by themselves."""
    stored = node.graph.owning_module.state_dict() if node.graph.owning_module else {}
    return str(node.target) not in stored and not bool(self.tensor(node).any())


def _convolution(self: Context, node: fx.Node, name: str) -> Op | None:
    x, weight, bias, *rest = arguments(node)
    transposed = "transpose" in str(node.target)
    state = self.state(node, x, weight=weight, bias=bias)
    if state is None or weight is None:
        return None
    shape = tuple(self.tensor(weight).shape)
    stride, pad, *others = rest
    adjust, groups, dilate = (
        (others[0], others[1], others[2]) if transposed else (0, others[1], others[0])
    )
    channels = (shape[0], shape[1] * groups) if transposed else (shape[1] * groups, shape[0])
    wanted = [
        ("in_channels", channels[0], None),
        ("out_channels", channels[1], None),
        ("kernel_size", shape[2:], None),
        ("stride", stride, 1),
        ("padding", pad, 0),
        *([("output_padding", adjust, 0)] if transposed else []),
        ("dilation", dilate, 1),
        ("groups", groups, 1),
        ("bias", bias is not None, True),
    ]
    given = {name: one(value) for name, value, _ in wanted}  # equal sizes as one number
    defaults = {name: default for name, _, default in wanted if default is not None}
    kind = f"Conv{'Transpose' if transposed else ''}{len(shape) - 2}d"
    return self.layer(node, name, kind, Layer(f"nn.{kind}", given, defaults, state), [x])


def _linear(self: Context, node: fx.Node, name: str) -> Op | None:
    x, weight, bias = (*arguments(node), None)[:3]
    state = self.state(node, x, weight=weight, bias=bias)
    if state is None or weight is None:
        return None
    out, inside = self.tensor(weight).shape
    args = {"in_features": inside, "out_features": out, "bias": bias is not None}
    return self.layer(node, name, "Linear", Layer("nn.Linear", args, {"bias": True}, state), [x])


def _embedding(self: Context, node: fx.Node, name: str) -> Op | None:
    indices, weight = arguments(node)
    state = self.state(node, indices, weight=weight)
    if state is None:
        return None
    rows, width = self.tensor(weight).shape
    args = {"num_embeddings": rows, "embedding_dim": width}
    return self.layer(
        node, name, "Embedding", Layer("Embedding", args, {}, state, parts.Embedding), [indices]
    )


def _prelu(self: Context, node: fx.Node, name: str) -> Op | None:
    x, weight = arguments(node)
    state = self.state(node, x, weight=weight)
    if state is None:
        return None
    args = {"num_parameters": self.tensor(weight).numel()}
    return self.layer(node, name, "PReLU", Layer("nn.PReLU", args, {}, state), [x])


def _layer_norm(self: Context, node: fx.Node, name: str) -> Op | None:
    x, gamma, beta, axis, eps = arguments(node)
    state = self.state(node, x, weight=gamma, bias=beta)
    if state is None or axis != -1:
        return None
    args = {"normalized_shape": self.tensor(gamma).numel(), "eps": 1e-5 if eps == EPS_5 else eps}
    made = Layer("nn.LayerNorm", args, {"eps": 1e-5}, state)
    return self.layer(node, name, "LayerNorm", made, [x])


LAYERS: list[tuple[set[Any], Callable[[Context, fx.Node, str], Op | None]]] = [
    ({torch.conv1d, torch.conv2d, torch.conv3d}, _convolution),
    ({F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d}, _convolution),
    ({F.linear}, _linear),
    ({mx_nn.embedding}, _embedding),
    ({torch.prelu}, _prelu),
    ({mx_nn.layer_norm}, _layer_norm),
]
