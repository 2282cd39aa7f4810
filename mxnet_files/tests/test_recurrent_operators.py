"""Recurrent layers, unrolled cells and operators on padded sequences, against MXNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import import_symbol
from mxnet_files.__main__ import main
from mxnet_files.budget import Budget, rehearse
from mxnet_files.checking import check
from mxnet_files.checking.check import Subject, compare_with_mxnet
from mxnet_files.checking.local import local_errors
from mxnet_files.checking.oracle import Oracle
from mxnet_files.errors import NotComparable, SymbolError
from mxnet_files.tests.test_symbol_operators import compare, draw
from mxnet_files.writing import shapes

S = mx.sym
GATES = {"lstm": 4, "gru": 3, "rnn_relu": 1, "rnn_tanh": 1}
T, N, C, H = 5, 3, 4, 6
data, parameters, state, cell, length = map(
    S.var, ("data", "parameters", "state", "cell", "length")
)


def layer(mode: str, layers: int, both: bool, projection: int | None = None, **options: Any) -> Any:
    """An RNN node and arrays that fit it."""
    directions, out = 1 + both, projection or H
    rows, size = GATES[mode] * H, 0
    for number in range(layers):
        columns = out * directions if number else C
        size += directions * (rows * (columns + out + 2) + (projection or 0) * H)
    shapes = {"data": (T, N, C), "parameters": (size,), "state": (layers * directions, N, out)}
    states = {"state": state}
    if mode == "lstm":
        shapes["cell"] = (layers * directions, N, H)
        states["state_cell"] = cell
    if options.get("use_sequence_length"):
        states["sequence_length"] = length
    arrays = draw(shapes, 3)
    arrays["parameters"] *= 0.3
    node = S.RNN(
        data, parameters, mode=mode, state_size=H, num_layers=layers, bidirectional=both,
        projection_size=projection, **states, **options,
    )  # fmt: skip
    return node, arrays


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("mode", GATES)
def test_recurrent_layers(mode: str, layers: int, both: bool, dtype: str) -> None:
    node, arrays = layer(mode, layers, both, state_outputs=True)
    if mode == "rnn_relu":
        dtype = "float32"  # MXNet's ReLU here is one of float32, in float64 nets too
    # MXNet's own float64 backward of three plain layers gives wrong weight gradients
    wrong = dtype == "float64" and mode == "rnn_tanh" and layers == 3
    compare(S.Group(list(node)), arrays, dtype, gradients=not wrong)


def test_gradients_of_three_plain_layers_are_the_slopes() -> None:
    """Where MXNet's float64 gradients are wrong, these are held against differences."""
    node, arrays = layer("rnn_tanh", 3, True)
    module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays)).double().train()
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    assert torch.autograd.gradcheck(lambda *given: module(*given)[::2].sum(), tensors)


@pytest.mark.parametrize("mode", GATES)
def test_recurrent_layer_without_states(mode: str) -> None:
    node, arrays = layer(mode, 2, True)
    compare(node, arrays, "float32" if mode == "rnn_relu" else "float64")


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("projection", [2, H, H + 1])
def test_projected_lstm(projection: int, layers: int, both: bool) -> None:
    """MXNet's CPU runs it forward only."""
    node, arrays = layer("lstm", layers, both, projection=projection, state_outputs=True)
    compare(S.Group(list(node)), arrays, gradients=False)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("mode", GATES)
