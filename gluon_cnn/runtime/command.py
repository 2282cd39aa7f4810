"""What `python -m gluon_cnn.runtime` does: show the settings in force, or measure others."""

from __future__ import annotations

import datetime
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from cnn_harness.cli import Parser, print_json, run
from cnn_harness.errors import CommandError
from gluon_cnn.runtime import machine, tuning
from gluon_cnn.runtime import settings as runtime

__all__ = ["main", "tune"]

LIMIT = 55.0  # seconds that `--tune` may take
LOADING = 4.0  # seconds until a process measures, at the least
# Images a step: enough to be like training, few enough for a minute
BATCHES = {"alexnet": 8, "vgg": 1}
USUAL_BATCH = 64
AGAIN = 2  # of the fastest are measured a second time, in turn: one measurement is no measurement


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    from gluon_cnn.models import MODELS

    parser = Parser(
        prog="python -m gluon_cnn.runtime",
        description="Show what MXNet was told before it loaded, and why. A variable that is set "
        "in the environment is left as it is; GLUON_CNN_SETTLE=0 leaves all as MXNet has it.",
    )
    parser.add_argument(
        "--tune", metavar="MODEL", choices=tuple(MODELS),
        help="measure other settings with this model, in under a minute, and keep the best for "
        "this machine: later runs use them",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if args.tune is None:
        _show(args.json)
        return 0
    path = runtime.cache_file()
    say = (lambda _: None) if args.json else functools.partial(print, flush=True)
    measured = tune(args.tune, say)
    best = max(measured, key=lambda one: one["images_per_second"])
    stored = tuning.Stored(
        best["settings"], args.tune, datetime.date.today().isoformat(), best["images_per_second"]
    )
    tuning.store(path, stored, measured)
    if args.json:
        print_json({"file": path, "best": best, "measured": measured})
    else:
        print(f"the best is {_written(best['settings'])}; {path} keeps it for later runs")
    return 0


def _show(as_json: bool) -> None:
    settings = runtime.settled()
    if as_json:
        print_json({
            "cpu": machine.cpu_model(),
            "cores": machine.cores(),
            "cache": runtime.cache_file(),
            "settings": {s.name: {"value": s.value, "reason": s.reason} for s in settings},
        })  # fmt: skip
        return
    print(f"{machine.cpu_model()}, {machine.cores()} cores for this process")
    if not settings:
        print(f"  nothing was chosen: {runtime.SWITCH}=0")
    widest = max((len(_assigned(s)) for s in settings), default=0)
    for setting in settings:
        print(f"  {_assigned(setting):<{widest}}  {setting.reason}")


def _assigned(setting: runtime.Setting) -> str:
    return f"{setting.name}={setting.value}" if setting.value is not None else f"no {setting.name}"


def _written(settings: tuning.Settings) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)


def tune(
    model: str,
    say: Callable[[str], None],
    *,
    limit: float = LIMIT,
    measure: Callable[[str, int, tuning.Settings, float, float], float] | None = None,
) -> list[dict[str, Any]]:
    """Measure every candidate, each in a process of its own, and the fastest of them again.

    `settings`, `images_per_second` of each, measured within `limit` seconds: what there is no time
    for is left out, the default never. `measure` times one candidate (for tests).

    Raises: CommandError where not even the default could be measured.
    """
    measure = measure or _in_a_process
    batch = next((n for name, n in BATCHES.items() if model.startswith(name)), USUAL_BATCH)
    candidates = tuning.candidates(machine.cores(), runtime.affinity())
    deadline = time.monotonic() + limit
    speeds: dict[str, list[float]] = {}
    queue = list(candidates)
    failure = "there was no time"
    for number in range(len(candidates) + AGAIN):
        if number == len(candidates):
            ranked = sorted(speeds, key=lambda key: -max(speeds[key]))
            queue += [json.loads(key) for key in ranked[:AGAIN]]
        if number >= len(queue):
            break
        left = deadline - time.monotonic()
        share = left / (len(candidates) + AGAIN - number)
        if left < LOADING:
            break
        settings = queue[number]
        try:
            seconds = measure(model, batch, settings, max(0.2, share - LOADING), left)
        except CommandError as error:
            failure = str(error)
            say(f"{_written(settings)}: {error}")
            continue
        speeds.setdefault(json.dumps(settings), []).append(batch / seconds)
        say(f"{_written(settings)}: {batch / seconds:,.1f} images/s")
    if not speeds:
        raise CommandError(f"no settings could be measured: {failure}")
    return [
        # The faster of two: what disturbs a measurement makes it slower
        {"settings": json.loads(key), "images_per_second": max(values), "measured": len(values)}
        for key, values in speeds.items()
    ]


def _in_a_process(
    model: str, batch: int, settings: tuning.Settings, seconds: float, limit: float
) -> float:
    """Median seconds of a step under these settings. Raises: CommandError."""
    command = [sys.executable, "-m", "gluon_cnn.runtime.measure", model, str(batch), str(seconds)]
    environment = runtime.child_environment({runtime.TRIAL: json.dumps(dict(settings))})
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise CommandError("took too long") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"failed with exit code {done.returncode}: {reason}")
    return float(json.loads(done.stdout)["seconds"])
