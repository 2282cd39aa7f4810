"""Native code that dies in a child process: named in a row, and everything else is compared."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

import gluon_cnn  # noqa: F401  (settles MXNet's threads)
from parity_tests import check_parity
from parity_tests.__main__ import main
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch import forks
from parity_tests.isolation import isolated
from parity_tests.reporting.verdicts import Level, Status

HERE = os.getpid()
DEATHS = {
    "null": "SIGSEGV", "segv": "SIGSEGV", "fpe": "SIGFPE", "abort": "SIGABRT", "kill": "SIGKILL",
}  # fmt: skip


def die(how: str) -> None:
    """What native code does that goes wrong; never in the process that runs the tests."""
    if os.getpid() == HERE:
        return
    if how == "null":
        ctypes.string_at(0)
    # To this thread, as a fault in native code is: another would let this one go on for a while.
    signal.pthread_kill(threading.get_ident(), signal.Signals[DEATHS[how]])


class DyingOp(mx.operator.CustomOp):
    def forward(self, is_train: Any, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
        self.assign(out_data[0], req[0], in_data[0] * 1)

    def backward(
        self, req: Any, out_grad: Any, in_data: Any, out_data: Any, in_grad: Any, aux: Any
    ) -> None:
        die("segv")
        self.assign(in_grad[0], req[0], out_grad[0])


@mx.operator.register("dies_on_its_way_back")
class DyingProperty(mx.operator.CustomOpProp):
    def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> DyingOp:
        return DyingOp()


class Dying(gluon_nn.Block):
    """Dies in the forward or backward pass, where it is not the tests' own process."""

    def __init__(self, how: str, backward: bool = False) -> None:
        super().__init__()
        self.how, self.backwards = how, backward

    def forward(self, x: Any) -> Any:
        if self.backwards:
            return mx.nd.Custom(x, op_type="dies_on_its_way_back")
        die(self.how)
        return x * 1


class TorchDying(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        die(self.how)
        return x * 1


class Times(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1


def pair(ours: Any, theirs: nn.Module) -> tuple[Any, nn.Module, np.ndarray]:
    net = gluon_nn.Sequential()
    net.add(gluon_nn.Dense(4, in_units=3), ours, gluon_nn.Dense(2, in_units=4))
    net.initialize()
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    return net, nn.Sequential(nn.Linear(3, 4), theirs, nn.Linear(4, 2)), x


def test_an_isolated_check_gives_the_same_report() -> None:
    net, twin, x = pair(gluon_nn.Activation("tanh"), nn.Tanh())
    check_parity(net, twin, x, transfer=True)  # this process has used both frameworks' threads
    for transfer in (True, False):
        alone = check_parity(net, twin, x, transfer=transfer, isolate=True)
        here = check_parity(net, twin, x, transfer=transfer)
        assert [str(row) for row in alone.rows] == [str(row) for row in here.rows]
        assert alone.ok == here.ok == transfer


@pytest.mark.parametrize(
    "how", ["null", "fpe", pytest.param("abort", marks=pytest.mark.slow), "kill"]
)
def test_a_crash_in_a_forward_pass_is_a_row(how: str) -> None:
    net, twin, x = pair(Dying(how), Times())
    report = check_parity(net, twin, x, transfer=True, isolate=True)
    assert not report.ok
    wanted = DEATHS[how] + ", as when memory runs out" * (how == "kill")
    crashed = [row for row in report.rows if "crashed" in row.detail]
    assert crashed
    for row in crashed:
        assert row.status == Status.NOT_COMPARED
        assert row.detail.startswith("Gluon crashed in custom:Dying at 1: it was ended by"), row
        assert wanted in row.detail
    assert report.compared(Level.WEIGHTS) > 0
    compared = {row.path for row in report.rows if row.level == Level.FORWARD and row.compared}
    assert {"0", "2"} <= compared


def test_a_crash_in_a_backward_pass_leaves_the_forward_pass() -> None:
    net, twin, x = pair(Dying("segv", backward=True), Times())
    report = check_parity(net, twin, x, transfer=True, isolate=True)
    crashed = {row.path: row.detail for row in report.rows if "crashed" in row.detail}
    assert "backward at 2: it was ended by SIGSEGV" in crashed["2"]
    assert any(row.level == Level.BACKWARD and row.path == "0" and row.compared
               for row in report.rows)  # fmt: skip
    forward = [row for row in report.rows if row.level == Level.FORWARD]
    assert forward
    assert not any(row.status.failed for row in forward)


@pytest.mark.parametrize(
    "how",
    ["fpe", *(pytest.param(how, marks=pytest.mark.slow) for how in ("segv", "abort", "kill"))],
)
def test_torch_may_crash_too(how: str) -> None:
    net, twin, x = pair(gluon_nn.HybridLambda(lambda F, x: x * 1), TorchDying(how))
    report = check_parity(net, twin, x, transfer=True, isolate=True)
    crashed = [row.detail for row in report.rows if row.detail.startswith("torch crashed in")]
    assert crashed
    assert all(f"it was ended by {DEATHS[how]}" in detail for detail in crashed)


def test_what_is_raised_in_the_child_is_raised_here() -> None:
    net, twin, x = pair(gluon_nn.Activation("tanh"), nn.Tanh())
    with pytest.raises(ParityError, match="unknown levels"):
        check_parity(net, twin, x, levels=("nothing",), isolate=True)
    with pytest.raises(ParityError, match="the check itself was ended by SIGABRT"):
        isolated(os.abort)


def test_an_autograd_that_forbids_forks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead() -> None:
        raise RuntimeError("Unable to handle autograd's threading")

    monkeypatch.setattr(forks, "_backward", dead)
    with pytest.raises(ParityError, match=r"a GPU, or after torch.export .* without isolate=True"):
        isolated(lambda: 1)


def test_the_command_writes_its_report_over_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "dying_pair.py").write_text(
        "from parity_tests.tests.test_parity_isolation import *\n"
        "from parity_tests.tests.test_parity_isolation import pair\n"
        "def gluon_net(): return pair(Dying('null'), Times())[0]\n"
        "def torch_net(): return pair(Dying('null'), Times())[1]\n"
    )
    monkeypatch.chdir(tmp_path)
    flags = ["--gluon", "dying_pair:gluon_net", "--torch", "dying_pair:torch_net"]
    code = main(["check", *flags, "--input", "2,3", "--transfer", "--report", "out",
                 "--level", "structure,weights,forward"])  # fmt: skip
    assert code == 1
    (report,) = json.loads((tmp_path / "out" / "report.json").read_text())["reports"]
    assert not report["ok"]
    assert any("crashed in" in row["detail"] for row in report["rows"])
    assert "crashed in" in capsys.readouterr().err
