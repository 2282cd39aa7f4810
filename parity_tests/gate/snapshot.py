"""`python -m parity_tests snapshot OUT`: record what both frameworks compute now."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gluon_cnn_parity import did_you_mean
from cnn_harness.cli import Parser, as_command, natural, print_json
from cnn_harness.errors import CommandError, UsageError
from parity_tests.backends.base import SIDES, Backend, backend
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import reason_of
from parity_tests.cases.models import FULL, MODELS
from parity_tests.gate import store
from parity_tests.gate.fingerprint import fingerprint
from parity_tests.gate.record.noise import NOISE, PAIRS
from parity_tests.gate.record.quantities import SAMPLE
from parity_tests.gate.record.rules import record_rules
from parity_tests.gate.record.sides import Execute, record_side
from parity_tests.gate.record.subjects import STEPS, Subject, project_subject
from parity_tests.gate.store import Snapshot, SubjectRecord

RULES_NAME = "optimizers"

Say = Callable[[str], None]


def backends(wanted: Sequence[str] = SIDES) -> tuple[dict[str, Backend], dict[str, str]]:
    """The sides that work here, and why the others do not."""
    working: dict[str, Backend] = {}
    absent: dict[str, str] = {}
    for side in SIDES:
        if side not in wanted:
            absent[side] = "not asked for"
            continue
        try:
            one = backend(side)
            _ = one.optimizers  # imported now, no frame of the import holds a net's weights
            working[side] = one
        except Exception as error:  # a framework may fail to load in any way
            absent[side] = reason_of(error)
    return working, absent


def take_snapshot(
    subjects: Iterable[Subject],
    *,
    sides: Sequence[str] = SIDES,
    rules: bool = True,
    settings: dict[str, object] | None = None,
    say: Say = lambda line: None,
) -> Snapshot:
    """Take a snapshot of subjects with every side that works. Raises CommandError if none does."""
    working, absent = backends(sides)
    if not working:
        reasons = "; ".join(f"{side}: {reason}" for side, reason in absent.items())
        raise CommandError(f"neither framework works here ({reasons})")
    snapshot = Snapshot(
        fingerprint(working),
        {"noise": NOISE, "pairs": PAIRS, "sample": SAMPLE, **(settings or {})},
        absent,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' own about exporting
        if rules:
            rules_of = {side: record_rules(one) for side, one in working.items()}
            snapshot.subjects[RULES_NAME] = SubjectRecord(rules_of)
        for subject in subjects:
            snapshot.subjects[subject.name] = record_of(subject, working, say)
    return snapshot


def record_of(
    subject: Subject,
    backends: Mapping[str, Backend],
    say: Say,
    execute: Mapping[str, Execute] = MappingProxyType({}),
) -> SubjectRecord:
    """What the sides give for one subject; of those in `execute`, what they execute."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks' own about exporting
        record = SubjectRecord(
            {side: record_side(one, subject, execute.get(side)) for side, one in backends.items()}
        )
    record.inputs = _inputs(subject)
    failed = sum(len(side.failures) for side in record.sides.values())
    which = f", {failed} did not run" if failed else ""
    say(f"{subject.name}: {time.perf_counter() - started:.1f} s{which}")
    return record


def _inputs(subject: Subject) -> dict[str, np.ndarray]:
    named = {str(i): np.ascontiguousarray(x) for i, x in enumerate(subject.inputs)}
    if subject.labels is not None:
        named["labels"] = subject.labels
    return named


def chosen_models(flags: list[str] | None, full: bool) -> list[tuple[str, bool]]:
    """The (model, whether at full size) of a command line."""
    names = [n.strip() for text in flags for n in text.split(",")] if flags else list(MODELS)
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise UsageError(
            f"--model is {unknown[0]!r}, expected some of {', '.join(MODELS)}"
            f"{did_you_mean(unknown[0], MODELS)}"
        )
    chosen = [(name, False) for name in MODELS if name in names]
    return chosen + [(name, True) for name in FULL if full and name in names]


