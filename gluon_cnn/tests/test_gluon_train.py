"""The train command, as a user meets it: on the embedded digits, in process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_harness.monitor import METRICS
from cnn_harness.runfolder import RunFolder
from cnn_harness.tests.runs import photographs
from cnn_harness.tests.runs import rows as rows_of
from gluon_cnn import evaluate, predict, train
from gluon_cnn.models import MODELS
from gluon_cnn.training.recipes import DEFAULTS, DOCUMENTS, OWN

QUICK = ["--epochs", "1", "--batch-size", "500"]


def _photographs(folder: Path, each: int = 6) -> Path:
    return photographs(folder, classes=2, each=each, size=40)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory) -> Path:
    """A short run of the default model on the embedded digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert train.main(["--out", str(out), "--epochs", "3", "--tensorboard"]) == 0
    return out


def test_it_learns_and_leaves_every_promised_file(digits_run: Path) -> None:
    rows = [json.loads(line) for line in (digits_run / "metrics.jsonl").read_text().splitlines()]
    assert [tuple(row) for row in rows] == [METRICS] * 3
    assert rows[-1]["test_acc"] > 0.93
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2
    for name in ("config.json", "best.params", "last/manifest.json", "tensorboard"):
        assert (digits_run / name).exists()
    for name in ("curves.png", "predictions.png"):
        assert min(Image.open(digits_run / name).size) > 200
    assert json.loads((digits_run / "config.json").read_text())["framework"] == "gluon"


