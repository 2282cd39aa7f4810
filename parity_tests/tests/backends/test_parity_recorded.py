"""Nets that were recorded elsewhere, by the printed script, in a process of their own."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gluon_cnn  # noqa: F401  (settles MXNet's threads)
from parity_tests import check_parity
from parity_tests.__main__ import main
from parity_tests.backends.files.recorded import RecordedNet, read_recording
from parity_tests.backends.files.replayed import ReplayedNet
from parity_tests.backends.files.script import script_of
from parity_tests.backends.files.tape import RecordError, read_inputs
from parity_tests.backends.leaves import ParityError
from parity_tests.cases.arrays import read_batches
from parity_tests.reporting.verdicts import Side

GLUON = """
import mxnet as mx
from mxnet.gluon import nn


class Net(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.c1 = nn.Conv2D(8, 3, padding=1, in_channels=3)
            self.b1 = nn.BatchNorm(in_channels=8)
            self.c2 = nn.Conv2D(8, 3, padding=1, in_channels=8)
            self.drop = nn.Dropout(0.5)
            self.d = nn.Dense(5)

    def hybrid_forward(self, F, x):
        h = F.relu(self.b1(self.c1(x)))
        h = h + F.Activation(self.c2(h), act_type="sigmoid")
        h = F.Pooling(h, global_pool=True, pool_type="avg", kernel=(1, 1))
        return self.d(self.drop(h))


def net():
    made = Net()
    made.initialize(mx.init.Xavier())
    made.hybridize()
    return made


def broken():
    made = net()
    made.hybrid_forward = None
    return made
"""


class Twin(nn.Module):
    def __init__(self, eps: float = 1e-5, stride: int = 1, shortcut: float = 1.0) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.b1 = nn.BatchNorm2d(8, eps=eps)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.stride = stride
        self.shortcut = shortcut
        self.drop = nn.Dropout(0.5)
        self.d = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.b1(F.conv2d(x, self.c1.weight, self.c1.bias, self.stride, 1)))
        h = self.shortcut * h + torch.sigmoid(self.c2(h))
        return self.d(self.drop(F.adaptive_avg_pool2d(h, 1).flatten(1)))


def run_script(
    python: str, folder: Path, *arguments: str, side: Side = Side.GLUON
) -> subprocess.CompletedProcess[str]:
    """Run the printed script where nothing of this project can be imported."""
    (folder / "record.py").write_text(script_of(side))
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": ""}
    return subprocess.run(
        [python, "record.py", *arguments],
        cwd=folder, env=environment, text=True, capture_output=True, check=False, timeout=280,
    )  # fmt: skip


def record(python: str, folder: Path, *arguments: str, side: Side = Side.GLUON) -> RecordedNet:
    done = run_script(python, folder, *arguments, "--out", "out", side=side)
    assert done.returncode == 0, done.stderr
    return read_recording(folder / "out", side)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedNet:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "mine.py").write_text(GLUON)
    return record(sys.executable, folder, "mine:net", "--input", "2,3,8,8")


def test_the_script_is_written_or_printed_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "--script", str(tmp_path / "record.py"), "--json"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert Path(written["path"]).read_text() == script_of(Side.GLUON)
    assert main(["record", "--framework", "torch", "--print", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"framework": "torch", "script": script_of(Side.TORCH)}


def test_the_script_is_one_file_for_python_3_6() -> None:
    for side in (Side.GLUON, Side.TORCH):
        tree = ast.parse(script_of(side), feature_version=(3, 6))
        imported = {
            name.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in node.names
        }
        assert not {name for name in imported if name.startswith(("parity_tests", "__future__"))}


def test_a_record_is_judged_as_the_living_net_is(recorded: RecordedNet) -> None:
    report = check_parity(recorded, Twin(), recorded.inputs, transfer=True)
    assert report.ok, report.first_divergence
    assert not report.coverage.missing()
    counts = report.coverage.counts()
    assert counts["gradients"][0] >= 14
    assert {row.dtype for row in report.rows if row.side == Side.GLUON} <= {"float32", ""}


def _weight(net: Any) -> None:
    with torch.no_grad():
        net.c2.weight[1, 2, 0, 0] += 1e-3


@pytest.mark.parametrize(
    ("options", "change", "path", "words"),
    [
        ({"eps": 1e-3}, None, "b1", "eps"),
        ({"stride": 2}, None, "conv2d", "stride"),
        ({"shortcut": 1.001}, None, "mul", "torch only"),
        ({}, _weight, "c2", "weight"),
    ],
    ids=["eps", "stride", "shortcut scaled", "one weight"],
)
def test_a_fault_is_named_at_its_operation(
    recorded: RecordedNet,
    options: dict[str, Any],
    change: Callable[[nn.Module], None] | None,
    path: str,
    words: str,
) -> None:
    wrong = Twin(**options)
    wrong.load_state_dict(state_of(recorded))
    if change is not None:
        change(wrong)
    first = check_parity(recorded, wrong, recorded.inputs).first_divergence
    assert first is not None
    assert path in first.path or path in first.message
    assert words in first.message


def state_of(recorded: RecordedNet) -> dict[str, torch.Tensor]:
    names = {"b1.gamma": "b1.weight", "b1.beta": "b1.bias"}
    return {
        names.get(name, name): torch.from_numpy(recorded.parameters[name])
        for name in recorded.parameters
    } | {"b1.num_batches_tracked": torch.tensor(0)}


RECURRENT = """
import mxnet as mx
from mxnet.gluon import nn, rnn


class Net(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.l = rnn.LSTM(5, 2, input_size=4, dropout=0.3)

    def hybrid_forward(self, F, x):
        return self.l(100 * x)


def net():
    made = Net()
    made.initialize(mx.init.Uniform(1.0))
    return made
"""


class Recurrent(nn.Module):
    def __init__(self, dropout: float, scale: float) -> None:
        super().__init__()
        self.l = nn.LSTM(4, 5, 2, dropout=dropout)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(self.scale * x)[0]


def test_a_recorded_recurrent_layer_is_judged_as_a_living_one(tmp_path: Path) -> None:
    """Its gates saturate, and what it drops between its layers is passed on."""
    (tmp_path / "mine.py").write_text(RECURRENT)
    made = record(sys.executable, tmp_path, "mine:net", "--input", "6,2,4")

    def first(dropout: float = 0.3, scale: float = 100.0) -> str:
        torch_net = Recurrent(dropout, scale)
        return str(check_parity(made, torch_net, made.inputs, transfer=True).first_divergence)

    assert first() == "None"
    assert "Gluon has 0.3, torch has 0.5 (dropout)" in first(dropout=0.5)
    assert "Gluon has 100.0, torch has 101.0" in first(scale=101.0)


PLAIN = """
import mxnet as mx
from mxnet.gluon import Block, nn


class Net(Block):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.c = nn.Conv2D(4, 3, in_channels=3)
            self.d = nn.Dense(5)
        self.scale = mx.nd.arange(1, 5).reshape((1, 4, 1, 1)) / 7  # no parameter

    def forward(self, x):
        h = self.c(x).relu() * self.scale.broadcast_like(self.c(x))
        return self.d(h[:, :, 1:-1][:, [0, 2, 2, 1]] if h.shape[2] > 4 else h)


def net():
    made = Net()
    made.initialize(mx.init.Xavier())
    return made
"""


class TwinOfPlain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(3, 4, 3)
        self.d = nn.Linear(96, 5)
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.arange(1.0, 5).view(1, 4, 1, 1) / 7)
        self.first = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.c(x)) * self.scale
        return self.d(h[:, :, self.first : self.first + 4][:, [0, 2, 2, 1]].flatten(1))


@pytest.mark.slow
def test_a_block_that_cannot_be_hybridized_is_recorded_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLAIN)
    made = record(sys.executable, tmp_path, "mine:net", "--input", "2,3,8,8")
    twin = TwinOfPlain()
    report = check_parity(made, twin, made.inputs, transfer=True)
    assert report.ok, report.first_divergence
    assert not report.coverage.missing()
    twin.first = 0
    first = check_parity(made, twin, made.inputs, transfer=True).first_divergence
    assert first is not None
    assert "begin" in first.message


def test_a_record_is_whole_or_refused(recorded: RecordedNet, tmp_path: Path) -> None:
    for name in sorted(os.listdir(recorded.folder)):
        folder = tmp_path / name.replace(".", "_")
        shutil.copytree(recorded.folder, folder)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(bytes(data))
        with pytest.raises(ParityError, match=r"damaged|not JSON"):
            read_recording(folder, Side.GLUON)
        (folder / name).unlink()
        with pytest.raises(ParityError, match=r"has no manifest|not whole"):
            read_recording(folder, Side.GLUON)
    with pytest.raises(ParityError, match="recorded from gluon, expected torch"):
        read_recording(recorded.folder, Side.TORCH)


def test_the_command_judges_a_record(
    recorded: RecordedNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    source = "from parity_tests.tests.backends.test_parity_recorded import Twin\nnet = Twin\n"
    (tmp_path / "theirs_recorded.py").write_text(source + "def small(): return Twin(stride=9)\n")
    monkeypatch.chdir(tmp_path)
    flags = ["check", "--gluon-recorded", str(recorded.folder), "--level", "structure,weights"]
    assert main([*flags, "--torch", "theirs_recorded:net", "--transfer"]) == 0
    assert main([*flags, "--torch", "theirs_recorded:net"]) == 1
    capsys.readouterr()
    for wrong in (
        [*flags],
        [*flags, "--torch", "theirs_recorded:net", "--input", "1,3,8,8"],
        [*flags, "--torch", "theirs_recorded:nothing"],
        ["check", "--gluon-recorded", "nowhere", "--torch", "theirs_recorded:net"],
    ):
        assert main(wrong) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


TORCH = """
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, eps=1e-5):
        super().__init__()
        self.c1 = nn.Conv2d(3, 8, 3, padding=1)
        self.b1 = nn.BatchNorm2d(8, eps=eps)
        self.r = nn.ReLU(inplace=True)
        self.c2 = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.d = nn.Linear(8, 5)

    def forward(self, x):
        h = self.r(self.b1(self.c1(x)))
        h = h + torch.sigmoid(self.c2(h))
        return self.d(self.drop(F.adaptive_avg_pool2d(h, 1).flatten(1)))
"""


@pytest.fixture(scope="module")
def torch_recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedNet:
    folder = tmp_path_factory.mktemp("torch_recorded")
    (folder / "theirs.py").write_text(TORCH)
    return record(sys.executable, folder, "theirs:Net", "--input", "2,3,8,8", side=Side.TORCH)


def _gluon_net(eps: float = 1e-5) -> Any:
    scope: dict[str, Any] = {}
    exec(GLUON, scope)
    net = scope["net"]()
    net.b1._kwargs["eps"] = eps
    net(mx.nd.zeros((2, 3, 8, 8)))
    return net


def test_a_record_of_torch_is_judged_too(torch_recorded: RecordedNet) -> None:
    ours = _gluon_net()
    before = ours.c1.weight.data().asnumpy()
    report = check_parity(ours, torch_recorded, torch_recorded.inputs, transfer=True)
    assert report.ok, report.first_divergence
    assert not report.coverage.missing()
    assert (ours.c1.weight.data().asnumpy() == before).all()  # transfer fills a copy
    wrong = check_parity(_gluon_net(1e-3), torch_recorded, torch_recorded.inputs, transfer=True)
    assert wrong.first_divergence is not None
    assert wrong.first_divergence.path == "b1"


def test_values_that_torch_gave_there_are_judged(torch_recorded: RecordedNet) -> None:
    number = next(n for n, op in enumerate(torch_recorded.graphs[False]) if op.kind == "sigmoid")
    changed = {name: torch_recorded.values[False][name] for name in torch_recorded.values[False]}
    changed[f"{number}.0"] = changed[f"{number}.0"] * np.float32(1 + 2e-5)
    values = {**torch_recorded.values, False: changed}
    other = dataclasses.replace(torch_recorded, values=values)
    report = check_parity(_gluon_net(), other, other.inputs, transfer=True)
    failed = [row for row in report.failures if row.check == "local"]
    assert failed
    assert {row.side for row in failed} == {Side.TORCH}
    assert failed[0].path == "sigmoid"


def test_no_name_in_a_record_becomes_code(torch_recorded: RecordedNet, tmp_path: Path) -> None:
    record = json.loads((torch_recorded.folder / "inference.json").read_text())
    record["operations"][0]["function"] = "torch.hub.load"
    net = ReplayedNet({False: record}, torch_recorded.parameters, [], {False: {}})
    with pytest.raises(ParityError, match=r"torch\.hub\.load"):
        net.eval()(*(torch.from_numpy(x) for x in torch_recorded.inputs))


def test_inputs_are_described_as_for_the_check(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones((2, 3)), b=np.array([True, False]))
    texts = ["2,4:int64<11", "2,3", f"{tmp_path / 'x.npz'}:b", "2:bool"]
    found = read_inputs("", texts, 0)
    assert [x.dtype.name for x in found] == ["int64", "float32", "bool", "bool"]
    assert [x.shape for x in found] == [(2, 4), (2, 3), (2,), (2,)]
    assert 0 <= found[0].min() < found[0].max() < 11
    checked = [x.dtype for x in read_batches(texts, None)[0][0]]
    assert checked == [x.dtype for x in found]
    for text in ("2,4:int64", "2:int7<3", "2,0", "none.npy", "2:uint8<300", "x"):
        with pytest.raises(RecordError) as refused:
            read_inputs("", [text], 0)
        with pytest.raises(ParityError) as here:
            read_batches([text], None)
        assert str(here.value).startswith(str(refused.value))


WHOLE = """
import mxnet as mx
from mxnet.gluon import Block, nn


class Net(Block):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.e = nn.Embedding(11, 6)
            self.d = nn.Dense(6, flatten=False, in_units=6)

    def forward(self, ids, x):
        y = self.d(self.e(ids) * x)
        return y, (y * 9).astype("int32"), (y > 0) * y
"""


class WholeTwin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.d = nn.Embedding(11, 6), nn.Linear(6, 6)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> Any:
        y = self.d(self.e(ids) * x)
        return y, (y * 9).int(), (y > 0) * y


@pytest.mark.slow
def test_whole_numbers_that_a_recorded_net_gives_send_nothing_back(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WHOLE)
    inputs = "--input", "2,4:int64<11", "--input", "2,4,6"
    made = record(sys.executable, tmp_path, "mine:Net", *inputs)
    report = check_parity(made, WholeTwin(), made.inputs, transfer=True)
    assert report.ok, str(report)


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GLUON)
    before = sorted(os.listdir(tmp_path))
    done = run_script(sys.executable, tmp_path, "mine:broken", "--input", "1,3,8,8", "--out", "o")
    assert done.returncode == 2
    assert "does not run" in done.stderr.splitlines()[-1]
    assert sorted(set(os.listdir(tmp_path)) - {"record.py", "__pycache__"}) == before


def _pythons() -> list[str]:
    root = Path.home() / ".pyenv" / "versions"
    return sorted(str(path) for path in root.glob("3.[678].*/bin/python"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8"])
def test_the_oldest_mxnet_records_where_this_project_cannot_run(
    version: str, tmp_path: Path
) -> None:
    """MXNet 1.5.1 in an environment of its own, with what pip finds for it."""
    python = next((p for p in _pythons() if f"/{version}." in p), None)
    if python is None:
        pytest.skip(f"pyenv has no Python {version}")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    there = str(tmp_path / "venv" / "bin" / "python")
    for packages in (["pip==21.3.1"], ["mxnet==1.5.1", "numpy<1.24", "requests<2.28"]):
        done = subprocess.run(
            [there, "-m", "pip", "install", "-q", *packages], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip(f"pip has no MXNet 1.5.1 for Python {version} here")
    (tmp_path / "mine.py").write_text(GLUON)
    recorded = record(there, tmp_path, "mine:net", "--input", "2,3,8,8")
    assert recorded.state["versions"]["mxnet"] == "1.5.1"
    assert recorded.state["versions"]["python"].startswith(version)
    report = check_parity(recorded, Twin(), recorded.inputs, transfer=True)
    assert report.ok, report.first_divergence
    first = check_parity(recorded, Twin(eps=1e-3), recorded.inputs, transfer=True).first_divergence
    assert first is not None
    assert first.path == "b1"


OURS = """
import mxnet as mx
from gluon_cnn.models import get_model


def net():
    made = get_model({name!r})
    made.initialize(mx.init.Xavier())
    return made
"""
ZOO = """
import mxnet as mx
from gluoncv2.model_provider import get_model


def net():
    made = get_model({name!r})
    made.initialize(mx.init.Xavier())
    return made
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("zoo", "name", "shape"),
    [
        ("ours", "lenet", "2,1,28,28"),
        ("ours", "mnist_bn_cnn", "2,1,28,28"),
        ("gluoncv2", "resnet20_cifar10", "2,3,32,32"),
        ("gluoncv2", "seresnet20_cifar10", "2,3,32,32"),
        ("gluoncv2", "mobilenet_wd4", "1,3,224,224"),
    ],
)
def test_real_nets_are_in_parity_with_their_record(
    zoo: str, name: str, shape: str, tmp_path: Path
) -> None:
    if zoo == "gluoncv2":
        if any(importlib.util.find_spec(each) is None for each in ("gluoncv2", "pytorchcv")):
            pytest.skip("gluoncv2 and pytorchcv are not installed")
        torch.library.register_fake = lambda *a, **k: lambda f: f  # torchvision's own operators
        from pytorchcv.model_provider import get_model
    else:
        from torch_ref.models import get_model
    (tmp_path / "mine.py").write_text((ZOO if zoo == "gluoncv2" else OURS).format(name=name))
    recorded = record(sys.executable, tmp_path, "mine:net", "--input", shape)
    report = check_parity(recorded, get_model(name), recorded.inputs, transfer=True)
    assert report.ok, report.first_divergence
    assert not report.coverage.missing()


