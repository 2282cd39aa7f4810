"""`export --gluon`: a user's own net, proven on reload; one line for what cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import onnxruntime
import pytest

from gluon_cnn import export, predict
from gluon_cnn_parity.factories import reason_of

NETS = """
import mxnet as mx
from mxnet.gluon import nn

class Shortcut(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.body = nn.HybridSequential()
            self.body.add(nn.Conv2D(6, 3, padding=1), nn.BatchNorm(), nn.Activation("relu"))
            self.short = nn.Conv2D(6, 1)
            self.head = nn.Dense(5)

    def hybrid_forward(self, F, x):
        return self.head(F.tanh(self.body(x) + self.short(x)))

def empty():
    return Shortcut()

def ready():
    net = Shortcut()
    net.initialize(mx.init.Xavier())
    return net

class Layer(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.layer = nn.Conv2D(4, 1)
        self.initialize()

class Normalised(Layer):  # MXNet computes it in float32 alone
    def hybrid_forward(self, F, x):
        return F.LRN(self.layer(x), nsize=3)

@mx.util.use_np
class OfNumpy(nn.HybridBlock):
    def hybrid_forward(self, F, x):
        return F.npx.relu(x)

class Pair(nn.HybridBlock):
    def hybrid_forward(self, F, x):
        return x, 2 * x

class Sum(nn.HybridBlock):
    def hybrid_forward(self, F, x):
        return F.sum(x)

class Plain(mx.gluon.Block):
    def forward(self, x):
        return x

class Constant(Layer):
    def hybrid_forward(self, F, x):
        return F.zeros_like(self.layer(x))

class Nothing(nn.HybridBlock):
    def hybrid_forward(self, F, x):
        return 2 * x

def broken():
    raise RuntimeError("my own fault")
"""


@pytest.fixture(scope="module", autouse=True)
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module of nets, from which the commands run."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_nets_to_export.py").write_text(NETS)
    return folder


@pytest.fixture(autouse=True)
def _there(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(nets)


def run(factory: str, *arguments: str) -> int:
    return export.main(["--gluon", f"own_nets_to_export:{factory}", *arguments])


def test_a_net_with_parameters_from_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Any
) -> None:
    """Symbol, parameters and ONNX give what the user's net gives; `predict` knows no classes."""
    assert run("ready", "--input", "1,3,8,8", "--out", str(tmp_path / "first"), "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"]["dataset"] == "random"
    out = tmp_path / "second"
    saved = tmp_path / "mine.params"
    import own_nets_to_export as module

    net = module.ready()
    x = mx.nd.array(np.random.default_rng(1).normal(size=(3, 3, 8, 8)))
    wanted = net(x).asnumpy()
    net.save_parameters(str(saved))
    flags = ["--params", str(saved), "--input", "1,3,8,8", "--onnx", "--engine", "onnxruntime"]
    assert run("empty", *flags, "--out", str(out)) == 0
    assert {path.name for path in out.iterdir()} == {
        *("empty-symbol.json", "empty-0000.params", "empty.json", "empty.onnx"),
    }
    block = mx.gluon.SymbolBlock.imports(
        str(out / "empty-symbol.json"), ["data"], str(out / "empty-0000.params")
    )
    np.testing.assert_array_equal(block(x).asnumpy(), wanted)
    session = onnxruntime.InferenceSession(str(out / "empty.onnx"))
    (found,) = session.run(None, {"data": x.asnumpy()})
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    capsys.readouterr()
    refused(predict.main, [str(out), str(tmp_path / "no.png")], 1, "a net of a user's own")


def test_an_operator_that_mxnet_has_in_float32_alone(tmp_path: Path) -> None:
    flags = ["--input", "1,4,5,6", "--engine", "onnxruntime", "--out", str(tmp_path / "o")]
    assert run("Normalised", *flags) == 0
    assert (tmp_path / "o" / "Normalised.onnx").exists()


def test_another_net_than_the_files_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is proven: files whose numbers are not the net's leave nothing behind."""
    write = export.write_symbol

    def altered(net: mx.gluon.HybridBlock, stem: Path) -> list[Path]:
        files = write(net, stem)
        arrays = mx.nd.load(str(files[1]))
        name = next(name for name in arrays if name.endswith("weight"))
        mx.nd.save(str(files[1]), {**arrays, name: arrays[name] * 1.001})
        return files

    monkeypatch.setattr(export, "write_symbol", altered)
    assert run("ready", "--input", "1,3,8,8", "--out", str(tmp_path / "o")) == 1
    assert "are not the live net's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("factory", "flags", "said"),
    [
        ("empty", ["--input", "1,3,8,8"], "give its parameters with --params"),
        ("ready", ["--input", "1,4"], "does not run on (1, 4)"),
        ("ready", ["--input", "1,x"], "expected sizes as 1,3,224,224"),
        ("ready", [], "needs the shape of its input"),
        ("ready", ["--input", "1,3,8,8", "--params", "none"], "no such file"),
        ("ready", ["--input", "1,3,8,8", "--params", "own_nets_to_export.py"], "does not fit"),
        ("ready", ["--input", "1,3,8,8", "--classes", "3"], "--classes is for the nets of this"),
        ("ready", ["--input", "1,3,8,8", "--engine", "mxnet"], "--engine mxnet is for the nets"),
        ("Pair", ["--input", "1,3,8,8"], "gives tuple, expected one array"),
        ("OfNumpy", ["--input", "2,3"], "expected those of mx.nd: write its files by"),
        ("Sum", ["--input", "2,3"], "expected float32 with a row for each"),
        ("Nothing", ["--input", "2,3"], "has no parameters"),
        ("Plain", ["--input", "2,3"], "expected a HybridBlock"),
        ("broken", ["--input", "2,3"], "own_nets_to_export.py:"),
        ("missing", ["--input", "2,3"], "gives no net: AttributeError"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    factory: str, flags: list[str], said: str, tmp_path: Path, refused: Any
) -> None:
    refused(lambda argv: run(factory, *argv), [*flags, "--out", str(tmp_path / "o")], 2, said)
    assert not (tmp_path / "o").exists()


def test_outputs_that_prove_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("Constant", "--input", "2,3,4,4", "--out", str(tmp_path / "o")) == 1
    assert "would prove nothing" in capsys.readouterr().err
    assert export.main(["--model", "lenet", "--input", "1,3", "--out", str(tmp_path / "o")]) == 2
    assert "--input is for --gluon" in capsys.readouterr().err


def test_a_reason_names_its_error_once() -> None:
    with pytest.raises(mx.MXNetError) as caught:
        mx.nd.broadcast_add(mx.nd.ones(2), mx.nd.ones(3))
    assert reason_of(caught.value).count("MXNetError: ") == 1
