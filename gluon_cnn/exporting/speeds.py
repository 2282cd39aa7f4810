"""How fast each engine runs a net on this machine, in which ways, and where that is remembered.

`gluon_cnn.export` writes it into NAME.json, with the machine's fingerprint; what an export does not
know of another machine, and what a run folder never says, is measured there once and kept in the
user's cache.
"""

from __future__ import annotations

import datetime
import json
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gluon_cnn.exporting.runners import ENGINES, Runner, Way, ways
from gluon_cnn.runtime import machine, settings
from gluon_cnn.training.saved import SavedRun
from gluon_cnn_parity.atomic import write_text

ALWAYS = (1, 64)  # images at a time that are timed
SIZES = (*ALWAYS, 500)  # and those that are where they take less than SECONDS
SECONDS = 0.25  # for each size, after the first call
LONG = 5.0  # seconds of a call of a large net that is still timed, of the engines that are close
LEAST = 3  # calls that are timed, unless one takes longer than SECONDS
CLOSE = 0.8  # of the fastest: a shared machine's own speed changes by a quarter between two turns
SHORT = 0.02  # seconds of a call: a small net, which every engine may hold at once
TURNS = 5
TURN = 0.05  # seconds
PAUSE = 0.05  # seconds before a turn: the threads of the engine before it still wait by turning
GAIN = 1.03  # of a way over the fastest engine's own: less may be chance
PROMISING = 4  # ways that take turns
FORMAT = "gluon_cnn engines 2"
LEFT_OUT = dict.fromkeys(map(str, ALWAYS), 0.0)  # of an engine that differs, or does not run

# {"machine": {fingerprint, cpu, threads, date},
#  "measured": {engine: {version, images_per_second: {"1": float, "64": float, …}},
#               way: {version, images_per_second: {size where it is the fastest: float}}}}
Record = Mapping[str, Any]


def images_per_second(run: Runner, images: np.ndarray) -> dict[str, float]:
    """Images a second by size, of float32 images (N, C, H, W) repeated to that size."""
    speeds: dict[str, float] = {}
    for size in SIZES:
        if size in ALWAYS or size / speeds[str(ALWAYS[-1])] < _seconds():
            speeds[str(size)] = _speed_of(run, _repeated(images, size), _seconds())
    return speeds


def _seconds() -> float:
    """How long a size is timed; 0, one call, for who asks for that: whom no speed concerns."""
    return SECONDS if settings.times_engines() else 0.0


def settle(
    speeds: dict[str, dict[str, float]],
    images: np.ndarray,
    opened: Callable[[str], Runner],
    *,
    in_ways: bool = False,
) -> None:
    """Time engines again, in turns: all of a small net's, else those close to the fastest.

    `speeds` are what `images_per_second` gave one engine after the other, while the machine may
    have changed its own, or had other work (what ran beside one of them made it seem half as fast);
    they are replaced by the medians of the turns. All of these engines are in memory at once, so a
    net whose calls are so long that it may be a large one takes no turns; `_time_long` times those.
    `in_ways` tries other ways to run them, too, and adds the fastest where it gains over every
    engine's own.
    """
    engines = list(speeds)
    _time_long(speeds, images, opened)
    for size in SIZES:
        of_size = {name: speeds[name].get(str(size), 0.0) for name in engines}
        best = max(of_size.values(), default=0.0)
        least = CLOSE * best if best < size / SHORT else 0.0
        close = [name for name, speed in of_size.items() if speed > least]
        if not close or size / best > _seconds() or (len(close) < 2 and not in_ways):
            continue
        runs, x = {name: opened(name) for name in close}, _repeated(images, size)
        if in_ways:
            runs |= _promising(close, x, opened, CLOSE * best)
        if len(runs) < 2:
            continue
        turns = np.array([[_in_turn(run, x) for run in runs.values()] for _ in range(TURNS)])
        medians = dict(zip(runs, np.median(turns, axis=0).tolist(), strict=True))
        for name in close:
            speeds[name][str(size)] = medians[name]
        own = turns[:, close.index(max(close, key=lambda name: medians[name]))]
        gains = np.median(turns / own[:, None], axis=0)
        faster = [name for name, gain in zip(runs, gains, strict=True) if gain > GAIN]
        if faster := [name for name in faster if name not in close]:
            name = max(faster, key=lambda name: medians[name])
            speeds.setdefault(name, {})[str(size)] = medians[name]


