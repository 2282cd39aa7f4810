"""Snapshots: bit-equal when nothing changed, readable for good, refused by name when bad."""

import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import mxnet as mx
import numpy as np
import pytest
import torch

from gluon_cnn_parity.child import Tell, follow
from parity_tests.__main__ import main
from parity_tests.backends.base import backend
from parity_tests.backends.runs import NET, Call, NetRun, Objective
from parity_tests.gate import snapshot, store
from parity_tests.gate.change import Change
from parity_tests.gate.page import page
from parity_tests.gate.record.nets import Item, Recorder, Values, run_all, training_steps
from parity_tests.gate.record.noise import DRAWS, Draw, NoiseEnvelope
from parity_tests.gate.record.operations import execute
from parity_tests.gate.record.quantities import SAMPLE, Failure, Quantity, QuantityRecord
from parity_tests.gate.record.sides import record_side
from parity_tests.gate.record.sizes import bias_sums
from parity_tests.gate.record.user_pairs import pair_subject
from parity_tests.gate.snapshot import backends, record_of, take_snapshot
from parity_tests.gate.store import Snapshot, SubjectRecord
from parity_tests.gate.verdict import compared
from parity_tests.numerics.compare import ENVELOPE_FACTOR
from parity_tests.reporting.verdicts import Check, Level
from parity_tests.tests.gate.plain import plain_subject

OLD = Path(__file__).parent / "snapshots"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gate") / "plain"
    store.write(take_snapshot([plain_subject()]), path)
    return path


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "spoilt"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_second_snapshot_is_byte_identical(folder: Path, tmp_path: Path) -> None:
    store.write(take_snapshot([plain_subject()]), tmp_path / "again")
    assert contents(folder) == contents(tmp_path / "again")


def test_a_snapshot_comes_back_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    store.write(store.read(folder), tmp_path / "again")
    assert contents(folder) == contents(tmp_path / "again")


def test_it_holds_every_leaf_gradient_step_and_export(folder: Path) -> None:
    found = store.read(folder)
    for side in ("gluon", "torch"):
        taken = found.subjects["plain"].sides[side]
        assert not taken.failures
        keys = set(taken.by_key())
        for leaf in range(12):
            for check in ("local", "stream"):
                assert ("forward", check, str(leaf), "output") in keys
                assert ("backward", check, str(leaf), "input gradient") in keys
        for path in ("0", "4", "8", "11"):
            assert ("backward", "stream", path, "weight gradient") in keys
            assert ("training", "stream", path, "step 3 weight mom") in keys
        assert ("training", "stream", "1", "step 3 running_var") in keys
        assert ("loss", "local", "(loss)", "loss gradient") in keys
        assert any(level == "artefacts" for level, *_ in keys)
        assert taken.files


def test_every_call_of_a_leaf_has_outputs_and_gradients() -> None:
    class Twice(torch.nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self[0](self[1](self[0](x)))

    net = Twice(torch.nn.Tanh(), torch.nn.Linear(3, 3))
    subject = pair_subject("twice", None, net, np.ones((2, 3), np.float32), np.arange(2))
    taken = record_side(backend("torch"), subject)
    assert not taken.failures
    back = [k.key[2:] for k in taken.quantities if k.key[:2] == ("backward", "stream")]
    assert back == [
        (NET, "output gradient"), ("1", "bias gradient"), ("1", "weight gradient"),
        ("1", "input gradient"), ("0", "input gradient of call 2"), ("0", "input gradient"),
    ]  # fmt: skip
    forward = [k.key[2:] for k in taken.quantities if k.key[:2] == ("forward", "stream")]
    assert forward == [("0", "output"), ("0", "output of call 2"), ("1", "output"),
                       (NET, "output")]  # fmt: skip


@pytest.mark.parametrize("schema", sorted(path.name for path in OLD.iterdir()))
def test_old_snapshots_stay_readable(schema: str) -> None:
    old = store.read(OLD / schema)
    assert sum(len(t.quantities) for t in old.subjects["plain"].sides.values()) > 200
    new = take_snapshot([], rules=False)
    new.subjects["plain"] = record_as(old.subjects["plain"])
    found = compared(old, new)
    assert found.verdict in (Change.UNCHANGED, Change.ROUNDING), found.sentence
    assert not found.notes
    assert not found.not_compared


def record_as(old: SubjectRecord | None) -> SubjectRecord:
    """The plain pair, looked into as the old record was; None: as the plugin records it."""
    subject, working = plain_subject(), backends()[0]
    steps = {} if old is None else {side: one.operations for side, one in old.sides.items()}
    looked = {
        side: partial(
            execute, one, inputs=subject.inputs, before=steps.get(side), root=Path(__file__).parent
        )
        for side, one in working.items()
        if old is None or steps.get(side) is not None
    }
    return record_of(subject, working, lambda line: None, looked)


def test_what_an_earlier_version_did_not_record_is_not_compared(folder: Path) -> None:
    new = store.read(folder)
    old = store.read(folder)
    old.name = "older"
    for taken in old.subjects["plain"].sides.values():
        taken.quantities = [k for k in taken.quantities if k.level != "training"]
    found = compared(old, new)
    assert found.verdict == Change.UNCHANGED
    assert found.not_compared == ["plain training (stream) is not in older"]
    assert compared(new, old).verdict == Change.SEMANTICS  # it was there, and is no more


def test_there_is_one_of_each_schema() -> None:
    assert {path.name for path in OLD.iterdir()} == {f"schema-{n}" for n in store.READABLE}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _schema(folder: Path) -> None:
    path = folder / store.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))


