"""The mirror under torchrun: several processes over gloo and the loopback interface are one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.numpy import load_file

from cnn_data import load_dataset
from cnn_harness.errors import CommandError
from cnn_harness.tests.runs import EVERYTHING_ON
from torch_ref.training import assembly, loop
from torch_ref.training.recipes import DEFAULTS
from torch_ref.training.workers import ALONE, Workers, join

DIGITS = ["--optimizer", "sgd", "--lr", "0.01", "--momentum", "0.9"]
FARTHER = 4.0  # from float64 than one process: the factor of the parity suite's envelopes


def _torchrun(processes: int, module: str, *argv: str) -> subprocess.Popen[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
                "--master-addr", "127.0.0.1", "--master-port", str(port), "-m", module]  # fmt: skip
    return subprocess.Popen(
        [*launcher, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _together(processes: int, module: str, *argv: str) -> str:
    job = _torchrun(processes, module, *argv)
    out, err = job.communicate(timeout=280)
    assert job.returncode == 0, err
    return out


def _alone(module: str, *argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _rows(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: r[k] for k in r if k not in ("seconds", "images_per_second")} for r in rows]


def _distance(run: Path, other: Path) -> float:
    """The largest difference of two parameters, relative to the largest value of its array."""
    one, two = (load_file(folder / "last/net.safetensors") for folder in (run, other))
    assert set(one) == set(two)
    return max(np.abs(one[k] - two[k]).max() / np.abs(two[k]).max() for k in one)


@pytest.fixture
def torchrun_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """This process as the only one of a torchrun."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in (
        ("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port),
        ("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "1"), ("GLOO_SOCKET_IFNAME", "none"),
    ):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    peers = join()
    assert isinstance(peers, Workers)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"  # nobody has asked for another
    yield peers
    dist.destroy_process_group()


def test_one_process_of_one_trains_as_it_does_alone(torchrun_of_one: Workers) -> None:
    assert torchrun_of_one.share({"a": [1, "é"]}) == {"a": [1, "é"]}
    assert torchrun_of_one.sum(np.array([1.5, 2.0])).tolist() == [1.5, 2.0]
    config = DEFAULTS["lenet"].replace(epochs=1, batch_size=30)
    dataset = load_dataset("mnist5k")
    trained = []
    for peers in (torchrun_of_one, ALONE):
        training = assembly.prepare(config, dataset, "cpu", peers)
        for _, (x, y) in zip(range(3), training.train.epoch(1), strict=False):
            moved = assembly.to_device(x, y, training.device)
            loop.train_step(training.together, training.optimizer, [moved], len(x))
        peers.share_training(training.net, training.optimizer)
        trained.append(training)
    one, other = (training.net.state_dict() for training in trained)
    assert type(trained[0].together).__name__ == "DistributedDataParallel"
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_it_is_alone_where_torchrun_did_not_start_it() -> None:
    assert join() is ALONE


def test_a_lost_process_is_one_line() -> None:
    class Two(Workers):
        rank, count = 1, 2

    with (
        pytest.raises(CommandError, match="process 1 has lost another process: gone"),
        Two().joined(),
    ):
        raise RuntimeError("gone\nat length")
    with pytest.raises(RuntimeError, match="mine"), ALONE.joined():
        raise RuntimeError("mine")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), EVERYTHING_ON], ids=["plain", "everything on"])
def test_two_processes_train_as_one(flags: tuple[str, ...], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    argv = [*DIGITS, "--batch-size", "501", "--epochs", "1", *flags]
    _alone("torch_ref.tests.in_float64", *argv, "--out", str(one))
    out = _together(2, "torch_ref.tests.in_float64", *argv, "--out", str(two))
    assert out.count("best test accuracy") == 1  # the leader alone speaks
    assert _distance(two, one) <= 1e-12
    (row,), (expected,) = _rows(two), _rows(one)
    assert row["train_acc"] == expected["train_acc"]
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-12)


@pytest.mark.slow
def test_all_processes_end_where_accuracy_rises_no_more(tmp_path: Path) -> None:
    argv = ["--optimizer", "sgd", "--lr", "1e-30", "--batch-size", "1000", "--patience", "2"]
    out = _together(2, "torch_ref.train", *argv, "--epochs", "9", "--out", str(tmp_path / "run"))
    assert "best test accuracy" in out
    assert len(_rows(tmp_path / "run")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_an_epoch_of_digits_is_that_of_one_process(processes: int, tmp_path: Path) -> None:
    argv = [*DIGITS, "--batch-size", "100", "--epochs", "1", "--out"]
    for name, module in (("32", "torch_ref.train"), ("64", "torch_ref.tests.in_float64")):
        _alone(module, *argv, str(tmp_path / f"one{name}"))
        _together(processes, module, *argv, str(tmp_path / f"several{name}"))
    exact = _distance(tmp_path / "several64", tmp_path / "one64")
    one, several = (_distance(tmp_path / f"{n}32", tmp_path / "one64") for n in ("one", "several"))
    print(f"{processes} processes: float64 {exact:.2g}; from float64: {several:.2g}, one {one:.2g}")
    assert exact <= 1e-12
    assert several <= FARTHER * one


@pytest.mark.slow
def test_batch_norms_statistics_are_the_mean_of_the_processes(tmp_path: Path) -> None:
    argv = ["--model", "mnist_bn_cnn", "--batch-size", "200", "--epochs", "1",
            "--optimizer", "sgd", "--lr", "0.01", "--out"]  # fmt: skip
    _together(2, "torch_ref.train", *argv, str(tmp_path / "run"))
    (row,) = _rows(tmp_path / "run")
    assert row["test_acc"] > 0.5


@pytest.mark.slow
def test_a_killed_process_ends_the_job_which_then_resumes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = _torchrun(2, "torch_ref.train", *DIGITS, "--epochs", "500", "--schedule", "constant",
                    "--out", str(run))  # fmt: skip
    deadline = time.monotonic() + 200
    while not (run / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    below = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(below[-1]), signal.SIGKILL)
    killed = time.monotonic()
    _, err = job.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert job.returncode != 0
    assert "SIGKILL" in err or "-9" in err
    assert "rank" in err
    epochs = str(len(_rows(run)) + 1)
    _together(2, "torch_ref.train", "--resume", "--epochs", epochs, "--out", str(run))
    assert len(_rows(run)) == int(epochs)
