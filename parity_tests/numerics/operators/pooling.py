"""Pooling: maximum and average, in windows, over the whole map, or to a size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from parity_tests.numerics.operators.cases import ReferenceCase, ScaleCase, Scales
from parity_tests.numerics.operators.formulas import exact, linear, off_one_by_one
from parity_tests.numerics.operators.linear import number
from parity_tests.numerics.operators.record import (
    Hyper,
    Operator,
    Reader,
    Rounds,
    Tolerance,
    plus_length,
    plus_root,
)

_AVERAGE = {
    ("*", "gluon", "float32"): Tolerance(
        plus_root,
        "oneDNN adds a window's n values one by one, with the same consequences as in BatchNorm; "
        "16 was seen for a global pool of 252 values, 3.3 for windows of 3×3. What repeating "
        "values leave, up to n/2 u, is computed on them where that may be more, and allowed twice",
    ),
    ("*", "gluon", "float64"): Tolerance(
        plus_length,
        "in float64 both frameworks add a window's n values one by one, in different orders: no "
        "more than n·u (Higham 2002, section 4.2). Two of 1,000 random pairs were off by 17 and "
        "28, at global pools of values that repeat",
    ),
}


def _max_scale(case: ScaleCase) -> Scales:
    """Forward it chooses; backward it adds what overlapping windows send to the same place."""
    scales = exact(case)
    if case.upstream is not None and _overlapping(case):
        scales.sizes["input gradient"] = case.rerun(np.abs, True)["input gradient"]
    return scales


def _overlapping(case: ScaleCase) -> bool:
    kernel = case.hyper.get("kernel")
    if kernel is not None:
        return any(k > s for k, s in zip(kernel, case.hyper["stride"], strict=True))
    sizes = zip(case.x.shape[2:], case.y.shape[2:], strict=True)  # windows that share the whole map
    return any(into % out for into, out in sizes)


def _average_scale(case: ScaleCase) -> Scales:
    scales = linear(case)
    kernel = case.hyper.get("kernel")
    if kernel is not None:
        scales.length = int(np.prod(kernel))
    else:
        scales.length = max(1, case.x[0, 0].size // case.y[0, 0].size)
    if scales.length / 2 > 16.0:
        off = _off_in_windows(case) if kernel is not None else _off_in_parts(case)
        # of what the window's values add up to, whatever they are divided by
        scales.drift = {"output": off.reshape(case.y.shape) * scales.sizes["output"]}
        # torch adds so in windows, and a whole map may be one; its own mean has many partial sums
        scales.both = True
    return scales


def _off_in_parts(case: ScaleCase) -> np.ndarray:
    """How far the sums of an adaptive pool are off: relative to those of absolute values."""
    x = case.x
    into, axes = x.shape[2:], range(2, x.ndim)
    out = case.y.shape[2:] or (1,) * len(into)
    parts = np.zeros((*x.shape[:2], *out))
    for place in np.ndindex(*out):
        sides = zip(place, into, out, strict=True)
        part = x[:, :, *(slice(i * n // m, -(-(i + 1) * n // m)) for i, n, m in sides)]
        sums = np.abs(part).sum(axis=tuple(axes))
        off = off_one_by_one(part, axes).reshape(sums.shape)
        parts[:, :, *place] = off / np.where(sums > 0, sums, 1.0)
    return parts


def _off_in_windows(case: ScaleCase) -> np.ndarray:
    """The same of windows, at all places at once."""
    h, x, out = case.hyper, case.x, case.y.shape[2:]
    sides = list(zip(out, h["kernel"], h["stride"], h["pad"], x.shape[2:], strict=True))
    around = [(p, max(0, (m - 1) * s + k - n - p)) for m, k, s, p, n in sides]
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    single = np.zeros(case.y.shape, np.float32)
    double, sums = np.zeros(case.y.shape), np.zeros(case.y.shape)
    for place in np.ndindex(*h["kernel"]):
        every = zip(place, sides, strict=True)
        values = padded[:, :, *(slice(o, o + (m - 1) * s + 1, s) for o, (m, _, s, _, _) in every)]
        single += values.astype(np.float32)
        double += values
        sums += np.abs(values)
    off: np.ndarray = np.abs(single - double) / np.where(sums > 0, sums, 1.0)
    return off


def _gluon_pool(b: Any) -> Hyper:
    options = b._kwargs
    dimensions = len(options["kernel"])
    if options["global_pool"]:
        return {}
    hyper: Hyper = {name: number(options[name], dimensions) for name in ("kernel", "stride", "pad")}
    hyper["ceil"] = options["pooling_convention"] == "full"
    if options["pool_type"] != "avg":
        return {**hyper, "dilation": (1,) * dimensions}
    counted = bool(options.get("count_include_pad", True))
    return {**hyper, "count_include_pad": counted, "divisor": None}


def _is_gluon_pool(pool: str, dimensions: int, over_all: bool, b: Any) -> bool:
    options = b._kwargs
    form = (options["pool_type"], len(options["kernel"]), bool(options["global_pool"]))
    return form == (pool, dimensions, over_all)


def _rank(m: Any) -> int:
    """Of a torch pool: the 2 in the name of the first class above it that has one."""
    names = [cls.__name__ for cls in type(m).__mro__]
    return int(next(name[-2] for name in names if name[-1:] == "d" and name[-2:-1].isdigit()))


def _torch_pool(pool: str, dimensions: int, m: Any) -> Hyper:
    hyper: Hyper = {
        "kernel": number(m.kernel_size, dimensions),
        "stride": number(m.kernel_size if m.stride is None else m.stride, dimensions),
        "pad": number(m.padding, dimensions),
        "ceil": bool(m.ceil_mode),
    }
    if pool == "max":
        return {**hyper, "dilation": number(m.dilation, dimensions)}
    divisor = getattr(m, "divisor_override", None)
    return {**hyper, "count_include_pad": bool(m.count_include_pad), "divisor": divisor}


def _output_size(dimensions: int, m: Any) -> tuple[int | None, ...]:
    size = m.output_size
    return (size,) * dimensions if isinstance(size, int) or size is None else tuple(size)


def _is_torch_global(dimensions: int, m: Any) -> bool:
    return _rank(m) == dimensions and _output_size(dimensions, m) == (1,) * dimensions


def _is_torch_adaptive(dimensions: int, m: Any) -> bool:
    return _rank(m) == dimensions and not _is_torch_global(dimensions, m)


def _pool(c: ReferenceCase, pool: str, dimensions: int, *arguments: object) -> Any:
    function: Callable[..., Any] = getattr(c.functional, f"{pool}_pool{dimensions}d")
    return function(*arguments)


_MISSING = "missing last pooling window"
_OTHER = {"max": "average for maximum pooling", "avg": "maximum for average pooling"}


def _maximum(dimensions: int, c: ReferenceCase) -> Any:
    h = c.hyper
    window = (h["kernel"], h["stride"])
    if c.fault == _OTHER["max"]:
        return _pool(c, "avg", dimensions, c.x, *window, h["pad"], bool(h["ceil"]))
    if c.fault == "padded with zeros":
        both = [side for pad in reversed(h["pad"]) for side in (pad, pad)]
        x = c.functional.pad(c.x, both)
        return _pool(c, "max", dimensions, x, *window, 0, h["dilation"], bool(h["ceil"]))
    y = _pool(c, "max", dimensions, c.x, *window, h["pad"], h["dilation"], bool(h["ceil"]))
    if c.fault in ("last column missing", "last windows missing"):
        y = c.torch.cat([y[..., :-1], y[..., -2:-1]], dim=-1)
    if c.fault in ("last row missing", "last windows missing"):
        y = c.torch.cat([y[..., :-1, :], y[..., -2:-1, :]], dim=-2)
    return y


def _average(dimensions: int, c: ReferenceCase) -> Any:
    h = c.hyper
    window = (h["kernel"], h["stride"], h["pad"])
    if c.fault == _OTHER["avg"]:
        return _pool(c, "max", dimensions, c.x, *window, 1, bool(h["ceil"]))
    counted = bool(h["count_include_pad"]) != (c.fault == "padding counted")
    if dimensions == 1:  # torch's has no divisor of its own
        return _pool(c, "avg", 1, c.x, *window, bool(h["ceil"]), counted)
    return _pool(c, "avg", dimensions, c.x, *window, bool(h["ceil"]), counted, h["divisor"])


def _adaptive(pool: str, dimensions: int, c: ReferenceCase) -> Any:
    size = c.hyper.get("output", (1,) * dimensions)
    if c.fault:
        pool = "avg" if pool == "max" else "max"
    return _pool(c, f"adaptive_{pool}", dimensions, c.x, size)


_FAULTS = {
    ("max", 2): (
        ("last column missing", _MISSING),
        ("last row missing", _MISSING),
        ("last windows missing", _MISSING),
        ("padded with zeros", "padded with zeros"),
        (_OTHER["max"], _OTHER["max"]),
    ),
    ("avg", 2): (
        ("padding counted", "padding counted"),
        (_OTHER["avg"], _OTHER["avg"]),
    ),
}


def _operator(pool: str, dimensions: int, form: str) -> Operator:
    """`form` is "" for windows, "global_" for the whole map, "adaptive_" for a size."""
    gluon = Reader(
        "_Pooling", _gluon_pool, partial(_is_gluon_pool, pool, dimensions, form == "global_")
    )
    name = pool.capitalize()
    torch = {
        "": Reader(
            f"_{name}PoolNd",
            partial(_torch_pool, pool, dimensions),
            lambda m: _rank(m) == dimensions,
        ),
        "global_": Reader(f"_Adaptive{name}PoolNd", when=partial(_is_torch_global, dimensions)),
        "adaptive_": Reader(
            f"_Adaptive{name}PoolNd",
            lambda m: {"output": _output_size(dimensions, m)},
            partial(_is_torch_adaptive, dimensions),
        ),
    }
    windows = {"max": _maximum, "avg": _average}[pool]
    return Operator(
        kind=f"{form}{pool}_pool{dimensions}d",
        gluon=() if form == "adaptive_" else (gluon,),
        torch=(torch[form],),
        rounds=Rounds.GRADIENTS if pool == "max" else Rounds.EVERYTHING,
        scale=_max_scale if pool == "max" else _average_scale,
        linear=pool == "avg",
        tolerances={} if pool == "max" else _AVERAGE,
        pool=pool,
        # MXNet's mean and sum, whose sums are compensated, are off by no more than a pool
        symbols=("mean", "sum") if (pool, dimensions, form) == ("avg", 2, "global_") else (),
        shape=lambda hyper, shapes: (2, 3, *(17, 15, 13)[:dimensions]),
        reference=partial(_adaptive, pool, dimensions) if form else partial(windows, dimensions),
        faults=((_OTHER[pool],) * 2,) if form else _FAULTS.get((pool, dimensions), ()),
    )


OPERATORS = tuple(
    _operator(pool, dimensions, form)
    for form in ("", "global_", "adaptive_")
    for pool in ("max", "avg")
    for dimensions in (1, 2, 3)
)
