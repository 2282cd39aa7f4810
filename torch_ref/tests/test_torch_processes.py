"""The mirror under torchrun: several processes over gloo and the loopback interface are one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from safetensors.numpy import load_file

from cnn_data import load_dataset
from cnn_harness.errors import CommandError
from cnn_harness.tests.runs import EVERYTHING_ON, wait_until
from cnn_harness.tests.runs import rows as rows_of
from torch_ref import launch
from torch_ref.training import assembly, loop
from torch_ref.training.recipes import DEFAULTS
from torch_ref.training.workers import ALONE, Workers, join

DIGITS = ["--optimizer", "sgd", "--lr", "0.01", "--momentum", "0.9"]
FARTHER = 4.0  # from float64 than one process: the factor of the parity suite's envelopes


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _torchrun(
    processes: int, module: str, *argv: str, port: int | None = None
) -> subprocess.Popen[str]:
    port = port or _free_port()
    return _start(
        "torch.distributed.run", "--nproc-per-node", str(processes), "--master-addr", "127.0.0.1",
        "--master-port", str(port), "-m", module, *argv,
    )  # fmt: skip


def _start(module: str, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
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


def _distance(run: Path, other: Path) -> float:
    """The largest difference of two parameters, relative to the largest value of its array."""
    one, two = (load_file(folder / "last/net.safetensors") for folder in (run, other))
    assert set(one) == set(two)
    return max(np.abs(one[k] - two[k]).max() / np.abs(two[k]).max() for k in one)


@pytest.fixture
def torchrun_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """This process as the only one of a torchrun."""
    for name, value in (
        ("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", _free_port()),
        ("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "1"), ("GLOO_SOCKET_IFNAME", "none"),
    ):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    peers = join(stall=0)  # an idle pytest is no job that hangs
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


@pytest.fixture
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torchrun's agent leaves behind is taken back: handlers of signals, and a variable."""
    monkeypatch.setenv("TORCHELASTIC_SIGNALS_TO_HANDLE", "")
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("as_it_was")
def test_the_launcher_meets_its_processes_at_a_port_of_loopback(tmp_path: Path) -> None:
    tell = (
        'grep " 0A " /proc/net/tcp* >ss$RANK; echo $MASTER_ADDR $MASTER_PORT $WORLD_SIZE >at$RANK'
    )
    assert launch.main(["-n", "2", "--", "sh", "-c", f"cd {tmp_path}; {tell}"]) == 0
    at = {(tmp_path / f"at{rank}").read_text() for rank in (0, 1)}
    ((address, port, count),) = map(str.split, at)
    assert (address, count) == ("127.0.0.1", "2")
    listening = [line.split()[2] for line in (tmp_path / "ss0").read_text().splitlines()]
    assert [where for where in listening if where.endswith(f":{int(port):04X}")] == [
        f"{LOOPBACK}:{int(port):04X}"
    ]


@pytest.mark.usefixtures("as_it_was")
@pytest.mark.parametrize(
    ("does", "code", "how"),
    [("exit 3", 3, "exited with status 3"), ("kill -9 $$", 1, "was killed by SIGKILL")],
)
def test_the_launcher_names_a_process_that_fails(
    does: str, code: int, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = f"if [ $RANK = 1 ]; then {does}; else sleep 60; fi"
    assert launch.main(["-n", "2", "--", "sh", "-c", words]) == code
    said = capfd.readouterr().err
    assert re.fullmatch(rf"error: process 1 \(pid \d+\) {how}; the job was ended; .*\n", said)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["-n", "2"], "no command: put it after --, such as -- python -m torch_ref.train"),
        (["-n", "2", "--", "pythn"], "no program is called 'pythn' here, or it may not be run"),
        (["-n", "0", "--", "python"], "got '0', expected a whole number from 1"),
        (["--", "python"], "required: -n/--workers"),
    ],
)
def test_the_launcher_refuses_bad_usage_in_a_line(argv: list[str], line: str, refused: Any) -> None:
    refused(launch.main, argv, 2, line)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), EVERYTHING_ON], ids=["plain", "everything on"])
def test_two_processes_train_as_one(flags: tuple[str, ...], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    argv = [*DIGITS, "--batch-size", "501", "--epochs", "1", *flags]
    _alone("torch_ref.tests.in_float64", *argv, "--out", str(one))
    out = _together(2, "torch_ref.tests.in_float64", *argv, "--out", str(two))
    assert out.count("best test accuracy") == 1  # the leader alone speaks
    assert _distance(two, one) <= 1e-12
    (row,), (expected,) = rows_of(two), rows_of(one)
    assert row["train_acc"] == expected["train_acc"]
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-12)


@pytest.mark.slow
def test_all_processes_end_where_accuracy_rises_no_more(tmp_path: Path) -> None:
    argv = ["--optimizer", "sgd", "--lr", "1e-30", "--batch-size", "1000", "--patience", "2"]
    out = _together(2, "torch_ref.train", *argv, "--epochs", "9", "--out", str(tmp_path / "run"))
    assert "best test accuracy" in out
    assert len(rows_of(tmp_path / "run")) == 3


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
    (row,) = rows_of(tmp_path / "run")
    assert row["test_acc"] > 0.5