def test_lengths_end_each_sequence(mode: str, both: bool) -> None:
    """MXNet's CPU takes no notice of lengths: each sequence is cut to its own there."""
    node, arrays = layer(mode, 1, both, state_outputs=True, use_sequence_length=True)
    plain, _ = layer(mode, 1, both, state_outputs=True)
    lengths = [3, 5, 1]
    near = 1e-6 if mode == "rnn_relu" else 1e-12
    module = import_symbol(json.loads(S.Group(list(node)).tojson()), {}, inputs=[*arrays, "length"])
    tensors = [torch.tensor(array) for array in arrays.values()]
    scripted = torch.jit.script(module)
    for run in (module, scripted):
        y, *states = run(*tensors, torch.tensor(lengths, dtype=torch.int32))
        for row, count in enumerate(lengths):
            one = {
                name: array if name == "parameters" else array[:, row : row + 1]
                for name, array in arrays.items()
            }
            one["data"] = one["data"][:count]
            wanted, *ends = Oracle(S.Group(list(plain)).tojson(), {}, one).forward()
            np.testing.assert_allclose(
                y[:count, row : row + 1].numpy(), wanted, rtol=near, atol=near
            )
            assert not y[count:, row].any()
            for found, end in zip(states, ends, strict=True):
                np.testing.assert_allclose(
                    found[:, row : row + 1].numpy(), end, rtol=near, atol=near
                )


def test_dropout_between_layers_in_training() -> None:
    node, arrays = layer("lstm", 2, False, p=0.5)
    module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays)).double()
    tensors = [torch.tensor(array) for array in arrays.values()]
    assert torch.equal(module(*tensors), module(*tensors))
    module.train()
    assert not torch.equal(module(*tensors), module(*tensors))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lstm_state_clip_min": -1.0, "lstm_state_clip_max": 1.0}, "lstm_state_clip"),
        ({"projection_size": 9, "mode": "gru"}, "projection_size=9, expected a size, in an lstm"),
        ({"projection_size": -1}, "projection_size=-1, expected a size, in an lstm"),
    ],
)
def test_what_the_cpu_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    options = {"mode": "lstm", **options}
    states = (state, cell) if options["mode"] == "lstm" else (state,)
    node = S.RNN(data, parameters, *states, state_size=H, num_layers=1, **options)
    with pytest.raises(SymbolError, match=message):
        import_symbol(json.loads(node.tojson()), {})


def test_parameters_that_do_not_fit_are_refused() -> None:
    node, arrays = layer("gru", 1, False)
    module = import_symbol(json.loads(node.tojson()), {}, inputs=list(arrays)).double()
    arrays["parameters"] = arrays["parameters"][:-1]
    with pytest.raises((ValueError, RuntimeError)):
        module(*(torch.tensor(array) for array in arrays.values()))


def gluon_layers() -> dict[str, Any]:
    rnn = mx.gluon.rnn
    return {
        "LSTM": rnn.LSTM(H, 2, bidirectional=True, layout="NTC", input_size=C),
        "GRU": rnn.GRU(H, 2, layout="TNC", input_size=C),
        "RNN": rnn.RNN(H, 1, "relu", input_size=C),
    }


def exported(net: Any, *inputs: Any) -> tuple[dict[str, Any], dict[str, np.ndarray], Any]:
    """Graph, arrays and output of a net that MXNet exported."""
    import tempfile
    from pathlib import Path

    from mxnet_files.reading.params_file import read_params

    net.initialize(mx.init.Uniform(0.5))
    net.hybridize()
    y = net(*(mx.nd.array(x) for x in inputs))
    with tempfile.TemporaryDirectory() as folder:
        net.export(str(Path(folder) / "net"))
        graph = json.loads((Path(folder) / "net-symbol.json").read_text())
        return graph, read_params(Path(folder) / "net-0000.params"), y


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_gluon_layers_begin_from_zeros_of_any_batch(name: str) -> None:
    net = mx.gluon.nn.HybridSequential()
    net.add(gluon_layers()[name])
    x = np.random.default_rng(0).normal(size=(T, N, C)).astype(np.float32)
    graph, arrays, y = exported(net, x)
    assert any(node["attrs"].get("shape", "").count("0") for node in graph["nodes"]
               if node["op"] == "_zeros")  # fmt: skip
    module = import_symbol(graph, arrays)
    found = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, y.asnumpy(), rtol=1e-5, atol=1e-6)
    other = x[:, :2] if net[0]._layout == "TNC" else x[:2]
    wanted = net(mx.nd.array(other)).asnumpy()
    found = module(torch.from_numpy(other)).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


