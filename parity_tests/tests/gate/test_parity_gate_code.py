"""A function that is another one now is blamed on that function, and not on the module after it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import HybridBlock
from mxnet.gluon import nn as gluon_nn
from torch import nn
from torch.nn import functional

from parity_tests.backends.base import backend
from parity_tests.backends.leaves import ParityError
from parity_tests.faults.kinds.arithmetic import Backward
from parity_tests.gate import store
from parity_tests.gate.agreement import Accord
from parity_tests.gate.change import Change
from parity_tests.gate.record.operations import execute
from parity_tests.gate.record.subjects import Subject
from parity_tests.gate.record.user_pairs import pair_subject, started_from, starts
from parity_tests.gate.session import Gate, GateError, PairOutcome, reasons
from parity_tests.gate.snapshot import backends, record_of, take_snapshot
from parity_tests.gate.store import Snapshot, SubjectRecord
from parity_tests.gate.verdict import compared

HERE = Path(__file__).parent


@dataclass
class Parts:
    """The functions between the modules, by what a version of the code calls there."""

    first: Callable[[Any], Any]
    second: Callable[[Any], Any]
    shortcut: Callable[[Any, Any], Any]
    pool: Callable[[Any], Any]
    scale: Callable[[Any], Any]


class TorchNet(nn.Module):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        self.a = nn.Conv2d(2, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.parts
        y = p.first(self.a(x))
        z = p.pool(p.shortcut(p.second(self.b(y)), y))
        return self.fc(torch.flatten(p.scale(z), 1))


class GluonNet(HybridBlock):
    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        with self.name_scope():
            self.a = gluon_nn.Conv2D(3, 3, padding=1, in_channels=2)
            self.b = gluon_nn.Conv2D(3, 3, padding=1, in_channels=3)
            self.fc = gluon_nn.Dense(4, in_units=48)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        p = self.parts
        y = p.first(self.a(x))
        z = p.pool(p.shortcut(p.second(self.b(y)), y))
        return self.fc(p.scale(z))


# fmt: off
TORCH: dict[str, Callable[..., Any]] = {
    "first": lambda x: functional.relu(x),
    "second": lambda x: functional.relu(x),
    "shortcut": lambda z, y: z + y,
    "pool": lambda z: functional.avg_pool2d(z, 2, padding=1),
    "scale": lambda z: z * 0.5,
}
GLUON: dict[str, Callable[..., Any]] = {
    "first": lambda x: mx.nd.relu(x),
    "second": lambda x: mx.nd.relu(x),
    "shortcut": lambda z, y: z + y,
    "pool": lambda z: mx.nd.Pooling(z, kernel=(2, 2), stride=(2, 2), pad=(1, 1), pool_type="avg"),
    "scale": lambda z: z * 0.5,
}
# fmt: on
NETS: dict[str, tuple[type[Any], Mapping[str, Callable[..., Any]]]] = {
    "torch": (TorchNet, TORCH),
    "gluon": (GluonNet, GLUON),
}


def made(side: str, **other: Callable[..., Any]) -> Any:
    kind, parts = NETS[side]
    net = kind(Parts(**{**parts, **other}))
    if side == "gluon":
        net.initialize()
    return net


def recorded(side: str, net: Any, old: SubjectRecord | None = None) -> Snapshot:
    """One side of a pair, looked into as the plugin does."""
    x = np.random.RandomState(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    nets = {"gluon": None, "torch": None, side: net}
    start = None if old is None else started_from(old.inputs)
    subject = pair_subject("mine", nets["gluon"], nets["torch"], x, np.array([1, 3]), start=start)
    before = None if old is None else old.sides[side].operations
    look = partial(execute, backend(side), inputs=subject.inputs, before=before, root=HERE)
    record = record_of(subject, {side: backend(side)}, lambda line: None, {side: look})
    record.inputs |= starts(subject, {side: backend(side)})
    snapshot = take_snapshot([], sides=(side,), rules=False)
    snapshot.subjects["mine"] = record
    return snapshot


@pytest.fixture(scope="module")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Snapshot]:
    """Of each side, once written and read."""
    folder = tmp_path_factory.mktemp("code")
    for side in NETS:
        store.write(recorded(side, made(side)), folder / side)
    return {side: store.read(folder / side) for side in NETS}


def line_of(function: Callable[..., Any]) -> str:
    return f"{Path(__file__).name}:{inspect.getsourcelines(function)[1]}"


# fmt: off
CASES: list[tuple[str, str, str, str, Callable[..., Any]]] = [
    # side, the part, what is blamed, what is said, the new code
    ("torch", "first", "relu", "is leaky_relu(negative_slope=0.01) now, was relu",
     lambda x: functional.leaky_relu(x, 0.01)),
    ("torch", "second", "relu (2)", "is leaky_relu(negative_slope=0.01) now, was relu",
     lambda x: functional.leaky_relu(x, 0.01)),
    ("torch", "pool", "avg_pool2d", "include_pad=False",
     lambda z: functional.avg_pool2d(z, 2, padding=1, count_include_pad=False)),
    ("torch", "scale", "mul", "is mul(scalar=0.6) now, was mul(scalar=0.5)", lambda z: z * 0.6),
    ("torch", "scale", "tanh", "tanh is new here", lambda z: torch.tanh(z * 0.5)),
    ("torch", "shortcut", "add", "is not executed any more", lambda z, y: z),
    ("torch", "shortcut", "add", "detach", lambda z, y: z + y.detach()),
    ("torch", "shortcut", "add", "own gradient",
     lambda z, y: z + Backward.apply(y, lambda gradient: gradient / 2)),
    ("gluon", "first", "relu", "is leaky_relu(negative_slope=0.01) now, was relu",
     lambda x: mx.nd.LeakyReLU(x, slope=0.01)),
    ("gluon", "pool", "Pooling", "include_pad=False",
     lambda z: mx.nd.Pooling(z, kernel=(2, 2), stride=(2, 2), pad=(1, 1), pool_type="avg",
                             count_include_pad=False)),
    ("gluon", "scale", "mul_scalar", "scalar=0.6", lambda z: z * 0.6),
    ("gluon", "shortcut", "broadcast_add", "is not executed any more", lambda z, y: z),
]
# fmt: on


@pytest.mark.parametrize(
    ("side", "part", "name", "said", "code"),
    [
        pytest.param(*case, id=" ".join(case[:3]), marks=[] if i % 2 == 0 else [pytest.mark.slow])
        for i, case in enumerate(CASES)
    ],
)
def test_a_changed_function_is_blamed_on_itself(
    side: str,
    part: str,
    name: str,
    said: str,
    code: Callable[..., Any],
    baselines: dict[str, Snapshot],
) -> None:
    old = baselines[side]
    found = compared(old, recorded(side, made(side, **{part: code}), old.subjects["mine"]))
    verdict = found.sides[side]
    assert verdict.verdict == Change.SEMANTICS
    assert verdict.first is not None
    assert verdict.first.path == name, verdict.sentence
    assert said in verdict.sentence
    assert "the net's own code changed" in verdict.sentence
    gone = "not executed" in said
    assert line_of(NETS[side][1][part] if gone else code) in verdict.sentence


softened: Callable[..., Any] = lambda z: torch.tanh(z)  # noqa: E731


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
def test_another_version_of_a_function_is_blamed_on_it() -> None:
    """torch's own tanh is another one: the code is as it was, and the values are not."""
    net = made("torch", scale=softened)
    old = recorded("torch", net)
    library = torch.library.Library("aten", "IMPL")
    library.impl("tanh", lambda x: x.sinh() / x.cosh() * (1 + 2.0**-16), "CPU")
    try:
        verdict = compared(old, recorded("torch", net, old.subjects["mine"])).sides["torch"]
    finally:
        library._destroy()
    assert verdict.first is not None
    assert (verdict.first.path, verdict.first.level, verdict.first.code) == ("tanh", "forward", "")
    assert line_of(softened) in verdict.sentence


