"""Calls that have a shorter form than their arguments in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from mxnet_files.functions import mx_math, mx_nn, mx_shape
from mxnet_files.operators.shape import OPEN
from mxnet_files.writing.layout import Atom, Brackets, Expr, call, literal
from mxnet_files.writing.ops import Context, arguments, is_parameter, one, subject

# A call that has a shorter form: (kind, input nodes, expression, bare function)
Written = tuple[str, list[Any], Callable[[Sequence[Expr]], Expr], str]


def _named(
    function: str, kind: str, inputs: list[Any], positional: Sequence[Any], **named: tuple[Any, Any]
) -> Written:
    """function(inputs, positional, name=value), the names whose values are not the default."""
    shown = {
        name: literal(one(value))
        for name, (value, default) in named.items()
        if one(value) != default
    }
    fixed = [literal(one(value)) for value in positional]
    return kind, inputs, lambda args: call(function, *args, *fixed, **shown), ""


def _chain(x: Any, calls: Sequence[tuple[Any, ...]]) -> Written:
    """x.flatten(2, 3).flatten(3)."""

    def build(args: Sequence[Expr]) -> Expr:
        shown = args[0]
        for method, *given in calls:
            shown = call(f"{subject(shown)}.{method}", *map(literal, given))
        return shown

    return calls[-1][0], [x], build, ""


def _of(x: Any, method: str, *given: Any, **named: Any) -> Written:
    """x.method(given, name=value)."""
    fixed = [literal(value) for value in given]
    shown = {name: literal(value) for name, value in named.items()}
    return method, [x], lambda args: call(f"{subject(args[0])}.{method}", *fixed, **shown), ""


def _pool(self: Context, node: fx.Node) -> Written | None:
    x, kernel, stride, pad, *rest = arguments(node)
    kind = str(getattr(node.target, "__name__", ""))
    if isinstance(x, fx.Node) and x.target is node.target and "mxnet" not in x.meta:
        # the importer sums rows, then columns
        before, rows, down, top, *_ = arguments(x)
        kernel = (rows[0], kernel[1])
        stride, pad = (down[0], stride[1]), (top[0], pad[1])
        x = before
    named = {"stride": (stride, one(kernel)), "padding": (pad, 0)}
    if "avg" in kind and rest:
        named |= {"ceil_mode": (rest[0], False), "count_include_pad": (rest[1], True)}
    return _named(f"F.{kind}", kind, [x], [kernel], **named)


def _full_pool(self: Context, node: fx.Node) -> Written | None:
    """MXNet's `full` windows where torch's ceil_mode has the same."""
    x, kind, kernel, stride, pad, full, count, _ = arguments(node)
    sizes: Any = list(zip(kernel, stride, pad, strict=True))
    if kind not in ("max", "avg") or any(s > k - p or 2 * p > k for k, s, p in sizes):
        return None
    name = f"{kind}_pool{len(kernel)}d"
    named = {"stride": (stride, one(kernel)), "padding": (pad, 0), "ceil_mode": (full, False)}
    if kind == "avg":
        named["count_include_pad"] = (count, True)
    return _named(f"F.{name}", name, [x], [kernel], **named)


def _reshape(self: Context, node: fx.Node) -> Written | None:
    """MXNet's codes, read beside the input's number of axes."""
    x, codes = arguments(node)[0], list(arguments(node)[1])
    source = x.meta.get("shape") if isinstance(x, fx.Node) else None
    if source is None:
        return None
    if len(arguments(node)) > 2 and arguments(node)[2]:
        changes = _changes_from_right(codes, len(source))
        return _chain(x, changes) if changes else None
    changes = _changes(codes, len(source))
    if changes:
        return _chain(x, changes)
    if -4 in codes:
        return None
    sizes: list[int | str] = []
    axis = 0
    for code in codes:
        if code == -2:
            sizes += [f"size({place})" for place in range(axis, len(source))]
            axis = len(source)
        elif code == -3:
            sizes.append(-1)
            axis += 2
        elif code == -5:
            axis += 1
        else:
            if code == 0 and axis >= len(source):
                return None
            sizes.append(f"size({axis})" if code == 0 else code)
            axis += 1
    if sizes.count(-1) > 1:
        return None

    def build(args: Sequence[Expr]) -> Expr:
        x = subject(args[0])
        shown = [Atom(f"{x}.{size}" if isinstance(size, str) else repr(size)) for size in sizes]
        return call(f"{x}.reshape", *(shown or [Atom("()")]))

    return "reshape", [x], build, ""


def _changes(codes: Sequence[int], axes: int) -> list[tuple[Any, ...]]:
    """Calls of flatten and unflatten, where the codes copy every axis but in one place or two."""
    calls: list[tuple[Any, ...]] = []
    axis = place = 0  # of what comes in, and of what goes out
    left = list(codes)
    while left:
        code = left.pop(0)
        if code == 0:
            axis += 1
        elif code == -2 and not left:
            axis = axes
        elif code == -3 or (code == -1 and not left and axis < axes):
            axis = axes if code == -1 else axis + 2
            last = () if axis == axes else (place + 1,)
            calls.append(("flatten", *((place,) if place or last else ()), *last))
        elif code == -4 and len(left) > 1 and all(size == -1 or size > 0 for size in left[:2]):
            calls.append(("unflatten", place, tuple(left[:2])))
            del left[:2]
            axis, place = axis + 1, place + 1
        else:
            return []
        place += 1
    return calls if axis == axes and len(calls) <= 2 else []


def _changes_from_right(codes: Sequence[int], axes: int) -> list[tuple[Any, ...]]:
    """The same for codes with `reverse`, which change the first axes and copy the last ones."""
    first = next((place for place, code in enumerate(codes) if code != 0), 0)
    changed = [code for code in codes if code != 0]
    copied = len(codes) - len(changed)
    if first or any(codes[len(changed) :]) or min(changed, default=-2) < -1:
        return []
    if changed == [-1] and axes > copied + 1:
        return [("flatten", 0, axes - copied - 1) if copied else ("flatten",)]
    return [("unflatten", 0, tuple(changed))] if len(changed) > 1 and axes == copied + 1 else []


def _method(name: str) -> Callable[[Context, fx.Node], Written]:
    """torch.permute(x, (0, 2, 1)) -> x.permute(0, 2, 1)."""

    def rule(self: Context, node: fx.Node) -> Written:
        x, *rest = arguments(node)
        flat = [
            item
            for value in rest
            for item in (value if isinstance(value, (tuple, list)) else (value,))
        ]
        return _of(x, name, *(flat or rest))  # a shape of no axes

    return rule


def _clamp(self: Context, node: fx.Node) -> Written | None:
    x, low, high = arguments(node)
    kind = x.meta.get("dtype") if isinstance(x, fx.Node) else None
    if is_parameter(x) or kind is None or not kind.is_floating_point or not low <= high:
        return None
    if (low, high) == (0.0, 6.0):
        return "relu6", [x], lambda args: call("relu6", args[0]), "relu6"
    return _of(x, "clamp", low, high)


def _plain(function: str) -> Callable[[Context, fx.Node], Written]:
    """A function of one argument under its usual name."""
    kind = function.rpartition(".")[2]

    def rule(self: Context, node: fx.Node) -> Written:
        x = arguments(node)[0]
        return kind, [x], lambda args: call(function, args[0]), function

    return rule


def _reduction(name: str) -> Callable[[Context, fx.Node], Written | None]:
    def rule(self: Context, node: fx.Node) -> Written | None:
        x, axes, keepdims, exclude = (*arguments(node), False, False)[:4]
        source = x.meta.get("shape") if isinstance(x, fx.Node) else None
        if exclude or not axes or source is None or (not keepdims and len(axes) >= len(source)):
            return None
        named: dict[str, Any] = {"keepdim": True} if keepdims else {}
        kind = x.meta["dtype"]
        if not kind.is_floating_point:  # torch sums in int64, and has no mean
            if name == "mean" or kind == torch.bool:
                return None
            named["dtype"] = kind
        return _of(x, name, one(axes), **named)

    return rule


def _slice_axis(self: Context, node: fx.Node) -> Written | None:
    x, axis, begin, end = arguments(node)
    source = x.meta.get("shape") if isinstance(x, fx.Node) else None
    if source is None:
        return None
    axis = axis % len(source)
    last = "" if end is None else end
    return _sliced(x, [*[":"] * axis, f"{begin or ''}:{last}"])


def _slice_axes(self: Context, node: fx.Node) -> Written:
    """slice_axes(x, [0, 1], [2⁶³ − 1, 9], [1, 2]) -> x[:, 1:9:2]."""
    x, *ends = arguments(node)
    cuts = []
    for begin, end, step in zip(*ends, strict=True):
        last = "" if end == OPEN else f"{end}"
        cuts.append(f"{begin or ''}:{last}" + (f":{step}" if step != 1 else ""))
    while cuts[1:] and cuts[-1] == ":":
        del cuts[-1]
    return _sliced(x, cuts or ["..."])


def _sliced(x: Any, cuts: Sequence[str]) -> Written:
    """x[:, 1:9]."""
    return "slice", [x], lambda args: Atom(f"{subject(args[0])}[{', '.join(cuts)}]"), ""


def _slice_like(self: Context, node: fx.Node) -> Written | None:
    x, like, axes = arguments(node)
    source = x.meta.get("shape")
    if source is None or x is like:
        return None
    cut = sorted(axis % len(source) for axis in axes) or list(range(len(source)))
    places = range(cut[-1] + 1)

    def build(args: Sequence[Expr]) -> Expr:
        size = f"{subject(args[1])}.size"
        index = ", ".join(f": {size}({axis})" if axis in cut else ":" for axis in places)
        return Atom(f"{subject(args[0])}[{index}]")

    return "slice", [x, like], build, ""


def _broadcast_like(self: Context, node: fx.Node) -> Written | None:
    x, like, *axes = arguments(node)
    if any(axes) or x is like:
        return None
    return "expand_as", [x, like], lambda args: call(f"{subject(args[0])}.expand_as", args[1]), ""


def _reverse_axes(self: Context, node: fx.Node) -> Written | None:
    x = arguments(node)[0]
    axes = range(len(x.meta.get("shape") or ()))
    return (_of(x, "t") if len(axes) == 2 else _of(x, "permute", *axes[::-1])) if axes else None


def _convolution(self: Context, node: fx.Node) -> Written | None:
    """One whose weights are computed, or are another layer's too."""
    x, weight, bias, stride, pad, dilate, groups = arguments(node)
    inputs = [x, weight, *([] if bias is None else [bias])]
    if len(set(inputs)) < len(inputs):
        return None
    kind = str(getattr(node.target, "__name__", ""))
    named = {"stride": (stride, 1), "padding": (pad, 0), "dilation": (dilate, 1)}
    return _named(f"F.{kind}", kind, inputs, [], **named, groups=(groups, 1))