LENGTHS = """
import mxnet as mx
from mxnet.gluon import nn, rnn


class Net(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.r = rnn.LSTM(3, layout="NTC", input_size=2, use_sequence_length=True)

    def hybrid_forward(self, F, x, n):
        y = self.r(x, self.r.begin_state(2, func=F.zeros), n)[0]
        return F.SequenceMask(y, n, use_sequence_length=True, axis=1)


def net():
    made = Net()
    made.initialize(mx.init.Normal(0.5))
    return made
"""


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r = nn.LSTM(2, 3, batch_first=True)

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        rnn = nn.utils.rnn
        given = rnn.pack_padded_sequence(x, n.long(), batch_first=True, enforce_sorted=False)
        padded = rnn.pad_packed_sequence(self.r(given)[0], batch_first=True)
        return padded[0]


@pytest.mark.slow
def test_a_record_of_the_cpu_has_all_steps_of_a_layer_with_lengths(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LENGTHS)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 4, 2)).astype(np.float32)
    np.savez(tmp_path / "in.npz", x=x, n=np.array([2, 4], np.float32))
    inputs = ("--input", "in.npz:x", "--input", "in.npz:n")
    made = record(sys.executable, tmp_path, "mine:net", *inputs)
    report = check_parity(made, Padded(), made.inputs, transfer=True)
    assert report.ok, str(report)