class Unrolled(mx.gluon.HybridBlock):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        with self.name_scope():
            self.cell = cell

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        outputs, _ = self.cell.unroll(T, x, layout="NTC", merge_outputs=True)
        return outputs


def cells() -> dict[str, Any]:
    rnn = mx.gluon.rnn
    stack = rnn.HybridSequentialRNNCell()
    stack.add(rnn.LSTMCell(H, input_size=C))
    stack.add(rnn.DropoutCell(0.3))
    stack.add(rnn.ResidualCell(rnn.GRUCell(H, input_size=H)))
    return {
        "lstm": rnn.LSTMCell(H, input_size=C),
        "gru": rnn.GRUCell(H, input_size=C),
        "rnn": rnn.RNNCell(H, input_size=C),
        "stack": stack,
        "both": rnn.BidirectionalCell(rnn.LSTMCell(H, input_size=C), rnn.GRUCell(H, input_size=C)),
    }


@pytest.mark.parametrize("name", list(cells()))
def test_unrolled_cells(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(N, T, C)).astype(np.float32)
    graph, arrays, y = exported(Unrolled(cells()[name]), x)
    module = import_symbol(graph, arrays)
    found = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, y.asnumpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_cells_of_the_symbol_interface(fused: bool) -> None:
    """mx.rnn, as the examples of MXNet 0.9 to 1.9 use it, with its own initial states."""
    make = mx.rnn.FusedRNNCell if fused else mx.rnn.LSTMCell
    unit = make(H, num_layers=2, mode="gru", prefix="a_") if fused else make(H, prefix="a_")
    outputs, _ = unit.unroll(T, S.var("data"), layout="NTC", merge_outputs=True)
    shapes, _, _ = outputs.infer_shape(data=(N, T, C))
    given = dict(zip(outputs.list_arguments(), shapes, strict=True))
    compare(outputs, {name: array * 0.5 for name, array in draw(given, 1).items()})


CONVOLUTIONAL = {
    "lstm": lambda: mx.gluon.contrib.rnn.Conv2DLSTMCell((2, 6, 5), 4, 3, 3, i2h_pad=1, prefix="c_"),
    "gru_1d": lambda: mx.gluon.contrib.rnn.Conv1DGRUCell((2, 7), 4, 3, 3, i2h_pad=1, prefix="c_"),
}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_unrolled_convolutional_cells(name: str) -> None:
    size = (N, 3, *((2, 7) if name == "gru_1d" else (2, 6, 5)))
    y, _ = CONVOLUTIONAL[name]().unroll(3, data, layout="NTC", merge_outputs=True)
    shapes, _, _ = y.infer_shape(data=size)
    compare(y, draw(dict(zip(y.list_arguments(), shapes, strict=True)), 1))


def test_a_zoneout_cell() -> None:
    cell = mx.gluon.rnn.ZoneoutCell(mx.gluon.rnn.LSTMCell(H, input_size=C), 0.1, 0.1)
    y, _ = cell.unroll(T, data, layout="NTC", merge_outputs=True)
    shapes, _, _ = y.infer_shape(data=(N, T, C))
    arrays = draw(dict(zip(y.list_arguments(), shapes, strict=True)), 1)
    x = np.asarray(arrays.pop("data"), np.float32)
    (wanted,) = Oracle(y.tojson(), arrays, {"data": x}, "float32").forward()
    found = import_symbol(json.loads(y.tojson()), arrays).float()(torch.from_numpy(x))
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_zeros_of_unknown_shape_are_refused_where_the_shape_counts() -> None:
    zeros = S.zeros((0, 4))
    whole = S.broadcast_add(S.sum(zeros, axis=0), data)
    with pytest.raises(SymbolError, match=r"sum.*reads an array of shape \(0, 4\)"):
        import_symbol(json.loads(whole.tojson()), {})
    with pytest.raises(SymbolError, match=r"an output has the shape \(0, 4\)"):
        import_symbol(json.loads(S.Group([zeros, data]).tojson()), {})
    assert import_symbol(json.loads((data + zeros).tojson()), {})(torch.ones(3, 4)).shape == (3, 4)