def _machine(folder: Path) -> None:
    path = folder / store.MANIFEST
    path.write_text(path.read_text().replace('"version":', '"Version":', 1))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: _cut(f / "plain.safetensors"), "plain.safetensors was changed or cut"),
        (lambda f: _flip(f / "plain.json"), "plain.json was changed or cut"),
        (lambda f: (f / "plain.json").unlink(), "plain.json: No such file"),
        (lambda f: (f / "snapshot.json").unlink(), "has no snapshot.json"),
        (lambda f: _cut(f / "snapshot.json"), "snapshot.json is not JSON"),
        (lambda f: (f / "snapshot.json").write_text("[]"), "is not the manifest"),
        (_schema, "has schema 99"),
        (_machine, "seal is broken"),
        (lambda f: (f / "more.json").write_text("{}"), "more.json is not in the snapshot"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_a_bad_snapshot_is_refused_by_name(
    spoil: object, said: str, spoilt: Path, refused: Any
) -> None:
    spoil(spoilt)  # type: ignore[operator]
    refused(main, ["compare", str(spoilt)], 2, said, str(spoilt))


def test_what_was_taken_otherwise_is_refused(folder: Path) -> None:
    old = store.read(folder)
    other = store.read(folder)
    other.settings = {**other.settings, "noise": 1.0}
    with pytest.raises(store.SnapshotError, match="other settings"):
        compared(old, other)
    other = store.read(folder)
    other.subjects["plain"].inputs["0"] = other.subjects["plain"].inputs["0"] + 1
    with pytest.raises(store.SnapshotError, match="other inputs"):
        compared(old, other)


def test_one_side_alone_is_compared_and_the_other_is_said(folder: Path, tmp_path: Path) -> None:
    new = take_snapshot([plain_subject()], sides=("gluon",))
    store.write(new, tmp_path / "half")
    found = compared(store.read(folder), store.read(tmp_path / "half"))
    assert found.sides["gluon"].verdict == Change.UNCHANGED
    assert found.sides["torch"].verdict == "not compared"
    assert "not asked for" in found.sentence
    count = found.sides["gluon"].compared
    assert f"All {count} quantities are bit-equal." in page(found)


def test_the_matrix_is_a_table_or_json(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "mxnet-1.8.0"):
        shutil.copytree(folder, tmp_path / name)
    assert main(["matrix", str(tmp_path)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| mxnet-1.8.0 (MXNet)", "unchanged"], ["| mxnet-1.8.0 (torch)", "unchanged"],
    ]  # fmt: skip
    assert main(["matrix", str(tmp_path), "--json"]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert comparison["ok"]
    assert set(comparison["sides"]) == {"gluon", "torch"}


def test_the_command_says_what_it_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "snapshot_now", lambda *_: take_snapshot([plain_subject()]))
    assert main(["snapshot", str(tmp_path / "s"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("bytes") > 1000
    assert said == {
        "out": str(tmp_path / "s"), "subjects": ["optimizers", "plain"],
        "sides": ["gluon", "torch"], "absent": {},
    }  # fmt: skip


def test_comparing_nothing_is_no_pass(folder: Path) -> None:
    old = store.read(folder)
    found = compared(old, Snapshot(old.fingerprint, old.settings))
    assert not found.ok
    assert found.not_compared


def test_nothing_is_written_over_what_is_no_snapshot(tmp_path: Path, refused: Any) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    refused(main, ["snapshot", str(tmp_path)], 2, "not a snapshot and not empty")
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_an_interrupted_write_leaves_the_old_snapshot(
    folder: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        store.write(store.read(folder), spoilt)
    assert contents(spoilt) == contents(folder)
    assert [path.name for path in spoilt.parent.iterdir()] == ["spoilt"]


def _written_and_killed(first: Path, second: Path, steps: int) -> int:
    """Write the first snapshot, changed, in the place of the second, in a process that dies at its
    N-th renaming; its exit status."""
    rename, left = os.rename, iter(range(steps))

    def counted(old: Any, new: Any) -> None:
        if next(left, None) is None:
            os._exit(9)
        rename(old, new)

    def write(_: Tell) -> None:
        new = store.read(first)
        new.settings["seed"] = 1
        with mock.patch("os.rename", counted):
            store.write(new, second)

    return follow(write, lambda what, value: pytest.fail(str(value)) if value else None)


def test_a_killed_write_leaves_the_old_snapshot_or_the_new(folder: Path, tmp_path: Path) -> None:
    seeds = []
    for steps in range(3):
        place = Path(shutil.copytree(folder, tmp_path / str(steps) / "base"))
        assert _written_and_killed(folder, place, steps) == (0 if steps == 2 else 9)
        found = store.read(place)
        assert found.name == "base"
        seeds.append(found.settings.get("seed"))
        store.write(found, place)  # the next writer leaves nothing of the killed one
        assert [path.name for path in place.parent.iterdir()] == ["base"]
        assert store.read(place).settings == found.settings
    assert seeds == [None, None, 1]


def quantity(
    double: np.ndarray, single: np.ndarray | None = None, limit: float = 1e-5
) -> QuantityRecord:
    value = double.astype(np.float32) if single is None else single
    return Quantity(
        Level.FORWARD, Check.LOCAL, "a", "conv2d", "output", value, double, limit
    ).record()


def judged(old: QuantityRecord, new: QuantityRecord) -> str:
    from parity_tests.gate.change import _moved

    return _moved(old, new)[0]


def test_one_value_outside_the_sample_is_seen() -> None:
    values = np.random.default_rng(0).standard_normal(40 * SAMPLE)
    moved = values.copy()
    moved[7] += 1e-9
    assert 7 not in np.linspace(0, values.size - 1, SAMPLE).astype(int)
    assert judged(quantity(values), quantity(moved)) == Change.SEMANTICS
    assert judged(quantity(values), quantity(values + 1e-15)) == Change.ROUNDING


def test_a_bias_counts_on_the_scale_of_what_it_sums() -> None:
    """Before a BatchNorm a bias's gradient is rounding alone, and noise does not show how much."""
    rng = np.random.default_rng(0)
    x, y, z, back = (rng.standard_normal((4, 3, 5, 5)) for _ in range(4))
    back -= back.mean(axis=(0, 2, 3), keepdims=True)
    gradients = {("conv", "weight"): np.array([2.0, -7.0]), ("conv", "bias"): back.sum((0, 2, 3))}
    calls = {
        "conv": [Call((x,), (y,), input_gradients=(np.ones_like(x),))],
        "norm": [Call((y,), (z,), input_gradients=(back,))],
    }
    terms = np.abs(back).sum(axis=(0, 2, 3)).max()
    assert terms > 50
    assert bias_sums(NetRun(calls, (z,), gradients)) == {"conv": pytest.approx(terms / 7)}
    calls["norm"] = [Call((x,), (z,), input_gradients=(back,))]  # the conv's output goes elsewhere
    assert bias_sums(NetRun(calls, (z,), gradients)) == {"conv": 1.0}


def test_float32_is_held_against_its_own_float64() -> None:
    values = np.random.default_rng(1).standard_normal(20 * SAMPLE)
    single = values.astype(np.float32)
    near, far = single.copy(), single.copy()
    near[3] += np.float32(2e-6)
    far[3] += np.float32(1e-3)
    assert judged(quantity(values), quantity(values, near)) == Change.ROUNDING
    assert judged(quantity(values), quantity(values, far)) == Change.SEMANTICS
    assert judged(quantity(values), quantity(values, np.where(single > 3, np.nan, single)))
    broken = replace(quantity(values), nonfinite=1, digest64="")
    assert judged(quantity(values), broken) == Change.SEMANTICS


def _taken_by(threads: int, out: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-m", "parity_tests", "snapshot", str(out)]
    subprocess.run(
        [*command, "--model", "lenet,vgg11_bn"], env=environment, check=True, capture_output=True
    )


def test_noisy_nets_are_held_one_at_a_time() -> None:
    """A full-size net and its gradients take a gigabyte."""
    alive: list[int] = []
    now: weakref.WeakSet[Net] = weakref.WeakSet()

    @contextmanager
    def noisy_net(_: Draw) -> Iterator[Net]:
        net = Net()
        now.add(net)
        alive.append(len(now))
        yield net

    *limits, failure = run_all([Moving(), Moving(), Broken()], noisy_net)
    assert alive == [1] * len(DRAWS)
    assert limits == [{"limit": str(ENVELOPE_FACTOR * 0.5).encode()}] * 2
    assert isinstance(failure, Failure)
    assert failure.reason == "ValueError: no"


class Net:
    pass


class Moving(Recorder):
    def __init__(self) -> None:
        pass

    def clean(self) -> dict[str, np.ndarray]:
        return {"y": np.zeros(3)}

    def again(self, net: Net, draw: Draw) -> Values:
        return [("y", np.full(3, draw[1] * 0.5))]

    def items(self, envelope: NoiseEnvelope) -> Iterator[Item]:
        yield {"limit": str(envelope.limit("y")).encode()}


class Broken(Moving):
    def again(self, net: Net, draw: Draw) -> Values:
        raise ValueError("no\nnot at all")


def test_a_noisy_run_that_lacks_a_value_is_an_error() -> None:
    envelope = NoiseEnvelope({"x": np.zeros(2), "y": np.zeros(2)})
    with pytest.raises(ValueError, match="gave no y"):
        envelope.widen([("x", np.ones(2))])


@pytest.mark.parametrize("side", ["gluon", "torch"])
def test_runs_leave_no_array_to_the_collector(side: str) -> None:
    """It counts objects and not bytes: circles of a full-size net fill the memory before it."""
    one = backends([side])[0][side]
    subject = plain_subject()
    net = one.with_values(subject.make[side](), {})
    objective = Objective(labels=subject.labels, losses={one.side: one.cross_entropy()})
    batches = subject.batches
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        one.run_net(net, subject.inputs, "float64", train=False)
        one.run_net(net, subject.inputs, "float64", train=True, objective=objective)
        for _ in training_steps(one, net, batches, "float64", subject, objective):
            pass
        noisy = one.with_values(net, {})
        one.release(noisy)
        del noisy
        gc.collect()
        left = [
            type(x).__name__ for x in gc.garbage if isinstance(x, (mx.nd.NDArray, torch.Tensor))
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


class _Deadly:
    """A task that kills the process that takes it, before that imports anything."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("__import__('os').kill(__import__('os').getpid(), 9)",)

    def __call__(self) -> None: ...


def test_a_killed_process_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.setattr(snapshot, "_one", _Deadly())
    argv = ["snapshot", str(tmp_path / "new"), "--model", "lenet,lenet5"]
    refused(main, argv, 1, "a process that took a model was killed")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(4800)
def test_full_sizes_are_recorded_and_unchanged(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "parity_tests"]
    which = ["--model", "alexnet,vgg16", "--full"]
    subprocess.run([*command, "snapshot", str(tmp_path / "full"), *which], check=True)
    done = subprocess.run([*command, "compare", str(tmp_path / "full")], capture_output=True)
    assert done.returncode == 0
    assert done.stdout.startswith(b"unchanged")
    subjects = store.read(tmp_path / "full").subjects
    assert {"alexnet-224", "vgg16-224"} < set(subjects)
    for name in ("alexnet-224", "vgg16-224"):
        for taken in subjects[name].sides.values():
            assert not taken.failures
            keys = set(taken.by_key())
            assert ("backward", "stream", "features.0", "weight gradient") in keys
            assert ("training", "stream", "features.0", "step 3 weight mom") in keys
            assert all(kept.distance <= kept.limit for kept in taken.quantities if kept.limit)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert peak < 14e9, f"{peak / 1e9:.1f} GB"


@pytest.mark.slow
def test_another_thread_count_is_rounding_and_is_named(tmp_path: Path) -> None:
    for threads in (1, 2):
        _taken_by(threads, tmp_path / str(threads))
    found = compared(store.read(tmp_path / "1"), store.read(tmp_path / "2"))
    assert found.verdict in (Change.UNCHANGED, Change.ROUNDING), found.sentence
    assert "OMP_NUM_THREADS 1 -> 2" in found.environment["threads"]
    for side in found.sides.values():
        assert side.verdict == Change.UNCHANGED or "another thread count" in side.sentence
