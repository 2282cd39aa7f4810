"""`python -m mxnet_files`, called as a user would."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files import convert, load_symbol
from mxnet_files.__main__ import main
from mxnet_files.checking import apart
from mxnet_files.checking.local import Walker, units
from mxnet_files.checking.recorded import Recorded
from mxnet_files.reading.params_file import write_params
from mxnet_files.save import newest_opset

pytestmark = pytest.mark.usefixtures("warm_model_files")

S = mx.sym


def write(folder: Path, symbol: Any, **shapes: tuple[int, ...]) -> list[str]:
    """A symbol and random parameters as files."""
    rng = np.random.default_rng(0)
    sizes, _, states = symbol.infer_shape(**shapes)
    arrays = {}
    for prefix, names, found in (
        ("arg", symbol.list_arguments(), sizes),
        ("aux", symbol.list_auxiliary_states(), states),
    ):
        for name, size in zip(names, found, strict=True):
            if name not in shapes:
                value = rng.uniform(0.5, 1.5, size) * (1 if prefix == "aux" else 0.3)
                arrays[f"{prefix}:{name}"] = value.astype(np.float32)
    (folder / "x-symbol.json").write_text(symbol.tojson())
    write_params(folder / "x-0000.params", arrays)
    return [str(folder / "x-symbol.json"), str(folder / "x-0000.params")]


def small_net() -> Any:
    x = S.Convolution(S.var("data"), num_filter=4, kernel=(3, 3), name="conv")
    x = S.BatchNorm(x, fix_gamma=False, name="bn")
    x = S.Pooling(S.relu(x), kernel=(3, 3), stride=(2, 2), pooling_convention="full")
    return S.SoftmaxOutput(S.FullyConnected(x, num_hidden=3, name="fc"), name="softmax")


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    return write(tmp_path, small_net(), data=(1, 3, 10, 8), softmax_label=(1,))


SHAPE = ["--input-shape", "1,3,10,8"]


def test_program_and_onnx(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.pt2"
    assert main([*files, "--out", str(out), "--onnx", "--check", *SHAPE]) == 0
    printed, errors = capfd.readouterr()
    assert "ubgraph backend" not in errors
    assert "SUBGRAPH" not in errors
    assert "input batch×3×10×8" in printed
    assert "6 of 6 nodes compared" in printed
    assert "equal to the import, compared with MXNet\n" in printed
    assert "verified by onnx.checker and ONNX Runtime against the import, compared w" in printed
    from mxnet_files import load_symbol

    module = load_symbol(*files)
    x = torch.randn(5, 3, 10, 8)
    torch.testing.assert_close(torch.export.load(out).module()(x), module(x))
    import onnx
    import onnxruntime

    model = onnx.load(tmp_path / "x.onnx")
    assert model.opset_import[0].version == newest_opset()
    assert [value.name for value in model.graph.input] == ["data"]
    session = onnxruntime.InferenceSession(str(tmp_path / "x.onnx"))
    (found,) = session.run(None, {"data": x.numpy()})
    np.testing.assert_allclose(found, module(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x-0000.params", "x-symbol.json", "x.onnx", "x.pt2",
    ]  # fmt: skip


def test_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--check", "--json", *SHAPE]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"] == {"data": [1, 3, 10, 8]}
    assert found["check"]["ok"] is True
    assert found["check"]["compared"] == found["check"]["nodes"] == 6


def test_code(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*files, "--code"]) == 0
    assert "conv = torch.conv2d(data, self.conv_weight, self.conv_bias" in capsys.readouterr().out


CHANNELS_LAST = {
    "BatchNorm": (lambda x: S.BatchNorm(x, axis=-1, fix_gamma=False), (2, 5, 3)),
    "Convolution": (
        lambda x: S.Convolution(x, kernel=(3, 3), num_filter=2, layout="NHWC"),
        (2, 6, 5, 3),
    ),
    "Pooling": (lambda x: S.Pooling(x, kernel=(2,), layout="NWC"), (2, 6, 3)),
    "transpose": (lambda x: S.transpose(x, axes=(0, 2, 1)), (2, 6, 3)),
    "dot": (lambda x: S.dot(x, x, transpose_b=True), (3, 4)),
}


@pytest.mark.parametrize("name", CHANNELS_LAST)
def test_axes_counted_from_the_right_reach_onnx(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's exporter writes a negative axis of a transpose as it is, which no runtime takes."""
    build, shape = CHANNELS_LAST[name]
    x = S.FullyConnected(S.var("data"), num_hidden=shape[-1], flatten=False, name="fc")
    files = write(tmp_path, build(x), data=shape)
    for number, axes in enumerate(("", "(0, -1, 1)" if name == "transpose" else "")):
        if number and not axes:
            continue
        if axes:
            text = Path(files[0]).read_text().replace("(0, 2, 1)", axes)
            Path(files[0]).write_text(text)
        size = ",".join(map(str, shape))
        argv = [*files, "--out", str(tmp_path / "x.pt2"), "--onnx", "--input-shape", size]
        assert main(argv) == 0
        printed = capsys.readouterr().out
        assert "verified by onnx.checker and ONNX Runtime" in printed
        told = "not compared: MXNet cannot run the graph" in printed
        assert told == (name == "Convolution" or bool(axes))  # its CPU has neither


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ("2,3,7,6", {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 0)}),
        ("2,3,6,6", {"kernel": (3, 3), "stride": (2, 2), "pad": (2, 2),
                     "pooling_convention": "full"}),
        ("2,3,5,5", {"kernel": (2, 2), "stride": (3, 3), "pad": (1, 1),
                     "pooling_convention": "full"}),
        ("2,3,8,6", {"kernel": (4, 3), "stride": (3, 2), "pool_type": "lp", "p_value": 3,
                     "pooling_convention": "full"}),
        ("1,2,5,4,4", {"kernel": (2, 2, 2), "stride": (2, 1, 2)}),
        ("1,2,9", {"kernel": (5,), "stride": (2,), "pad": (3,)}),
        ("2,3,6,6", {"kernel": (3, 3), "pad": (2, 2), "pool_type": "avg",
                     "count_include_pad": False}),
    ],
)  # fmt: skip
def test_sums_of_windows_reach_onnx(
    size: str, window: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch's exporter has no average with a divisor of its own, of which a sum is made."""
    symbol = S.Pooling(S.var("data"), **{"pool_type": "sum", **window})
    files = write(tmp_path, symbol, data=tuple(map(int, size.split(","))))
    assert main([*files, "--out", str(tmp_path / "x.pt2"), "--onnx", "--input", size]) == 0
    said = "verified by onnx.checker and ONNX Runtime against the import, compared with MXNet"
    assert said in capsys.readouterr().out


def test_a_graph_that_fixes_its_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, S.reshape(S.var("data"), shape=(1, 6)) * 2, data=(1, 2, 3))
    out = tmp_path / "x.pt2"
    assert main([*files, "--out", str(out), "--onnx", "--input-shape", "1,2,3"]) == 0
    assert "input 1×2×3" in capsys.readouterr().out