LENGTHS = np.array([2.0, 5.0, 1.0])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rest", [(), (2,), (2, 3)])
@pytest.mark.parametrize("use", [False, True])
def test_sequence_mask_and_last(axis: int, rest: tuple[int, ...], use: bool) -> None:
    size = (T, N, *rest) if axis == 0 else (N, T, *rest)
    arrays = draw({"data": size}, 1) | ({"length": LENGTHS} if use else {})
    inputs = (data, S.BlockGrad(length)) if use else (data,)
    options = {"use_sequence_length": use, "axis": axis}
    compare(S.SequenceMask(*inputs, value=-1.5, **options) * 1, arrays)
    compare(S.SequenceLast(*inputs, **options), arrays)


@pytest.mark.parametrize("rest", [(), (2,), (2, 3)])
@pytest.mark.parametrize("use", [False, True])
def test_sequence_reverse(rest: tuple[int, ...], use: bool) -> None:
    arrays = draw({"data": (T, N, *rest)}, 1) | ({"length": LENGTHS} if use else {})
    inputs = (data, S.BlockGrad(length)) if use else (data,)
    compare(S.SequenceReverse(*inputs, use_sequence_length=use), arrays)


@pytest.mark.parametrize("op", ["SequenceMask", "SequenceLast", "SequenceReverse"])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "int64", "float16", "float32"])
def test_sequences_of_other_dtypes(op: str, dtype: str) -> None:
    x = np.arange(T * N * 2).reshape(T, N, 2).astype(dtype)
    for kind in ("int32", "float32", "int64"):
        node = getattr(S, op)(data, length, use_sequence_length=True)
        lengths = LENGTHS.astype(kind)
        call = getattr(mx.nd, op)
        wanted = call(
            mx.nd.array(x, dtype=dtype), mx.nd.array(lengths, dtype=kind), use_sequence_length=True
        ).asnumpy()
        module = import_symbol(json.loads(node.tojson()), {}, inputs=["data", "length"])
        found = module(torch.from_numpy(x), torch.from_numpy(lengths)).numpy()
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)


def gated(x: Any, states: list[Any]) -> tuple[Any, list[Any]]:
    """A cell with weights of its own, two states and a layer that the file casts."""
    h, c = states
    gates = S.FullyConnected(x, num_hidden=8, name="i2h") + S.FullyConnected(
        h, num_hidden=8, name="h2h"
    )
    i, o = S.split(gates, num_outputs=2, axis=1)
    c = c * S.sigmoid(i) + S.tanh(i)
    h = S.sigmoid(o) * S.tanh(c)
    return S.Cast(h, dtype="float32"), [h, c]


def foreach_cell() -> Any:
    out, states = S.contrib.foreach(gated, S.var("data"), [S.var("h"), S.var("c")])
    return S.Group([out, *states])


CELL = {"data": (5, 2, 3), "h": (2, 4), "c": (2, 4), "i2h_weight": (8, 3), "i2h_bias": (8,),
        "h2h_weight": (8, 4), "h2h_bias": (8,)}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_foreach(dtype: str) -> None:
    out, states = S.contrib.foreach(
        lambda x, s: (x * s[0], [S.tanh(x + s[0])]), S.var("data"), [S.var("h")]
    )
    compare(S.Group([out, *states]), draw({"data": (5, 2, 3), "h": (2, 3)}, 1), dtype)
    compare(foreach_cell(), draw(CELL, 1), "float32")


