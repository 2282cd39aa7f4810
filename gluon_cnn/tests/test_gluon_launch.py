"""Distributed training on this machine, over MXNet's parameter server and the loopback interface.

One job is run in the default selection; the bars (2 and 4 workers against 1 on an epoch of real
digits, kills of every role) are marked slow.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest

from cnn_harness.errors import CommandError
from cnn_harness.tests.runs import EVERYTHING_ON, wait_until
from cnn_harness.tests.runs import rows as rows_of
from gluon_cnn import launch, train
from gluon_cnn.runtime import settings as runtime

# A rate at which an epoch does not amplify rounding
DIGITS = ["--optimizer", "sgd", "--lr", "0.01", "--momentum", "0.9", "--batch-size", "100"]
TRAIN = ["python", "-m", "gluon_cnn.train"]
IN_FLOAT64 = ["python", "-m", "gluon_cnn.tests.in_float64"]
# How much farther from float64 than one worker's several may end: the factor of the parity
# suite's envelopes. The order in which numbers are added is all that differs.
FARTHER = 4.0


# The job's launcher, whose processes are killed so soon after they were asked to stop
IMPATIENT = (
    "import sys; sys.orig_argv = ['python', '-m', 'gluon_cnn.launch']\n"
    "from functools import partial\n"
    "from gluon_cnn import launch\n"
    "launch.Limits = partial(launch.Limits, grace=1.0)\n"
    "sys.exit(launch.main())"
)


def _started(
    workers: int, servers: int, *command: str, launcher: Sequence[str] = ("-m", "gluon_cnn.launch")
) -> subprocess.Popen[str]:
    argv = [sys.executable, *launcher, "-n", str(workers), "-s", str(servers), "--"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MXNET_"))}
    return subprocess.Popen(
        [*argv, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip


def _run(workers: int, servers: int, *command: str) -> str:
    job = _started(workers, servers, *command)
    out, err = job.communicate(timeout=280)
    assert job.returncode == 0, err
    return out + err


def _alone(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, *command[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def _parameters(run: Path) -> dict[str, np.ndarray]:
    return {k: v.asnumpy() for k, v in mx.nd.load(str(run / "last/net.params")).items()}


def _distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference of two parameters, relative to the largest value of its array."""
    assert set(one) == set(other)
    return max(np.abs(one[k] - other[k]).max() / np.abs(other[k]).max() for k in one)


def _descendants(pid: int) -> dict[int, str]:
    """All processes below one, with their command lines."""
    found, front = {}, [pid]
    while front:
        below = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", ",".join(map(str, front))],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        lines = [line.split(None, 1) for line in below.splitlines()]
        front = [int(number) for number, _ in lines]
        found.update({int(number): args for number, args in lines})
    return found


def _kill_when_it_learns(job: subprocess.Popen[str], mark: str, run: Path) -> set[int]:
    """SIGKILL the process whose command line has `mark`; returns the pids of the whole job."""
    metrics = run / "metrics.jsonl"
    wait_until(lambda: job.poll() is not None or (metrics.exists() and bool(rows_of(run))))
    assert job.poll() is None, job.communicate()[1]
    everyone = _descendants(job.pid)
    (victim, *_) = (
        p for p, a in everyone.items() if mark in a and "cnn_harness.jobs.node" not in a
    )
    os.kill(victim, signal.SIGKILL)
    return set(everyone)


def _all_gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_two_workers_train_as_one_until_one_is_killed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [*DIGITS, "--schedule", "constant"]
    command = [*TRAIN, *flags, "--epochs", "500", "--out", str(two)]
    job = _started(2, 1, *command, launcher=["-c", IMPATIENT])
    assert train.main([*flags, "--epochs", "1", "--out", str(one)]) == 0
    everyone = _kill_when_it_learns(job, "gluon_cnn.train", two)
    killed = time.monotonic()
    out, err = job.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert job.returncode == 1
    assert re.search(r"error: worker of rank [01] \(pid \d+ on .*\) was killed by SIGKILL", err)
    assert "--resume" in err
    assert out == ""
    assert _all_gone(everyone)
    (row,), (first, *_) = rows_of(one), rows_of(two)
    assert row.keys() == first.keys()
    for name in ("train_loss", "test_loss"):
        assert first[name] == pytest.approx(row[name], rel=1e-5)
    assert first["train_acc"] == row["train_acc"]


