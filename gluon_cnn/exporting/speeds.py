"""How fast each engine runs a net on this machine, and where that is remembered.

`gluon_cnn.export` writes it into NAME.json, with the machine's fingerprint; what an export does not
know of another machine, and what a run folder never says, is measured there once and kept in the
user's cache.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gluon_cnn.exporting.runners import ENGINES, Runner
from gluon_cnn.runtime import machine, settings
from gluon_cnn.training.saved import SavedRun
from gluon_cnn_parity.atomic import write_text

SIZES = (1, 64)  # images at a time that are timed
SECONDS = 0.25  # for each size, after the first call
LEAST = 3  # calls that are timed, unless one takes longer than SECONDS
CLOSE = 0.8  # of the fastest: a shared machine's own speed changes by a quarter between two turns
SHORT = 0.02  # seconds of a call: a small net, which every engine may hold at once
TURNS = 5
TURN = 0.1  # seconds
PAUSE = 0.05  # seconds before a turn: the threads of the engine before it still wait by turning
FORMAT = "gluon_cnn engines 1"
LEFT_OUT = dict.fromkeys(map(str, SIZES), 0.0)  # of an engine that differs, or does not run

# {"machine": {fingerprint, cpu, threads, date},
#  "measured": {engine: {version, images_per_second: {"1": float, "64": float}}}}
Record = Mapping[str, Any]


def images_per_second(run: Runner, images: np.ndarray) -> dict[str, float]:
    """Images a second by size, of float32 images (N, C, H, W) repeated to that size."""
    return {str(size): _speed_of(run, _repeated(images, size), _seconds()) for size in SIZES}


def _seconds() -> float:
    """How long a size is timed; 0, one call, for who asks for that: whom no speed concerns."""
    return SECONDS if settings.times_engines() else 0.0


def settle(
    speeds: dict[str, dict[str, float]], images: np.ndarray, opened: Callable[[str], Runner]
) -> None:
    """Time engines again, in turns: all of a small net's, else those close to the fastest.

    `speeds` are what `images_per_second` gave one engine after the other, while the machine may
    have changed its own, or had other work (what ran beside one of them made it seem half as fast);
    they are replaced by the medians of the turns. All of these engines are in memory at once, so a
    net stays as it is whose calls are so long that it may be a large one.
    """
    for size in SIZES:
        of_size = {name: of_engine[str(size)] for name, of_engine in speeds.items()}
        best = max(of_size.values(), default=0.0)
        least = CLOSE * best if best < size / SHORT else 0.0
        close = [name for name, speed in of_size.items() if speed > least]
        if len(close) < 2 or size / best > _seconds():
            continue
        runs, x = {name: opened(name) for name in close}, _repeated(images, size)
        turns = [[_in_turn(run, x) for run in runs.values()] for _ in range(TURNS)]
        for name, median in zip(runs, np.median(turns, axis=0), strict=True):
            speeds[name][str(size)] = float(median)


def _in_turn(run: Runner, x: np.ndarray) -> float:
    time.sleep(PAUSE)
    return _speed_of(run, x, TURN)


def _repeated(images: np.ndarray, size: int) -> np.ndarray:
    return np.ascontiguousarray(images[np.arange(size) % len(images)])


def _speed_of(run: Runner, x: np.ndarray, seconds: float) -> float:
    """Images a second, by the lower quartile of the calls' times: what disturbs one makes it
    slower, never faster."""
    run(x)  # lays weights out, and finds the memory
    times: list[float] = []
    deadline = time.perf_counter() + seconds
    while not times or (time.perf_counter() < deadline) or len(times) < LEAST:
        began = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - began)
        if times[-1] > seconds:
            break
    return len(x) / float(np.quantile(times, 0.25, method="lower"))


def make_record(speeds: Mapping[str, Mapping[str, float]]) -> Record:
    """A record of this machine, now; `speeds` are what `images_per_second` gave by engine."""
    return {
        "machine": {
            "fingerprint": machine.fingerprint(),
            "cpu": machine.cpu_model(),
            "threads": settings.threads(),
            "date": datetime.date.today().isoformat(),
        },
        "measured": {
            name: {"version": ENGINES[name].version, "images_per_second": dict(of_engine)}
            for name, of_engine in speeds.items()
        },
    }


def fits(record: object, engines: Sequence[str]) -> bool:
    """Whether a record is one of this machine, these threads and these releases of the engines."""
    try:
        about, measured = record["machine"], record["measured"]  # type: ignore[index]
        return (
            about["fingerprint"] == machine.fingerprint()
            and about["threads"] == settings.threads()
            and all(measured[name]["version"] == ENGINES[name].version for name in engines)
            and all(_speed(record, name, size) >= 0 for name in engines for size in SIZES)
        )
    except (TypeError, KeyError, ValueError):
        return False


def proven(record: Any, engine: str) -> bool:
    """Whether an export's record says that the engine was held against the net, here."""
    return fits(record, [engine]) and all(_speed(record, engine, size) > 0 for size in SIZES)


def fastest(record: Any, engines: Sequence[str], batch: int) -> str:
    """Which of the engines is fastest at the measured size that is nearest to `batch`."""
    size = min(SIZES, key=lambda size: abs(np.log2(size) - np.log2(batch)))
    return max(engines, key=lambda name: _speed(record, name, size))


def _speed(record: Any, name: str, size: int) -> float:
    return float(record["measured"][name]["images_per_second"][str(size)])


def recall(saved: SavedRun) -> Record | None:
    """What this machine remembers of such nets, whatever their weights; None: nothing."""
    with suppress(OSError, ValueError, RecursionError):
        values = json.loads(_file(saved).read_text(encoding="utf-8"))
        if isinstance(values, dict) and values.get("format") == FORMAT:
            return values
    return None


def remember(saved: SavedRun, record: Record) -> None:
    """Keep the record for later processes, where there is a place for it."""
    path = _file(saved)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({"format": FORMAT, **record}, indent=2) + "\n")


def _file(saved: SavedRun) -> Path:
    sizes = "x".join(map(str, (*saved.input_shape, len(saved.class_names))))
    name = f"engines-{machine.fingerprint()}-{saved.model}-{sizes}.json"
    return settings.cache_file().parent / name
