"""`python -m benchmarks.pythons PYTHON PYTHON…`: is MXNet slower on another Python and numpy?

Each PYTHON is an interpreter whose environment has this project's `cpu` and `parity` extras, as
`nox -s pythons` leaves them in `.nox/`; the others are compared with the first. Each has a process
that is ready and warm, and they take short turns, one after another, with the same work in one
thread (two wait for each other, which other work on the machine decides): so many training steps of
LeNet on batches of 64, and the parity suite's check of two models. Given for each are its medians
of processor time (user and system, of all threads and children), which other work moves less than
the clock, and of the clock; and both over those of the first, turn by turn. In brackets stand the
least and the greatest.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import Turn
from benchmarks.child import Child, in_turn, serve
from benchmarks.ratios import Middle, middle, ratio
from cnn_harness.cli import Parser, as_command, positive, print_json
from cnn_harness.errors import CommandError

WORK = {"train": "ms a step, LeNet 64", "parity": "s, parity of lenet and mnist_bn_cnn"}
WARM = 50  # steps before those that are timed: graphs, memory, kernels
ROOT = Path(__file__).resolve().parents[1]

Begin = Callable[[str, str, int], contextlib.AbstractContextManager[Turn]]


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 where an environment fails."""
    parser = Parser(prog="python -m benchmarks.pythons", description=__doc__)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters, the base first")
    parser.add_argument("--repeats", type=positive, default=9, help="turns of each")
    parser.add_argument("--steps", type=positive, default=100, help="training steps of a turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", choices=tuple(WORK), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        serve(lambda: _CHILDREN[args.child](args.steps))
        return 0
    found = measure(args.pythons, args.repeats, args.steps)
    print_json({"runs": found}) if args.json else print("\n".join(rows(found)))
    return 0


def measure(
    pythons: Sequence[str], repeats: int, steps: int, begin: Begin | None = None
) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """What each turn gave, by work and interpreter; the order of the interpreters turns too.

    `begin(python, work, steps)` is a measurement that is ready: called, it takes a turn.

    Raises: Failure where a process fails.
    """
    runs: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for work in WORK:
        runs[work] = {python: [] for python in pythons}
        with contextlib.ExitStack() as stack:
            ready = {p: stack.enter_context((begin or _start)(p, work, steps)) for p in pythons}
            for turn, python in in_turn(pythons, repeats):
                runs[work][python].append(ready[python](turn))
        print(f"{work}: {repeats} turns", file=sys.stderr, flush=True)
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
                cell = _spread(middle(mine), ".3g")
                if python != base:
                    over = ratio(mine, [turn[of] for turn in runs[work][base]])
                    cell += f", {_spread(over)}"
                cells.append(cell)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _spread(of: Middle, form: str = ".2f") -> str:
    return f"{of.median:{form}} ({of.least:{form}}–{of.most:{form}})"


def _start(python: str, work: str, steps: int) -> Child:
    """The process of another interpreter, ready and warm. Raises: Failure."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return Child(
        f"{python}, {work}",
        [python, "-W", "ignore", "-m", "benchmarks.pythons", python,
         "--child", work, "--steps", str(steps)],
        {**os.environ, **threads, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'data'}"},
        ROOT,
    )  # fmt: skip


def _versions() -> str:
    from importlib import metadata

    here = ".".join(map(str, sys.version_info[:3]))
    return ", ".join((here, metadata.version("numpy"), metadata.version("torch")))


def _train(steps: int) -> Turn:
    import gluon_cnn  # noqa: F401  (first: it settles the threads before MXNet loads)
    from benchmarks.numpy_side import random_batch
    from gluon_cnn.models import get_model
    from gluon_cnn.runtime.measure import training_step

    net = get_model("lenet")
    step = training_step(net, *random_batch(net.input_shape, 64))
    for _ in range(WARM):
        step()
    seen = _versions()

    def turn(_: int) -> dict[str, Any]:
        used = _timed(lambda: [step() for _ in range(steps)])
        return {"seen": seen, **{of: 1000 * seconds / steps for of, seconds in used.items()}}

    return turn


def _parity(_: int) -> Turn:
    # run as the command that it is: the benchmarks build on no part of the suite
    check = importlib.import_module("parity_tests.check").main

    def both() -> None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            if check(["--model", "lenet,mnist_bn_cnn"]):
                raise CommandError(f"the models are not equal: {said.getvalue()[-200:]}")

    both()  # what a first run imports and compiles is no turn's
    seen = _versions()
    return lambda _: {"seen": seen, **_timed(both)}


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
