"""A run that is killed, at any moment and as often as it happens, ends as one that was not."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cnn_harness.tests.runs import finish, photographs, same_end, start, wait_until

pytest.importorskip("torch", reason="the mirror is killed too")

PACKAGES = ("gluon_cnn", "torch_ref")
ADAM = ["--model", "lenet", "--augment", "shift", "--batch-size", "50", "--epochs", "4"]
MOMENTUM = ["--optimizer", "sgd", "--lr", "0.02", "--momentum", "0.9"]
BATCH_NORM = ["--model", "mnist_bn_cnn", "--batch-size", "250", "--epochs", "2"]


def _dropout(tmp_path: Path) -> list[str]:
    folder = photographs(tmp_path / "photographs")
    return ["--model", "alexnet", "--dataset", f"folder:{folder}", "--image-size", "67",
            "--augment", "crop-flip", "--batch-size", "5", "--epochs", "3"]  # fmt: skip


def _wait_for_a_checkpoint(run: Path, process: subprocess.Popen[str]) -> None:
    """Or until the run has ended."""
    saved = run / "last" / "manifest.json"
    wait_until(lambda: saved.exists() or process.poll() is not None, 120)


def _killed_run(
    package: str, argv: list[str], out: Path, rng: random.Random, kills: int, number: int
) -> int:
    """Kill a run at random moments after its first checkpoint, resume it, and let it end.

    Returns how many of the kills came before the end; moments are drawn from what is left of the
    run, so that they fall into every part of it.
    """
    hit, longest = 0, 2.0
    for _ in range(kills):
        begun = ["--resume"] if out.exists() else []
        process = start(package, *begun, *argv, "--out", str(out))
        _wait_for_a_checkpoint(out, process)
        time.sleep(rng.uniform(0, longest))
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        # Python says so itself where SIGINT meets it before any line of a program has run.
        starting = number == signal.SIGINT and "init_import_site" in err
        assert starting or process.returncode in (0, -number, 128 + number), err
        hit += process.returncode != 0
    finish(package, "--resume", *argv, "--out", str(out))
    return hit


@pytest.mark.parametrize(
    "package", ["gluon_cnn", pytest.param("torch_ref", marks=pytest.mark.slow)]
)
def test_a_run_killed_twice_ends_with_the_same_bytes(package: str, tmp_path: Path) -> None:
    finish(package, *ADAM, "--out", str(tmp_path / "whole"))
    rng = random.Random(package)
    assert _killed_run(package, ADAM, tmp_path / "parts", rng, 2, signal.SIGKILL) > 0
    same_end(package, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("kind", ["adam", "momentum", "sgd", "dropout", "batch norm"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_every_kind_of_run_survives_many_kills(
    package: str, kind: str, number: signal.Signals, tmp_path: Path
) -> None:
    argv = {
        "adam": ADAM,
        "momentum": [*ADAM, *MOMENTUM],
        "sgd": [*ADAM, *MOMENTUM[:-1], "0"],
        "dropout": _dropout(tmp_path) if kind == "dropout" else [],
        "batch norm": BATCH_NORM,
    }[kind]
    finish(package, *argv, "--out", str(tmp_path / "whole"))
    rng = random.Random(f"{package} {kind} {number}")
    assert _killed_run(package, argv, tmp_path / "parts", rng, 8, number) > 0
    same_end(package, tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("package", "number", "code"),
    [("gluon_cnn", signal.SIGTERM, 143), ("torch_ref", signal.SIGINT, 130)],
)
def test_a_signal_finishes_the_step_and_saves(
    package: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    # 4,000 steps an epoch: no machine ends the first one before the signal
    process = start(package, *ADAM, "--batch-size", "1", "--out", str(out))
    _wait_for_a_checkpoint(out, process)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    manifest = json.loads((out / "last" / "manifest.json").read_text())
    assert manifest["state"]["partial"]["steps"] > 0
    assert f"stopped by {number.name}, saved at step {manifest['state']['step']} of epoch 1" in err
    assert f"python -m {package}.train --resume --out {out}" in err
    assert err.count("\n") == 1, err


def test_a_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = start("gluon_cnn", *ADAM[:-1], "200", "--out", str(out))
    _wait_for_a_checkpoint(out, first)
    for argv, code in ((["--resume"], 1), ([], 2)):
        second = start("gluon_cnn", *argv, "--out", str(out))
        _, err = second.communicate(timeout=120)
        assert second.returncode == code, err
        assert err.count("\n") == 1
        assert "in use by another process" in err if argv else "already holds a run" in err
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=120)
    assert first.returncode == 130, err
