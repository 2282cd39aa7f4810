"""Bad input through the commands: one line, exit 1 or 2, nothing left half-written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gluon_cnn import evaluate, export, inspect, launch, predict, summary, train


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model", "resnet"], ["resnet", "lenet", "vgg16_bn"]),
        (["--recipe", "doc-9"], ["doc-9", "doc-0", "doc-3"]),
        (["--optimizer", "lamb"], ["lamb", "sgd", "adam"]),
        (["--epochs", "0"], ["--epochs", "'0'", "from 1"]),
        (["--batch-size", "-4"], ["--batch-size", "'-4'"]),
        (["--image-size", "0"], ["--image-size"]),
        (["--image-size", "100000"], ["image_size is 100000", "4096"]),
        (["--dataset", "folder:"], ["--dataset", "'folder:'", "folder:PATH"]),
        (["--dataset", "folder: "], ["names no folder"]),
        (["--resume"], ["no run is there", "leave out --resume"]),
        (["--lr", "0"], ["--lr", "'0'", "above 0"]),
        (["--lr", "nan"], ["--lr", "nan", "above 0"]),
        (["--momentum", "0.9"], ["momentum"]),
        (["--seed", "-1"], ["--seed"]),
        (["--ctx", "tpu"], ["tpu", "gpu:0,1"]),
        (["--ctx", "cpu:0,0"], ["twice"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
)
def test_bad_usage_is_2(refused, tmp_path: Path, argv: list[str], words: list[str]) -> None:
    out = tmp_path / "run"
    refused(train.main, [*argv, "--out", str(out)], 2, *words)


def test_no_gpu_is_said(refused, tmp_path: Path) -> None:
    import mxnet as mx

    if mx.context.num_gpus():
        pytest.skip("this machine has a GPU")
    argv = ["--ctx", "gpu", "--out", str(tmp_path / "run")]
    refused(train.main, argv, 2, "build for the CPU", "--ctx cpu")
    assert not (tmp_path / "run").exists()


def test_an_unknown_dataset_lists_the_known(refused, tmp_path: Path) -> None:
    argv = ["--dataset", "mnist6k", "--out", str(tmp_path / "run")]
    refused(train.main, argv, 2, "mnist6k", "fashion_mnist", "folder:")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "size", "layer"), [("alexnet", "28", "features."), ("lenet", "8", "features.")]
)
def test_a_small_input_names_the_layer_and_the_least_size(
    refused, tmp_path: Path, model: str, size: str, layer: str
) -> None:
    argv = ["--model", model, "--image-size", size, "--out", str(tmp_path / "run")]
    refused(train.main, argv, 1, layer, "least input size")
    assert not (tmp_path / "run").exists()


def test_lenet5_has_ten_bitmaps(refused, tmp_path: Path) -> None:
    for label in range(11):
        (tmp_path / "d" / f"c{label:02}").mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(np.full((32, 32), 20 * label + i, np.uint8))
            image.save(tmp_path / "d" / f"c{label:02}" / f"{i}.png")
    argv = ["--model", "lenet5", "--dataset", f"folder:{tmp_path / 'd'}"]
    refused(train.main, [*argv, "--out", str(tmp_path / "run")], 1, "11", "ten")
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_and_an_unreadable_image(refused, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    argv = ["--dataset", f"folder:{empty}", "--out", str(tmp_path / "run")]
    refused(train.main, argv, 1, str(empty))
    bad = tmp_path / "bad" / "cat"
    bad.mkdir(parents=True)
    (bad / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    argv = ["--dataset", f"folder:{bad.parent}", "--out", str(tmp_path / "run")]
    refused(train.main, argv, 1, "a.png")
    argv = ["--dataset", f"folder:{tmp_path / 'none'}", "--out", str(tmp_path / "run")]
    refused(train.main, argv, 1, "none: no such folder")
    argv = ["--dataset", f"folder:{bad / 'a.png'}", "--out", str(tmp_path / "run")]
    refused(train.main, argv, 1, "a.png: is a file")


def test_an_out_that_cannot_be_written(refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    argv = ["--out", str(tmp_path / "file" / "run")]
    refused(train.main, argv, 1, "cannot be written", "--out")


def test_a_bad_out_is_found_before_the_data_are_read(refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad_data = ["--dataset", f"folder:{tmp_path / 'none'}", "--epochs", "1"]
    for out, code, word in (
        (tmp_path / "file", 1, "is a file"),
        (tmp_path / "p\udcff", 2, "p\\udcff: the name is not UTF-8"),
        (tmp_path / "p\udcff" / "run", 2, "not UTF-8"),
        ("/proc/run", 1, "cannot be written"),
    ):
        refused(train.main, [*bad_data, "--out", str(out)], code, "--out", word)
    refused(train.main, ["--resume", "--out", str(tmp_path / "p\udcff")], 2, "UTF-8")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_resume_of_a_near_name(capsys, refused, tmp_path: Path) -> None:
    (tmp_path / "lenet-a").mkdir()
    (tmp_path / "lenet-a" / "config.json").write_text("{}")
    argv = ["--resume", "--out", str(tmp_path / "lenet-b")]
    words = "to begin one; did you mean", str(tmp_path / "lenet-a")
    refused(train.main, argv, 2, *words)
    assert train.main(["--resume", "--out", str(tmp_path / "TYPO")]) == 2
    assert "did you mean" not in capsys.readouterr().err  # the folder is not part of the name


def test_an_out_that_holds_a_run(capsys, refused, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train.main(["--epochs", "1", "--batch-size", "500", "--out", str(out)]) == 0
    capsys.readouterr()
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    refused(train.main, ["--out", str(out)], 2, "--resume", "another folder")
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good(
    capsys, refused, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    argv = ["--batch-size", "100", "--optimizer", "sgd", "--schedule", "constant"]
    assert train.main([*argv, "--lr", "0.05", "--epochs", "1", "--out", str(out)]) == 0
    capsys.readouterr()
    wild = tmp_path / "wild"
    argv = [*argv, "--lr", "1e12", "--epochs", "2", "--out", str(wild)]
    refused(train.main, argv, 1, "the loss became", "--lr", "last/ keeps")
    import mxnet as mx

    kept = mx.nd.load(str(wild / "last/net.params"))
    assert all(np.isfinite(array.asnumpy()).all() for array in kept.values())
    assert not (wild / "best.params").exists()


@pytest.mark.parametrize("main", [evaluate.main, predict.main])
def test_a_folder_that_is_no_run(refused, tmp_path: Path, main) -> None:
    more = ["x.png"] if main is predict.main else []
    refused(main, [str(tmp_path), *more], 1, "config.json is missing")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("bad") / "run"
    assert train.main(["--epochs", "1", "--batch-size", "500", "--out", str(out)]) == 0
    return out


def test_damaged_runs(refused, small_run: Path, tmp_path: Path) -> None:
    import shutil

    for name, damage, word in (
        ("config.json", lambda b: b[:50], "config.json"),
        (
            "config.json",
            lambda b: b.replace(b'"lenet"', b'"lenet9"'),
            "config.json: model is 'lenet9'",
        ),
        ("config.json", lambda b: b.replace(b'"gluon"', b'"caffe"'), "framework"),
        (
            "config.json",
            lambda b: b.replace(b"[\n    1,", b"[\n    -1,"),
            "input_shape is [-1, 28, 28]",
        ),
        ("config.json", lambda b: b.replace(b"    28,", b"    %d," % 2**40), "[1, 1099511627776"),
        (
            "config.json",
            lambda b: re.sub(rb'"mean": \[\s+[\d.]+', b'"mean": [NaN', b),
            "mean is [NaN]",
        ),
        ("config.json", lambda b: b.replace(b'size": null', b'size": 1000000000'), "image_size"),
        ("config.json", lambda b: b.replace(b'size": 500', b'size": 1' + b"0" * 30), "batch_size"),
        ("config.json", lambda b: b.replace(b'"lr": 0', b'"lr": Infinity, "x": 0'), "x"),
        ("config.json", lambda b: b.replace(b'"lr": 0.003', b'"lr": Infinity'), "lr is inf"),
        ("config.json", lambda b: b.replace(b'maged": false', b'maged": 7'), "skip_damaged"),
        ("config.json", lambda b: b.replace(b'"images": {', b'"images": [], "y": {'), "images"),
        (
            "config.json",
            lambda b: re.sub(rb'"mean": \[\s+[\d.]+', b'"mean": [50', b),
            "mean is [50], expected 1 numbers from 0 to 1",
        ),
        ("config.json", lambda b: re.sub(rb'"std": \[\s+[\d.]+', b'"std": [0', b), "std is [0]"),
        ("config.json", lambda b: b.replace(b'"8"', b'"7"'), "class_names has 7 twice"),
        (
            "config.json",
            lambda b: re.sub(rb'"images": {[^}]*}', b'"images": {}', b),
            "images: train is missing, expected a whole number above 0",
        ),
        (
            "config.json",
            lambda b: re.sub(rb'y_sha256": "..|t_sha256": "..', b't_sha256": "Z', b),
            "content_sha256 is",
        ),
        ("config.json", lambda b: b.replace(b'"images": {', b'"images": {"x": 1,'), "images: x is"),
        (
            "config.json",
            lambda b: b.replace(b'"mean"', b'"means": [], "mean"'),
            "means is no field of a run's configuration; did you mean mean?",
        ),
        ("config.json", lambda b: b.replace(b'"skipped": []', b'"skipped": 3'), "skipped is 3"),
        (
            "config.json",
            lambda b: b.replace(b'"9"', b'"9", "ten"'),
            "(10, 84), lenet as described there takes (11, 84); put back the config.json",
        ),
        (
            "config.json",
            lambda b: b.replace(b'"lenet"', b'"lenet5"'),
            "config.json: lenet5: an inp",
        ),
        ("config.json", lambda b: b.replace(b'"lenet"', b'"lenet_linear"'), "as described there"),
        ("best.params", lambda b: b[:100], "best.params"),
        ("best.params", lambda b: b"", "best.params"),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(small_run, copy)
        content = (copy / name).read_bytes()
        assert damage(content) != content
        (copy / name).write_bytes(damage(content))
        refused(evaluate.main, [str(copy)], 1, word)
        shutil.rmtree(copy)


RUN, IMAGE, OUT = "<the run>", "<an image>", "<a new name>"


@pytest.mark.parametrize(
    ("main", "argv", "code", "words"),
    [
        (evaluate.main, [RUN, "--dataset", "folder:"], 2, ["names no folder"]),
        (evaluate.main, [RUN, "--dataset", "folder:/no/such"], 1, ["/no/such", "no such folder"]),
        (evaluate.main, [RUN, "--dataset", "mnist6k"], 2, ["mnist6k", "did you mean"]),
        (evaluate.main, [RUN, "--data-dir", "/no/such"], 1, ["/no/such"]),
        (evaluate.main, [RUN, "--ctx", "tpu"], 2, ["tpu"]),
        (evaluate.main, [RUN, "more"], 2, ["more"]),
        (evaluate.main, [], 2, ["RUN"]),
        (evaluate.main, [IMAGE], 1, ["is a file, expected the folder of a run"]),
        (predict.main, [RUN], 2, ["IMAGE"]),
        (predict.main, [RUN, "/no/such.png"], 1, ["/no/such.png: no such file"]),
        (predict.main, [RUN, "/no/*.png"], 1, ["'/no/*.png' fits no file"]),
        (predict.main, [RUN, "/dev/null"], 1, ["/dev/null: a device"]),
        (predict.main, [RUN, RUN + "/last"], 1, ["holds no image"]),
        (predict.main, [RUN, IMAGE, "--out", "x.txt"], 2, ["--out", ".csv or .json"]),
        (predict.main, [RUN, IMAGE, "--grid", "x.jpg"], 2, ["--grid", ".png"]),
        (predict.main, [RUN, IMAGE, "--out", "/no/such/x.csv"], 1, ["there is no folder /no/such"]),
        (predict.main, [RUN, IMAGE, "--top", "0"], 2, ["--top", "'0'"]),
        (predict.main, [RUN, "a\0b"], 1, ["cannot be read"]),
        (inspect.main, [RUN, "/no/such.png"], 1, ["/no/such.png: no such file"]),
        (inspect.main, [RUN, IMAGE, "--out", IMAGE], 1, ["is a file, expected a folder"]),
        (export.main, ["--model", "lenet", "--out", "/proc/x"], 1, ["--out /proc/x cannot be"]),
        (export.main, ["--model", "lenet", "--out", OUT + "\udcff"], 2, ["not UTF-8"]),
        (predict.main, [RUN + "\udcff", IMAGE], 2, ["\\udcff", "not UTF-8"]),
        (predict.main, [RUN, IMAGE, "--grid", IMAGE + "/x.png"], 1, ["is a file"]),
        (export.main, [RUN, "--out", RUN], 2, ["already holds files"]),
        (export.main, ["--model", "lenet9", "--out", OUT], 2, ["lenet9", "did you mean"]),
        (summary.main, ["lenet9"], 2, ["lenet9"]),
        (launch.main, ["-n", "2"], 2, ["no command"]),
        (launch.main, ["-n", "2", "--stall-timeout", "-1", "--", "true"], 2, ["--stall-timeout"]),
        (launch.main, ["-n", "2", "--launcher", "ssh", "-H", RUN, "--", "true"], 1, ["cannot be"]),
    ],
)
def test_what_the_other_commands_refuse(
    refused, small_run: Path, tmp_path: Path, main, argv: list[str], code: int, words: list[str]
) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "image.png")
    for name, path in ((RUN, small_run), (IMAGE, tmp_path / "image.png"), (OUT, tmp_path / "new")):
        argv = [word.replace(name, str(path)) for word in argv]
    before = sorted(path for path in small_run.rglob("*"))
    refused(main, argv, code, *words)
    assert sorted(path for path in small_run.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_data_that_do_not_fit_the_run(refused, small_run: Path, tmp_path: Path) -> None:
    for label in range(12):
        (tmp_path / "d" / f"c{label:02}").mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(np.full((28, 28), 20 * label + i, np.uint8))
            image.save(tmp_path / "d" / f"c{label:02}" / f"{i}.png")
    argv = [str(small_run), "--dataset", f"folder:{tmp_path / 'd'}"]
    refused(evaluate.main, argv, 1, "12 classes", "10 outputs")


def test_predict_names_the_file_it_cannot_read(refused, small_run: Path, tmp_path: Path) -> None:
    (tmp_path / "zero.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    for name in ("zero.png", "text.jpg", "none.png"):
        refused(predict.main, [str(small_run), str(tmp_path / name)], 1, name)


def test_a_damaged_checkpoint_is_refused(refused, small_run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(small_run, copy)
    manifest = json.loads((copy / "last/manifest.json").read_text())
    for name in manifest["sha256"]:
        path = copy / "last" / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        argv = ["--resume", "--epochs", "2", "--out", str(copy)]
        refused(train.main, argv, 1, name, "damaged")
        path.write_bytes(content)