def test_what_was_written_says_against_what_it_was_verified(
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = [*files, "--out", str(tmp_path / "x.pt2"), "--onnx", *SHAPE]
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compared_with"] == "MXNet"
    assert found["onnx_compared_with"] == "the import"
    assert found["check"]["ok"] is True

    def absent() -> Any:
        raise ModuleNotFoundError("no MXNet", name="mxnet")

    monkeypatch.setattr(apart, "import_mxnet", absent)
    assert main([*argv, "--json"]) == 0
    assert "recorded results" in json.loads(capsys.readouterr().out)["compared_with"]
    nothing = Recorded("1.9.1", 0, 0, ("relu",))
    monkeypatch.setattr(convert, "replay", lambda graph: nothing)
    assert main(argv) == 0
    assert capsys.readouterr().out.count("the import, not compared: MXNet is not installed") == 2
    assert main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared_with"] == "the import alone"
    assert {path.name for path in tmp_path.glob("x*.[po][tn]*")} == {
        "x.pt2", "x.onnx", "x-unverified.pt2", "x-unverified.onnx",
    }  # fmt: skip
    assert main([*argv, "--check"]) == 2


def test_onnx_that_was_not_run_says_so_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnx's checker looks at the form of a file alone."""
    files = write(tmp_path, S.relu(S.var("data")), data=(2, 5))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    out = tmp_path / "x.pt2"
    argv = [*files, "--out", str(out), "--onnx", "--input", "2,5"]
    assert main(argv) == 0
    said = "x-unverified.onnx: ONNX opset 20, compared with nothing: onnxruntime is not installed"
    assert said in capsys.readouterr().out
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["compared_with"] == "MXNet"
    assert found["onnx_compared_with"] == "nothing: onnxruntime is not installed"
    assert found["onnx"] == str(tmp_path / "x-unverified.onnx")
    assert {path.name for path in tmp_path.glob("x*.[po][tn]*")} == {"x.pt2", "x-unverified.onnx"}


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_parameters_of_other_dtypes_become_float32(
    dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a net after `cast`; in float32 the files are within its bounds."""
    files = write(tmp_path, small_net(), data=(1, 3, 10, 8), softmax_label=(1,))
    arrays = mx.nd.load(files[1])
    mx.nd.save(files[1], {name: array.astype(dtype) for name, array in arrays.items()})
    for out in ("x.pt2", "folder"):
        assert main([*files, "--out", str(tmp_path / out), *SHAPE]) == 0
        assert f"parameters, those of {dtype} as float32\n" in capsys.readouterr().out


def test_several_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    symbol = S.broadcast_add(S.var("left"), S.var("right"))
    files = write(tmp_path, symbol, left=(1, 3), right=(1, 3))
    assert main([*files, "--out", str(tmp_path / "x.pt2")]) == 2
    assert "say --input left=… --input right=…" in capsys.readouterr().err
    shapes = ["--input-shape", "left=1,3", "--input-shape", "right=1,3"]
    assert main([*files, "--out", str(tmp_path / "x.pt2"), "--check", *shapes]) == 0


def test_failures_are_one_line(
    files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.pt2"
    cases = {
        (files[0], str(tmp_path / "none.params")): "none.params",
        (files[1], files[0]): "this is a .params file, expected a *-symbol.json: are the two exch",
        (files[0], files[0]): "x-symbol.json: this is no .params file, but JSON: are it and",
        (*files, "--out", str(out), "--input-shape", "1,4,10,8"): "cannot run on inputs of shape",
        (*files, "--out", str(tmp_path / "no" / "x.pt2"), *SHAPE): "there is no folder",
    }
    for argv, message in cases.items():
        assert main(list(argv)) == 1
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not out.exists()


def test_what_save_parameters_wrote_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mxnet.gluon import nn

    for net in (nn.HybridSequential(), nn.Conv2D(2, 3, in_channels=3)):
        if isinstance(net, nn.HybridSequential):
            net.add(nn.Conv2D(2, 3, in_channels=3), nn.BatchNorm())
        net.initialize()
        net.hybridize()
        net(mx.nd.ones((1, 3, 8, 8)))
        net.export(str(tmp_path / "x"))
        net.save_parameters(str(tmp_path / "saved.params"))
        argv = ["check", str(tmp_path / "x-symbol.json"), str(tmp_path / "saved.params")]
        assert main(argv) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: the parameters were saved by save_parameters (they are")
        assert "use net.export" in error
        assert error.count("\n") == 1


def test_bad_usage(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in (
        ([files[0]], "required: params"),
        ([*files, "--onnx"], "--out, which is missing"),
        ([*files, "--out", "net.onnx"], "ends in .pt2"),
        ([*files, "--input-shape", "1,x"], "expected positive sizes"),
        ([*files, "--input-shape", "1,0"], "expected positive sizes"),
        ([*files, "--input-shape", "label=1,3"], "the graph's inputs are data"),
    ):
        assert main(argv) == 2
        assert message in capsys.readouterr().err


def test_unsupported_operators_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = S.Group([S.contrib.fft(S.var("data"), name=name) for name in ("a", "b")])
    y = S.contrib.ifft(S.var("data"), name="c")
    files = write(tmp_path, S.Group([x, y]), data=(2, 2))
    assert main(files) == 1
    error = capsys.readouterr().err
    listed = "_contrib_fft (a, b); _contrib_ifft (c)"
    assert error == f"error: unsupported operators (2), with their nodes: {listed}\n"


def test_a_check_that_fails_writes_nothing(
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a wrong default for eps in the import, --check finds the node."""
    from dataclasses import replace

    from mxnet_files.reading.attributes import Attribute, double
    from mxnet_files.registry import OPERATORS

    genuine = OPERATORS["BatchNorm"]
    wrong = replace(genuine, attributes={**genuine.attributes, "eps": Attribute(double, 1e-5)})
    monkeypatch.setitem(OPERATORS, "BatchNorm", wrong)
    assert main([*files, "--out", str(tmp_path / "x.pt2"), "--check", *SHAPE]) == 1
    error = capsys.readouterr().err
    assert "the import differs from MXNet: BatchNorm bn is" in error
    assert not (tmp_path / "x.pt2").exists()


def test_check_in_float32_where_mxnet_has_no_float64(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = S.LRN(S.relu(S.var("data")), nsize=3)
    files = write(tmp_path, S.SoftmaxActivation(x, mode="channel"), data=(2, 5, 4, 3))
    assert main([*files, "--check", "--input-shape", "2,5,4,3"]) == 0
    assert "3 of 3 nodes compared in float32" in capsys.readouterr().out
    files = write(tmp_path, S.InstanceNorm(S.var("data"), name="in"), data=(2, 5, 4, 3))
    assert main([*files, "--check", "--input-shape", "2,5,4,3"]) == 0
    assert "1 of 1 nodes compared in float32" in capsys.readouterr().out


def test_check_takes_names_in_any_script_and_parameters_as_outputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MXNet's reader of JSON knows no escaped letters; a parameter has a gradient."""
    x = S.tanh(S.var("data"), name="größe/深度.self")
    files = write(tmp_path, S.Group([x, S.var("w_weight", shape=(2, 2))]), data=(2, 5))
    assert main([*files, "--check", "--input-shape", "2,5"]) == 0
    assert "1 of 1 nodes compared in float64" in capsys.readouterr().out


def test_check_says_where_mxnet_leaves_out_what_it_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variance alone of `moments` is computed about a mean that is not there."""
    files = write(tmp_path, S.moments(S.var("data"), axes=(0,))[1], data=(4, 5))
    assert main([*files, "--check", "--input-shape", "4,5"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "equals MXNet's nodes computed one by one" in line


def test_what_cannot_be_compared_or_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropout that stays on; operators that are not supported, in a loop and beside it."""
    files = write(tmp_path, S.Dropout(S.var("data"), p=0.5, mode="always"), data=(2, 5))
    assert main([*files, "--check", "--input-shape", "2,5"]) == 1
    assert "draws numbers of its own in inference" in capsys.readouterr().err
    _, states = S.contrib.while_loop(
        lambda i: S.contrib.ifft(i, name="again") < 3,
        lambda i: ([], [S.contrib.fft(i, name="turn")]),
        [S.var("data")],
        max_iterations=5,
    )
    S.Group([S.contrib.fft(S.var("data"), name="beside"), states[0]]).save(files[0])
    assert main([*files, "--check", "--input-shape", "2,5"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    listed = "_contrib_fft (beside, turn); _contrib_ifft (again)"
    assert line == f"error: unsupported operators (2), with their nodes: {listed}"


def test_check_allows_for_float32_inside_mxnet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = S.LeakyReLU(S.var("data"), slope=0.1)
    x = S.Pooling_v1(x, kernel=(3, 3), pool_type="avg")
    files = write(tmp_path, S.erf(x), data=(1, 2, 5, 5))
    assert main([*files, "--check", "--input-shape", "1,2,5,5"]) == 0
    assert "3 of 3 nodes compared in float64" in capsys.readouterr().out


def test_a_block_that_is_called_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its nodes share a name; each is compared with its own."""
    from mxnet.gluon import nn

    class Twice(nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Activation("relu")
            self.c = nn.Conv2D(3, 3, padding=1)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            return self.a(self.c(self.a(x)))

    net = Twice()
    net.initialize()
    net.hybridize()
    net(mx.nd.ones((1, 3, 6, 6)))
    net.export(str(tmp_path / "x"))
    argv = [str(tmp_path / "x-symbol.json"), str(tmp_path / "x-0000.params")]
    document = json.loads(Path(argv[0]).read_text())
    names = [node["name"] for node in document["nodes"]]
    assert len(set(names)) < len(names)
    assert main(["check", *argv, "--input-shape", "1,3,6,6"]) == 0
    assert "3 of 3 nodes compared" in capsys.readouterr().out
    # an operator that is called like a variable, too, and like a name made up for another
    for node in document["nodes"]:
        if node["op"] != "null":
            node["name"] = "data"
    Path(argv[0]).write_text(json.dumps(document))
    assert main(["check", *argv, "--input-shape", "1,3,6,6"]) == 0
    assert "3 of 3 nodes compared" in capsys.readouterr().out


@pytest.mark.parametrize("broken", ["shape", "dtype"])
def test_a_node_of_another_shape_or_dtype_differs(
    broken: str,
    files: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dataclasses import replace

    from mxnet_files.registry import OPERATORS

    genuine = OPERATORS["SoftmaxOutput"]

    def build(w: Any, a: Any, x: Any, label: Any) -> Any:
        y = genuine.build(w, a, x, label)
        return w.method("float", y) if broken == "dtype" else w.call(torch.unsqueeze, y, 1)

    monkeypatch.setitem(OPERATORS, "SoftmaxOutput", replace(genuine, build=build))
    assert main(["check", *files, *SHAPE]) == 1
    said = {
        "shape": "SoftmaxOutput softmax has shape (1, 1, 3), MXNet's is (1, 3)",
        "dtype": "SoftmaxOutput softmax has dtype float32, MXNet's is float64",
    }
    error = capsys.readouterr().err
    assert f"error: the import differs from MXNet: {said[broken]}" in error
    assert error.count("\n") == 1


def test_bounds_grow_with_the_length_of_a_sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MXNet adds 12544 equal pixels one after the other; one of them too few is still seen."""
    symbol = S.contrib.AdaptiveAvgPooling2D(S.var("data") * 0 + 0.1, output_size=1)
    files = write(tmp_path, symbol * S.var("k"), data=(1, 2, 112, 112), k=(1, 2, 1, 1))
    argv = ["check", *files, "--input-shape", "data=1,2,112,112", "--input-shape", "k=1,2,1,1"]
    assert main(argv) == 0
    worst = float(capsys.readouterr().out.split("worst ")[1].split()[0])
    assert worst > 16
    module = load_symbol(*files)
    y, x = torch.full((1, 2, 1, 1), 0.1).double(), torch.full((1, 2, 112, 112), 0.1).double()
    walker = Walker(module)
    walker.env = dict.fromkeys(module.graph.nodes, x)
    (node,) = [n for n in module.graph.nodes if n.target is torch.nn.functional.adaptive_avg_pool2d]
    terms = walker.length(node, y)
    assert 112**2 <= terms <= 113**2
    assert units(y * (1 - 1 / 112**2), y, y) > 16 + terms


def joined_wrongly(first: str) -> Any:
    """oneDNN joins BatchNorm to the convolution before it, although the sum wants that alone."""
    conv = S.Convolution(S.var("data"), num_filter=4, kernel=(3, 3), pad=(1, 1), name="conv")
    norm = S.BatchNorm(conv, fix_gamma=False, name="bn")
    return norm + conv if first == "norm" else conv + norm


@pytest.mark.parametrize("first", ["norm", "conv"])
def test_a_backend_of_mxnet_that_is_wrong_is_named(
    first: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MXNET_SUBGRAPH_BACKEND", raising=False)
    files = write(tmp_path, joined_wrongly(first), data=(1, 3, 6, 6))
    argv = ["check", *files, "--input-shape", "1,3,6,6"]
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert "error: the import equals MXNet's plain graph, and MXNet's own default" in error
    assert ("is off by" if first == "norm" else "cannot run the graph") in error
    assert "set MXNET_SUBGRAPH_BACKEND=NONE" in error
    monkeypatch.setenv("MXNET_SUBGRAPH_BACKEND", "NONE")
    assert main(argv) == 0
    assert "3 of 3 nodes compared" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["x.pt2", "folder"])
def test_nothing_is_written_of_what_a_backend_of_mxnet_computes_wrongly(
    out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MXNET_SUBGRAPH_BACKEND", raising=False)
    files = write(tmp_path, joined_wrongly("norm"), data=(1, 3, 6, 6))
    assert main(["convert", *files, "--input", "1,3,6,6", "--out", str(tmp_path / out)]) == 1
    error = capsys.readouterr().err
    assert "set MXNET_SUBGRAPH_BACKEND=NONE" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-0000.params", "x-symbol.json"]


STEPS = {  # nodes that are several operations of torch, the last of which moves elements about
    "GroupNorm": lambda x, g: S.GroupNorm(x, g, g, num_groups=2),
    "softmax to a dtype": lambda x, g: S.softmax(x, dtype="float64"),
    "channels last": lambda x, g: S.Pooling(
        x, kernel=(2, 2), pool_type="avg", layout="NHWC", count_include_pad=False
    ),
    "bilinear": lambda x, g: S.contrib.BilinearResize2D(x, height=17, width=11),
    "sum of several": lambda x, g: S.add_n(x, x * 3, x * 7, x),
    "states of any batch": lambda x, g: x + S.zeros(shape=(0, 4, 6, 8)),
    "a mask": lambda x, g: S.where(x + x > 0, x, x * 2),
    "split after a sum": lambda x, g: S.split(x + x * 3, num_outputs=2)[0],
}


@pytest.mark.parametrize("name", STEPS)
def test_nodes_of_several_steps_are_not_alarmed_at(name: str, tmp_path: Path) -> None:
    files = write(tmp_path, STEPS[name](S.var("data"), S.var("g")), data=(2, 4, 6, 8))
    assert main(["check", *files, "--input-shape", "2,4,6,8"]) == 0


def test_check_without_mxnet(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "mxnet", None)
    assert main([*files, "--check", *SHAPE]) == 2
    assert "mxnet is not installed: pip install -e '.[cpu]'" in capsys.readouterr().err


def test_an_input_that_does_not_fit_is_one_line(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*files, "--check"]) == 1  # 1×3×224×224 unless told
    error = capsys.readouterr().err
    assert "(give the shapes it takes with --input)" in error
    assert error.count("\n") == 1


def test_the_commands_have_names(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", *files, "--out", str(tmp_path / "x.pt2"), *SHAPE]) == 0
    assert "torch.export program" in capsys.readouterr().out
    assert main(["check", *files, *SHAPE, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"]["ok"] is True
    assert main(["zoo", "resnet50"]) == 2
    assert "did you mean resnet50_v" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "mxnet-files convert: error: the following arguments are required: symbol, params"),
        (["chek"], "no command 'chek', expected one of convert, verify, report"),
        (["chek"], "did you mean check?"),
        (["check", "x-symbol.json"], "mxnet-files check: error: the following arguments are"),
        (["x-symbol.json"], "mxnet-files convert: error: the following arguments are required"),
        (["--no-such"], "mxnet-files convert: error: "),
    ],
)
def test_what_is_no_command_is_one_line_and_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_heads_choose_what_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a training graph, the part that predicts; its losses need not be supported."""
    data = S.var("data")
    scores = S.FullyConnected(data, num_hidden=4, name="scores")
    halves = S.split(scores, num_outputs=2, name="halves")
    loss = S.linalg.sumlogdiag(S.contrib.fft(data)[0], name="loss")
    files = write(tmp_path, S.Group([S.softmax(scores, name="p"), halves[1], loss]), data=(3, 5))
    assert main(files) == 1
    assert "_contrib_fft" in capsys.readouterr().err
    shape = ["--input-shape", "3,5"]
    assert main([*files, *shape, "--heads", "p_output,halves:1", "--check"]) == 0
    module = load_symbol(files[0], files[1], heads=["halves:1", "p"])
    second, first = module(torch.ones(2, 5))
    assert second.shape == (2, 2)
    torch.testing.assert_close(first.sum(1), torch.ones(2))
    for head, message in (
        ("q", "head 'q' is no node of the graph, whose own heads are p, halves, loss"),
        ("scoers", "did you mean scores?"),
        ("p:7", "output 7"),
    ):
        assert main([*files, *shape, "--heads", head]) == 1
        assert message in capsys.readouterr().err