@pytest.fixture(scope="module")
def epoch_of_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An epoch of mnist5k by one worker, in float32 and in float64."""
    folder = tmp_path_factory.mktemp("epoch")
    for command, name in ((TRAIN, "float32"), (IN_FLOAT64, "float64")):
        _alone(*command, *DIGITS, "--epochs", "1", "--out", str(folder / name))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (4, 2)])
def test_an_epoch_in_float64_is_that_of_one_worker(
    epoch_of_digits: Path, workers: int, servers: int, tmp_path: Path
) -> None:
    _run(workers, servers, *IN_FLOAT64, *DIGITS, "--epochs", "1", "--out", str(tmp_path / "r"))
    one, several = _parameters(epoch_of_digits / "float64"), _parameters(tmp_path / "r")
    assert {a.dtype for a in several.values()} == {np.dtype("float64")}
    distance = _distance(several, one)
    print(f"{workers} workers in float64: {distance:.2g} of the largest value")
    assert distance <= 1e-12


@pytest.mark.slow
def test_every_feature_is_that_of_one_worker(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    command = [*IN_FLOAT64, *DIGITS, "--epochs", "1", *EVERYTHING_ON, "--out"]
    _alone(*command, str(one))
    _run(2, 1, *command, str(two))
    assert _distance(_parameters(two), _parameters(one)) <= 1e-12
    (row,), (expected,) = rows_of(two), rows_of(one)
    assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-12)


@pytest.mark.slow
def test_all_workers_end_where_accuracy_rises_no_more(tmp_path: Path) -> None:
    argv = ["--optimizer", "sgd", "--lr", "1e-30", "--batch-size", "1000", "--patience", "2"]
    _run(2, 1, *TRAIN, *argv, "--epochs", "9", "--out", str(tmp_path / "run"))
    assert len(rows_of(tmp_path / "run")) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "servers"), [(2, 1), (4, 2)])
def test_an_epoch_in_float32_rounds_as_one_workers(
    epoch_of_digits: Path, workers: int, servers: int, tmp_path: Path
) -> None:
    _run(workers, servers, *TRAIN, *DIGITS, "--epochs", "1", "--out", str(tmp_path / "r"))
    referee = _parameters(epoch_of_digits / "float64")
    one = _distance(_parameters(epoch_of_digits / "float32"), referee)
    several = _distance(_parameters(tmp_path / "r"), referee)
    print(f"from float64: 1 worker {one:.2g}, {workers} workers {several:.2g}")
    assert several <= FARTHER * one
    (row,), (expected,) = rows_of(tmp_path / "r"), rows_of(epoch_of_digits / "float32")
    assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["import gluon_cnn"])
@pytest.mark.parametrize("nth", [0, 1], ids=["scheduler or server", "the other"])
def test_a_killed_server_or_scheduler_ends_the_job(mark: str, nth: int, tmp_path: Path) -> None:
    run = tmp_path / "r"
    job = _started(2, 1, *TRAIN, *DIGITS, "--epochs", "500", "--out", str(run))
    wait_until((run / "metrics.jsonl").exists)
    everyone = _descendants(job.pid)
    victims = [p for p, a in everyone.items() if mark in a and "cnn_harness.jobs.node" not in a]
    assert len(victims) == 2
    os.kill(victims[nth], signal.SIGKILL)
    killed = time.monotonic()
    _, err = job.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert job.returncode == 1
    assert re.search(r"error: (server 0|scheduler) \(pid \d+ on .*\) was killed by SIGKILL", err)
    assert _all_gone(set(everyone))


@pytest.mark.slow
def test_a_stopped_worker_ends_the_job_within_a_minute(tmp_path: Path) -> None:
    run = tmp_path / "r"
    job = _started(2, 1, *TRAIN, *DIGITS, "--epochs", "500", "--out", str(run))
    wait_until((run / "metrics.jsonl").exists)
    everyone = _descendants(job.pid)
    victim = [p for p, a in everyone.items() if "gluon_cnn.train" in a and ".node" not in a][-1]
    os.kill(victim, signal.SIGSTOP)
    _, err = job.communicate(timeout=120)
    assert job.returncode == 1
    assert re.search(rf"error: worker of rank \d \(pid {victim} on .*\) hangs: it is stopped", err)
    assert _all_gone(set(everyone))


@pytest.mark.slow
def test_a_job_whose_output_nobody_reads_ends(tmp_path: Path) -> None:
    flood = "import os, mxnet as mx; kv = mx.kv.create('dist_sync')\nwhile True: print('x' * 999)"
    unread, pipe = os.pipe()
    job = subprocess.Popen(
        [sys.executable, "-m", "gluon_cnn.launch", "-n", "2", "--stall-timeout", "5", "--",
         sys.executable, "-c", flood],
        stdout=pipe, stderr=pipe,
    )  # fmt: skip
    everyone: set[int] = set()
    deadline = time.monotonic() + 100
    while job.poll() is None:
        everyone |= set(_descendants(job.pid))
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert job.returncode == 1
    assert _all_gone(everyone)
    os.close(unread)
    os.close(pipe)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [["--optimizer", "adam", "--lr", "0.002"], DIGITS[:6]])
def test_a_killed_job_resumes_to_where_it_would_have_come(
    optimizer: list[str], tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [*IN_FLOAT64, *optimizer, "--batch-size", "100", "--schedule", "constant"]
    _run(2, 1, *command, "--epochs", "3", "--out", str(whole))
    job = _started(2, 1, *command, "--epochs", "500", "--out", str(parts))
    _kill_when_it_learns(job, "in_float64", parts)
    job.communicate(timeout=60)
    assert len(rows_of(parts)) < 3
    _run(2, 1, *IN_FLOAT64, "--resume", "--epochs", "3", "--out", str(parts))
    assert _distance(_parameters(parts), _parameters(whole)) <= 1e-9
    for row, expected in zip(rows_of(parts), rows_of(whole), strict=True):
        assert row["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-9)


@pytest.mark.slow
def test_an_interrupted_job_is_saved_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = [*IN_FLOAT64, *DIGITS[:6], "--batch-size", "4", "--schedule", "constant"]
    _run(2, 1, *command, "--epochs", "1", "--out", str(whole))
    job = _started(2, 1, *command, "--epochs", "1", "--out", str(parts))
    wait_until((parts / "last").exists)
    time.sleep(3)
    everyone = _descendants(job.pid)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=90)
    assert job.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: the job was ended" in err
    assert re.search(r"saved at step \d+ of epoch 1", err)
    assert _all_gone(set(everyone))
    _run(2, 1, *IN_FLOAT64, "--resume", "--out", str(parts))
    assert _distance(_parameters(parts), _parameters(whole)) <= 1e-9
    assert rows_of(parts)[0]["train_loss"] == pytest.approx(
        rows_of(whole)[0]["train_loss"], rel=1e-9
    )


@pytest.mark.slow
def test_batch_norms_statistics_are_the_mean_of_the_workers(tmp_path: Path) -> None:
    argv = ["--model", "mnist_bn_cnn", "--epochs", "1", "--batch-size", "200",
            "--optimizer", "sgd", "--lr", "0.01"]  # fmt: skip
    workers, devices = tmp_path / "workers", tmp_path / "devices"
    _run(2, 1, *IN_FLOAT64, *argv, "--out", str(workers))
    _alone(*IN_FLOAT64, *argv, "--ctx", "cpu:0,1", "--out", str(devices))
    assert _distance(_parameters(workers), _parameters(devices)) <= 1e-10


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["-n", "2"], 2, ["no command", "-- python -m gluon_cnn.train"]),
        (["-n", "2", "--", "pyhton"], 2, ["no program is called 'pyhton' here"]),
        (["-n", "2", "--address", "192.0.2.1", "--", "true"], 1, ["--address 192.0.2.1 cannot"]),
        (["-n", "0", "--", "true"], 2, ["--workers", "from 1"]),
        (["-n", "2", "--launcher", "pigeon", "--", "true"], 2, ["pigeon", "ssh"]),
        (["-n", "2", "--launcher", "ssh", "--", "true"], 2, ["ssh needs -H"]),
        (["-n", "2", "--launcher", "ssh", "-H", "nowhere", "--", "true"], 1, ["nowhere"]),
    ],
)
def test_bad_usage_is_one_line(argv, code, words, refused) -> None:
    refused(launch.main, argv, code, *words)


@pytest.mark.parametrize(
    "line", ["host; rm -rf /", "$(id)", "a b", "-oProxyCommand=id", "host:port", "'", "a\tb"]
)
def test_a_hostfile_holds_hosts_and_no_commands(line: str, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(f"one\n{line}\n")
    with pytest.raises(CommandError, match="has the line"):
        launch.read_hosts(path)
    path.write_text("one\nme@two:2222\n10.0.0.3 slots=4\n\n")
    assert launch.read_hosts(path) == ["one", "me@two:2222", "10.0.0.3 slots=4"]
    path.write_text("\n")
    with pytest.raises(CommandError, match="names no host"):
        launch.read_hosts(path)


@pytest.mark.parametrize("name", ["my photos", "a;b", "it's", "$(id)"])
def test_ssh_is_not_given_a_folder_that_a_shell_would_read(
    name: str, tmp_path: Path, monkeypatch, refused
) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    argv = ["-n", "2", "--launcher", "ssh", "-H", str(tmp_path / "hosts"), "--", "true"]
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    refused(launch.main, argv, 1, "cannot pass on this folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", f"2{name}")
    refused(launch.main, argv, 1, "cannot pass on OMP_NUM_THREADS")


@pytest.mark.slow
def test_ssh_gets_one_word_that_no_shell_reads(tmp_path: Path, monkeypatch) -> None:
    # A program named ssh that runs what it is given, as the one on the other host would
    fake = tmp_path / "ssh"
    fake.write_text(f'#!/bin/bash\necho "$@" >>{tmp_path}/calls\nexec bash -c "${{@: -1}}"\n')
    fake.chmod(0o755)
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1\n127.0.0.2\n")
    note = tmp_path / "note"
    script = (
        "import os, mxnet_compat, mxnet as mx; kv = mx.kv.create('dist_sync')\n"
        f"with open('{note}' + str(kv.rank), 'w') as file:\n"
        "    print(\"it's \" + '$HOME', kv.num_workers, file=file)"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment = {k: v for k, v in environment.items() if not k.startswith(("OMP_", "MXNET_"))}
    done = subprocess.run(
        [sys.executable, "-m", "gluon_cnn.launch", "-n", "2", "-s", "1", "--launcher", "ssh",
         "-H", str(hosts), "--address", "127.0.0.1", "--", sys.executable, "-c", script],
        capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [Path(f"{note}{rank}").read_text() for rank in (0, 1)] == ["it's $HOME 2\n"] * 2
    assert "127.0.0.2 -p 22" in (tmp_path / "calls").read_text()


def test_the_launcher_itself_does_not_load_mxnet() -> None:
    code = (
        "import sys; sys.orig_argv = ['python', '-m', 'gluon_cnn.launch']\n"
        "import gluon_cnn.launch; print('mxnet' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_rank_is_reported_once_and_never_without_a_node(monkeypatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv("GLUON_CNN_REPORT", str(writer))
    runtime.report_rank(3)
    runtime.report_rank(4)  # whoever has the descriptor's number now is somebody else
    os.close(writer)
    with os.fdopen(reader) as lines:
        assert lines.read() == "3\n"