@as_command(ParityError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = Parser(
        prog="python -m parity_tests snapshot",
        description="Record what MXNet and torch compute now, for a later `compare`. Where only "
        "one of them works, that one is recorded, and the snapshot says so.",
        epilog="Exit status: 0 written, 1 nothing could be recorded, 2 bad usage.",
    )
    parser.add_argument("out", metavar="OUT", help="folder to write; a snapshot there is replaced")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser)
    args = parser.parse_args(argv)
    out = Path(args.out)
    store.check_free(out)
    snapshot = snapshot_now(args, progress)
    size = store.write(snapshot, out)
    if args.json:
        print_json({
            "out": out, "bytes": size, "subjects": list(snapshot.subjects),
            "sides": list(snapshot.sides), "absent": snapshot.absent,
        })  # fmt: skip
        return 0
    for side, reason in snapshot.absent.items():
        print(f"{side} is not in this snapshot: {reason}", file=sys.stderr)
    print(f"{out}: {len(snapshot.subjects)} subjects, {size / 1e6:.1f} MB, "
          f"sides {' and '.join(snapshot.sides)}")  # fmt: skip
    return 0


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def add_options(parser: Parser) -> None:
    """What a snapshot is taken of; `compare` needs the same for a fresh one."""
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="model, or several with commas; unset: all"
    )
    parser.add_argument("--full", action="store_true", help=f"also {' and '.join(FULL)} at 224×224")
    parser.add_argument(
        "--side", choices=[*map(str, SIDES)], help="one framework alone; unset: all that work"
    )
    parser.add_argument("--seed", type=natural, default=0, help="seed of weights and inputs")


def snapshot_now(args: Namespace, say: Say) -> Snapshot:
    """A snapshot of now, as the command line asks.

    Small subjects are shared among two processes; a full size is alone in its own, for its memory.
    """
    sides = (args.side,) if args.side else SIDES
    wanted = chosen_models(args.model, args.full)
    small = [task for task in wanted if not task[1]]
    workers = min(2, len(os.sched_getaffinity(0)), len(small))
    one = partial(_one, seed=args.seed, sides=sides)

    def empty() -> Snapshot:
        return take_snapshot([], sides=sides, settings={"seed": args.seed, "steps": STEPS})

    if workers < 2:
        snapshot = empty()
        for task in small:
            snapshot.subjects |= one(*task, say=say)
    else:
        with _processes(workers) as pool:
            # the last ones are the largest, and are begun first
            waiting = {task: pool.submit(one, *task) for task in reversed(small)}
            snapshot = empty()
            for task in small:
                _collect(snapshot, waiting[task], say)
    for task in wanted[len(small) :]:
        with _processes(1) as pool:
            _collect(snapshot, pool.submit(one, *task), say)
    return snapshot


def _end_with_parent() -> None:
    """Let this process end when the one that started it does, even if that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of their own, which are given nothing more after the first error.

    Raises CommandError where one of them was killed.
    """
    context = multiprocessing.get_context("spawn")  # a forked MXNet hangs
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException as error:
            pool.shutdown(cancel_futures=True)
            if isinstance(error, BrokenProcessPool):
                raise CommandError(
                    "a process that took a model was killed, most often for want of memory "
                    "(vgg16 at 224×224 takes 13 GB); free some, or name other models"
                ) from error
            raise


def _collect(snapshot: Snapshot, waiting: Future[dict[str, SubjectRecord]], say: Say) -> None:
    record = waiting.result()
    snapshot.subjects |= record
    say(f"{next(iter(record))}: done")


def _one(
    name: str, full: bool, *, seed: int, sides: Sequence[str], say: Say = lambda line: None
) -> dict[str, SubjectRecord]:
    """One subject's record under its name; a process of its own may do it."""
    working, _ = backends(sides)
    gc.collect()  # what is left of the process's last subject
    gc.freeze()  # the frameworks' own 350,000 objects stay, and cost each collection 0.2 s
    subject = project_subject(name, full=full, seed=seed)
    return {subject.name: record_of(subject, working, say)}