def _process(job: subprocess.Popen[str], rank: int) -> int:
    """The pid of a process of the job."""
    below = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(job.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    return next(pid for pid in map(int, below) if f"\0RANK={rank}\0" in _environment(pid))


def _environment(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text(errors="replace")


FOR_EVER = [*DIGITS, "--epochs", "5000", "--schedule", "constant", "--out"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_process_ends_the_job_within_a_minute(rank: int, tmp_path: Path) -> None:
    job = _torchrun(2, "torch_ref.train", *FOR_EVER, str(tmp_path))
    wait_until((tmp_path / "metrics.jsonl").exists)
    victim, other = _process(job, rank), _process(job, 1 - rank)
    os.kill(victim, signal.SIGSTOP)
    stopped = time.monotonic()
    _, err = job.communicate(timeout=100)
    assert 40 < time.monotonic() - stopped < 60
    assert job.returncode == 1
    said = [line for line in err.splitlines() if line.startswith("error: ")]
    host = socket.gethostname()
    assert said == [f"error: process {rank} (pid {victim} on {host}) hangs: it is stopped, "
                    "for 40 s; the job was ended; continue it with --resume"]  # fmt: skip
    assert not any(Path(f"/proc/{pid}").exists() for pid in (victim, other))


@pytest.mark.slow
def test_a_pipe_that_nobody_reads_ends_the_job_within_the_limit(tmp_path: Path) -> None:
    job = _torchrun(
        2, "torch_ref.tests.in_full_pipe", "--stall-timeout", "10", *FOR_EVER, str(tmp_path)
    )
    wait_until((tmp_path / "metrics.jsonl").exists)
    began = time.monotonic()
    _, err = job.communicate(timeout=100)
    assert 10 < time.monotonic() - began < 30
    assert job.returncode == 1
    (said,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert said.startswith("error: process 0 (pid ")
    assert said.endswith(", for 10 s; the job was ended; continue it with --resume")


LOOPBACK = "0100007F"  # 127.0.0.1, as the kernel's tables have it


def _listens(pid: int) -> set[str]:
    """The addresses, in the kernel's hexadecimal, on which a process listens for others."""
    sockets = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.slow
def test_a_launched_job_talks_over_loopback_and_saves_when_it_is_ended(tmp_path: Path) -> None:
    job = _start("torch_ref.launch", "-n", "2", "--", sys.executable, "-m", "torch_ref.train",
                 *FOR_EVER, str(tmp_path))  # fmt: skip
    wait_until((tmp_path / "metrics.jsonl").exists)
    pids = [job.pid, _process(job, 0), _process(job, 1)]
    assert [_listens(pid) for pid in pids] == [{LOOPBACK}] * 3
    job.terminate()
    _, err = job.communicate(timeout=100)
    assert job.returncode == 128 + signal.SIGTERM
    *workers, last = err.splitlines()
    assert last == "error: SIGTERM: the job was ended; continue it with --resume"
    assert any("saved" in line for line in workers)
    assert "stopped by SIGTERM, as process 0 was" in workers
    assert not [line for line in workers if line.startswith("error")]


@pytest.mark.slow
def test_torchruns_processes_talk_over_loopback_and_keep_their_port(tmp_path: Path) -> None:
    port, first = _free_port(), tmp_path / "first"
    job = _torchrun(2, "torch_ref.train", *FOR_EVER, str(first), port=port)
    try:
        wait_until((first / "metrics.jsonl").exists)
        assert [_listens(_process(job, rank)) for rank in (0, 1)] == [{LOOPBACK}] * 2
        assert _listens(job.pid) == {"0" * 32}  # torch's own, on every interface
        again = ["--epochs", "1", "--out", str(tmp_path / "second")]
        _, err = _torchrun(2, "torch_ref.train", *again, port=port).communicate(timeout=100)
        assert err.strip().splitlines()[-1].startswith("torch.distributed.DistNetworkError: ")
        assert "EADDRINUSE" in err
        assert not (tmp_path / "second").exists()
        beside = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
        done = subprocess.run(
            [*beside, "torch_ref.train", *again], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr  # without a port one is found
        assert job.poll() is None
    finally:
        job.terminate()
        job.communicate(timeout=60)


@pytest.mark.slow
def test_a_killed_process_ends_the_job_which_then_resumes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = _torchrun(2, "torch_ref.train", *FOR_EVER, str(run))
    wait_until((run / "metrics.jsonl").exists)
    os.kill(_process(job, 1), signal.SIGKILL)
    killed = time.monotonic()
    _, err = job.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert job.returncode != 0
    assert "SIGKILL" in err or "-9" in err
    assert "rank" in err
    epochs = str(len(rows_of(run)) + 1)
    _together(2, "torch_ref.train", "--resume", "--epochs", epochs, "--out", str(run))
    assert len(rows_of(run)) == int(epochs)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_hang_in_a_launched_job_is_one_line(rank: int, tmp_path: Path) -> None:
    job = _start("torch_ref.launch", "-n", "2", "--", sys.executable, "-m", "torch_ref.train",
                 "--stall-timeout", "10", *FOR_EVER, str(tmp_path))  # fmt: skip
    wait_until((tmp_path / "metrics.jsonl").exists)
    os.kill(_process(job, rank), signal.SIGSTOP)
    _, err = job.communicate(timeout=100)
    assert job.returncode == 1
    (said,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"process {rank} (pid " in said
    assert " hangs: it is stopped, for 10 s" in said
