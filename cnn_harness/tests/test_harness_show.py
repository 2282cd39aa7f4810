"""What a run shows: monitor and pictures."""

import csv
import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from cnn_harness.monitor import METRICS, RunMonitor
from cnn_harness.plots import save_confusion, save_grid
from cnn_harness.runfolder import RunFolder


def _row(epoch: int) -> dict:
    return dict(
        zip(METRICS, (epoch, 0.5, 0.81234, 0.4, 0.9, 0.99, 0.01, 1.26, 4000.0), strict=True)
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_epoch_line_is_doc_2s(tmp_path: Path) -> None:
    stream = io.StringIO()
    with RunMonitor(RunFolder(tmp_path), "t", stream=stream) as monitor:
        monitor.start_epoch(1, 2, 100)
        monitor.progress(100, 0.5, 0.8)
        monitor.end_epoch(_row(1))
    assert stream.getvalue() == (
        "epoch:1,train_loss:0.5000,train_acc:0.812,test_acc:0.900,time:1.3 sec\n"
    )


def test_a_terminal_gets_a_bar_with_loss_and_speed(tmp_path: Path, monkeypatch) -> None:
    # tqdm draws every 0.1 s at most, and these epochs may be over before
    monkeypatch.setattr("cnn_harness.monitor.tqdm", partial(tqdm, mininterval=0))
    stream = Terminal()
    with RunMonitor(RunFolder(tmp_path), "t", stream=stream) as monitor:
        monitor.start_epoch(1, 2, 100)
        monitor.progress(50, 0.1234, 0.8)
        monitor.progress(100, 0.1234, 0.8)
        monitor.end_epoch(_row(1))
        monitor.start_epoch(2, 2, 100)
        monitor.progress(100, 0.1, 0.9)
    text = stream.getvalue()
    assert "loss=0.1234" in text
    assert "images/s" in text.replace("? images/s", "")
    assert "200/200" in text  # one bar for the run, however short its epochs
    assert "epoch:1,train_loss:0.5000" in text


def test_long_silence_is_broken_by_a_plain_line(tmp_path: Path, monkeypatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(RunMonitor, "SILENCE", 0.0)
    with RunMonitor(RunFolder(tmp_path), "t", stream=stream) as monitor:
        monitor.start_epoch(1, 2, 100)
        monitor.progress(50, 0.1234, 0.8)
    assert stream.getvalue() == "epoch 1: 50/100 images, loss 0.1234, accuracy 0.800\n"


def test_a_loss_that_rounds_to_zero_has_no_sign(tmp_path: Path, monkeypatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(RunMonitor, "SILENCE", 0.0)
    with RunMonitor(RunFolder(tmp_path), "t", stream=stream) as monitor:
        monitor.start_epoch(1, 2, 100)
        monitor.progress(50, -1.4e-6, 1.0)  # MXNet's of a single class
        monitor.end_epoch({**_row(1), "train_loss": -1.4e-6})
    assert "loss 0.0000," in stream.getvalue()
    assert "train_loss:0.0000," in stream.getvalue()


def test_a_resumed_run_begins_with_the_checkpoints_rows(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_metrics([_row(1), _row(2), _row(3)])
    with RunMonitor(folder, "t", stream=io.StringIO()) as monitor:
        monitor.resume([_row(1)])
        assert _epochs(tmp_path) == [1]
        monitor.end_epoch(_row(2))
    assert _epochs(tmp_path) == [1, 2]
    (tmp_path / "metrics.jsonl").unlink()
    with RunMonitor(folder, "t", stream=io.StringIO()) as monitor:
        monitor.resume([_row(1), _row(2)])
    assert _epochs(tmp_path) == [1, 2]


def _epochs(folder: Path) -> list[int]:
    with (folder / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(METRICS)
    assert [int(row["epoch"]) for row in table] == _epochs_of_lines(folder)
    assert float(table[0]["train_acc"]) == 0.81234
    return _epochs_of_lines(folder)


def test_rows_of_an_older_version_have_empty_cells(tmp_path: Path) -> None:
    old = {name: value for name, value in _row(1).items() if name != "lr"}
    RunFolder(tmp_path).write_metrics([old, _row(2)])
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert header == ",".join(METRICS)
    assert [line.split(",")[METRICS.index("lr")] for line in lines] == ["", "0.01"]


def _epochs_of_lines(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["epoch"] for line in lines]


def test_tensorboard_events_hold_the_metrics(tmp_path: Path) -> None:
    with RunMonitor(RunFolder(tmp_path), "t", tensorboard=True, stream=io.StringIO()) as monitor:
        monitor.end_epoch(_row(1))
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"test_acc" in events.read_bytes()


@pytest.mark.parametrize("count", [1, 7, 20])
@pytest.mark.parametrize("channels", [1, 3])
def test_grids_of_any_length(tmp_path: Path, count: int, channels: int) -> None:
    images = np.zeros((count, 8, 8, channels), np.uint8)
    save_grid(tmp_path / "g.png", images, ["cat"] * count, ["dog"] * count)
    assert min(Image.open(tmp_path / "g.png").size) > 50


def test_a_confusion_matrix_with_an_empty_class(tmp_path: Path) -> None:
    save_confusion(tmp_path / "c.png", np.array([[3, 1], [0, 0]]), ["plane", "car"], "t")
    assert Image.open(tmp_path / "c.png").size[0] > 300