def test_code_that_computes_the_same_is_a_note(baselines: dict[str, Snapshot]) -> None:
    old = baselines["torch"]
    again = made("torch", second=lambda x: torch.relu(x) + 0.0)
    found = compared(old, recorded("torch", again, old.subjects["mine"]))
    assert found.sides["torch"].verdict == Change.UNCHANGED, found.sentence
    assert found.notes == [] or "no value moved by it" in found.notes[0]
    again = made("torch", second=lambda x: torch.relu(torch.relu(x)))
    found = compared(old, recorded("torch", again, old.subjects["mine"]))
    assert found.sides["torch"].verdict == Change.UNCHANGED, found.sentence
    (note,) = found.notes
    assert "relu is new here; no value moved by it" in note


def test_what_cannot_be_run_again_is_refused() -> None:
    net = made("torch", scale=lambda z: z * torch.rand(()))
    with pytest.raises(ParityError, match="gives other values when it is run again"):
        recorded("torch", net)


def pair_of(update: bool, folder: Path, subject: Subject, **options: Any) -> PairOutcome:
    """What a session of the plugin says of one pair."""
    gate = Gate(folder, update, root=HERE, **options)
    outcome = gate.check("mine", lambda: subject)
    gate.finish(folder.with_name("report"))
    return outcome