def _upsample(self: Context, node: fx.Node) -> Written | None:
    """One array enlarged; torch enlarges floats alone."""
    (x, *others), scale, _ = arguments(node)
    if others or is_parameter(x) or x.meta["dtype"] not in (torch.float32, torch.float64):
        return None
    return _named("F.interpolate", "interpolate", [x], [], scale_factor=(float(scale), None))


def _squeeze(self: Context, node: fx.Node) -> Written | None:
    """Axes that have one element in any batch."""
    x, axes = arguments(node)
    source = x.meta.get("shape")
    if not axes or source is None or any(source[axis] != 1 for axis in axes):
        return None
    return _of(x, "squeeze", one(tuple(axes)) if len(axes) == 1 else tuple(axes))


def _global_pool(self: Context, node: fx.Node) -> Written | None:
    x, kind, *_ = arguments(node)
    spatial = len(x.meta.get("shape") or ()) - 2
    if kind != "avg" or spatial not in (1, 2, 3) or is_parameter(x):
        return None
    name = f"adaptive_avg_pool{spatial}d"
    return _named(f"F.{name}", name, [x], [1])


def _split(self: Context, node: fx.Node) -> Written:
    x, count, axis = arguments(node)
    return _of(x, "chunk", count, axis)


def _global_average(self: Context, node: fx.Node) -> Written:
    x, size = arguments(node)
    return _named("F.adaptive_avg_pool2d", "adaptive_avg_pool2d", [x], [size])


