"""Flags as people type them, and files that hold them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_harness.config import GROUPS, TrainConfig
from cnn_harness.errors import UsageError
from cnn_harness.tests.frameworks import NOTHING_TRAINS
from cnn_harness.train_flags import config_words, read_flags


def _read(*argv: str) -> dict[str, Any]:
    return read_flags(NOTHING_TRAINS, argv, "train")[0]


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        (("--weight-decay", "0.5"), ("wd", 0.5)),
        (("--img-size", "32"), ("image_size", 32)),
        (("--opt", "sgd"), ("optimizer", "sgd")),
        (("--sched", "linear"), ("schedule", "linear")),
        (("--no-nesterov",), ("nesterov", False)),
    ],
)
def test_what_people_type_is_understood(typed: tuple[str, ...], field: tuple[str, Any]) -> None:
    assert _read(*typed) == dict([field])


def test_where_to_run_has_other_names_too() -> None:
    _, options = read_flags(NOTHING_TRAINS, ["--device", "cpu", "--output", "x"], "train")
    assert (options.ctx, options.out) == ("cpu", "x")


def test_help_is_in_groups(capsys) -> None:
    with pytest.raises(SystemExit):
        _read("--help")
    text = capsys.readouterr().out
    places = [text.index(f"\n{title}:\n") for title in GROUPS]
    assert places == sorted(places)
    assert "--wd, --weight-decay F" in text
    assert places[0] < text.index("--dataset NAME") < places[1]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["--epoch", "3"], "--epochs"), (["--opt", "sdg"], "sgd"), (["--schedul=x"], "--schedule")],
)
def test_a_near_miss_is_answered(typed: list[str], meant: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        _read(*typed)
    assert stop.value.code == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err


def test_a_file_holds_flags_and_the_command_line_wins(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("model: lenet\nlr: 1e-3\nimg-size: 28\nnesterov: false\nstep_epochs: null\n")
    assert _read("--config", str(file), "--lr", "0.5") == {
        "model": "lenet", "lr": 0.5, "image_size": 28, "nesterov": False,
    }  # fmt: skip


@pytest.mark.parametrize("nested", [True, False])
def test_a_runs_own_configuration_is_one(nested: bool, tmp_path: Path) -> None:
    config = TrainConfig(optimizer="sgd", momentum=0.5, nesterov=True, lr=0.125)
    file = tmp_path / "config.json"
    run = {"format": 1, "framework": "gluon", "config": config.to_dict(), "data_dir": "/there"}
    file.write_text(json.dumps(run if nested else config.to_dict()))
    changes, options = read_flags(NOTHING_TRAINS, ["--config", str(file)], "train")
    assert TrainConfig(**changes) == config
    assert options.data_dir == ("/there" if nested else None)
    assert _read("--config", str(file), "--no-nesterov")["nesterov"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: fast", "--learning-rate: got 'fast', expected a finite number"),
        ("model: lenet\nepoch: 3", "'epoch': no such flag of train; did you mean epochs?"),
        (
            "Batch-size: 3\nlearnin-rate: 1",
            "'Batch-size', 'learnin-rate': no such flag of train; did "
            "you mean batch_size, learning_rate?",
        ),
        ("shuffle: true", "'shuffle': no such flag of train"),
        ("config: x.yaml", "'config': no such flag of train"),
        ("lr: {a: 1}", "lr is {'a': 1}, expected one value"),
        ("- lr", "['lr'], expected an object"),
        ("[", "neither JSON nor YAML"),
        ("help: true", "'help': no such flag"),
        ("optimizer: sdg", "did you mean sgd?"),
    ],
)
def test_a_file_that_is_none_is_named(text: str, said: str, tmp_path: Path, capsys) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    try:
        _read("--config", str(file))
        error = ""
    except UsageError as refused:
        error = str(refused)
    except SystemExit:
        error = capsys.readouterr().err
    assert str(file) in error
    assert said in error


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("none.yaml", "none.json"):
        with pytest.raises(UsageError, match=f"{name}: No such file"):
            _read("--config", str(tmp_path / name))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(
    text=st.one_of(
        st.binary(max_size=60),
        st.dictionaries(st.sampled_from(["lr", "model", "config", "epoch", "2"]), _VALUES).map(
            lambda values: json.dumps(values).encode()
        ),
        st.sampled_from(
            [b"[" * 5000, b"lr: 2026-01-01", b"lr: !!binary aGk=", b"? [1]\n: 2", b"&a [*a]"]
        ),
    ),
    suffix=st.sampled_from(["json", "yaml"]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_file_holds_it_is_words_or_refused(
    text: bytes, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"c.{suffix}"
    file.write_bytes(text)
    words, refusal = [], ""
    try:
        words = config_words(file, ["--lr", "--model", "--epochs"])
    except UsageError as error:
        refusal = str(error)
    assert str(file) in refusal or not refusal
    assert all(word.startswith("--") for word in words)
