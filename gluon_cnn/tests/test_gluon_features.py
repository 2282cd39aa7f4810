"""What train's flags do, through the command; that the twin does the same is parity's to show."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from cnn_data import load_dataset
from cnn_harness.config import LATER, TrainConfig
from cnn_harness.progress import load_arrays
from cnn_harness.sealed import read_sealed, seal
from cnn_harness.tests.runs import rows
from gluon_cnn import evaluate, export, predict, train
from gluon_cnn.training import assembly, loop
from gluon_cnn.training.gradients import clip_norm

QUICK = ["--batch-size", "1000", "--augment", "none", "--ctx", "cpu"]


def _params(path: Path) -> dict[str, np.ndarray]:
    return {name: value.asnumpy() for name, value in mx.nd.load(str(path)).items()}


def _ends(run: Path, *argv: str) -> dict[str, np.ndarray]:
    assert train.main([*QUICK, "--epochs", "1", *argv, "--out", str(run)]) == 0
    return _params(run / "last/net.params")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, np.ndarray]:
    return _ends(tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    "argv",
    [
        ["--clip-grad", "0.1", "--opt", "sgd"],
        ["--mixup", "0.2", "--label-smoothing", "0.1"],
        pytest.param(["--augment", "RandomHorizontalFlip,color-jitter"], marks=pytest.mark.slow),
    ],
    ids=["clip-grad", "mixup", "augment"],
)
def test_a_flag_changes_what_is_learned(
    argv: list[str], plain: dict[str, np.ndarray], tmp_path: Path
) -> None:
    after = _ends(tmp_path / "run", *argv)
    assert any(np.abs(after[name] - plain[name]).max() > 1e-5 for name in plain)
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config != TrainConfig().to_dict()


def test_parts_of_a_batch_add_up_to_the_whole(plain: dict[str, np.ndarray], tmp_path: Path) -> None:
    after = _ends(tmp_path / "run", "--grad-accum-steps", "3")
    for name, value in plain.items():
        np.testing.assert_allclose(after[name], value, atol=2e-4)  # float32, four updates of Adam
    assert rows(tmp_path / "run")[0]["train_loss"] == pytest.approx(
        json.loads((tmp_path / "run/metrics.jsonl").read_text())["train_loss"]
    )


def test_parts_use_less_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(batch_size=10, grad_accum_steps=4)
    training = assembly.prepare(config, load_dataset("mnist5k"), "cpu")
    seen = []
    monkeypatch.setattr(
        loop, "train_step",
        lambda objective, trainer, parts, count, clip: seen.append([len(y[0]) for _, y in parts]),
    )  # fmt: skip
    with pytest.raises(TypeError):  # nothing was computed that could be read
        loop.train_epoch(training, loop.Partial(1), loop.Monitor(), loop.Stop())
    assert seen[0] == [3, 3, 2, 2]


@pytest.mark.parametrize("ctx", ["cpu", "cpu:0,1"])
def test_the_norm_of_all_gradients_together_is_clipped(ctx: str) -> None:
    training = assembly.prepare(TrainConfig(), load_dataset("mnist5k"), ctx)
    x, y = next(training.train.epoch(1))
    xs, ys = training.staging(x), training.staging(y)
    with mx.autograd.record():
        losses = [training.objective(a, b)[0] for a, b in zip(xs, ys, strict=True)]
    mx.autograd.backward(losses)
    training.trainer.allreduce_grads()

    def gradients() -> list[list[np.ndarray]]:
        return [[g.asnumpy() for g in p.list_grad()] for p in training.trainer._params]

    before = gradients()
    norm = np.sqrt(sum(float((g[0].astype(np.float64) ** 2).sum()) for g in before))
    clip_norm(training.trainer, norm * 2)  # nothing to clip: not one bit changes
    for a, b in zip(gradients(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    clip_norm(training.trainer, norm / 4)
    for a, b in zip(gradients(), before, strict=True):
        for mine, device in zip(a, b, strict=True):
            np.testing.assert_allclose(mine, device / 4, rtol=1e-5, atol=1e-9)


def test_the_average_is_what_is_evaluated_and_kept(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    last = _ends(run, "--ema", "0.9")
    best = _params(run / "best.params")
    average = load_arrays(run / "last/average.safetensors")
    assert set(average) == set(best) == set(last)
    for name, value in best.items():
        np.testing.assert_array_equal(value, average[name])
    assert any((last[name] != value).any() for name, value in best.items())
    capsys.readouterr()
    assert evaluate.main([str(run), "--ctx", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    row = rows(run)[0]
    assert (result["accuracy"], result["top5_accuracy"]) == (row["test_acc"], row["test_top5_acc"])


def test_training_ends_where_accuracy_rises_no_more(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    argv = [*QUICK, "--lr", "1e-30", "--opt", "sgd", "--out", str(run)]  # nothing is learned
    assert train.main([*argv, "--epochs", "9", "--patience", "2"]) == 0
    assert len(rows(run)) == 3
    said = "ending after epoch 3: no test accuracy above that of epoch 1 in 2 epochs (--patience)"
    assert said in capsys.readouterr().err
    assert train.main([*argv, "--resume", "--epochs", "9"]) == 0
    assert len(rows(run)) == 3
    assert train.main([*argv, "--resume", "--epochs", "9", "--patience", "4"]) == 0
    assert len(rows(run)) == 5
    assert json.loads((run / "config.json").read_text())["config"]["patience"] == 4


def test_a_run_of_an_older_version_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = [*QUICK, "--sched", "constant"]
    assert train.main([*argv, "--epochs", "1", "--out", str(run)]) == 0
    _make_older(run)
    assert evaluate.main([str(run), "--ctx", "cpu"]) == 0
    assert train.main(["--resume", "--epochs", "2", "--out", str(run)]) == 0
    first, second = rows(run)
    assert "lr" not in first
    assert "test_top5_acc" in second
    assert (run / "metrics.csv").read_text().splitlines()[1].startswith("1,")


def _write(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _make_older(run: Path) -> None:
    """Take out what came later: fields of the configuration, and of the rows."""

    def older(config: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in config.items() if name not in LATER}

    values = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**values, "config": older(values["config"])}))
    last = run / "last"
    state = read_sealed(last)
    files = {path.name: path.read_bytes() for path in last.iterdir() if path.suffix != ".json"}
    old_rows = [{k: v for k, v in row.items() if k not in ("lr", "test_top5_acc")}
                for row in state["rows"]]  # fmt: skip
    seal(
        last, run / "previous",
        {name: partial(_write, data) for name, data in files.items()},
        {**state, "config": older(state["config"]), "rows": old_rows},
    )  # fmt: skip


def test_the_five_best_classes_count_ties_as_argmax_does() -> None:
    outputs = mx.nd.array([[0, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7.0]])
    for label, ranks in ((0, [0, 6]), (4, [4, 2]), (6, [6, 0])):
        label = mx.nd.full((2,), label)
        assert assembly.class_ranks(mx.nd, outputs, label, False).asnumpy().tolist() == ranks
        first = [ranks[0], 6 - ranks[1]]
        assert assembly.class_ranks(mx.nd, outputs, label, True).asnumpy().tolist() == first


def test_other_commands_know_other_spellings_too(refused) -> None:
    refused(
        predict.main,
        ["run", "image.png", "--device", "cpu", "--topk", "0"],
        2,
        "argument --top/--topk: got '0'",
    )
    refused(
        export.main,
        ["run", "--output", "there", "--topk", "1"],
        2,
        "unrecognized arguments: --topk",
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--clip-grad", "-1"], "argument --clip-grad: got '-1'"),
        (["--label-smoothing", "1"], "label_smoothing is 1.0, expected 0 to below 1"),
        (["--ema", "1"], "ema is 1.0, expected 0 to below 1"),
        (["--mixup", "x"], "argument --mixup/--mixup-alpha: got 'x'"),
        (["--patience", "-2"], "argument --patience: got '-2'"),
        (["--grad-accum-steps", "2000"], "expected at most the 1000 images of a batch"),
        (["--augment", "RandomCorp"], "did you mean random-crop?"),
        (["--model", "lenet5", "--mixup", "0.2"], "leave out --label-smoothing and --mixup"),
        (["--model", "lenett"], "did you mean lenet?"),
        (["--dataset", "mnist5"], "did you mean mnist5k?"),
        (["--amp"], "mixed precision is not offered"),
        (["--label-smooth", "0.1"], "did you mean --label-smoothing?"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], said: str, tmp_path: Path, refused) -> None:
    refused(train.main, [*QUICK, *argv, "--out", str(tmp_path / "run")], (1, 2), said)
    assert not (tmp_path / "run").exists()