@pytest.fixture(scope="module")
def apart() -> Subject:
    """A pair whose weights were drawn one by one."""
    x = np.random.RandomState(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    return pair_subject("mine", made("gluon"), made("torch"), x)


def test_a_pair_that_never_agreed_is_not_green(apart: Subject, tmp_path: Path) -> None:
    recorded = pair_of(True, tmp_path / "b", apart)
    assert (recorded.verdict, recorded.accord) == (Change.RECORDED, Accord.APART)
    assert "not in agreement" in recorded.problem
    assert "--parity-update --parity-transfer copies" in recorded.problem
    assert str(HERE) not in (tmp_path / "b" / "mine.json").read_text()
    again = pair_of(False, tmp_path / "b", apart)
    assert (again.verdict, again.accord, again.green) == (Change.UNCHANGED, Accord.APART, False)
    assert "unchanged; not in agreement, and was not when the baseline was" in again.problem
    said = json.loads((tmp_path / "report" / "gate.json").read_text())
    assert (said["ok"], said["verdict"], said["agreement"]) == (
        True, "unchanged", "not in agreement",
    )  # fmt: skip
    page = (tmp_path / "report" / "gate.html").read_text()
    assert '<h1 id="verdict" class="bad">Unchanged, but MXNet and torch are not in' in page
    known = pair_of(False, tmp_path / "b", apart, apart={"mine": "trained apart"})
    assert (known.problem, known.expected, known.green) == ("", "trained apart", False)


def test_a_baseline_that_did_not_ask_is_held_as_it_was(apart: Subject, tmp_path: Path) -> None:
    """An older one has a pair by its modules, and no word on agreement."""
    record = record_of(apart, backends()[0], lambda line: None)
    record.inputs |= starts(apart, backends()[0])
    old = take_snapshot([], rules=False)
    old.subjects["mine"] = record
    store.write(old, tmp_path / "b")
    assert json.loads((tmp_path / "b" / "snapshot.json").read_text())["schema"] == 1
    outcome = pair_of(False, tmp_path / "b", apart)
    assert (outcome.verdict, outcome.accord) == (Change.UNCHANGED, Accord.APART)
    assert (outcome.problem, outcome.green) == ("", False)


def test_a_pair_that_cannot_be_looked_into_is_recorded_by_its_modules(tmp_path: Path) -> None:
    net = made("torch", scale=lambda z: z * torch.rand(()))
    x = np.random.RandomState(0).standard_normal((2, 2, 6, 6)).astype(np.float32)
    outcome = pair_of(True, tmp_path / "b", pair_subject("mine", None, net, x))
    assert "recorded by its modules, since what torch executes gives other" in outcome.sentence
    assert store.read(tmp_path / "b").subjects["mine"].sides["torch"].operations is None


@pytest.mark.parametrize("line", ["mine", "mine =", "= trained apart"])
def test_a_line_without_its_reason_is_refused(line: str) -> None:
    with pytest.raises(GateError, match="expected name = why"):
        reasons([line])


def test_weights_are_copied_only_into_a_baseline(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="add --parity-update"):
        Gate(tmp_path / "b", False, transfer=True)
