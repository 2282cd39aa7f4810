"""What a user sees of a run: scores, mistakes, answers for folders, filters and feature maps."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_data import load_dataset
from cnn_harness import plots
from gluon_cnn import evaluate, export, inspect, predict, train
from gluon_cnn.evaluate import scores


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("see") / "run"
    assert train.main(["--epochs", "1", "--batch-size", "200", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Ten digits in a folder, two of them in one below it, and files that are no images."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "below" / ".hidden").mkdir(parents=True)
    test = load_dataset("mnist5k").test
    for i, image in enumerate(test.images(np.arange(10))):
        Image.fromarray(image[..., 0]).save(folder / ("below" if i > 7 else "") / f"{i}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "below" / ".hidden" / "x.png").write_text("hidden")
    return folder


def test_scores_where_nothing_is_there_to_divide_by() -> None:
    rng = np.random.default_rng(0)
    true, said = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    names = list("abcde")  # d is never said, e has no image
    ours = scores(true, said, names)
    for label, name in enumerate(names):
        right, of, called = ((true == label) & (said == label)).sum(), true == label, said == label
        expected = (
            right / called.sum() if called.any() else None,
            right / of.sum() if of.any() else None,
            2 * right / (of.sum() + called.sum()) if of.any() or called.any() else None,
        )
        assert (ours[name]["precision"], ours[name]["recall"], ours[name]["f1"]) == expected
        assert ours[name]["images"] == of.sum()


def test_evaluate_writes_scores_and_the_worst_mistakes(run: Path, capsys) -> None:
    assert evaluate.main([str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads((run / "evaluation.json").read_text()) == result
    assert result["mistakes"][0]["image"].startswith("image ")  # digits come without files
    assert result["mistakes"][0]["said"] != result["mistakes"][0]["true"]
    counts = np.array(result["confusion"])
    assert result["per_class"]["3"]["recall"] == counts[3, 3] / counts[3].sum()
    assert result["per_class"]["3"]["precision"] == counts[3, 3] / counts[:, 3].sum()
    assert result["macro"]["recall"] == pytest.approx(result["accuracy"])  # classes of one size
    with Image.open(run / "errors.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(colours - (0xCC, 0x22, 0x22)).sum(axis=1) < 20).any()  # what was said, in red
    assert (np.abs(colours - (0x11, 0x77, 0x33)).sum(axis=1) < 20).any()  # what is true, in green
    assert evaluate.main([str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["class", "images", "precision", "recall", "F1"]
    assert len({len(line) for line in lines[1:12]}) == 1


def test_one_class_alone_is_evaluated_in_silence(tmp_path: Path, recwarn) -> None:
    (tmp_path / "data/only").mkdir(parents=True)
    for i in range(10):
        Image.fromarray(np.full((28, 28), i, np.uint8)).save(tmp_path / f"data/only/{i}.png")
    argv = ["--dataset", f"folder:{tmp_path}/data", "--image-size", "28", "--epochs", "1"]
    assert train.main([*argv, "--out", str(tmp_path / "run")]) == 0
    recwarn.clear()
    assert evaluate.main([str(tmp_path / "run")]) == 0
    assert [str(each.message) for each in recwarn] == []
    assert json.loads((tmp_path / "run/evaluation.json").read_text())["confusion"] == [[1]]


def test_the_worst_mistakes_come_first(run: Path) -> None:
    import mxnet as mx

    from gluon_cnn.training.saved import open_run

    saved, dataset = open_run(run, [mx.cpu()]), load_dataset("mnist5k")
    first = dataset.test.images(np.arange(300))
    shares = predict.probabilities(saved, first)
    everywhere = predict.probabilities(saved, dataset.test.images(np.arange(len(dataset.test))))
    np.testing.assert_allclose(shares, everywhere[:300], rtol=1e-5)
    wrong, sure = evaluate.worst_mistakes(saved, dataset, everywhere.argmax(axis=1))
    assert len(wrong) == (everywhere.argmax(axis=1) != dataset.test.labels).sum()
    np.testing.assert_allclose(sure, everywhere[wrong].max(axis=1), rtol=1e-5)
    assert (np.diff(sure) <= 0).all()


def test_without_mistakes_an_old_picture_of_them_goes(run: Path, monkeypatch, capsys) -> None:
    (run / "errors.png").touch()
    monkeypatch.setattr(evaluate, "worst_mistakes", lambda *_: (np.zeros(0, int), np.zeros(0)))
    assert evaluate.main([str(run)]) == 0
    assert "worst" not in capsys.readouterr().out
    assert not (run / "errors.png").exists()


def test_predict_takes_folders_and_patterns(run: Path, digits: Path, tmp_path, capsys) -> None:
    files = [str(digits / f"{i}.png") for i in range(8)]
    below = [str(digits / "below" / f"{i}.png") for i in (8, 9)]
    out, grid = tmp_path / "answers.csv", tmp_path / "grid.png"
    for words, expected in (
        ([str(digits)], files + below),
        ([f"{digits}/*.png"], files),
        ([f"{digits}/**/*.png", str(digits), files[0]], [*files, *below]),  # each once
    ):
        argv = [str(run), *words, "--out", str(out), "--grid", str(grid), "--top", "2"]
        assert predict.main(argv) == 0
        assert f"{len(expected)} answers in {out}" in capsys.readouterr().out
        with out.open(newline="") as file:
            table = list(csv.DictReader(file))
        assert list(table[0]) == ["image", "class", "probability", "class_2", "probability_2"]
        assert sorted(row["image"] for row in table) == sorted(expected)
        assert min(Image.open(grid).size) > 100
    assert predict.main([str(run), str(digits), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert predict.main([str(run), str(digits), "--out", str(tmp_path / "answers.json")]) == 0
    assert json.loads((tmp_path / "answers.json").read_text()) == printed


def test_predict_replaces_nothing_that_it_reads(run: Path, digits: Path, refused) -> None:
    image, config = digits / "0.png", run / "config.json"
    before = image.read_bytes(), config.read_bytes()
    for flags, why in (
        (["--grid", f"{digits}/below/../0.png"], "is one of the images: name another place"),
        (["--out", str(config)], "is a file of the run: name another place"),
    ):
        refused(predict.main, [str(run), str(digits), *flags], 1, why)
    assert (image.read_bytes(), config.read_bytes()) == before


def test_names_that_are_not_utf8(run: Path, digits: Path, tmp_path: Path, capsys) -> None:
    image = tmp_path / os.fsdecode(b"n\xff.png")
    image.write_bytes((digits / "0.png").read_bytes())
    out, grid = tmp_path / "answers.csv", tmp_path / "grid.png"
    argv = [str(run), str(image), "--out", str(out), "--grid", str(grid)]
    assert predict.main(argv) == 0
    assert f"{tmp_path}/n\\udcff.png," in out.read_text(encoding="utf-8")
    assert predict.main([str(run), str(image)]) == 0
    assert f"{tmp_path}/n\\udcff.png: " in capsys.readouterr().out
    assert inspect.main([str(run), str(image), "--out", str(tmp_path / "new" / "folder")]) == 0
    assert min(Image.open(tmp_path / "new" / "folder" / "features.png").size) > 100
    pixels = np.zeros((1, 4, 4, 1), np.uint8)
    plots.save_errors(grid, pixels, [("a", 1.0)], ["b"], [image.name], "of n\udcff")
    assert min(Image.open(grid).size) > 50


@pytest.mark.parametrize("model", ["lenet", "lenet5"])
def test_inspect_draws_an_export_as_its_run(
    model: str, run: Path, digits: Path, tmp_path: Path, capsys
) -> None:
    source = [str(run)] if model == "lenet" else ["--model", model]
    out, image = tmp_path / "export", str(digits / "0.png")
    assert export.main([*source, "--engine", "mxnet", "--out", str(out)]) == 0
    assert inspect.main([str(out), image]) == 0
    if model == "lenet":
        assert inspect.main([str(run), image, "--out", str(tmp_path)]) == 0
        for name in ("filters.png", "features.png"):
            assert (out / name).read_bytes() == (tmp_path / name).read_bytes()


def test_predict_names_all_that_it_cannot_read(run: Path, tmp_path: Path, capsys, refused) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("x")
    os.mkfifo(tmp_path / "pipe.png")
    out = tmp_path / "answers.csv"
    argv = [str(run), str(tmp_path), "--out", str(out)]
    words = "2 of 3 images cannot be read", "bad.png", "pipe.png: a FIFO"
    refused(predict.main, argv, 1, *words)
    assert not out.exists()
    assert predict.main([*argv, "--skip-damaged"]) == 0
    assert capsys.readouterr().err.count("left out: ") == 2
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "model", ["lenet", "lenet5", pytest.param("cifar_cnn", marks=pytest.mark.slow)]
)
def test_inspect_draws_filters_and_maps(
    model: str, run: Path, tmp_path: Path, capsys, refused
) -> None:
    if model != "lenet":
        argv = ["--model", model, "--batch-size", "1000", "--epochs", "1", "--out"]
        run = tmp_path / "run"
        assert train.main([*argv, str(run)]) == 0
    Image.new("RGB", (20, 18), (200, 30, 30)).save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    capsys.readouterr()
    argv = [str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--json"]
    assert inspect.main(argv) == 0
    result = json.loads(capsys.readouterr().out)
    first = {"lenet": [6, 24, 24], "lenet5": [6, 28, 28], "cifar_cnn": [8, 28, 28]}[model]
    assert result["maps"]["features.0"][0] == first[0]
    assert len(result["maps"]) >= 2
    for name in ("filters.png", "features.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 100
    drawn = np.asarray(Image.open(tmp_path / "out/filters.png").convert("L"))
    half = drawn[len(drawn) // 2]
    assert (half[-len(half) // 10 : -20] < 255).all()  # few filters fill the line
    assert (half[:8] == 255).all()
    refused(inspect.main, [str(tmp_path), str(tmp_path / "a.png")], 1)  # no run


def test_a_mosaic_holds_every_map_as_it_is() -> None:
    maps = np.arange(3 * 4 * 5, dtype=float).reshape(3, 4, 5)
    drawn = inspect.mosaic(maps, across=2)
    assert drawn.shape == (2 * 5, 2 * 6, 3)
    each = (maps[0] - maps[0].min()) / np.ptp(maps[0])
    for top, left in ((0, 0), (0, 6), (5, 0)):
        np.testing.assert_allclose(drawn[top : top + 4, left : left + 5, 0], each)
    assert (drawn[5:, 6:] == 1).all()  # no fourth
    assert (inspect.mosaic(np.ones((1, 2, 2)))[:2, :2] == 0).all()  # one value has no range
