"""Runs of either `train` command in processes of their own, for tests that kill them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

# Flags of both `train` commands that a job of several processes has to agree on
EVERYTHING_ON = (
    "--clip-grad", "0.5", "--grad-accum-steps", "3", "--ema", "0.9", "--label-smoothing", "0.1",
    "--mixup", "0.2", "--freeze", "features.0.weight", "--patience", "1",
)  # fmt: skip

CLOCK = ("seconds", "images_per_second")


# What a shell may put around a command -> the exit codes that are right
SURROUNDINGS = {
    "env LC_ALL=C PYTHONIOENCODING=ascii {}": {0},
    "{} 1>&-": {0},
    "{} 2>&-": {0},
    "{} 0<&- 1>&- 2>&-": {0},
    "{} | true": {0, 1},
    "{} > /dev/full": {1},
    "env -u PYTHONUNBUFFERED {} > /dev/full": {1},
}


def end_in_a_line(command: str, surroundings: str, folder: Path) -> None:
    """A command, in one of the `SURROUNDINGS`, says at most one line of what is wrong."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {surroundings.format(command)}"],
        capture_output=True, text=True, env=one_thread(), cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode in SURROUNDINGS[surroundings], done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert not any("Traceback" in line or "Exception" in line for line in said), done.stderr
    full = "/dev/full" in surroundings
    assert sum(line.startswith("error: ") for line in said) == full, done.stderr
    assert ("what this prints cannot be written: No space left" in done.stderr) == full


def photographs(folder: Path, classes: int = 3, each: int = 16, size: int = 68) -> Path:
    """A folder of noisy colour images, one sub-folder a class; a tenth of each will be tested."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 128, (size, size, 3), np.uint8)
            pixels[..., label % 3] += 100
            Image.fromarray(pixels).save(folder / f"class{label}" / f"{i}.png")
    return folder


def start(package: str, *argv: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The command in a new process, its output captured."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", f"{package}.train", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=one_thread(),
    )


def one_thread() -> dict[str, str]:
    """The environment of every run here: the bits of a sum depend on the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def finish(package: str, *argv: str) -> str:
    """Run to the end, which must be a success; returns stdout."""
    process = start(package, *argv)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def wait_until(over: Callable[[], bool], seconds: float = 200.0) -> None:
    """Wait for what must come to pass within this time."""
    until = time.monotonic() + seconds
    while not over():
        assert time.monotonic() < until, "it never came to pass"
        time.sleep(0.02)


def rows(run: Path) -> list[dict]:
    """The metrics, without what the clock says."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCK} for line in lines]


def same_end(package: str, whole: Path, parts: Path) -> None:
    """Assert that two runs ended with the same bytes and the same metrics."""
    assert rows(whole) == rows(parts)
    suffix = "params" if package == "gluon_cnn" else "safetensors"
    names = [f"best.{suffix}", f"last/net.{suffix}", "last/optimizer.safetensors"]
    average = "last/average.safetensors"
    assert (whole / average).exists() == (parts / average).exists()
    for name in [*names, average] if (whole / average).exists() else names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    assert not list(parts.glob("*.new")) + list(parts.glob("*.old")) + list(parts.glob(".b*"))