HALF = """
import mxnet as mx
from mxnet.gluon import nn


class Net(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.d = nn.Dense(6, in_units=6)

    def hybrid_forward(self, F, x):
        y = F.cast(F.cast(F.exp(F.cast(self.d(x), "float16")), "float32"), "float64")
        return F.cast(F.tanh(x), "float16"), F.softmax(y)


def net():
    made = Net()
    made.initialize(mx.init.Xavier())
    return made
"""


class HalfTwin(nn.Module):
    def __init__(self, factor: float = 1.0, cast: bool = True) -> None:
        super().__init__()
        self.d, self.factor, self.cast = nn.Linear(6, 6), factor, cast

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = (self.factor * self.d(x).half().exp()).float()
        first = torch.tanh(x)
        return first.half() if self.cast else first, y.double().softmax(-1)


def test_a_record_may_cast_to_float16_and_float64(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HALF)
    half = record(sys.executable, tmp_path, "mine:net", "--input", "4,6")
    report = check_parity(half, HalfTwin(), half.inputs, transfer=True)
    assert report.ok, report.first_divergence
    for wrong in (HalfTwin(factor=1.01), HalfTwin(cast=False)):
        assert not check_parity(half, wrong, half.inputs, transfer=True).ok


OF_TYPES = """
import mxnet as mx
from mxnet.gluon import nn


class Net(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.words, self.types = nn.Embedding(11, 4), nn.Embedding(3, 4)
            self.places = nn.Embedding(9, 4)
            self.c = self.params.get_constant("c", mx.nd.zeros((2, 5)))
            self.p = self.params.get_constant("p", mx.nd.arange(9).reshape((1, 9)))

    def hybrid_forward(self, F, ids, c, p):
        places = self.places(F.slice_axis(p, axis=1, begin=0, end=5))
        return F.broadcast_add(self.words(ids) + self.types(c), places)


def net():
    made = Net()
    made.initialize(mx.init.Normal(1))
    return made
"""


