"""Every kind that only functions have: a pair of it in parity, in its record's precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from mxnet import gluon
from mxnet.gluon import nn as gnn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.base import backend, leaves_of
from parity_tests.backends.runs import Arrays, Objective
from parity_tests.numerics.operators import executed
from parity_tests.numerics.operators.executed import (
    OPERATORS,
    in_double,
    kind_beside,
    kind_of_rounding,
)
from parity_tests.numerics.operators.table import COMPOSED, operator_of
from parity_tests.pairing.parameters import transfer_parameters
from parity_tests.reporting.verdicts import Side
from parity_tests.tests.pairing.nets import GluonNet, ImperativeNet, TorchNet, initialised

Function = Callable[..., Any]
Build = Callable[[], Any]


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


X, Y, MAPS, STEPS = drawn(3, 64), drawn(3, 64)[:, ::-1].copy(), drawn(2, 4, 6, 6), drawn(5, 2, 4)
POSITIVE = np.abs(X) + np.float32(0.1)
ROWS = np.array([2, 0, 2], np.int32)


def of(ours: Function, theirs: Function, *inputs: np.ndarray) -> tuple[Build, Build, Arrays]:
    """A pair that is one function of arrays."""
    return (
        lambda: GluonNet(lambda s, F, *x: ours(F, *x)),
        lambda: TorchNet(lambda s, *x: theirs(*x)),
        inputs,
    )


def layers(ours: Build, theirs: Build, x: np.ndarray) -> tuple[Build, Build, Arrays]:
    """A pair that is one layer, whose first output counts."""

    def first(made: Any) -> Any:
        return made[0] if isinstance(made, tuple) else made

    return (
        lambda: GluonNet(lambda s, F, x: s.l(x), l=ours()),
        lambda: TorchNet(lambda s, x: first(s.l(x)), l=theirs()),
        (x,),
    )


def cells(ours: Build, theirs: Build) -> tuple[Build, Build, Arrays]:
    """A pair that is one step of a cell, from zeros."""

    def forward(s: Any, x: Any) -> Any:
        return s.l(x, s.l.begin_state(len(x), dtype=x.dtype))[0]

    _, second, _ = layers(ours, theirs, STEPS[0])
    return lambda: ImperativeNet(forward, l=ours()), second, (STEPS[0],)


def positive(x: Any) -> Any:
    return x[x > 0]


TABLE: dict[str, tuple[Build, Build, Arrays]] = {
    "add": of(lambda F, x, y: x + y, lambda x, y: x + y, X, Y),
    "sub": of(lambda F, x, y: x - y, lambda x, y: x - y, X, Y),
    "mul": of(lambda F, x, y: x * y, lambda x, y: x * y, X, Y),
    "div": of(lambda F, x, y: x / y, lambda x, y: x / y, X, POSITIVE),
    "matmul": of(lambda F, x, y: F.batch_dot(x, y, transpose_b=True), lambda x, y: x @ y.mT,
                 STEPS, STEPS[::-1].copy()),
    "mean": of(lambda F, x: F.mean(x, axis=1), lambda x: x.mean(1), X),
    "cumsum": of(lambda F, x: F.cumsum(x, axis=1), lambda x: x.cumsum(1), X),
    "sum": of(lambda F, x: F.sum(x, axis=1), lambda x: x.sum(1), X),
    "concat": of(lambda F, x, y: F.concat(x, y, dim=1), lambda x, y: torch.cat((x, y), 1), X, Y),
    "slice": of(lambda F, x: F.slice_axis(x, axis=1, begin=3, end=9), lambda x: x[:, 3:9], X),
    "pad": of(lambda F, x: F.pad(x, mode="edge", pad_width=(0, 0, 0, 0, 1, 1, 2, 0)),
              lambda x: functional.pad(x, (2, 0, 1, 1), "replicate"), MAPS),
    "transpose": of(lambda F, x: F.transpose(x, (0, 2, 3, 1)), lambda x: x.permute(0, 2, 3, 1),
                    MAPS),
    "expand": of(lambda F, x: F.broadcast_to(F.expand_dims(x, 0), (2, 3, 64)),
                 lambda x: x[None].expand(2, 3, 64), X),
    "maximum": of(lambda F, x, y: F.maximum(x, y), torch.maximum, X, Y),
    "minimum": of(lambda F, x, y: F.minimum(x, y), torch.minimum, X, Y),
    "where": of(lambda F, x, y: F.where(x > y, x, y), lambda x, y: torch.where(x > y, x, y), X, Y),
    "abs": of(lambda F, x: F.abs(x), torch.abs, X),
    "floor": of(lambda F, x: F.floor(x), torch.floor, X),
    "ceil": of(lambda F, x: F.ceil(x), torch.ceil, X),
    "round": of(lambda F, x: F.round(x), torch.round, X),
    "trunc": of(lambda F, x: F.trunc(x), torch.trunc, X),
    "sign": of(lambda F, x: F.sign(x), torch.sign, X),
    "take": of(lambda F, x, i: F.take(x, i), lambda x, i: x.index_select(0, i), X, ROWS),
    "gather": of(lambda F, x, i: F.pick(x, i), lambda x, i: x.gather(1, i.long()[:, None])[:, 0],
                 X, ROWS),
    "index": of(lambda F, x, i: F.gather_nd(x, F.stack(i, i)), lambda x, i: x[i, i], X, ROWS),
    "mask": of(lambda F, x: positive(x.as_np_ndarray()).as_nd_ndarray(), positive, X),
    "flip": of(lambda F, x: F.flip(x, axis=1), lambda x: x.flip(1), X),
    "max": of(lambda F, x: F.max(x, axis=1), lambda x: x.amax(1), X),
    "min": of(lambda F, x: F.min(x, axis=1), lambda x: x.amin(1), X),
    "erf": of(lambda F, x: F.erf(x), torch.erf, X),
    "hard_swish": of(lambda F, x: x * F.clip(x + 3, 0, 6) / 6,
                     lambda x: x * functional.hardsigmoid(x), X),
    "hard_swish_by_line": of(lambda F, x: x * F.hard_sigmoid(x, alpha=1 / 6),
                             functional.hardswish, X),
    "clip": of(lambda F, x: F.clip(x, -0.3, 0.7), lambda x: x.clamp(-0.3, 0.7), X),
    "layer_norm": layers(lambda: gnn.LayerNorm(in_channels=64), lambda: nn.LayerNorm(64), X),
    "l2_normalize": of(lambda F, x: F.L2Normalization(x, eps=1e-12), functional.normalize, X),
    "group_norm": layers(lambda: gnn.GroupNorm(2), lambda: nn.GroupNorm(2, 2),
                         drawn(3, 2, 9)),
    "instance_norm": layers(lambda: gnn.InstanceNorm(scale=True, in_channels=4),
                            lambda: nn.InstanceNorm2d(4, affine=True), MAPS),
    "resize": of(lambda F, x: F.contrib.BilinearResize2D(x, height=9, width=13),
                 lambda x: functional.interpolate(x, (9, 13), mode="bilinear", align_corners=True),
                 MAPS),
    "exp": of(lambda F, x: F.exp(x), torch.exp, X),
    "log": of(lambda F, x: F.log(x), torch.log, POSITIVE),
    "sin": of(lambda F, x: F.sin(x), torch.sin, X),
    "cos": of(lambda F, x: F.cos(x), torch.cos, X),
    "log1p": of(lambda F, x: F.log1p(x), torch.log1p, POSITIVE),
    "expm1": of(lambda F, x: F.expm1(x), torch.expm1, X),
    "pow": of(lambda F, x: x**2.7, lambda x: x**2.7, POSITIVE),
    "rpow": of(lambda F, x: 2.7**x, lambda x: 2.7**x, X),
    "rdiv": of(lambda F, x: 2.7 / x, lambda x: 2.7 / x, POSITIVE),
    "rsub": of(lambda F, x: 2.7 - x, lambda x: 2.7 - x, X),
    "mish": of(lambda F, x: x * F.tanh(F.Activation(x, act_type="softrelu")), functional.mish, X),
    "log_sigmoid": of(lambda F, x: -F.Activation(-x, act_type="softrelu"),
                      functional.logsigmoid, X),
    "celu": of(lambda F, x: F.maximum(x, 0) + F.minimum(F.expm1(x), 0), functional.celu, X),
    "lstm": layers(lambda: gluon.rnn.LSTM(5, input_size=4), lambda: nn.LSTM(4, 5), STEPS),
    "gru": layers(lambda: gluon.rnn.GRU(5, input_size=4), lambda: nn.GRU(4, 5), STEPS),
    "rnn_tanh": layers(lambda: gluon.rnn.RNN(5, activation="tanh", input_size=4),
                       lambda: nn.RNN(4, 5), STEPS),
    "rnn_relu": layers(lambda: gluon.rnn.RNN(5, input_size=4),
                       lambda: nn.RNN(4, 5, nonlinearity="relu"), STEPS),
    "lstmcell": cells(lambda: gluon.rnn.LSTMCell(5, input_size=4), lambda: nn.LSTMCell(4, 5)),
    "grucell": cells(lambda: gluon.rnn.GRUCell(5, input_size=4), lambda: nn.GRUCell(4, 5)),
    "rnncell": cells(lambda: gluon.rnn.RNNCell(5, input_size=4), lambda: nn.RNNCell(4, 5)),
    "lrn": of(lambda F, x: F.LRN(x, nsize=3, alpha=0.1, beta=0.75, knorm=2.0),
              lambda x: functional.local_response_norm(x, 3, 0.1, 0.75, 2.0), MAPS),
}  # fmt: skip


def nets_of(kind: str) -> tuple[Any, nn.Module, Arrays]:
    """The pair, with equal weights."""
    ours, theirs, inputs = TABLE[kind]
    gluon_net, torch_net = initialised(ours(), *inputs), theirs()
    if list(torch_net.parameters()):
        transfer_parameters(gluon_net, torch_net, inputs)
    return gluon_net, torch_net, inputs


def test_every_kind_of_a_function_is_tried() -> None:
    assert set(TABLE) == {operator.kind for operator in OPERATORS} - set(COMPOSED)


@pytest.mark.parametrize("kind", TABLE)
def test_a_record_says_whether_mxnet_computes_in_float32_in_a_float64_net(kind: str) -> None:
    gluon_net, torch_net, inputs = nets_of(kind)
    traces = {side: backend(side).trace(net, inputs, train=False)
                for side, net in ((Side.GLUON, gluon_net), (Side.TORCH, torch_net))}  # fmt: skip
    names = {op.kind for op in traces[Side.GLUON]}
    read = backend(Side.TORCH).normalise(traces[Side.TORCH])
    assert kind in {kind_beside(kind_of_rounding(op.kind, op.attributes), names) for op in read}
    theirs = backend(Side.TORCH).run_net(torch_net, inputs, "float64").outputs[0]
    try:
        ours = backend(Side.GLUON).run_net(gluon_net, inputs, "float64").outputs[0]
    except mx.MXNetError:  # it has no float64, and is given float32
        off = True
    else:
        off = bool(np.abs(ours - theirs).max() > 2.0**-40 * np.abs(theirs).max())
    assert operator_of(kind).single_precision == off


@pytest.mark.parametrize("kind", TABLE)
def test_a_record_says_whose_gradients_hold_a_number_in_float32(kind: str) -> None:
    gluon_net, torch_net, inputs = nets_of(kind)
    gradients = []
    for side, net in ((Side.GLUON, gluon_net), (Side.TORCH, torch_net)):
        run = partial(backend(side).run_net, net, inputs, "float64", train=True)
        path = leaves_of(net)[-1].path
        try:
            (output,) = run().calls[path][0].outputs[:1]
            upstream = np.cos(np.arange(output.size)).reshape(output.shape)
            call = run(objective=Objective((upstream,))).calls[path][0]
        except mx.MXNetError:  # it has no float64
            assert operator_of(kind).single_precision
            return
        (gradient,) = [g for g in call.input_gradients if g is not None][:1]
        gradients.append(gradient)
    ours, theirs = gradients
    off = bool(np.abs(ours - theirs).max() > 2.0**-40 * np.abs(theirs).max())
    assert off or not operator_of(kind).single_gradients
    assert not off or operator_of(kind).single_gradients or operator_of(kind).single_precision


def as_np(function: Function) -> Function:
    return lambda F, x: function(x.as_np_ndarray()).as_nd_ndarray()


BOUNDED = np.clip(X / 3, -0.9, 0.9)
SQUARE = STEPS[0].T @ STEPS[0] + 4 * np.eye(4, dtype=np.float32)
LENGTHS = np.array([2, 4], np.float32)
# By the names that MXNet records
DOUBLE: dict[str, tuple[Function, Function, np.ndarray]] = {
    "tan": (lambda F, x: F.tan(x), torch.tan, BOUNDED),
    "arctan": (lambda F, x: F.arctan(x), torch.arctan, X),
    "arcsin": (lambda F, x: F.arcsin(x), torch.arcsin, BOUNDED),
    "arccos": (lambda F, x: F.arccos(x), torch.arccos, BOUNDED),
    "sinh": (lambda F, x: F.sinh(x), torch.sinh, X),
    "cosh": (lambda F, x: F.cosh(x), torch.cosh, X),
    "arcsinh": (lambda F, x: F.arcsinh(x), torch.arcsinh, X),
    "arccosh": (lambda F, x: F.arccosh(x), torch.arccosh, 1 + POSITIVE),
    "arctanh": (lambda F, x: F.arctanh(x), torch.arctanh, BOUNDED),
    "log2": (lambda F, x: F.log2(x), torch.log2, POSITIVE),
    "log10": (lambda F, x: F.log10(x), torch.log10, POSITIVE),
    "cbrt": (lambda F, x: F.cbrt(x), lambda x: x ** (1 / 3), POSITIVE),
    "rcbrt": (lambda F, x: F.rcbrt(x), lambda x: x ** (-1 / 3), POSITIVE),
    "smooth_l1": (
        lambda F, x: F.smooth_l1(x, scalar=1.3),
        lambda x: torch.where(x.abs() < 1 / 1.69, (1.3 * x) ** 2 / 2, x.abs() - 0.5 / 1.69), X,
    ),
    "broadcast_hypot": (lambda F, x: F.broadcast_hypot(x, 2 * x + 1),
                        lambda x: torch.hypot(x, 2 * x + 1), X),
    "_hypot_scalar": (lambda F, x: F._internal._hypot_scalar(x, scalar=0.3),
                      lambda x: torch.sqrt(x**2 + 0.3**2), X),
    "mod": (lambda F, x: x % 0.7, lambda x: x % 0.7, X),
    "im2col": (
        lambda F, x: F.im2col(x, kernel=(3, 3), stride=(1, 1), dilate=(1, 1), pad=(1, 1)),
        lambda x: functional.unfold(x, 3, padding=1), MAPS,
    ),
    "col2im": (
        lambda F, x: F.col2im(x, output_size=(6, 6), kernel=(3, 3), stride=(1, 1), dilate=(1, 1),
                              pad=(1, 1)),
        lambda x: functional.fold(x, (6, 6), 3, padding=1), drawn(2, 36, 36),
    ),
    "SequenceMask": (
        lambda F, x: F.SequenceMask(x, F.array(LENGTHS, dtype=x.dtype), use_sequence_length=True),
        lambda x: x * (torch.arange(5)[:, None] < torch.from_numpy(LENGTHS))[:, :, None], STEPS,
    ),
    "SequenceReverse": (lambda F, x: F.SequenceReverse(x), lambda x: x.flip(0), STEPS),
    "diag": (lambda F, x: F.diag(x), torch.diagonal, X),
    "_npi_tril": (as_np(lambda x: mx.np.tril(x)), torch.tril, X),
    "moments": (lambda F, x: F.moments(x, axes=(1,))[1],
                lambda x: x.var(1, correction=0), X),
    "nansum": (lambda F, x: F.nansum(x, axis=1), lambda x: x.nansum(1), X),
    "nanprod": (lambda F, x: F.nanprod(x, axis=0), lambda x: x.prod(0), X),
    "prod": (lambda F, x: F.prod(x, axis=0), lambda x: x.prod(0), X),
    "norm": (lambda F, x: F.norm(x, axis=1), lambda x: x.norm(dim=1), X),
    "sort": (lambda F, x: F.sort(x, axis=1), lambda x: x.sort(1)[0], X),
    "reshape": (lambda F, x: F.reshape(x, (2, -1)), lambda x: x.reshape(2, -1), X),
    "scatter_nd": (
        lambda F, x: F.scatter_nd(x, F.array([[0, 2, 1]]), shape=(4, 64)),
        lambda x: torch.cat([x[[0, 2, 1]], 0 * x[:1]]), X,
    ),
    "_linalg_syrk": (lambda F, x: F.linalg.syrk(x), lambda x: x @ x.mT, X),
    "_linalg_trmm": (lambda F, x: F.linalg.trmm(x, x), lambda x: x.tril() @ x, SQUARE),
    "_linalg_inverse": (lambda F, x: F.linalg.inverse(x), torch.linalg.inv, SQUARE),
    "_npi_arctan2": (as_np(lambda x: mx.np.arctan2(x, 2 * x + 1)),
                     lambda x: torch.atan2(x, 2 * x + 1), X),
    "_npi_tensordot": (as_np(lambda x: mx.np.tensordot(x, x, [[1], [1]])), lambda x: x @ x.mT, X),
    "_npi_tensordot_int_axes": (
        as_np(lambda x: mx.np.outer(x, x)),
        lambda x: torch.outer(x.flatten(), x.flatten()), X[:, :5],
    ),
    "_npi_nan_to_num": (as_np(lambda x: mx.np.nan_to_num(x)), lambda x: x * 1, X),
}  # fmt: skip


def test_every_operator_that_is_known_to_be_double_is_tried() -> None:
    names = {name.removeprefix("_npi_") for name in DOUBLE}
    assert names == executed._IN_DOUBLE


@pytest.mark.parametrize("name", DOUBLE)
def test_mxnet_computes_in_float64_in_a_float64_net(name: str) -> None:
    ours, theirs, values = DOUBLE[name]
    net = ImperativeNet(lambda s, x: ours(mx.nd, x))
    graph = backend(Side.GLUON).trace(net, (values,), train=False)
    assert name in {op.kind for op in backend(Side.GLUON).normalise(graph)}
    assert in_double(name)
    x = mx.nd.array(values, dtype="float64")
    x.attach_grad()
    with mx.autograd.record():
        made = ours(mx.nd, x)
    upstream = np.cos(np.arange(made.size)).reshape(made.shape)
    made.backward(mx.nd.array(upstream, dtype="float64"))
    tensor = torch.tensor(values.astype(float), requires_grad=True)
    expected = theirs(tensor)
    expected.backward(torch.from_numpy(upstream))
    assert tensor.grad is not None
    for value, wanted in ((made, expected.detach()), (x.grad, tensor.grad)):
        np.testing.assert_allclose(value.asnumpy(), wanted, rtol=1e-12, atol=1e-12)


HANDFUL = ("expm1", "lstmcell")  # beside those that other tests compare


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=() if k in HANDFUL else pytest.mark.slow) for k in TABLE]
)
def test_one_function_is_in_parity(kind: str) -> None:
    gluon_net, torch_net, inputs = nets_of(kind)
    report = check_parity(gluon_net, torch_net, inputs)
    assert report.ok, str(report)
