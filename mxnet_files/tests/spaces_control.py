"""Spaces of loops and branches: symbols that MXNet's own `contrib` functions write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from mxnet import sym as S

from mxnet_files.tests.spaces import FLOATS, Draw, space


def node_of(d: Draw, symbol: Any, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The loop's attributes and subgraphs, and its inputs among the arrays."""
    nodes = json.loads(symbol.tojson())["nodes"]
    (node,) = (node for node in nodes if "subgraphs" in node)
    d.a |= node["attrs"]
    d.a["__graphs__"] = node["subgraphs"]
    names = (nodes[number]["name"] for number, *_ in node["inputs"])
    return [arrays[name if name in arrays else "a"] for name in names]  # or computed of a


def var(*names: str) -> list[Any]:
    return [S.var(name) for name in names]


@space("_foreach")
def foreach(d: Draw) -> list[np.ndarray]:
    x, y, s, t, w, v = var("x", "y", "s", "t", "w", "v")
    shape, turns = d.shape(1, 3), d.integer(1, 5)
    arrays = {name: d.array((turns, *shape)) for name in "xy"}
    arrays |= {name: d.array(shape) for name in "stwv"}
    kinds = ["sums", "states", "two", "others", "numbers", "casts", "nested", "passed"]
    kind = d.one(*kinds, *(["cell", "cell"] if d.dtype in FLOATS[:2] else []))
    if kind == "cell":
        rows, wide, out = d.integer(1, 3), d.integer(1, 4), d.integer(1, 4)
        made = {"x": (turns, rows, wide), "s": (rows, out), "w": (out, wide), "v": (out, out)}
        arrays = {name: d.array(size, low=-2, high=2, edges=False) for name, size in made.items()}
        dense = {"num_hidden": out, "no_bias": True}

        def cell(a: Any, states: Any) -> Any:
            h = S.tanh(S.FullyConnected(a, w, **dense) + S.FullyConnected(states[0], v, **dense))
            return [h, h * 2], [h]

        outs, states = S.contrib.foreach(cell, x, [s])
    elif kind == "sums":
        outs, states = S.contrib.foreach(lambda a, b: (a + b[0], [a + b[0]]), x, [s])
    elif kind == "states":
        outs, states = S.contrib.foreach(lambda a, b: ([], [b[1] - a, b[0]]), x, [s, t])
    elif kind == "two":
        outs, states = S.contrib.foreach(
            lambda a, b: ([a[0] - b[1], a[1]], [b[1], a[1] * b[0]]), [x, y], [s, t]
        )
    elif kind == "others":
        outs, states = S.contrib.foreach(lambda a, b: (a * w - v, b), x, [])
    elif kind == "numbers":
        arrays = {"x": d.array((turns,)), "s": d.array((1,))}
        outs, states = S.contrib.foreach(lambda a, b: (a - b[0], [a]), x, [s])
    elif kind == "casts":
        kept = d.one("int32", "float64", "float32")
        outs, states = S.contrib.foreach(lambda a, b: (S.Cast(a, dtype=kept), [b[0] + a]), x, [s])
    elif kind == "passed":
        outs, states = S.contrib.foreach(lambda a, b: ([a, w], [b[0]]), x, [s])
    else:
        arrays["x"] = d.array((turns, d.integer(1, 3), *shape))

        def outer(a: Any, b: Any) -> Any:
            inner, last = S.contrib.foreach(lambda c, e: (c - e[0] * w, [c]), a, b)
            return inner, last

        outs, states = S.contrib.foreach(outer, x, [s])
    outs = outs if isinstance(outs, list) else [outs]
    states = states if isinstance(states, list) else [states]
    return node_of(d, S.Group([*outs, *states]), arrays)


@space("_while_loop")
def while_loop(d: Draw) -> list[np.ndarray]:
    """Rows after the last turn are memory that MXNet has not written: with rows all turns run."""
    i, s, w = var("i", "s", "w")
    turns, shape = d.integer(1, 5), d.shape(1, 3)
    arrays = {name: d.array(shape) for name in "sw"}
    arrays["i"] = np.zeros(1, d.one("float32", "int32", "float64"))
    if d.flag():
        outs, states = S.contrib.while_loop(
            lambda i, s: i < 9, lambda i, s: ([s - w, s], [i + 1, s * w]), [i, s], turns
        )
    else:
        arrays["i"] += d.integer(0, turns - (d.dtype == "bool"))  # no turn at all, too
        outs, states = S.contrib.while_loop(
            lambda i, s: i < turns, lambda i, s: ([], [i + 1, s * w - s]), [i, s], turns + 2
        )
    return node_of(d, S.Group([*outs, *states]), arrays)


@space("_cond")
def branch(d: Draw) -> list[np.ndarray]:
    a, x, y = var("a", "x", "y")
    shape = d.shape(1, 3)
    arrays = {"x": d.array(shape), "y": d.array(shape), "a": d.array((1,))}
    if d.flag():
        outs = S.contrib.cond(a < 1, lambda: x * 2, lambda: x - y)
        return node_of(d, outs, arrays)
    outs = S.contrib.cond(a, lambda: [x + y, y], lambda: [y, x])
    return node_of(d, S.Group(outs), arrays)