def test_evaluate_repeats_the_best_row(digits_run: Path, capsys) -> None:
    assert evaluate.main([str(digits_run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    best = max(rows_of(digits_run), key=lambda row: row["test_acc"])
    assert result["accuracy"] == best["test_acc"]
    assert result["loss"] == pytest.approx(best["test_loss"], rel=1e-6)
    counts = np.array(result["confusion"])
    assert counts.sum() == 1000
    assert np.trace(counts) / 1000 == result["accuracy"]
    assert result["accuracy_per_class"]["7"] == counts[7, 7] / counts[7].sum()
    assert (digits_run / "confusion.png").exists()
    assert evaluate.main([str(digits_run)]) == 0
    assert "accuracy 0.9" in capsys.readouterr().out


def test_predict_names_digits_drawn_as_files(digits_run: Path, tmp_path: Path, capsys) -> None:
    from cnn_data import load_dataset

    test = load_dataset("mnist5k").test
    indices = np.arange(40)
    paths = []
    for i, image in zip(indices, test.images(indices).squeeze(-1), strict=True):
        paths.append(str(tmp_path / f"{i}.png"))
        big = Image.fromarray(image).resize((56, 56), Image.Resampling.NEAREST)
        big.convert("RGB").save(paths[-1])
    assert predict.main([str(digits_run), *paths, "--json", "--top", "2"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    right = sum(a["class"] == str(t) for a, t in zip(answers, test.labels[indices], strict=True))
    assert right >= 34
    assert all(len(a["top"]) == 2 and 0 < a["probability"] <= 1 for a in answers)

    inverted = tmp_path / "white.png"
    Image.eval(Image.open(paths[0]), lambda v: 255 - v).save(inverted)
    assert predict.main([str(digits_run), str(inverted), "--invert", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["predictions"][0]
    assert again["probability"] == pytest.approx(answers[0]["probability"], abs=0.01)


@pytest.mark.parametrize("model", sorted(DEFAULTS))
def test_every_model_has_a_default_of_its_own_name(model: str) -> None:
    assert DEFAULTS[model].model == model
    assert set(DEFAULTS) == set(MODELS)


def test_documents_recipes_are_as_written() -> None:
    doc0, doc1, doc2, doc3 = (DOCUMENTS[f"doc-{i}"] for i in range(4))
    assert (doc0.model, doc0.dataset, doc0.batch_size) == ("lenet_sigmoid", "fashion_mnist", 256)
    assert (doc0.optimizer, doc0.lr, doc0.epochs, doc0.momentum) == ("sgd", 0.9, 10, 0.0)
    assert (doc1.model, doc1.dataset, doc1.batch_size) == ("cifar_cnn", "cifar10", 4)
    assert (doc1.optimizer, doc1.lr, doc1.momentum) == ("sgd", 0.001, 0.9)
    assert (doc2.model, doc2.dataset, doc2.batch_size, doc2.epochs) == ("lenet", "mnist", 500, 10)
    assert (doc2.optimizer, doc2.lr, doc2.normalise) == ("adam", 0.01, "raw")
    assert (doc3.model, doc3.dataset, doc3.batch_size) == ("mnist_bn_cnn", "mnist", 100)
    assert (doc3.optimizer, doc3.lr, doc3.epochs, doc3.normalise) == ("adam", 0.001, 3, "half")
    assert {d.schedule for d in DOCUMENTS.values()} == {"constant"}
    assert {d.augment for d in DOCUMENTS.values()} == {"none"}


def test_our_own_recipe_is_named_beside_the_documents(capsys) -> None:
    assert not OWN.keys() & DOCUMENTS.keys()
    assert OWN["quick-lenet-mnist"].epochs == 2
    assert train.main(["--help"]) == 0
    assert "quick-lenet-mnist" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("doc-0", "lenet-sigmoid-fashion-mnist"),
        ("doc-1", "cifar-cnn-cifar10"),
        ("doc-2", "gluon-lenet-mnist"),
        ("doc-3", "bn-cnn-mnist"),
    ],
)
def test_a_documents_recipe_has_a_name_by_content(capsys, alias: str, name: str) -> None:
    assert DOCUMENTS[alias] is DOCUMENTS[name]
    assert train.main(["--help"]) == 0
    # Without blanks: argparse also breaks lines at hyphens
    assert f"{name}({alias})" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "model",
    ["lenet_linear", "lenet5", "cifar_cnn"]
    + [pytest.param(model, marks=pytest.mark.slow) for model in ("lenet_sigmoid", "mnist_bn_cnn")],
)
def test_every_small_model_learns_from_its_default(model: str, tmp_path: Path) -> None:
    epochs = "2" if model == "lenet_sigmoid" else "1"
    assert train.main(["--model", model, "--epochs", epochs, "--out", str(tmp_path / "r")]) == 0
    assert rows_of(tmp_path / "r")[-1]["test_acc"] > 0.5


@pytest.mark.parametrize("model", ["alexnet", "vgg11_bn"])
def test_large_models_train_on_a_folder_of_photographs(model: str, tmp_path: Path) -> None:
    folder = _photographs(tmp_path / "photographs", each=4)
    argv = ["--model", model, "--dataset", f"folder:{folder}", "--image-size", "80"]
    assert train.main([*argv, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    assert len(rows_of(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            ["--optimizer", "sgd", "--lr", "0.1", "--momentum", "0"], marks=pytest.mark.slow
        ),
        ["--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.9", "--nesterov", "--wd", "1e-4"],
        ["--optimizer", "sgd", "--lr", "0.1", "--schedule", "step", "--step-epochs", "1"],
        ["--optimizer", "adam", "--schedule", "linear", "--warmup-epochs", "1"],
    ],
)
def test_optimizers_and_schedules_train(options: list[str], tmp_path: Path) -> None:
    argv = ["--epochs", "2", "--batch-size", "100", "--out", str(tmp_path / "r"), *options]
    assert train.main(argv) == 0
    rows = rows_of(tmp_path / "r")
    assert rows[1]["train_loss"] < rows[0]["train_loss"]
    assert rows[1]["test_acc"] > 0.8


def _in_new_process(*argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gluon_cnn.train", *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("model", ["lenet", pytest.param("mnist_bn_cnn", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_bytes_in_another_process(model: str, tmp_path: Path) -> None:
    argv = ["--model", model, "--augment", "shift", *QUICK]
    for name in ("a", "b"):
        _in_new_process(*argv, "--out", str(tmp_path / name))
    assert (tmp_path / "a/best.params").read_bytes() == (tmp_path / "b/best.params").read_bytes()
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
    assert train.main([*argv, "--seed", "1", "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "a/best.params").read_bytes() != (tmp_path / "c/best.params").read_bytes()


@pytest.mark.parametrize(
    "options",
    [["--lr", "0.003"],
     pytest.param(["--optimizer", "sgd", "--lr", "0.05", "--momentum", "0.9"],
                  marks=pytest.mark.slow),
     pytest.param(["--optimizer", "sgd", "--lr", "0.1"], marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_resumed_run_ends_with_the_same_bytes(options: list[str], tmp_path: Path) -> None:
    argv = ["--batch-size", "200", "--schedule", "constant", *options]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--epochs", "3", "--out", str(whole)]) == 0
    assert train.main([*argv, "--epochs", "1", "--out", str(parts)]) == 0
    for epochs in ("2", "3"):
        assert train.main(["--resume", "--epochs", epochs, "--out", str(parts)]) == 0
    assert (whole / "last/net.params").read_bytes() == (parts / "last/net.params").read_bytes()
    assert (whole / "best.params").read_bytes() == (parts / "best.params").read_bytes()
    assert rows_of(whole) == rows_of(parts)


@pytest.mark.slow
def test_dropout_resumes_exactly_too(tmp_path: Path) -> None:
    folder = _photographs(tmp_path / "photographs", each=5)
    argv = ["--model", "alexnet", "--dataset", f"folder:{folder}", "--image-size", "80",
            "--schedule", "constant", "--warmup-epochs", "0", "--batch-size", "4"]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--epochs", "2", "--out", str(whole)]) == 0
    assert train.main([*argv, "--epochs", "1", "--out", str(parts)]) == 0
    assert train.main(["--resume", "--epochs", "2", *argv, "--out", str(parts)]) == 0
    assert rows_of(whole) == rows_of(parts)
    assert (whole / "last/net.params").read_bytes() == (parts / "last/net.params").read_bytes()


def test_resume_of_a_run_stopped_before_it_saved_starts_and_says_so(tmp_path: Path, capsys) -> None:
    RunFolder.new(str(tmp_path / "r"), "r")
    assert train.main(["--resume", *QUICK, "--out", str(tmp_path / "r")]) == 0
    assert "nothing was saved yet: starting from the beginning" in capsys.readouterr().out


def test_resume_of_no_run_is_an_error(tmp_path: Path, monkeypatch, refused) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "lenet-mnist5k").mkdir(parents=True)
    (tmp_path / "runs" / "lenet-mnist5k" / "config.json").touch()
    (tmp_path / "runs" / "empty").mkdir()
    for argv, said in (
        (["--out", "runs/lenet-mnist5"], "begin one; did you mean runs/lenet-mnist5k?"),
        (["--out", "runs/empty"], "no run is there"),
        (["--model", "lenet5"], "no run is in runs/lenet5-mnist5k"),
    ):
        refused(train.main, ["--resume", *argv], 2, said)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["empty", "lenet-mnist5k"]


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--model", "lenet_linear"], "model"), (["--batch-size", "7"], "batch_size"),
     (["--seed", "5"], "seed"), (["--recipe", "doc-2"], "dataset")],
)  # fmt: skip
def test_resume_refuses_another_run(
    digits_run: Path, options: list[str], named: str, refused
) -> None:
    before = (digits_run / "last/manifest.json").read_bytes()
    refused(train.main, ["--resume", "--out", str(digits_run), *options], 2, f"{named} is")
    assert (digits_run / "last/manifest.json").read_bytes() == before


def test_two_devices_compute_what_one_does(tmp_path: Path) -> None:
    # A rate at which rounding is not yet amplified: the two sum their gradients in another order
    argv = ["--optimizer", "sgd", "--lr", "0.01", "--momentum", "0.9", "--batch-size", "299",
            "--epochs", "1"]  # fmt: skip
    for ctx in ("cpu", "cpu:0,1"):
        out = tmp_path / ctx.replace(":", "")
        assert train.main([*argv, "--ctx", ctx, "--out", str(out)]) == 0
    (one,), (two,) = rows_of(tmp_path / "cpu"), rows_of(tmp_path / "cpu0,1")
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    assert two["test_loss"] == pytest.approx(one["test_loss"], rel=1e-5)


def test_training_and_evaluating_need_no_torch_and_no_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['tensorflow'] = None\n"
        "from gluon_cnn import train, evaluate, predict, summary\n"
        f"sys.exit(train.main({[*QUICK, '--out', str(tmp_path / 'r')]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
