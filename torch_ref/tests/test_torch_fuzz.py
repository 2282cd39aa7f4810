"""Hostile parameter and symbol files and command lines; see `cnn_data.tests.fuzzing`."""

from collections.abc import Callable
from pathlib import Path

import pytest

import mxnet_files.__main__ as symbol
from cnn_data import DataError
from cnn_data.tests.command_lines import AMOUNTS, check_command_lines, lay_out
from cnn_data.tests.fuzzing import fuzz
from mxnet_files.checking import zoo
from mxnet_files.errors import SymbolError
from mxnet_files.survey import Model, survey
from torch_ref import train, transfer
from torch_ref.tests.targets import COMMANDS as ON_FILES
from torch_ref.tests.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 8 if name in ON_FILES else 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files_are_read_or_refused(name: str) -> None:
    fuzz(TARGETS[name], 2_000 if name in ON_FILES else 5_000)


def named(command: str) -> Callable[[list[str]], int]:
    """A command of `mxnet-files`."""
    return lambda argv: symbol.main([command, *argv])


COMMANDS: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "train": (train.main, [
        "--model", "--dataset", "--recipe", "--epochs", "--batch-size", "--lr", "--momentum",
        "--seed", "--ctx", "--device", "--out", "--resume", "--image-size", "--data-dir", "--fit",
        "--classes", "--schedule", "--optimizer", "--wd", "--amp",
    ]),
    "transfer": (transfer.main, ["--like", "--force", "x.params", "x.pt", "x.safetensors", "pipe"]),
    "symbol": (symbol.main, [
        "--out", "x.pt2", "--onnx", "--check", "--input-shape", "1,3,224,224", "--code",
    ]),
    "zoo": (zoo.main, ["resnet50_v1", "alexnet"]),
    "report": (named("report"), ["."]),
    "diff": (named("diff"), ["x.params", "x.pt"]),
    "map": (named("map"), [
        "--symbol", "--torch", "torch.nn:ReLU", "--input", "1,3", "--out", "x.pt", "--budget",
    ]),
}  # fmt: skip


@pytest.fixture
def hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    lay_out(folder)
    monkeypatch.chdir(folder)

    def no_data(config: object, data_dir: object, shape: object, **_: object) -> None:
        raise DataError("no data here")

    def near(place: Path) -> list[Model]:
        if not place.resolve().is_relative_to(folder):
            raise SymbolError(f"{place} is not searched here")  # it may be the whole disk
        return survey(place)

    def no_model(name: str, folder: Path) -> None:
        raise SymbolError(f"{name} is not made here")

    monkeypatch.setattr("cnn_harness.train_command.load_data", no_data)
    monkeypatch.setattr("mxnet_files.checking.zoo.check_model", no_model)
    monkeypatch.setattr("mxnet_files.survey.survey", near)
    return folder


@pytest.mark.parametrize("examples", AMOUNTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_command_lines(command: str, examples: int, hostile_folder: Path) -> None:
    check_command_lines(*COMMANDS[command], examples, hostile_folder)
