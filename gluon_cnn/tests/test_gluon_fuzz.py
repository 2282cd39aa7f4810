"""Hostile files of runs and exports, and hostile command lines; see `data.tests.fuzzing`."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import prepare
from data.tests.fuzzing import fuzz
from gluon_cnn import evaluate, export, predict, summary, train
from gluon_cnn.tests.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 60)


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
}
_FLAGS = [
    "--model", "--dataset", "--recipe", "--epochs", "--batch-size", "--lr", "--momentum", "--seed",
    "--ctx", "--out", "--resume", "--image-size", "--json", "--data-dir", "--top", "--input-size",
    "--onnx", "--fit", "--classes", "--help", "--", "-", "-x", "--no-such", "--schedule",
]  # fmt: skip
_VALUES = [
    "", " ", "0", "-1", "1e400", "nan", "9" * 400, "2147483648", "٣", "1_0", "0x10", "lenet",
    "alexnet", "lenet5", "gpu:0", "cpu:9999", "cpu:", "previous", "folder:", "folder:/",
    "folder:/dev/null",
    "/dev/null", "/dev/zero", "/", "/proc/self/mem", "/none/x", "..", "file", "pipe", "empty",
    "a\nb", "\x1b[31m", "é" * 50, "\udcff", "a" * 5_000, "%s%n", "{0}", "$(id)", "mnist", "cifar10",
]  # fmt: skip


def _command_line(few: bool, flags: list[str]) -> st.SearchStrategy[list[str]]:
    words = st.sampled_from(flags) | st.sampled_from(_VALUES)
    if not few:
        words = words | st.text(st.characters(exclude_characters="\0"), max_size=20)
    return st.lists(words, max_size=7)


def _command_lines_are_refused(
    main: Callable[[list[str]], int], examples: int, folder: Path
) -> None:
    def check(argv: list[str]) -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(argv)
        assert code in (0, 1, 2), argv
        if code:
            lines = err.getvalue().strip("\n").splitlines()
            assert len(lines) == 1, (argv, lines)
        assert {path.name for path in folder.iterdir()} == {"file", "pipe", "empty"}, argv

    # An export of a model takes seconds, and has tests of its own.
    flags = [flag for flag in _FLAGS if main is not export.main or flag != "--model"]
    settings(
        max_examples=examples, deadline=20_000, database=None, derandomize=examples < 500,
        suppress_health_check=list(HealthCheck),
    )(given(argv=_command_line(examples < 500, flags))(check))()  # fmt: skip


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "file").write_bytes(b"{}")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("harness.train_command.load_data", _no_data)
    monkeypatch.setattr("data.prepare.build", _no_network)
    return folder


def _no_data(config, data_dir, shape):
    from data import DataError, load_dataset

    if config.dataset.startswith("folder:"):
        return load_dataset(config.dataset, data_dir, image_size=config.image_size or shape[1])
    raise DataError(f"{config.dataset!r} is not loaded here")


def _no_network(*_):
    from data import DataError

    raise DataError("no network here")


@pytest.mark.parametrize("command", COMMANDS)
def test_command_lines(command: str, hostile_folder: Path) -> None:
    _command_lines_are_refused(COMMANDS[command], 40, hostile_folder)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", COMMANDS)
def test_many_command_lines(command: str, hostile_folder: Path) -> None:
    _command_lines_are_refused(COMMANDS[command], 3_000, hostile_folder)
