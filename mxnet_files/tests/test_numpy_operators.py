"""The operators of `mx.np` and `mx.npx`, against MXNet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import SymbolError, import_symbol, load_symbol


def run(build: Callable[..., Any], *arrays: np.ndarray, exact: bool = False) -> set[str]:
    """Values, shapes and dtypes of a function of mx.np symbols, as MXNet gives them.

    Returns the operators that the graph has.
    """

    class Block(mx.gluon.HybridBlock):
        def hybrid_forward(self, F: Any, *given: Any) -> Any:
            return build(F.np, F.npx, *given)

    mx.npx.set_np()
    try:
        net = Block()
        net.hybridize()
        out = net(*(mx.np.array(x, dtype=x.dtype) for x in arrays))
        wanted = [y.asnumpy() for y in (out if isinstance(out, (list, tuple)) else [out])]
        with tempfile.TemporaryDirectory() as folder:
            net.export(str(Path(folder) / "net"))
            document = json.loads((Path(folder) / "net-symbol.json").read_text())
    finally:
        mx.npx.reset_np()
    module = import_symbol(document, {})
    names = list(module.meta["mxnet_inputs"].values())
    order = sorted(range(len(names)), key=lambda place: names[place])
    given = {names[i]: torch.from_numpy(arrays[j]) for j, i in enumerate(order)}
    found = module(*(given[name] for name in names))
    found = found if isinstance(found, tuple) else (found,)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert a.numpy().dtype == b.dtype
        close = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-6, "atol": 1e-6}
        np.testing.assert_allclose(a.numpy(), b, **close)
    return {node["op"] for node in document["nodes"]}


def draw(*shape: int, low: float = -2.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, 2.0, shape).astype(np.float32)


UNARY = """
arcsinh arctan cbrt cos cosh degrees exp expm1 radians sin sinh square tan tanh ceil fix floor
negative rint sign trunc absolute isnan isinf isfinite copy reciprocal
"""
POSITIVE = "sqrt log log10 log1p log2"
INSIDE = "arccos arcsin arctanh"


@pytest.mark.parametrize("name", (UNARY + POSITIVE + " " + INSIDE).split())
def test_unary(name: str) -> None:
    x = draw(3, 4, low=0.3 if name in POSITIVE.split() else -2.0)
    if name in INSIDE.split():
        x = x / 2.1
    ops = run(lambda n, npx, d: getattr(n, name)(d), x)
    assert any(name.removeprefix("is") in op for op in ops)


def test_arccosh_relu_sigmoid() -> None:
    run(lambda n, npx, d: n.arccosh(d), draw(3, 4, low=1.2))
    run(lambda n, npx, d: [npx.relu(d), npx.sigmoid(d)], draw(3, 4))


def test_slices_and_codes_of_reshape() -> None:
    x = draw(2, 4, 6)
    ops = run(lambda n, npx, d: [d[:, 1:3], d[1], d[0, 1:, ::2], d[:, 2], n.ravel(d)], x)
    assert ops >= {"_npx_reshape", "slice"}
    codes = [(-2, -5), (-5, -4), (-6, 1, 2, -4), (-2, -6, -1, 2, -4), (-4,), (-1, -2)]
    run(lambda n, npx, d: [npx.reshape(d, code) for code in codes], x, exact=True)
    run(lambda n, npx, d: npx.reshape(d, (-4, 2, -1, -6), reverse=True), x, exact=True)
    run(lambda n, npx, d: npx.reshape(d, (-3, -2, -3, -2)), draw(1, 4, 1, 6), exact=True)


def test_padding_stacks_and_numbers_of_where() -> None:
    x = draw(2, 3)
    for mode in ("constant", "edge", "reflect", "symmetric", "maximum", "minimum"):
        run(lambda n, npx, d, mode=mode: n.pad(d, ((1, 2), (2, 0)), mode=mode), x, exact=True)
    run(lambda n, npx, d: [n.vstack([d, d]), n.column_stack([d, d])], x, exact=True)
    run(lambda n, npx, d: n.hstack([d, d]), x, exact=True)
    run(lambda n, npx, d: n.dstack([d, d]), x, exact=True)
    for build, name in (
        (lambda n, npx, d: n.where(d > 0, d, 0.1), "_npi_where_rscalar"),
        (lambda n, npx, d: n.where(d > 0, -1.0, d), "_npi_where_lscalar"),
        (lambda n, npx, d: n.where(d > 0, 1.0, 0.1) * d, "_npi_where_scalar2"),
    ):
        assert name in run(build, x, exact=True)


def test_rolled_triangles_and_einsum() -> None:
    x = draw(2, 3, 3)
    run(lambda n, npx, d: [n.roll(d, 1), n.roll(d, (1, -2), axis=(1, 2)), n.tril(d)], x)
    run(lambda n, npx, d: n.einsum("bij,bkj->bik", d, d), x)


def test_rounding_norms_and_products() -> None:
    x = draw(3, 2, 4)
    run(lambda n, npx, d: [n.around(d), n.around(d, 2), n.around(d * 100, -1)], x)
    norm: Callable[..., Any] = lambda n: n.linalg.norm  # noqa: E731
    run(lambda n, npx, d: [norm(n)(d), norm(n)(d, axis=1), norm(n)(d, ord=3, axis=-1)], x)
    zeros = np.array([[0.0, 0.0], [0.0, 2.0], [1.0, -2.0]], np.float32)
    run(lambda n, npx, d: [norm(n)(d, ord=-2, axis=1), norm(n)(d, ord=-1, axis=0)], zeros)
    run(lambda n, npx, d: [norm(n)(d, axis=(0, 2)), norm(n)(d, "nuc", axis=(1, 2))], x)
    run(lambda n, npx, d: [norm(n)(d, 2, axis=(1, 2), keepdims=True)], x)
    run(lambda n, npx, d: n.tensordot(d, d, ((0, 2), (0, 2))), x)
    assert "_npi_tensordot_int_axes" in run(lambda n, npx, d: n.tensordot(d, d, 3), x)


@pytest.mark.parametrize("name", ["bitwise_and", "bitwise_or", "bitwise_xor"])
def test_bits(name: str) -> None:
    x, y = np.array([[5, -3, 0]], np.int32), np.array([[7], [2]], np.int32)
    run(lambda n, npx, a, b: getattr(n, name)(a, b), x, y, exact=True)
    run(lambda n, npx, a: [getattr(n, name)(a, 6), n.bitwise_not(a)], x, exact=True)


def test_signs_and_powers() -> None:
    x, y = draw(2, 3), draw(3, seed=1)
    for name in ("copysign", "ldexp"):
        run(lambda n, npx, a, b, name=name: getattr(n, name)(a, b), x, y)
    run(lambda n, npx, a: n.ldexp(a, -1.5), x)
    run(lambda n, npx, a: n.ldexp(2.5, a), x)
    run(lambda n, npx, a: [n.arctan2(a, 2.5), n.arctan2(2.5, a)], x)


def test_numbers_that_are_not_finite() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1.5], np.float32)
    run(lambda n, npx, d: [n.isposinf(d), n.isneginf(d)], x, exact=True)
    run(lambda n, npx, d: [n.nan_to_num(d), n.nan_to_num(d, nan=2, posinf=7)], x, exact=True)


def test_axes_turns_and_differences() -> None:
    x = draw(3, 4)
    for name in ("atleast_1d", "atleast_2d", "atleast_3d"):
        run(lambda n, npx, d, name=name: getattr(n, name)(d), x, exact=True)
    run(lambda n, npx, d: [n.diff(d), n.diff(d, 2, axis=0), n.rot90(d, -1)], x)
    run(lambda n, npx, d: [n.average(d), n.average(d, axis=1)], x)
    run(lambda n, npx, d: n.average(d, axis=0, weights=d * d), x)
    run(lambda n, npx, d: n.matmul(d, n.identity(4)) + n.indices((3, 4))[1], x)


def test_solved_equations() -> None:
    x = draw(2, 3, 3) + 5 * np.eye(3, dtype=np.float32)
    run(lambda n, npx, d: [n.linalg.inv(d), n.linalg.det(d), n.linalg.slogdet(d)[1]], x)
    one = x.reshape(-1, *x.shape[-2:])[0]
    run(lambda n, npx, d: [n.linalg.det(d), n.linalg.slogdet(d)[1]], one)  # ()
    run(lambda n, npx, d: n.linalg.solve(d, d[:, 0]), x)
    run(lambda n, npx, d: n.linalg.cholesky(n.matmul(d, n.swapaxes(d, 1, 2))), x)


def test_parts_and_diagonals() -> None:
    x = draw(4, 2, 6)
    run(lambda n, npx, d: n.hsplit(d, 2), x, exact=True)
    run(lambda n, npx, d: [*n.dsplit(d, (1, 4)), *n.dsplit(d, 3), *n.vsplit(d, 2)], x, exact=True)
    run(lambda n, npx, d: n.hsplit(d, (1, 4)), draw(6), exact=True)
    run(lambda n, npx, d: [n.diag(d), n.diag(d, k=-1), n.diagflat(d, k=2)], draw(4, 3), exact=True)
    run(lambda n, npx, d: [n.diag(d, k=1), n.diagflat(d)], draw(4), exact=True)
    run(lambda n, npx, d: [n.diagonal(d, 1, 1, 2), n.diagonal(d), n.trace(d, -1, 0, 2)], x)


def test_what_np_does_not_split_or_measure_is_refused() -> None:
    for name, attributes in (
        ("_npi_hsplit", {"indices": "(0, 1)", "axis": "0"}),
        ("_npi_dsplit", {"indices": "(1, 2)", "axis": "2"}),
        ("_npi_norm", {"flag": "1", "axis": "None"}),
        ("_npi_norm", {"flag": "-1", "axis": "(0,)", "ord": "inf"}),
        ("_npi_around", {"decimals": "1000"}),
        ("_npi_diff", {"n": "-1"}),
        ("_npi_rot90", {"axes": "(1,)"}),
    ):
        nodes = [
            {"op": "null", "name": "x", "inputs": []},
            {"op": name, "name": "y", "attrs": attributes, "inputs": [[0, 0, 0]]},
        ]
        document = {"nodes": nodes, "arg_nodes": [0], "heads": [[1, 0, 0]]}
        with pytest.raises(SymbolError, match="expected"):
            import_symbol(document, {}, inputs=["x"])


BINARY = "add subtract multiply true_divide power mod maximum minimum hypot arctan2"
COMPARE = "equal not_equal greater greater_equal less less_equal"


@pytest.mark.parametrize("name", (BINARY + " " + COMPARE).split())
def test_binary(name: str) -> None:
    x, y = draw(3, 4, low=0.5), draw(1, 4, low=0.5, seed=1)
    x[0, :] = y
    run(lambda n, npx, a, b: getattr(n, name)(a, b), x, y)
    if name in ("hypot", "arctan2"):
        return
    for scalar in (1.5, 2):
        run(lambda n, npx, a, number=scalar: getattr(n, name)(a, number), x)
        run(lambda n, npx, a, number=scalar: getattr(n, name)(number, a), x)


def test_logical_not() -> None:
    run(lambda n, npx, d: n.logical_not(d), np.array([0.0, 1.5, -1.0], np.float32))


AXES: list[dict[str, Any]] = [
    {}, {"axis": 1}, {"axis": -1}, {"axis": (0, 2)}, {"axis": (0, 1, 2)},
    {"keepdims": True}, {"axis": 1, "keepdims": True},
]  # fmt: skip


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("name", ["sum", "mean", "prod", "max", "min", "std", "var"])
def test_reduction(name: str, axes: dict[str, Any]) -> None:
    run(lambda n, npx, d: getattr(n, name)(d, **axes), draw(2, 3, 4))
    if name in ("std", "var"):
        run(lambda n, npx, d: getattr(n, name)(d, ddof=1, **axes), draw(2, 3, 4))


@pytest.mark.parametrize("axes", [{}, {"axis": 1}, {"axis": -1, "keepdims": True}], ids=str)
@pytest.mark.parametrize("name", ["argmax", "argmin", "any", "all"])
def test_places_and_truths(name: str, axes: dict[str, Any]) -> None:
    x = np.round(draw(3, 4, 5))
    if name.startswith("arg"):  # whose keepdims mx.np does not offer
        axes = {key: axis for key, axis in axes.items() if key == "axis"}
    run(lambda n, npx, d: getattr(n, name)(d, **axes), x, exact=True)


def test_shapes() -> None:
    x = draw(2, 3, 1, 4)
    run(lambda n, npx, d: n.reshape(d, (-1, 6)), x, exact=True)
    run(lambda n, npx, d: [n.transpose(d), n.transpose(d, (0, 3, 1, 2))], x, exact=True)
    run(lambda n, npx, d: [n.squeeze(d), n.squeeze(d, axis=2), n.moveaxis(d, 0, 2)], x, exact=True)
    run(lambda n, npx, d: [n.swapaxes(d, 1, 3), n.expand_dims(d, 1), n.flip(d, 1)], x, exact=True)
    run(lambda n, npx, d: [n.tile(d, (2, 1, 1, 1)), n.repeat(d, 2, axis=1)], x, exact=True)
    run(lambda n, npx, d: n.broadcast_to(d, (2, 3, 5, 4)), x, exact=True)
    run(lambda n, npx, d: n.clip(d, -1, 1), x, exact=True)
    run(lambda n, npx, d: n.split(d, 3, axis=1), x, exact=True)
    run(lambda n, npx, d: n.squeeze(n.reshape(d, (1, 1))), draw(1), exact=True)


def test_joining_and_choosing() -> None:
    x, y = draw(2, 3), draw(2, 3, seed=1)
    run(lambda n, npx, a, b: n.concatenate([a, b], axis=1), x, y, exact=True)
    run(lambda n, npx, a, b: n.concatenate([a, b], axis=None), x, y, exact=True)
    run(lambda n, npx, a, b: n.stack([a, b], axis=1), x, y, exact=True)
    run(lambda n, npx, a, b: n.where(a > 0, a, b), x, y, exact=True)
    run(lambda n, npx, a: n.take(a, n.argmax(a, axis=1), axis=1, mode="clip"), x, exact=True)


def test_products() -> None:
    run(lambda n, npx, a, b: n.matmul(a, b), draw(2, 3, 4), draw(4, 5))
    run(lambda n, npx, a, b: n.dot(a, b), draw(2, 3, 4), draw(5, 4, 2))
    run(lambda n, npx, a, b: n.dot(a, b), draw(4), draw(4))
    run(lambda n, npx, a: npx.batch_dot(a, a, transpose_b=True), draw(2, 3, 4))


def test_arrays_that_the_file_describes() -> None:
    x = draw(2, 3)
    run(lambda n, npx, d: [d + n.ones((2, 1)), d + n.zeros((1, 3)), n.full_like(d, 2.5)], x)
    run(lambda n, npx, d: [n.zeros_like(d), n.ones_like(d), d + n.full((2, 3), 1.5)], x)
    run(lambda n, npx, d: [d * n.arange(3), n.matmul(d, n.eye(3, 4, k=1)), d + n.eye(3)[:2]], x)


def test_a_residual_net(tmp_path: Path) -> None:
    mx.npx.set_np()
    try:
        net = mx.gluon.model_zoo.vision.resnet18_v1(classes=10)
        net.initialize(mx.init.Xavier())
        net.hybridize()
        x = mx.np.random.uniform(size=(2, 3, 32, 32))
        wanted = net(x).asnumpy()
        net.export(str(tmp_path / "net"))
        data = x.asnumpy()
    finally:
        mx.npx.reset_np()
    module = load_symbol(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    found = module(torch.from_numpy(data)).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_ranges_and_polynomials() -> None:
    ops = run(lambda n, npx, d: [n.hanning(5) + d, n.hamming(5), n.blackman(5)], draw(5))
    assert ops >= {"_npi_hanning", "_npi_hamming", "_npi_blackman"}
    run(lambda n, npx, d: n.logspace(0, 2, 5, endpoint=False, base=3.0) + d, draw(5))
    run(lambda n, npx, d, p: n.polyval(p, d), draw(2, 3), draw(4))
    run(lambda n, npx, d, e: n.ediff1d(d, to_begin=e, to_end=1.5), draw(2, 3), draw(2))
    run(lambda n, npx, d: n.ediff1d(d), draw(2, 3), exact=True)
    run(lambda n, npx, d: n.diag_indices_from(d), draw(3, 3), exact=True)


@pytest.mark.parametrize("between", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_percentiles(between: str) -> None:
    run(lambda n, npx, d: n.percentile(d, 30, interpolation=between), draw(4, 5))
    run(
        lambda n, npx, d, q: n.percentile(d, q, axis=1, interpolation=between, keepdims=True),
        draw(4, 5), np.array([0, 33, 100], np.float32),
    )  # fmt: skip


def test_common_multiples() -> None:
    x, y = np.array([[4, 6, -9]], np.int32), np.array([6, 4, 0], np.int32)
    run(lambda n, npx, a, b: [n.lcm(a, b), n.lcm(a, 6)], x, y, exact=True)
