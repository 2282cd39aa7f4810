"""The data of a run through the commands: moved, changed, damaged, and poor."""

import importlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_harness.tests.runs import photographs, rows, same_end
from cnn_harness.train_command import learned_nothing
from gluon_cnn import evaluate, train

ARGV = ["--batch-size", "20", "--image-size", "28"]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch, capsys) -> Path:
    """A directory with photographs, and a run on them that names them relatively."""
    monkeypatch.chdir(tmp_path)
    photographs(tmp_path / "photos", size=28)
    argv = ["--dataset", "folder:./photos/", *ARGV, "--epochs", "1", "--out", "run"]
    assert train.main(argv) == 0
    capsys.readouterr()
    return tmp_path


def test_a_run_finds_its_data_from_anywhere(trained: Path, monkeypatch, capsys, refused) -> None:
    run = str(trained / "run")
    evaluated = evaluate.main([run, "--json"]), json.loads(capsys.readouterr().out)
    whole = ["--dataset", "folder:photos", *ARGV, "--schedule", "constant", "--epochs"]
    assert train.main([*whole, "2", "--out", "whole"]) == 0
    assert train.main([*whole, "1", "--out", "parts"]) == 0
    (trained / "elsewhere").mkdir()
    monkeypatch.chdir(trained / "elsewhere")
    capsys.readouterr()
    assert (evaluate.main([run, "--json"]), json.loads(capsys.readouterr().out)) == evaluated
    (trained / "photos").rename(trained / "moved")
    for main, argv in ((evaluate.main, [run]), (train.main, ["--resume", "--out", run])):
        said = f"folder:{trained}/photos, which the run was trained on, is not there"
        refused(main, argv, 2, said)
    assert evaluate.main([run, "--json", "--dataset", "folder:../moved"]) == 0
    now = json.loads(capsys.readouterr().out)
    assert now["confusion"] == evaluated[1]["confusion"]
    argv = ["--resume", "--epochs", "2", "--dataset", "folder:../moved", "--out"]
    assert train.main([*argv, str(trained / "parts")]) == 0
    same_end("gluon_cnn", trained / "whole", trained / "parts")
    assert train.main(["--resume", "--epochs", "3", "--out", str(trained / "parts")]) == 0


