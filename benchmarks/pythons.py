"""`python -m benchmarks.pythons PYTHON PYTHON…`: is MXNet slower on another Python and numpy?

Each PYTHON is an interpreter whose environment has this project's `cpu` and `parity` extras, as
`nox -s pythons` leaves them in `.nox/`; the others are compared with the first. They take turns,
each measurement in a process of its own, with the same work in one thread (two wait for each other,
which other work on the machine decides): so many training steps of LeNet on batches of 64, and the
parity suite's check of two models. Given for each are its medians of processor time (user and
system, of all threads and children), which other work moves less than the clock, and of the clock;
and both over those of the first, turn by turn.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ratios import Middle, middle, ratio
from cnn_harness.cli import Parser, positive, print_json, run
from cnn_harness.errors import CommandError

__all__ = ["WORK", "main", "measure", "rows"]

WORK = {"train": "ms a step, LeNet 64", "parity": "s, parity of lenet and mnist_bn_cnn"}
LIMIT = 900.0  # seconds for one process
WARM = 50  # steps before those that are timed: graphs, memory, kernels
ROOT = Path(__file__).resolve().parents[1]

Measure = Callable[[str, str, int], Mapping[str, Any]]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 where an environment fails."""
    return run(lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(prog="python -m benchmarks.pythons", description=__doc__)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters, the base first")
    parser.add_argument("--repeats", type=positive, default=3, help="turns of each")
    parser.add_argument("--steps", type=positive, default=500, help="training steps that are timed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", choices=tuple(WORK), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print_json({"seen": _versions(), **_CHILDREN[args.child](args.steps)})
        return 0
    found = measure(args.pythons, args.repeats, args.steps)
    print_json({"runs": found}) if args.json else print("\n".join(rows(found)))
    return 0


def measure(
    pythons: Sequence[str], repeats: int, steps: int, run_side: Measure | None = None
) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """What each turn gave, by work and interpreter; the order of the interpreters turns too.

    Raises: CommandError where a process fails.
    """
    run_side = run_side or _run
    runs: dict[str, dict[str, list[Mapping[str, Any]]]] = {
        work: {python: [] for python in pythons} for work in WORK
    }
    for turn in range(repeats):
        shift = turn % len(pythons)
        for work in WORK:
            for python in (*pythons[shift:], *pythons[:shift]):
                runs[work][python].append(run_side(python, work, steps))
        print(f"turn {turn + 1} of {repeats}", file=sys.stderr, flush=True)
    return runs


def rows(runs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> list[str]:
    """Markdown: a row for each interpreter, the first without ratios."""
    heads = [f"{text}: {of}" for text in WORK.values() for of in ("CPU", "clock")]
    lines = [
        "| Python, numpy, torch | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    base, *_ = runs["train"]
    for python in runs["train"]:
        cells = [runs["train"][python][0]["seen"]]
        for work in WORK:
            for of in ("cpu", "wall"):
                mine = [turn[of] for turn in runs[work][python]]
                cell = f"{middle(mine).median:.3g}"
                if python != base:
                    over = ratio(mine, [turn[of] for turn in runs[work][base]])
                    cell += f", {_spread(over)}"
                cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _spread(over: Middle) -> str:
    return f"{over.median:.2f} ({over.least:.2f}–{over.most:.2f})"


def _run(python: str, work: str, steps: int) -> Mapping[str, Any]:
    command = [python, "-W", "ignore", "-m", "benchmarks.pythons", python]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    try:
        done = subprocess.run(
            [*command, "--child", work, "--steps", str(steps)], cwd=ROOT, capture_output=True,
            text=True, check=False, timeout=LIMIT,
            env={**os.environ, **threads, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'data'}"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{python}, {work}: {error}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CommandError(f"{python}, {work}: exit code {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def _versions() -> str:
    from importlib import metadata

    here = ".".join(map(str, sys.version_info[:3]))
    return ", ".join((here, metadata.version("numpy"), metadata.version("torch")))


def _train(steps: int) -> dict[str, float]:
    import gluon_cnn  # noqa: F401  (first: it settles the threads before MXNet loads)
    from benchmarks.numpy_side import random_batch
    from gluon_cnn.models import get_model
    from gluon_cnn.runtime.measure import training_step

    net = get_model("lenet")
    step = training_step(net, *random_batch(net.input_shape, 64))
    for _ in range(WARM):
        step()
    used = _timed(lambda: [step() for _ in range(steps)])
    return {of: 1000 * seconds / steps for of, seconds in used.items()}


def _parity(_: int) -> dict[str, float]:
    # run as the command that it is: the benchmarks build on no part of the suite
    check = importlib.import_module("parity_tests.check").main

    def both() -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            if check(["--model", "lenet,mnist_bn_cnn"]):
                raise CommandError(f"the models are not equal: {said.getvalue()[-200:]}")

    return _timed(both)


_CHILDREN = {"train": _train, "parity": _parity}


def _timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of all processors, and of the clock."""
    clock, before = time.perf_counter(), _processors()
    work()
    return {"cpu": _processors() - before, "wall": time.perf_counter() - clock}


def _processors() -> float:
    whose = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in whose)


if __name__ == "__main__":
    sys.exit(main())
