"""Hostile files of runs and exports, and hostile command lines; see `cnn_data.tests.fuzzing`."""

from pathlib import Path

import pytest

from cnn_data import prepare
from cnn_data.tests.command_lines import AMOUNTS, check_command_lines, lay_out
from cnn_data.tests.fuzzing import fuzz
from gluon_cnn import evaluate, export, launch, predict, summary, train
from gluon_cnn.exporting.params_layout import LayoutError, read_layout
from gluon_cnn.runtime import command as runtime_command
from gluon_cnn.tests.targets import TARGETS, check_params, params_seeds


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 60)


def test_a_name_that_mxnet_cuts_short_is_refused(tmp_path: Path) -> None:
    seed = next(content for content in params_seeds() if b"arg:a" in content)
    check_params(seed.replace(b"arg:a", b"\0rg:a"))  # MXNet reads it as the name ""
    (tmp_path / "x.params").write_bytes(seed.replace(b"arg:a", b"ar\0:a"))
    with pytest.raises(LayoutError, match="zero byte"):
        read_layout(tmp_path / "x.params")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 5_000)


COMMANDS = {
    "train": train.main,
    "evaluate": evaluate.main,
    "predict": predict.main,
    "export": export.main,
    "summary": summary.main,
    "prepare": prepare.main,
    "launch": launch.main,
    "runtime": runtime_command.main,
}
FLAGS = [
    "--model", "--dataset", "--recipe", "--epochs", "--batch-size", "--lr", "--momentum", "--seed",
    "--ctx", "--out", "--resume", "--image-size", "--data-dir", "--top", "--input-size", "--onnx",
    "--fit", "--classes", "--schedule",
]  # fmt: skip
OWN = {
    "launch": ["-n", "-s", "-H", "1", "2", "--launcher", "ssh", "mpi", "--address", "true"],
    "runtime": ["--tune", "--tune=lenet"],
    # An export of a model takes seconds, and has tests of its own.
    "export": [flag for flag in FLAGS if flag != "--model"],
}


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    lay_out(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cnn_harness.train_command.load_data", _no_data)
    monkeypatch.setattr("cnn_data.prepare.build", _no_network)
    # Whole jobs and measurements have tests of their own.
    monkeypatch.setattr("gluon_cnn.launch.Supervisor", _not_here)
    monkeypatch.setattr("gluon_cnn.runtime.command.tune", _not_here)
    return folder


def _no_data(config, data_dir, shape, *, skip_damaged=False):
    from cnn_data import DataError, load_dataset

    if config.dataset.startswith("folder:"):
        return load_dataset(config.dataset, data_dir, image_size=config.image_size or shape[1])
    raise DataError(f"{config.dataset!r} is not loaded here")


def _no_network(*_, **__):
    from cnn_data import DataError

    raise DataError("no network here")


def _not_here(*_, **__):
    from cnn_harness.errors import CommandError

    raise CommandError("not here")


@pytest.mark.parametrize("examples", AMOUNTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_lines(command: str, examples: int, hostile_folder: Path) -> None:
    flags = OWN.get(command, FLAGS)
    check_command_lines(COMMANDS[command], flags, examples, hostile_folder)
