"""Runs stopped after any step, and resumed, end as one that was never stopped: in process."""

import json
from pathlib import Path

import pytest

from cnn_harness.errors import UsageError
from cnn_harness.jobs.stop import Stop
from cnn_harness.tests.runs import rows, same_end
from gluon_cnn import train
from gluon_cnn.models.base import ClassicCNN
from gluon_cnn.models.layers import batch_norm, conv, dense, drop, flatten, max_pool, relu
from gluon_cnn.training import assembly, checkpoint


class StopAfter(Stop):
    """Asks for a stop at the n-th look: looks come after each step and evaluated batch."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    @property
    def requested(self) -> bool:
        if not self._held:
            return False
        self._looks -= 1
        if self._looks <= 0:
            self.signal = 15
        return self.signal is not None


def _small_net(name: str, classes: int, channels: int, size: int) -> ClassicCNN:
    """BatchNorm and dropout in a net whose steps take a few milliseconds."""
    features = (conv(4, 5, stride=2), batch_norm, relu, max_pool(2, 2))
    classifier = (flatten, dense(16), relu, drop(0.5), dense(classes))
    return ClassicCNN("small", features, classifier, classes, channels, size)


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(assembly, "get_model", _small_net)


def _stopped_after(looks: int, argv: list[str], monkeypatch) -> int:
    with monkeypatch.context() as patch:
        patch.setattr("cnn_harness.train_command.Stop", lambda: StopAfter(looks))
        return train.main(argv)


OPTIMIZERS = {
    "sgd": ["--optimizer", "sgd", "--lr", "0.1"],
    "momentum": ["--optimizer", "sgd", "--lr", "0.02", "--momentum", "0.9", "--wd", "1e-4"],
    "nesterov": ["--optimizer", "sgd", "--lr", "0.02", "--momentum", "0.9", "--nesterov"],
    "adam": ["--optimizer", "adam", "--lr", "0.003"],
    "everything on": [
        "--ema", "0.9", "--mixup", "0.2", "--label-smoothing", "0.1", "--clip-grad", "0.5",
        "--grad-accum-steps", "3", "--augment", "random-resized-crop,color-jitter",
        "--patience", "9",
    ],
}  # fmt: skip


QUICK = (
    ("momentum", "cpu"),
    ("adam", "cpu:0,1"),
    ("everything on", "cpu:0,1"),
)  # the others take a minute or two


@pytest.mark.parametrize(
    ("optimizer", "ctx"),
    [
        pytest.param(optimizer, ctx, marks=() if (optimizer, ctx) in QUICK else pytest.mark.slow)
        for optimizer in OPTIMIZERS
        for ctx in ("cpu", "cpu:0,1")
    ],
)
def test_stopped_anywhere_and_resumed(
    small: None, optimizer: str, ctx: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    argv = ["--batch-size", "700", "--epochs", "2", "--augment", "shift", "--ctx", ctx,
            "--warmup-epochs", "1", *OPTIMIZERS[optimizer]]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--out", str(whole)]) == 0
    assert (whole / "last/average.safetensors").exists() == ("--ema" in argv)
    places = []
    for looks in (1, 3, 4, 2, 9, 3):  # six steps, a look, four batches, a look: an epoch
        begun = ["--resume"] if parts.exists() else []
        assert _stopped_after(looks, [*begun, *argv, "--out", str(parts)], monkeypatch) == 143
        state = json.loads((parts / "last/manifest.json").read_text())["state"]
        places.append((state["epoch"], state["step"]))
    assert places[:3] == [(1, 1), (1, 4), (1, 6)]  # the third is while it evaluates
    assert places[3:] == [(1, 6), (2, 3), (2, 6)]
    assert train.main(["--resume", *argv, "--out", str(parts)]) == 0
    same_end("gluon_cnn", whole, parts)


def test_every_step_draws_other_masks(small: None, tmp_path: Path) -> None:
    import mxnet as mx

    from cnn_harness.progress import step_seed

    masks = []
    for step in (0, 1, 2, 0):
        mx.random.seed(step_seed(0, 1, step))
        with mx.autograd.record():
            masks.append(mx.nd.Dropout(mx.nd.ones((64, 256)), p=0.5).asnumpy() > 0)
    assert (masks[0] == masks[3]).all()
    for other in masks[1:3]:
        assert abs((masks[0] == other).mean() - 0.5) < 0.02


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_an_extended_run_is_the_longer_one_where_the_schedule_has_no_end(
    small: None, schedule: str, tmp_path: Path
) -> None:
    argv = ["--batch-size", "1000", "--schedule", schedule, "--step-epochs", "1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--epochs", "3", "--out", str(whole)]) == 0
    assert train.main([*argv, "--epochs", "1", "--out", str(parts)]) == 0
    assert train.main(["--resume", "--epochs", "3", "--out", str(parts)]) == 0
    same_end("gluon_cnn", whole, parts)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_extending_a_schedule_with_an_end_is_said(
    small: None, schedule: str, tmp_path: Path, capsys, refused
) -> None:
    run = tmp_path / "run"
    argv = ["--batch-size", "1000", "--schedule", schedule, "--epochs", "2", "--out", str(run)]
    assert train.main(argv) == 0
    capsys.readouterr()
    assert train.main(["--resume", "--epochs", "3", "--out", str(run)]) == 0
    out = capsys.readouterr().out
    assert "continuing from the end of epoch 2" in out
    assert f"the {schedule} schedule is that of 3 epochs from here on" in out
    assert "that of 2" in out
    assert len(rows(run)) == 3
    refused(train.main, ["--resume", "--epochs", "2", "--out", str(run)], 1, "3 epochs already")


@pytest.fixture
def finished(small: None, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    assert train.main(["--batch-size", "1000", "--epochs", "2", "--out", str(run)]) == 0
    return run


def test_a_damaged_checkpoint_names_the_command_that_takes_the_one_before(
    finished: Path, capsys, refused
) -> None:
    before = rows(finished), (finished / "last/net.params").read_bytes()
    for name in ("net.params", "optimizer.safetensors", "manifest.json"):
        path = finished / "last" / name
        content = path.read_bytes()
        for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), b""):
            path.write_bytes(damaged)
            command = f"python -m gluon_cnn.train --resume previous --out {finished}"
            argv = ["--resume", "--out", str(finished)]
            refused(train.main, argv, 1, f"last/{name}", command)
        path.write_bytes(content)
    path.unlink()
    argv = command.removeprefix("python -m gluon_cnn.train ").split()
    assert train.main(argv) == 0
    assert "continuing from the end of epoch 1" in capsys.readouterr().out
    assert (rows(finished), (finished / "last/net.params").read_bytes()) == before


def test_what_a_kill_before_the_metrics_left_out_is_written(small: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(["--batch-size", "1000", "--epochs", "1", "--out", str(run)]) == 0
    before = {p: p.read_bytes() for p in (run / "metrics.jsonl", run / "best.params")}
    for path in before:
        path.unlink()
    (run / "metrics.jsonl").write_text('[1]\n{"epoch": "x"\n')
    assert train.main(["--resume", "--out", str(run)]) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_other_versions_are_said(finished: Path, monkeypatch, capsys) -> None:
    now = checkpoint.environment()
    monkeypatch.setattr(checkpoint, "environment", lambda: {**now, "mxnet": "1.8.0"})
    assert train.main(["--resume", "--epochs", "3", "--out", str(finished)]) == 0
    monkeypatch.undo()
    monkeypatch.setattr(assembly, "get_model", _small_net)
    capsys.readouterr()
    assert train.main(["--resume", "--out", str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("written with mxnet 1.8.0, this is mxnet 1.9.1" in line for line in lines) == 1


def test_a_checkpoint_of_another_run_is_refused_by_field(finished: Path, capsys) -> None:
    config = finished / "config.json"
    run = json.loads(config.read_text())
    run["config"]["wd"] = 0.5
    config.write_text(json.dumps(run))
    capsys.readouterr()
    assert train.main(["--resume", "--out", str(finished)]) == 2
    err = capsys.readouterr().err
    assert "wd is 0.5, the checkpoint has" in err
    assert json.loads(config.read_text()) == run


def test_other_data_are_refused_by_field(small: None, tmp_path: Path, capsys, refused) -> None:
    from cnn_harness.tests.runs import photographs

    folder = photographs(tmp_path / "photographs", size=28)
    run = tmp_path / "run"
    argv = ["--dataset", f"folder:{folder}", "--image-size", "28", "--epochs", "1"]
    assert train.main([*argv, "--out", str(run)]) == 0
    before = (run / "config.json").read_bytes()
    capsys.readouterr()
    (folder / "class0" / "0.png").rename(folder / "class1" / "100.png")
    refused(train.main, ["--resume", "--epochs", "2", "--out", str(run)], 2, "images is")
    photographs(folder / "more", classes=1, size=28)
    (folder / "more" / "class0").rename(folder / "class9")
    (folder / "more").rmdir()
    refused(
        train.main, ["--resume", "--epochs", "2", "--out", str(run)], 2, "class_names is 4 classes"
    )
    assert (run / "config.json").read_bytes() == before


def test_from_python_a_changed_batch_is_refused(finished: Path) -> None:
    from cnn_data import load_dataset
    from cnn_harness.run_description import read_run
    from cnn_harness.runfolder import RunFolder
    from cnn_harness.train_command import resume

    config = read_run(finished)["config"].replace(batch_size=10)
    training = assembly.prepare(config, load_dataset("mnist5k"), "cpu")
    with RunFolder(finished) as folder, pytest.raises(UsageError, match="batch_size is 10"):
        resume(train.FRAMEWORK, training, folder)
