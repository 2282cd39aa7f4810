"""The first divergence as a folder whose scripts show it where this project is not installed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn
from torch.nn import functional as F

import gluon_cnn  # noqa: F401  (settles MXNet's threads)
from parity_tests import check_parity
from parity_tests.__main__ import main
from parity_tests.backends.leaves import ParityError
from parity_tests.reporting.verdicts import Status

PROJECT = ("parity_tests", "gluon_cnn", "torch_ref", "mxnet_files", "gluon_cnn_parity")
BLOCK = f"import sys; sys.modules.update(dict.fromkeys({PROJECT!r}))\n"


class Functions(nn.Module):
    """Functions where Gluon has layers, so that the pair is compared by what it executes."""

    def __init__(self, eps: float = 1e-5, slope: float = 0.1) -> None:
        super().__init__()
        self.c, self.b, self.d = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=eps), nn.Linear(144, 5)
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(F.leaky_relu(self.b(self.c(x)), self.slope).flatten(1))


class Detached(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight.detach() * 1.0, self.bias) + 0 * self.weight.sum()


def gluon_net() -> Any:
    net = gluon_nn.HybridSequential()
    net.add(gluon_nn.Conv2D(4, 3, in_channels=3), gluon_nn.BatchNorm(in_channels=4))
    net.add(gluon_nn.LeakyReLU(0.1), gluon_nn.Flatten(), gluon_nn.Dense(5, in_units=144))
    net.initialize(mx.init.Xavier())
    return net


def leaf_by_leaf() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4), nn.LeakyReLU(0.2),
                         nn.Flatten(), nn.Linear(144, 5))  # fmt: skip


INPUTS = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def _run(folder: Path, side: str, python: list[str]) -> np.ndarray:
    script = (folder / f"{side}_side.py").read_text()
    (folder / "blocked.py").write_text(f"{BLOCK}__file__ = {str(folder / 'x.py')!r}\n" + script)
    done = subprocess.run(
        [*python, str(folder / "blocked.py")],
        cwd="/", capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{side}: ", done.stdout, re.MULTILINE)
    return np.load(folder / f"{side}.npy")


@pytest.mark.parametrize(
    ("make", "quantity"),
    [
        (lambda: Functions(eps=1e-3), "output"),
        (leaf_by_leaf, "output"),
        (lambda: _with_detached(), "weight gradient"),
    ],
    ids=["functions", "leaf by leaf", "backward"],
)
def test_both_scripts_show_what_the_report_says(
    make: Callable[[], nn.Module], quantity: str, tmp_path: Path, torch_python: list[str]
) -> None:
    folder = tmp_path / "repro"
    report = check_parity(gluon_net(), make(), INPUTS, transfer=True, repro=folder)
    assert not report.ok
    told = json.loads((folder / "divergence.json").read_text())
    assert told["first"] == str(report.first_divergence)
    assert told["quantity"] == quantity
    ours = _run(folder, "gluon", [sys.executable, "-I"])
    theirs = _run(folder, "torch", torch_python)
    position = tuple(told["position"])
    assert [ours[position], theirs[position]] == pytest.approx(told["values"], rel=1e-12)
    assert ours[position] != theirs[position]


def _with_detached() -> nn.Module:
    net = Functions()
    net.d = Detached(144, 5)
    return net


def test_nothing_is_written_where_nothing_differs(tmp_path: Path) -> None:
    folder = tmp_path / "repro"
    assert check_parity(gluon_net(), Functions(), INPUTS, transfer=True, repro=folder).ok
    assert not folder.exists()
    folder.mkdir()
    with pytest.raises(ParityError, match="is there already"):
        check_parity(gluon_net(), Functions(), INPUTS, repro=folder)


def test_what_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    ours, theirs = mx.gluon.rnn.LSTM(4, input_size=3), nn.LSTM(3, 4)
    ours.initialize()
    x = np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32)
    report = check_parity(ours, theirs, x, repro=tmp_path / "repro")
    assert not report.ok
    notes = [row for row in report.rows if row.quantity == "repro"]
    assert [row.status for row in notes] == [Status.NOTE]
    assert "was not written" in notes[0].detail
    assert not (tmp_path / "repro").exists()


def test_the_command_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repro_pair.py").write_text(
        "from parity_tests.tests.levels.test_parity_repro import Functions, gluon_net\n"
        "def torch_net(): return Functions(eps=1e-3)\n"
    )
    monkeypatch.chdir(tmp_path)
    flags = ["--gluon", "repro_pair:gluon_net", "--torch", "repro_pair:torch_net"]
    more = ["--input", "2,3,8,8", "--transfer", "--level", "structure,forward"]
    assert main(["check", *flags, *more, "--repro", "out"]) == 1
    assert (tmp_path / "out" / "torch_side.py").is_file()
    assert main(["check", *flags, *more, "--repro", "out"]) == 2