def _time_long(
    speeds: dict[str, dict[str, float]], images: np.ndarray, opened: Callable[[str], Runner]
) -> None:
    """Time the close engines' calls that take seconds, one engine in memory at a time.

    At 500 images another engine may be the fastest than at 64 (AlexNet on two cores of a Zen 3:
    OpenVINO 152 images/s and ONNX Runtime 139 at 500, 140 and 146 at 64).
    """
    last = str(ALWAYS[-1])
    best = max((of_engine.get(last, 0.0) for of_engine in speeds.values()), default=0.0)
    sizes = [n for n in SIZES if best and 0 < _seconds() < n / best < LONG and _has_memory(n)]

    def timed(name: str) -> dict[str, float]:
        run = opened(name)  # let go before the next one is opened
        return {str(size): _speed_of(run, _repeated(images, size), _seconds()) for size in sizes}

    for name, of_engine in speeds.items():
        if not sizes or of_engine.get(last, 0.0) <= CLOSE * best:
            continue
        with suppress(Exception):  # for want of memory, or whatever the engine's libraries raise
            for size, speed in timed(name).items():
                of_engine[size] = max(speed, of_engine.get(size, 0.0))


def _has_memory(size: int) -> bool:
    """Whether so many images surely fit: as many times what `ALWAYS` took at most, with the net."""
    if size <= ALWAYS[-1]:
        return True
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * size / ALWAYS[-1] < (machine.available_memory() or 0)


def _promising(
    engines: Sequence[str], x: np.ndarray, opened: Callable[[str], Runner], least: float
) -> dict[str, Runner]:
    """The ways to run these engines that are fastest at first sight."""
    found: dict[str, tuple[float, Runner]] = {}
    for way in (str(way) for engine in engines for way in ways(engine, len(x))):
        with suppress(Exception):  # whatever the engine's libraries raise: then it is no way
            run = opened(way)
            if (speed := _in_turn(run, x)) > least:
                found[way] = speed, run
    best = sorted(found, key=lambda way: -found[way][0])[:PROMISING]
    return {way: found[way][1] for way in best}


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
    """A record of this machine, now; `speeds` are those of `settle`."""
    return {
        "machine": {
            "fingerprint": machine.fingerprint(),
            "cpu": machine.cpu_model(),
            "threads": settings.threads(),
            "date": datetime.date.today().isoformat(),
        },
        "measured": {
            way: {
                "version": ENGINES[Way.parse(way).engine].version,
                "images_per_second": dict(of_way),
            }
            for way, of_way in speeds.items()
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
            and all(_speed(record, name, size) >= 0 for name in engines for size in ALWAYS)
            and all(Way.parse(way) for way in measured)
        )
    except (TypeError, KeyError, ValueError):
        return False


def proven(record: Any, way: str) -> bool:
    """Whether an export's record says that an engine, run so, was held against the net, here."""
    if not fits(record, [Way.parse(way).engine]):
        return False
    found = record["measured"].get(way, {"images_per_second": LEFT_OUT})
    return all(speed > 0 for speed in found["images_per_second"].values())


def fastest(record: Any, engines: Sequence[str], batch: int) -> str:
    """Which of the engines, and in which way (`Way`), is fastest at the measured size that is
    nearest to `batch`."""
    measured = {
        way: found["images_per_second"]
        for way, found in record["measured"].items()
        if Way.parse(way).engine in engines
    }
    sizes = [size for size in SIZES if any(str(size) in found for found in measured.values())]
    size = min(sizes, key=lambda size: abs(np.log2(size) - np.log2(batch)))
    return max(measured, key=lambda way: float(measured[way].get(str(size), 0.0)))


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
