"""`mxnet-files map`: a user's own torch class filled from MXNet's files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mxnet_files import load_symbol
from mxnet_files.__main__ import main
from mxnet_files.reading.tensor_files import read_tensors

HERE = __name__
SHAPE = (1, 3, 16, 16)


class Renamed(nn.Module):
    """Other names, another order, one ReLU for all, pooling as a function."""

    last_stride = 1
    aux = False

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4 * 8 * 8, 5)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        if self.aux:
            self.unused = nn.Linear(2, 2)

    def end(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = F.max_pool2d(self.end(self.relu(self.second(x))), 2)
        y: Tensor = self.head(x.flatten(1))
        return y


class WithAux(Renamed):
    aux = True


class Wrong(Renamed):
    def end(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class More(Renamed):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Conv2d(4, 4, 1)

    def end(self, x: Tensor) -> Tensor:
        y: Tensor = self.more(x)
        return y


class Raises(Renamed):
    def end(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing")


def no_net() -> int:
    return 3


class Apart(nn.Module):
    """A layer for each of what MXNet's net computes with one."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.k, self.q = (nn.Linear(6, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        y: Tensor = (q @ k.mT).softmax(-1) @ v
        return y


class Together(nn.Module):
    """One layer for what MXNet's net has three for."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Linear(6, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.all(x).chunk(3, -1)
        y: Tensor = (q @ k.mT).softmax(-1) @ v
        return y


@pytest.mark.parametrize("net", [Apart, Together])
def test_rows_of_one_parameter_fill_several_and_several_fill_one(
    net: type[nn.Module], tmp_path: Path
) -> None:
    S = mx.symbol
    x, sizes = S.var("data"), {"p": 12} if net is Apart else dict.fromkeys("qkv", 4)
    layers = [
        S.FullyConnected(x, num_hidden=n, flatten=False, name=name) for name, n in sizes.items()
    ]
    q, k, v = S.split(layers[0], 3, axis=2) if net is Apart else layers
    symbol = S.batch_dot(S.softmax(S.batch_dot(q, k, transpose_b=True)), v)
    rng = np.random.default_rng(0)
    shapes, _, _ = symbol.infer_shape(data=(2, 3, 6))
    named = dict(zip(symbol.list_arguments(), shapes, strict=True))
    arrays = {n: mx.nd.array(rng.standard_normal(s)) for n, s in named.items() if n != "data"}
    symbol.save(str(tmp_path / "net-symbol.json"))
    mx.nd.save(str(tmp_path / "net.params"), {f"arg:{n}": a for n, a in arrays.items()})
    out = tmp_path / "state.safetensors"
    argv = ["map", str(tmp_path / "net.params"), "--symbol", str(tmp_path / "net-symbol.json")]
    argv += ["--torch", f"{HERE}:{net.__name__}", "--input", "2,3,6", "--out", str(out)]
    assert main(argv) == 0
    state = read_tensors(out)
    many, one = ("qkv", "p") if net is Apart else ("qkv", "all")
    ours = {n: a.asnumpy() for n, a in arrays.items()}
    for kind in ("weight", "bias"):
        if net is Apart:
            rows = np.concatenate([state[f"{n}.{kind}"] for n in many])
            assert np.array_equal(rows, ours[f"{one}_{kind}"])
        else:
            rows = np.concatenate([ours[f"{n}_{kind}"] for n in many])
            assert np.array_equal(rows, state[f"{one}.{kind}"])


@pytest.fixture(params=["scaled", "fix_gamma"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    g = mx.gluon.nn
    net = g.HybridSequential()
    net.add(
        g.Conv2D(4, 3, padding=1, in_channels=3),
        g.BatchNorm(in_channels=4, scale=request.param == "scaled"),
        g.Activation("relu"),
        g.Conv2D(4, 3, padding=1, in_channels=4),
        g.Activation("relu"),
        g.MaxPool2D(),
        g.Flatten(),
        g.Dense(5, in_units=4 * 8 * 8),
    )
    net.initialize()
    rng = np.random.default_rng(0)
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.uniform(0.2, 1.5, parameter.shape)))
    net.hybridize()
    net(mx.nd.ones(SHAPE))
    net.export(str(tmp_path / "net"))
    return str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params")


def words(files: tuple[str, str], factory: str, out: Path) -> list[str]:
    where = ["--symbol", files[0], "--torch", f"{HERE}:{factory}", "--input", "1,3,16,16"]
    return ["map", files[1], *where, "--out", str(out)]


@pytest.mark.parametrize("net", [Renamed, WithAux])
def test_a_renamed_class_computes_what_the_import_does(
    net: type[Renamed],
    files: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "state.safetensors"
    assert main(words(files, net.__name__, out)) == 0
    said = capsys.readouterr().out
    assert "first.weight is " in said
    assert said.count("is read by no operation") == 2 * net.aux
    mine = net()
    mine.load_state_dict({k: torch.from_numpy(v) for k, v in read_tensors(out).items()})
    x = torch.randn(3, *SHAPE[1:])
    with torch.no_grad():
        expected = load_symbol(*files)(x)
        torch.testing.assert_close(mine.eval()(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("factory", "code", "said"),
    [
        ("Wrong", 1, "torch alone computes tanh"),
        ("More", 1, "torch alone has more.weight, more.bias"),
        ("Raises", 1, "RuntimeError: no such thing"),
        ("nothing", 1, "--torch"),
        ("no_net", 2, "gives int, expected a Module"),
    ],
)
def test_what_does_not_fit_is_one_line_and_no_file(
    factory: str,
    code: int,
    said: str,
    files: tuple[str, str],
    tmp_path: Path,
    refused: Any,
) -> None:
    out = tmp_path / "state.safetensors"
    refused(main, words(files, factory, out), code, said)
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_said_before_the_class_is_run(
    files: tuple[str, str], tmp_path: Path, refused: Any
) -> None:
    refused(
        main,
        words(files, "Raises", tmp_path / "none/state.pt"),
        1,
        "none; make it, or name another place",
    )


def test_the_budget_is_for_the_inputs_too(
    files: tuple[str, str], tmp_path: Path, refused: Any
) -> None:
    argv = [*words(files, "Renamed", tmp_path / "state.pt"), "--budget", "values=700"]
    refused(main, argv, 1, "the inputs alone take 768 values")


WITHOUT_MXNET = """
import sys
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
def hidden(cls, name, path=None, target=None):
    return None if name.partition(".")[0] == "mxnet" else find_spec(name, path, target)
PathFinder.find_spec = classmethod(hidden)
from mxnet_files.__main__ import main
code = main(sys.argv[1:])
assert "mxnet" not in sys.modules
sys.exit(code)
"""

ALONE = """
from torch import nn
def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 5),
    )
"""


def test_it_needs_no_mxnet(files: tuple[str, str], tmp_path: Path, torch_python: list[str]) -> None:
    (tmp_path / "theirs.py").write_text(ALONE)
    out = tmp_path / "state.pt"
    arguments = words(files, "", out)
    arguments[arguments.index(f"{HERE}:")] = "theirs:net"
    command = [*torch_python, "-c", WITHOUT_MXNET, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.exists()