def test_a_loop_of_known_length() -> None:
    """_while_loop, whose rows MXNet fills in all turns alone."""
    rows, states = S.contrib.while_loop(
        lambda n, x: n < 3, lambda n, x: (S.tanh(x), [n + 1, x * 0.5 + 1]),
        [S.var("n"), S.var("data")], max_iterations=3,
    )  # fmt: skip
    arrays = {"n": np.zeros(1), **draw({"data": (2, 3)}, 1)}
    compare(S.Group([rows, states[1]]), arrays, gradients=False)
    module = compare(states[1], arrays, gradients=False)
    x = torch.tensor(arrays["data"], requires_grad=True)
    module(torch.zeros(1).double(), x).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 0.125))


def test_a_loop_that_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows after its last turn are memory that MXNet has not written."""
    rows, _ = S.contrib.while_loop(
        lambda x: S.sum(x) < 1e4, lambda x: (x + 1, [x * x + 2]), [S.var("data")], max_iterations=9
    )
    text = rows.tojson()
    module = import_symbol(json.loads(text), {})
    x = np.full((2, 3), 0.5)
    found = module(torch.from_numpy(x)).numpy()
    theirs = np.where(found == 0, 7.0, found)
    assert (found[-1] == 0).all()
    (error,) = local_errors(module, [x], {(1, 0): theirs})
    assert error.ok
    assert error.unwritten
    theirs[0, 0, 0] += 1
    assert not local_errors(module, [x], {(1, 0): theirs})[0].ok
    subject = Subject(module, text, {}, {"data": x.astype(np.float32)})
    errors = iter([0.0, 1.0, 0.0, 0.0])  # as where such memory holds other numbers
    monkeypatch.setattr(check, "together", lambda *given: next(errors))
    with pytest.raises(NotComparable, match="after its last turn as its memory was"):
        compare_with_mxnet(subject)


def test_a_loop_that_is_too_long_to_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "MOST_WRITTEN", 20)
    module = import_symbol(json.loads(foreach_cell().tojson()), {}, inputs=list(CELL))
    with pytest.raises(SymbolError, match="more than 20 operations written out"):
        shapes.unrolled(module, [torch.ones(size) for size in CELL.values()])


@pytest.mark.parametrize("number", [1.0, 5.0])
def test_a_branch(number: float) -> None:
    """_cond: the gradient of the branch that is not taken is 0."""
    out = S.contrib.cond(S.var("n") < 3, lambda: S.var("x") * 2, lambda: S.var("y") * S.var("x"))
    arrays = {"n": np.array([number]), **draw({"x": (2, 3), "y": (2, 3)}, 1)}
    compare(out, arrays, "float32", gradients=False)
    x, y = (torch.tensor(arrays[name], requires_grad=True) for name in "xy")
    module = import_symbol(json.loads(out.tojson()), {}, inputs=list(arrays))
    module(torch.tensor(arrays["n"]), x, y).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 2.0) if number < 3 else arrays["y"])
    assert y.grad is not None
    np.testing.assert_array_equal(y.grad, np.zeros((2, 3)) if number < 3 else arrays["x"])


def test_a_state_whose_batch_is_unknown() -> None:
    zeros = [S.zeros(shape=(0, 4)), S.zeros(shape=(0, 4))]
    out, _ = S.contrib.foreach(gated, S.var("data"), zeros)
    arrays = draw({name: shape for name, shape in CELL.items() if name not in ("h", "c")}, 1)
    compare(out, arrays, "float32", gradients=False)
    wrong, _ = S.contrib.foreach(lambda x, s: (x, [s[0]]), S.var("data"), zeros[:1])
    with pytest.raises(SymbolError, match="whose 0 it cannot infer"):
        import_symbol(json.loads(wrong.tojson()), {})


@pytest.mark.usefixtures("warm_model_files")
def test_a_loop_as_every_file(tmp_path: Path) -> None:
    """model.py has as many turns as the input has slices; a file that lacks a weight says so."""
    arrays = draw(CELL, 1)
    weights = {f"arg:{n}": mx.nd.array(x) for n, x in arrays.items() if n.endswith(("t", "s"))}
    files = [str(tmp_path / "cell-symbol.json"), str(tmp_path / "cell-0000.params")]
    foreach_cell().save(files[0])
    mx.nd.save(files[1], weights)
    sizes = [f"--input={name}={','.join(map(str, CELL[name]))}" for name in ("data", "h", "c")]
    assert main(["convert", *files, *sizes, "--out", str(tmp_path / "out")]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.py", "model.pt2", "model.onnx"} <= written
    assert (tmp_path / "out" / "model.py").read_text().count("torch.select") == 5
    with pytest.raises(SymbolError, match=r"missing parameters .*: i2h_weight, i2h_bias"):
        import_symbol(json.loads(foreach_cell().tojson()), {})


def loop_in(document: Any) -> dict[str, Any]:
    return next(node for node in document["nodes"] if "subgraphs" in node)


def relu_of(node: dict[str, Any]) -> None:
    node["subgraphs"][0]["nodes"][-1] |= {"op": "evil", "attrs": {}}


def nest(node: dict[str, Any]) -> None:
    for _ in range(5):
        graph = json.loads(json.dumps(node["subgraphs"][0]))
        node["subgraphs"][0]["nodes"][-1]["subgraphs"] = [graph]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: n["attrs"].update(in_data_locs="[9]"), "its body has 7 inputs"),
        (lambda n: n["attrs"].update(in_data_locs="[None]"), "_foreach"),
        (lambda n: n["attrs"].update(remain_locs="[1]"), "its body has 7 inputs"),
        (lambda n: n["attrs"].update(num_outputs="9"), "num_outputs=9"),
        (lambda n: n["attrs"].update(num_out_data="2", num_outputs="4"), "its subgraph has 3"),
        (lambda n: n["attrs"].update(num_args="3"), "its body has 7 inputs"),
        (lambda n: n["attrs"].update(more="3"), "unknown attribute more"),
        (lambda n: n["inputs"].pop(), "6 inputs, expected 7"),
        (lambda n: n.update(subgraphs=[]), "has no subgraph"),
        (lambda n: n.update(subgraphs=n["subgraphs"] * 2), "has 2 subgraphs"),
        (lambda n: n["subgraphs"][0]["nodes"][3]["attrs"].update(flatten="3"), "flatten='3'"),
        (lambda n: n["subgraphs"][0]["nodes"][2].update(name="i2h_weight"), "share a name"),
        (relu_of, "unsupported operators .1., with their nodes: evil"),
        (nest, "more than 4 subgraphs within one another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_loop_that_mxnet_would_not_write_is_refused(
    change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    document = json.loads(foreach_cell().tojson())
    change(loop_in(document))
    with pytest.raises(SymbolError, match=said) as error:
        import_symbol(document, {}, inputs=list(CELL))
    assert "\n" not in str(error.value)


def test_names_in_a_loop_are_no_code() -> None:
    document = json.loads(foreach_cell().tojson())
    for graph in (document, loop_in(document)["subgraphs"][0]):
        for node in graph["nodes"]:
            node["name"] = f"x = __import__('os').abort() #{node['name']}"
    given = [node["name"] for node in document["nodes"] if node["op"] == "null"]
    module = import_symbol(document, {}, inputs=given)
    sizes = [CELL[name.split("#")[1]] for name in given]
    assert module(*map(torch.ones, sizes))[0].shape == (5, 2, 4)


def test_the_budget_counts_every_turn() -> None:
    states = S.contrib.while_loop(
        lambda x: S.sum(x) < 9, lambda x: ([], [S.dot(x, x)]), [S.var("x")], 10**9
    )[1]
    module = import_symbol(json.loads(states[0].tojson()), {})
    with pytest.raises(SymbolError, match=r"_while_loop.* operations up to here"):
        rehearse(module, [torch.ones(10, 10)], Budget(operations=10**6))
