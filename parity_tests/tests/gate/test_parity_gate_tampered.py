"""A baseline that somebody changed is refused by name, in one line, and nothing in it is run."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn_harness.tests.runs import SURROUNDINGS, end_in_a_line, wait_until
from parity_tests.__main__ import main
from parity_tests.gate import store
from parity_tests.gate.session import Gate, GateError
from parity_tests.gate.store import Snapshot
from parity_tests.gate.verdict import compared

OLD = Path(__file__).parent / "snapshots" / "schema-2"


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "baseline"))


def reseal(folder: Path) -> None:
    """What somebody would do who knows how a snapshot is sealed."""
    path = folder / store.MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest.pop("seal", None)
    manifest["files"] = {
        name: store._sha256((folder / name).read_bytes()) for name in manifest["files"]
    }
    path.write_bytes(store._json({**manifest, "seal": store._sha256(store._json(manifest))}))


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (f"import pathlib; pathlib.Path({str(self.marker)!r}).write_text('ran')",)


def bombs(marker: Path) -> Iterator[bytes]:
    yield pickle.dumps(Bomb(marker))
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=True, start=np.array([Bomb(marker)], dtype=object))
    yield packed.getvalue()
    plain = io.BytesIO()
    np.save(plain, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    yield plain.getvalue()


def test_a_pickle_in_a_baseline_is_never_run(baseline: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for bomb in bombs(marker):
        for name in ("plain.safetensors", "plain.json", "plain-torch-graph.json", store.MANIFEST):
            folder = Path(shutil.copytree(OLD, tmp_path / "bomb", dirs_exist_ok=True))
            (folder / name).write_bytes(bomb)
            if name != store.MANIFEST:
                reseal(folder)
            if name != "plain-torch-graph.json":  # that one is kept, and looked at by nobody
                with pytest.raises(GateError, match="bomb"):
                    Gate(folder, update=False)
            else:
                store.read(folder)
            assert not marker.exists()
    pickle.loads(next(bombs(marker)))
    assert marker.exists()  # or the bombs would prove nothing


def mutated(value: Any, generator: random.Random) -> Any:
    """Somewhere in nested lists and dicts, one value is another."""
    odd: tuple[Any, ...] = (None, [], {}, -1, 1e308, "x", "\u0000", True, [[]], {"a": 1}, 2**80)
    if isinstance(value, dict) and value and generator.random() < 0.9:
        key = generator.choice(list(value))
        if generator.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutated(value[key], generator)}
    if isinstance(value, list) and value and generator.random() < 0.9:
        at = generator.randrange(len(value))
        if generator.random() < 0.2:
            return value[:at] + value[at + 1 :]
        return [*value[:at], mutated(value[at], generator), *value[at + 1 :]]
    return copy.deepcopy(generator.choice(odd))


@pytest.mark.parametrize("name", ["plain.json", store.MANIFEST])
def test_a_changed_value_is_refused_or_read_and_nothing_else(name: str, baseline: Path) -> None:
    whole = json.loads((OLD / name).read_bytes())
    manifest = (OLD / store.MANIFEST).read_bytes()
    untouched = store.read(OLD)
    refused = 0
    for seed in range(60):
        (baseline / store.MANIFEST).write_bytes(manifest)
        (baseline / name).write_text(json.dumps(mutated(whole, random.Random(seed))))
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, OSError):
            reseal(baseline)  # else it is refused for its seal
        said = refusal(baseline, untouched)
        assert "\n" not in said
        refused += bool(said)
    assert refused > 15


def refusal(folder: Path, other: Snapshot) -> str:
    """Why a snapshot cannot be compared; empty where it is. Anything else that is raised is not
    caught."""
    try:
        compared(store.read(folder), other).as_dict()
    except store.SnapshotError as error:
        return str(error)
    return ""


def test_cut_tensors_are_refused_even_if_they_are_sealed(baseline: Path) -> None:
    whole = (OLD / "plain.safetensors").read_bytes()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        (baseline / "plain.safetensors").write_bytes(whole[:length])
        reseal(baseline)
        with pytest.raises(store.SnapshotError, match="do not make a snapshot"):
            store.read(baseline)


@pytest.mark.parametrize("command", ["compare", "snapshot"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from parity_tests.gate import snapshot

    monkeypatch.setattr(snapshot, "snapshot_now", lambda *_: store.read(OLD))
    out = tmp_path / "out"
    arguments = {
        "compare": ["compare", str(OLD), str(OLD), "--report", str(out)],
        "snapshot": ["snapshot", str(out)],
    }[command]
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        code = main(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (1, 1), error
    assert str(out) in error
    assert "File too large" in error
    assert [path for path in tmp_path.rglob("*") if path != out] == []
    assert main(arguments) == 0  # what was left is in nobody's way


@pytest.mark.slow
@pytest.mark.parametrize("how", SURROUNDINGS)
@pytest.mark.parametrize(
    "words",
    [
        f"compare {OLD} {OLD} --report gate",
        "snapshot new --model lenet",
        "check --model lenet --level structure --report page",
    ],
    ids=lambda words: words.split()[0],
)
def test_no_surroundings_end_in_a_traceback(words: str, how: str, tmp_path: Path) -> None:
    end_in_a_line(f"{sys.executable} -m parity_tests {words}", how, tmp_path)


ORPHAN = """
import os, signal, time
from parity_tests.gate import snapshot

if __name__ == "__main__":
    with snapshot._processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 120)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_snapshot_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(ORPHAN)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    worker = Path("/proc", done.stdout.strip())
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: not worker.exists() or "\nState:\tZ" in (worker / "status").read_text())