def test_another_folder_is_measured_whole_and_replaces_nothing(
    trained: Path, capsys, refused
) -> None:
    assert evaluate.main(["run"]) == 0
    out = capsys.readouterr().out
    assert f"on the 6 held-out of 48 images of folder:{trained}/photos, loss" in out
    before = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    for folder in ("some/new", "other/new"):  # of one name, as two folders called test
        shutil.copytree("photos", folder)
        Image.fromarray(np.full((28, 28, 3), len(folder), np.uint8)).save(f"{folder}/class1/99.png")
        argv = ["run", "--dataset", f"folder:{folder}"]
        refused(evaluate.main, argv, 1, "evaluate it on them all the same, add --other-images")
        assert evaluate.main([*argv, "--other-images"]) == 0
        assert f"on all 49 images of folder:{trained}/{folder}, loss" in capsys.readouterr().out
    files = {path: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    assert {path: files[path] for path in before} == before
    others = sorted(path for path in files if path.name.startswith("evaluation-folder-new-"))
    assert len(others) == 2
    result = json.loads(others[0].read_text())
    assert (result["images"], result["measured"]) == (49, "all 49 images")
    assert np.sum(result["confusion"]) == 49
    assert Path(result["picture"]) in files


def test_other_content_is_refused(trained: Path, capsys, refused) -> None:
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save("photos/class1/3.png")
    before = Path("run/config.json").read_bytes()
    for main, argv, code, said in (
        (train.main, ["--resume", "--epochs", "2", "--out", "run"], 2, "holds other images"),
        (evaluate.main, ["run"], 1, "holds other images than run was trained on"),
        (evaluate.main, ["run", "--dataset", "folder:photos"], 1, "add --other-images"),
    ):
        refused(main, argv, code, said)
    assert Path("run/config.json").read_bytes() == before
    assert evaluate.main(["run", "--dataset", "folder:photos", "--other-images"]) == 0
    assert "has changed since run was trained on it" in capsys.readouterr().err


def test_a_run_of_an_older_version_goes_on_as_it_did(trained: Path, refused) -> None:
    path = Path("run/config.json")
    run = json.loads(path.read_text())
    del run["images"]["content_sha256"], run["skip_damaged"], run["skipped"]
    run["config"]["dataset"] = "folder:photos"
    path.write_text(json.dumps(run))
    assert evaluate.main(["run"]) == 0
    photographs(Path("other"), size=28)
    argv = ["--resume", "--epochs", "2", "--out", "run"]
    refused(
        train.main, [*argv, "--dataset", "folder:other"], 2, "the run has no hash of its images"
    )
    assert train.main(argv) == 0
    assert len(rows(Path("run"))) == 2
    assert json.loads(path.read_text())["images"]["content_sha256"]


def test_damaged_files_stop_a_run_before_it_begins_or_are_left_out(
    trained: Path, refused, caplog
) -> None:
    whole = Path("photos/class0/1.png").read_bytes()
    Path("photos/class0/1.png").write_bytes(whole[: len(whole) // 2])
    os.mkfifo("photos/class1/pipe.png")
    os.mkdir("photos/class1/inner.png")
    argv = ["--dataset", "folder:photos", *ARGV, "--epochs", "1", "--out", "new"]
    refused(
        train.main, argv, 1, "3 of 50 files", "class0/1.png: damaged", "class1/pipe.png: a FIFO",
        "class1/inner.png: a folder inside class", "--skip-dam",
    )  # fmt: skip
    assert not Path("new").exists()
    assert train.main([*argv, "--skip-damaged"]) == 0
    assert "left out, " in caplog.text
    names = [Path(name).name for name in json.loads(Path("new/config.json").read_text())["skipped"]]
    assert names == ["1.png", "pipe.png", "inner.png"]
    for main, more in ((evaluate.main, ["new"]), (train.main, ["--resume", "--out", "new"])):
        assert main(more) == 0  # as the run was trained


@pytest.mark.parametrize("package", ["gluon_cnn", "torch_ref"])
def test_both_packages_leave_the_same_files_out(package: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    photographs(tmp_path / "photos", size=28)
    (tmp_path / "photos/class0/1.png").write_bytes(b"\x89PNG")
    argv = ["--dataset", f"folder:{tmp_path / 'photos'}", *ARGV, "--epochs", "1"]
    command = importlib.import_module(f"{package}.train")
    assert command.main([*argv, "--skip-damaged", "--out", str(tmp_path / "run")]) == 0
    run = json.loads((tmp_path / "run/config.json").read_text())
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "photos/class0/1.png").unlink()
    assert train.main([*argv, "--out", str(tmp_path / "run")]) == 0
    clean = json.loads((tmp_path / "run/config.json").read_text())
    assert run["images"] == clean["images"]
    assert run["skipped"] != clean["skipped"] == []


def test_a_class_folder_that_is_not_utf8_is_named_at_once(trained: Path, refused) -> None:
    os.rename("photos/class2", b"photos/caf\xe9")
    argv = ["--dataset", "folder:photos", *ARGV, "--out", "new"]
    refused(train.main, argv, 1, "caf\\xe9", "not UTF-8")


def test_a_dead_net_is_said(tmp_path: Path, capsys) -> None:
    argv = ["--optimizer", "adam", "--lr", "10", "--schedule", "constant", "--epochs", "1"]
    assert train.main([*argv, "--batch-size", "100", "--out", str(tmp_path / "r"), "--json"]) == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)["warning"]
    assert f"warning: {said}\n" in captured.err
    assert "the net has learned nothing" in said
    assert "the weights have exploded; try an --lr well below 10" in said


def test_a_net_at_chance_is_told_from_one_that_learns() -> None:
    def row(accuracy: float, loss: float = 2.3) -> dict:
        return {"epoch": 1, "test_acc": accuracy, "train_loss": loss}

    labels = np.array([0, 0, 1, 2])
    assert learned_nothing([row(0.75)], labels, 0.1) is None
    assert learned_nothing([row(0.5, 1e9), row(0.75)], labels, 0.1) is None  # it has recovered
    assert learned_nothing([row(1.0)], np.zeros(4, int), 0.1) is None  # one class
    assert "more epochs" in str(learned_nothing([row(0.75), row(0.5)], labels, 0.1))
    assert "1e+09 in epoch 1" in str(learned_nothing([row(0.5, 1e9), row(0.5)], labels, 0.1))
