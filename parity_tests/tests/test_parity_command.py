"""The command and its outputs: exit codes, the table, the page, a user's own pair."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity_tests.__main__ import main

PAIR = """
import mxnet as mx
from mxnet.gluon import nn as gnn
import torch
from torch import nn

def ours():
    net = gnn.HybridSequential()
    net.add(gnn.Conv2D(4, 3, in_channels=3), gnn.Activation("relu"), gnn.MaxPool2D(2),
            gnn.Flatten(), gnn.Dense(5, in_units=4 * 3 * 3))
    net.initialize(mx.init.Xavier())
    return net

def theirs():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(36, 5))

def other():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
                         nn.Linear(36, 5))

def number():
    return 7

def raises():
    return {}["weights"]

def another_shape():
    return nn.Sequential(nn.Conv2d(4, 4, 3))

def exploded():
    net = theirs()
    net[4].bias.data[1] = float("nan")
    return net
"""


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a user's nets, under a name of its own in each test."""
    name = f"pair_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(PAIR)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def _own(pair: str, theirs: str, *more: str) -> list[str]:
    return ["--gluon", f"{pair}:ours", "--torch", f"{pair}:{theirs}", "--input", "2,3,8,8", *more]


def test_a_model_prints_its_table_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "lenet"]) == 0
    captured = capsys.readouterr()
    for level in ("structure", "weights", "forward", "backward", "artefacts", "data"):
        assert f"lenet  {level}" in captured.out
    assert "100 % of parameters" in captured.out
    assert "diverged" not in captured.out


def test_json_and_report_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    assert main(["--model", "lenet,lenet5", "--level", "weights", "--json",
                 "--report", str(folder)]) == 0  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"]
    assert [r["name"] for r in printed["reports"]] == ["lenet", "lenet5"]
    written = json.loads((folder / "report.json").read_text())
    assert [r["levels"] for r in written["reports"]] == [["weights"]] * 2
    assert all(r["rows"] for r in written["reports"])
    html = (folder / "report.html").read_text()
    assert html.startswith("<!doctype html>")
    assert "lenet5" in html
    assert "http" not in html.replace("http-equiv", "")  # nothing is fetched


def test_a_users_pair_after_transfer(pair: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(_own(pair, "theirs", "--transfer")) == 0
    assert "100 % of leaves" in capsys.readouterr().out


def test_a_users_pair_with_other_weights_diverges_there(
    pair: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_own(pair, "theirs")) == 1
    assert "0 weights" in capsys.readouterr().err


def test_a_users_pair_with_another_pool_diverges_there(
    pair: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    assert main(_own(pair, "other", "--transfer", "--report", str(folder), "--json")) == 1
    captured = capsys.readouterr()
    first = json.loads(captured.out)["reports"][0]["first_divergence"]
    assert (first["level"], first["path"]) == ("structure", "2")
    assert first["message"] in captured.err
    assert "<title>Another structure at 2</title>" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "resnet"], ["resnet", "vgg16_bn"]),
        (["--level", "feelings"], ["feelings", "structure"]),
        (["--gluon", "a:b"], ["--torch", "--input"]),
        (["--gluon", "a:b", "--torch", "c:d", "--input", "3,x"], ["3,x", "1,3,32,32"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--gluon", "a:b", "--torch", "c:d", "--input", "1,2", "--model", "lenet"], ["--model"]),
    ],
)
def test_bad_usage_is_one_line_and_2(argv: list[str], words: list[str], refused: Any) -> None:
    refused(main, argv, 2, *words)


def test_inputs_that_are_nan_are_one_line_and_2(
    pair: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "x.npz", x=np.full((2, 3, 8, 8), np.nan, np.float32))
    argv = ["--gluon", f"{pair}:ours", "--torch", f"{pair}:theirs", "--transfer", "--report", "r"]
    assert main([*argv, "--input", f"{tmp_path / 'x.npz'}:x"]) == 2
    error = capsys.readouterr().err
    assert "input 1 is NaN or infinite in 384 of 384 values" in error
    assert error.count("\n") == 1
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("gluon", "torch", "word"),
    [
        ("no_such_module:net", "{0}:theirs", "no_such_module"),
        ("{0}:missing", "{0}:theirs", "missing"),
        ("{0}:number", "{0}:theirs", "number"),
        ("{0}:theirs", "{0}:theirs", "torch"),
        ("plain", "{0}:theirs", "package.module:factory"),
        ("{0}:ours", "{0}:raises", "{0}.py:26)"),
        ("{0}:ours", "{0}:another_shape", "torch net does not run on --input 2,3,8,8"),
        ("{0}:ours", "{0}:exploded", "torch's 4.bias is NaN or infinite in 1 of 5 values"),
    ],
)
def test_a_pair_that_is_none_is_one_line(
    gluon: str, torch: str, word: str, pair: str, refused: Any
) -> None:
    argv = ["--gluon", gluon.format(pair), "--torch", torch.format(pair), "--input", "2,3,8,8"]
    refused(main, argv, 2, word.format(pair))
