"""What `python -m gluon_cnn.runtime` does: show the settings in force, or measure others."""

from __future__ import annotations

import datetime
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from cnn_harness.cli import Parser, as_command, print_json
from cnn_harness.errors import CommandError
from gluon_cnn.runtime import machine, tuning
from gluon_cnn.runtime import settings as runtime

LIMIT = 150.0  # seconds that `--tune` may take
LOADING = 4.0  # seconds until a process measures, at the least
# Images a step: enough to be like training, few enough for a minute
BATCHES = {"alexnet": 8, "vgg": 1}
USUAL_BATCH = 64
AGAIN = 2  # of the fastest are measured again and again, beside the default, until they agree
AGREEING = 3  # measurements of each
SPREAD = 0.1  # of the fastest: by how much the AGREEING fastest of each may differ
GAIN = 0.05  # a choice that is faster than the default by less is not worth other bits


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    from gluon_cnn.models import MODELS

    parser = Parser(
        prog="python -m gluon_cnn.runtime",
        description="Show what MXNet was told before it loaded, and why. A variable that is set "
        "in the environment is left as it is; GLUON_CNN_SETTLE=0 leaves all as MXNet has it.",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--tune", metavar="MODEL", choices=tuple(MODELS),
        help="measure other settings with this model, in two minutes, until the speeds agree, and "
        "keep the best for this machine: later runs use them, and say so",
    )  # fmt: skip
    what.add_argument(
        "--reset", action="store_true", help="forget what --tune keeps for this machine"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    if args.reset:
        _reset(args.json)
    elif args.tune is None:
        _show(args.json)
    else:
        _tune(args.tune, args.json)
    return 0


def _tune(model: str, as_json: bool) -> None:
    path = runtime.cache_file()
    say = (lambda _: None) if as_json else functools.partial(print, flush=True)
    measured = tune(model, say)
    default, best = measured[0], choose(measured)
    if best is default:
        path.unlink(missing_ok=True)
    else:
        stored = tuning.Stored(
            best["settings"], model, datetime.date.today().isoformat(), best["images_per_second"]
        )
        tuning.store(path, stored, measured)
    if as_json:
        file = None if best is default else path
        print_json({"file": file, "best": best, "measured": measured})
    elif best is default:
        print(
            f"nothing else is faster by {GAIN:.0%} than {_written(default['settings'])}, which is "
            "taken anyway: nothing is stored"
        )
    else:
        gain = best["images_per_second"] / default["images_per_second"]
        print(
            f"{_written(best['settings'])} is {gain:.2f} times as fast as the default; {path} "
            "keeps it for later runs, until gluon-cnn runtime --reset"
        )


def choose(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What to keep of what `tune` returns: the default, the first, unless another gains enough."""
    settled = [one for one in measured if one["spread"] <= SPREAD] or measured[:1]
    best = max(settled, key=lambda one: one["images_per_second"])
    enough = best["images_per_second"] > (1 + GAIN) * measured[0]["images_per_second"]
    return best if enough else measured[0]


def _reset(as_json: bool) -> None:
    path = runtime.cache_file()
    there = path.exists()
    path.unlink(missing_ok=True)
    if as_json:
        print_json({"file": path, "forgotten": there})
    else:
        print(f"{path} is removed" if there else f"nothing was stored: there is no {path}")


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

    `settings`, `images_per_second`, `spread` of each, the default first, measured within `limit`
    seconds: what there is no time for is left out, the default never. The default and the fastest
    are measured until the `AGREEING` fastest of their measurements differ by no more than `SPREAD`.
    `measure` times one candidate (for tests).

    Raises: CommandError where not even the default could be measured, or the speeds do not agree.
    """
    measure = measure or _in_a_process
    batch = next((n for name, n in BATCHES.items() if model.startswith(name)), USUAL_BATCH)
    candidates = tuning.candidates(machine.cores(), runtime.affinity())
    deadline = time.monotonic() + limit
    speeds: dict[str, list[float]] = {}
    failures: dict[str, str] = {}
    planned = len(candidates) + (AGREEING - 1) * (AGAIN + 1)

    def measure_one(settings: tuning.Settings, turns: int) -> bool:
        """Whether there was time for it; `turns` are still to come, this one included."""
        key, left = json.dumps(settings), deadline - time.monotonic()
        if left < LOADING:
            return False
        try:
            seconds = measure(model, batch, settings, max(0.2, left / turns - LOADING), left)
        except CommandError as error:
            failures[key] = str(error)
            say(f"{_written(settings)}: {error}")
            return True
        speeds.setdefault(key, []).append(batch / seconds)
        say(f"{_written(settings)}: {batch / seconds:,.1f} images/s")
        return True

    for number, settings in enumerate(candidates):
        measure_one(settings, planned - number)
    default = json.dumps(candidates[0])
    if default not in speeds:
        reason = failures.get(default, "there was no time")
        raise CommandError(f"the settings that are taken anyway could not be measured: {reason}")
    ranked = sorted(speeds, key=lambda key: -max(speeds[key]))
    finalists = dict.fromkeys((default, *ranked[:AGAIN]))
    for key in finalists:
        while _spread(speeds[key]) > SPREAD and key not in failures:
            turns = sum(max(1, AGREEING - len(speeds[other])) for other in finalists)
            if not measure_one(json.loads(key), turns):
                raise CommandError(_too_busy(speeds[key], limit))
    return [
        {
            "settings": json.loads(key),
            "images_per_second": statistics.median(_fastest(values)),
            "spread": _spread(values),
            "measured": len(values),
        }
        for key, values in speeds.items()
    ]


def _fastest(values: Sequence[float]) -> list[float]:
    """What disturbs a measurement makes it slower: the fastest ones are those to believe."""
    return sorted(values, reverse=True)[:AGREEING]


def _spread(values: Sequence[float]) -> float:
    """By what part of the fastest the AGREEING fastest differ; 1 where there are fewer."""
    if len(values) < AGREEING:
        return 1.0
    fastest = _fastest(values)
    return 1 - fastest[-1] / fastest[0]


def _too_busy(values: Sequence[float], limit: float) -> str:
    told = "they could not be measured often enough"
    if len(values) >= AGREEING:
        told = f"the same settings still differ by {_spread(values):.0%} from turn to turn"
    return (
        f"this machine is too busy to tune: after {limit:.0f} s {told}, expected at most "
        f"{SPREAD:.0%}; {machine.others_running()} other threads run now; nothing is stored: try "
        "again when it is idle"
    )


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