def _concatenate(self: Context, node: fx.Node) -> Written | None:
    parts_, axis = arguments(node)
    if any(map(is_parameter, parts_)):
        return None
    distinct = list(dict.fromkeys(parts_))
    order = [distinct.index(part) for part in parts_]

    def build(args: Sequence[Expr]) -> Expr:
        return call("torch.cat", Brackets("", tuple(args[i] for i in order), "[]"), literal(axis))

    return f"cat{len(order)}", distinct, build, ""


CALLS: dict[Any, Callable[[Context, fx.Node], Written | None]] = {
    **dict.fromkeys((torch.max_pool1d, torch.max_pool2d, torch.max_pool3d), _pool),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d, F.avg_pool3d), _pool),
    mx_nn.pool: _full_pool,
    mx_shape.reshape: _reshape,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    mx_shape.slice_axis: _slice_axis,
    mx_shape.slice_axes: _slice_axes,
    mx_shape.slice_like: _slice_like,
    mx_shape.broadcast_like: _broadcast_like,
    mx_shape.reverse_axes: _reverse_axes,
    mx_shape.squeeze: _squeeze,
    mx_nn.global_pool: _global_pool,
    mx_shape.upsample_nearest: _upsample,
    mx_shape.split_even: _split,
    mx_math.reduce_mean: _reduction("mean"),
    mx_math.reduce_sum: _reduction("sum"),
    torch.reshape: _method("reshape"),
    torch.flatten: _method("flatten"),
    torch.permute: _method("permute"),
    torch.transpose: _method("transpose"),
    torch.unsqueeze: _method("unsqueeze"),
    torch.squeeze: _method("squeeze"),
    torch.unbind: _method("unbind"),
    torch.flip: _method("flip"),
    torch.clamp: _clamp,
    mx_math.clip: _clamp,
    torch.cat: _concatenate,
    torch.relu: _plain("F.relu"),
    F.adaptive_avg_pool2d: _global_average,
}
