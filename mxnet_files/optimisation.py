"""A copy of an imported module that only infers, and does it faster.

Dropout goes, BatchNorm is folded into the convolution before it, arrays are kept channels-last,
and in float32 on a CPU with oneDNN weights are laid out once and ReLU and residual sums computed
within the convolution. The outputs differ from the module's own by rounding alone.
"""

from __future__ import annotations

import copy
import operator
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from mxnet_files.budget import Budget, rehearse
from mxnet_files.errors import SymbolError
from mxnet_files.layers import BatchNorm, Dropout
from mxnet_files.load import load_symbol
from mxnet_files.running import refusals, run
from mxnet_files.save import same

__all__ = ["array_function", "freeze", "optimise"]

FOLDABLE = (torch.conv1d, torch.conv2d, torch.conv3d, F.linear)


def freeze(
    module: fx.GraphModule, *inputs: Tensor, budget: Budget | None = None
) -> Callable[..., Any]:
    """A TorchScript copy of `module` for inference in float32 on the CPU, in oneDNN's own layouts.

    Slower to make than `optimise`, and faster where the CPU lacks AVX-512: values stay in oneDNN's
    blocked layouts from one convolution to the next, unless a BatchNorm has no convolution before
    it to be folded into. It can neither be saved nor trained.

    Args:
        module: what `load_symbol` returned; it is left alone.
        inputs: examples, float32, such as (N, C, H, W). The copy answers any N, unless the graph's
            own numbers depend on it, and no other C, H and W.
        budget: what running the graph may take; default `Budget()`.

    Returns:
        A function of tensors of those shapes, with the module's outputs up to rounding; it raises
        `SymbolError` for others.

    Raises:
        SymbolError: the graph cannot run on such inputs, or passes the budget.
    """
    rehearse(module, inputs, budget)
    plain = optimise(module, fuse=False, channels_last=False)
    with refusals("torch cannot freeze this graph"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # oneDNN's BatchNorm wants a scale and a shift, which fix_gamma does not have
        norms = any(isinstance(layer, BatchNorm) for layer in plain.modules())
        for finish in (() if norms else (torch.jit.optimize_for_inference,)) + (as_it_is,):
            traced = torch.jit.trace(plain, inputs, check_trace=False).eval()
            made = finish(torch.jit.freeze(traced))
            if follows(made, plain, inputs):  # not every operation reads oneDNN's layouts
                return Frozen(made, inputs, follows(made, plain, other_batch(inputs)))
    raise SymbolError("torch cannot freeze this graph: it computes something else then")


def as_it_is(made: Any) -> Any:
    """The same."""
    return made


class Frozen:
    """A frozen module, which answers the sizes that it was made for: a trace keeps them."""

    def __init__(self, run: Callable[..., Any], examples: Sequence[Tensor], any_batch: bool):
        self.run = run
        self.shapes = [tuple(x.shape) for x in examples]
        self.fixed = 0 if not any_batch else 1  # axes before it are free

    def __call__(self, *inputs: Tensor) -> Any:
        """The module's outputs. Raises `SymbolError` for other shapes."""
        given = [tuple(x.shape) for x in inputs]
        same_rank = list(map(len, given)) == list(map(len, self.shapes))
        wanted = [shape[self.fixed :] for shape in self.shapes]
        if not same_rank or [shape[self.fixed :] for shape in given] != wanted:
            free = " (any batch)" if self.fixed else ""
            raise SymbolError(f"frozen for inputs of shape {self.shapes}{free}, got {given}")
        return self.run(*inputs)


def other_batch(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The same inputs, one fewer, or twice where there are no three."""
    return [x[:-1] if len(x) > 2 else torch.cat([x, x]) for x in inputs]


def follows(made: Callable[..., Any], module: fx.GraphModule, inputs: Sequence[Tensor]) -> bool:
    """A copy computes what the module computes."""
    try:
        with refusals("the copy"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # dropout that is always on draws the same
            found = made(*inputs)
            torch.manual_seed(0)
            same(run(module, inputs), found if isinstance(found, tuple) else (found,), "copy")
    except SymbolError:
        return False
    return True


def array_function(
    symbol: str | os.PathLike[str], params: str | os.PathLike[str], shape: Sequence[int]
) -> Callable[[np.ndarray], np.ndarray]:
    """What MXNet's two files compute, frozen, as a function of numpy arrays.

    Args:
        symbol, params: as for `load_symbol`.
        shape: of one image, such as (C, H, W).

    Returns:
        A function of float32 (N, *shape), for any N, to the first output, an array of its own.

    Raises:
        SymbolError: as `load_symbol` and `freeze`.
    """
    example = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0))
    frozen = freeze(load_symbol(symbol, params), example)

    def function(x: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = frozen(torch.from_numpy(x))
        return (outputs[0] if isinstance(outputs, tuple) else outputs).numpy()

    return function


def optimise(
    module: fx.GraphModule, *, fuse: bool = True, channels_last: bool = True
) -> fx.GraphModule:
    """A faster copy of `module` for inference; `module` itself is left alone.

    Args:
        module: what `load_symbol` returned.
        fuse: use oneDNN's fused convolutions where the module is float32 on a CPU that has them.
            The copy then holds weights in oneDNN's layout: it can neither be saved nor change its
            dtype. Without it the copy is an ordinary module.
        channels_last: keep images and weights in that layout.

    Returns:
        A module in eval mode with the same inputs and, up to rounding, outputs.

    Raises:
        SymbolError: torch has no such operations for the graph's attributes.
    """
    with refusals("torch cannot optimise this graph"):
        return _optimised(module, fuse=fuse, channels_last=channels_last)


def _optimised(module: fx.GraphModule, *, fuse: bool, channels_last: bool) -> fx.GraphModule:
    fast = copy.deepcopy(module).eval().requires_grad_(False)
    drop_dropout(fast)
    fold_batch_norm(fast)
    if channels_last and any(node.target is torch.conv2d for node in fast.graph.nodes):
        keep_channels_last(fast)
    if fuse and has_fused_kernels() and is_plain(fast):
        fuse_convolutions(fast)
    fast.graph.eliminate_dead_code()
    fast.graph.lint()
    drop_unused(fast)
    fast.recompile()
    return fast


def laid_out_last(x: Tensor) -> Tensor:
    """x in channels-last layout, if it is an image batch (N, C, H, W)."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def has_fused_kernels() -> bool:
    """This build of torch has oneDNN's fused convolutions (the ones its compiler uses)."""
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def is_plain(module: fx.GraphModule) -> bool:
    """All floating tensors are float32 on the CPU."""
    tensors = [value for value in module.state_dict().values() if value.is_floating_point()]
    return all(value.dtype == torch.float32 and value.is_cpu for value in tensors)


def drop_dropout(module: fx.GraphModule) -> None:
    """Remove the layers that do nothing in inference."""
    for node in list(module.graph.nodes):
        if node.op == "call_module":
            layer = module.get_submodule(node.target)
            if isinstance(layer, nn.Dropout) or (isinstance(layer, Dropout) and not layer.always):
                node.replace_all_uses_with(node.args[0])
                module.graph.erase_node(node)


def fetched(module: fx.GraphModule, node: Any) -> Tensor | None:
    """The tensor of a get_attr node, None for anything else."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Tensor = operator.attrgetter(str(node.target))(module)
    return value


def fold_batch_norm(module: fx.GraphModule) -> None:
    """Turn conv(x)·γ/σ + (β − μγ/σ) into one convolution, in float64."""
    for node in list(module.graph.nodes):
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        if type(layer) is not BatchNorm or layer.axis != 1:
            continue
        before, gamma, *others = node.args
        if before.target not in FOLDABLE or len(before.users) != 1:
            continue
        weight = fetched(module, before.args[1])
        beta, mean, var = (fetched(module, value) for value in others)
        if weight is None or beta is None or mean is None or var is None:
            continue
        scale = torch.rsqrt(var.double() + layer.eps)
        if gamma is not None:
            stored = fetched(module, gamma)
            if stored is None:
                continue
            scale = scale * stored.double()
        bias = fetched(module, before.args[2])
        shift = beta.double() + ((0.0 if bias is None else bias.double()) - mean.double()) * scale
        shape = [-1] + [1] * (weight.dim() - 1)
        folded = (weight.double() * scale.reshape(shape)).to(weight.dtype)
        with module.graph.inserting_before(before):
            parts = (
                hold(module, f"{before.name}_weight", folded),
                hold(module, f"{before.name}_bias", shift.to(weight.dtype)),
            )
        before.args = (before.args[0], *parts, *before.args[3:])
        node.replace_all_uses_with(before)
        module.graph.erase_node(node)


def hold(module: fx.GraphModule, name: str, value: Tensor, *, kept: bool = True) -> fx.Node:
    """Register a buffer under a name like `name`, and fetch it."""
    path = name
    while hasattr(module, path):
        path += "_"
    module.register_buffer(path, value, persistent=kept)
    return module.graph.create_node("get_attr", path)


def keep_channels_last(module: fx.GraphModule) -> None:
    """Weights and inputs in the layout that CPUs convolve fastest; operations keep it."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for node in list(module.graph.nodes):
        if node.op == "placeholder" and not node.args:
            with module.graph.inserting_after(node):
                laid_out = module.graph.call_function(laid_out_last, (node,))
            node.replace_all_uses_with(laid_out, lambda user, own=laid_out: user is not own)


def fuse_convolutions(module: fx.GraphModule) -> None:
    """Make conv, conv+ReLU, conv+clip(0, 6) and conv+sum(+ReLU) single operations of oneDNN."""
    kernels = torch.ops.mkldnn
    for node in list(module.graph.nodes):
        weight = fetched(module, node.args[1]) if node.target is torch.conv2d else None
        if weight is None:
            continue
        x, _, bias, stride, pad, dilate, groups = node.args
        window = (list(pad), list(stride), list(dilate), groups)
        last, other, after, limits = following(node)
        with module.graph.inserting_before(last):
            packed = kernels._reorder_convolution_weight(weight, *window)
            laid_out = hold(module, f"{node.name}_packed", packed, kept=False)
            if other is None:
                fused = module.graph.call_function(
                    kernels._convolution_pointwise.default,
                    (x, laid_out, bias, *window, after or "none", limits, ""),
                )
            else:
                fused = module.graph.call_function(
                    kernels._convolution_pointwise.binary,
                    (x, other, laid_out, bias, *window, "add", 1.0, after, [], None),
                )
        last.replace_all_uses_with(fused)


def following(
    node: fx.Node,
) -> tuple[fx.Node, fx.Node | None, str | None, list[float]]:
    """What can be computed within a convolution: (last node, summand, activation, its limits)."""
    user = only_user(node)
    if user is None:
        return node, None, None, []
    if user.target is torch.relu:
        return user, None, "relu", []
    if user.target is torch.clamp and user.args[1:] == (0.0, 6.0):
        return user, None, "hardtanh", [0.0, 6.0]
    # elemwise_add, unlike broadcast_add, has operands of one shape
    if user.target is operator.add and user.meta.get("mxnet", ("",))[0] == "elemwise_add":
        others = [value for value in user.args if isinstance(value, fx.Node) and value is not node]
        if len(others) == 1:
            last = only_user(user)
            if last is not None and last.target is torch.relu:
                return last, others[0], "relu", []
            return user, others[0], None, []
    return node, None, None, []


def only_user(node: fx.Node) -> fx.Node | None:
    """The one node that uses `node`, if there is exactly one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def drop_unused(module: fx.GraphModule) -> None:
    """Delete the parameters and layers that the graph no longer fetches."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for path, _ in tensors:
        if path not in used:
            folder, _, leaf = path.rpartition(".")
            delattr(module.get_submodule(folder), leaf)
    module.delete_all_unused_submodules()