class TheirTypes(nn.Module):
    def __init__(self, held: int | None, first: int) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(11, 4), nn.Embedding(3, 4)
        self.places, self.first = nn.Embedding(9, 4), first
        self.register_buffer("held", held if held is None else torch.full((2, 5), held))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        types = torch.zeros_like(ids) if self.held is None else self.held
        places = torch.arange(self.first, self.first + ids.shape[1])
        return self.words(ids) + self.types(types) + self.places(places)


def test_a_recorded_constant_may_be_held_or_computed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OF_TYPES)
    recorded = record(sys.executable, tmp_path, "mine:net", "--input", "2,5:int64<11")
    for held, first, right in ((None, 0, True), (0, 0, True), (1, 0, False), (None, 1, False)):
        theirs = TheirTypes(held, first)
        report = check_parity(recorded, theirs, recorded.inputs, transfer=True)
        assert report.ok == right, f"{held}, {first}: {report}"


TWICE = """
import mxnet as mx
from mxnet.gluon import nn


class Net(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.words = nn.Embedding(11, 4)
            self.m, self.a, self.b = (nn.Dense(4, flatten=False, in_units=4) for _ in range(3))

    def hybrid_forward(self, F, ids):
        return self.a(self.m(self.words(ids))) + F.tanh(self.b(self.m(self.words(ids))))


def net():
    made = Net()
    made.initialize(mx.init.Normal(1))
    return made
"""


class Once(nn.Module):
    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.words, self.detached = nn.Embedding(11, 4), detached
        self.m, self.a, self.b = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        y = self.m(self.words(ids))
        return self.a(y) + torch.tanh(self.b(y.detach() if self.detached else y))


def test_what_a_recorded_net_computes_twice_has_both_gradients(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TWICE)
    recorded = record(sys.executable, tmp_path, "mine:net", "--input", "2,5:int64<11")
    for detached in (False, True):
        report = check_parity(recorded, Once(detached), recorded.inputs, transfer=True)
        assert report.ok != detached, str(report)
