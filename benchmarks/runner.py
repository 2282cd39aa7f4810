"""Runs the cases: a process for each, the sides of a group in turn, failures told apart."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.cases import Case, Group
from gluon_cnn.runtime import settings as runtime

__all__ = ["Failure", "run_case", "run_group"]

TIMEOUT = 900.0  # seconds for one measurement

# Left by whoever runs the benchmarks, they would decide it
THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_SPINCOUNT",
           "GOMP_CPU_AFFINITY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
           "MXNET_ENGINE_TYPE")  # fmt: skip


class Failure(RuntimeError):
    """A measurement that did not come to its end; one line."""


def environment(case: Case) -> dict[str, str]:
    """What the process of a case gets: the threads it is measured with, and nobody else's."""
    found = {k: v for k, v in runtime.child_environment({}).items() if k not in THREADS}
    # `untuned` and `source` are told nothing; `ours` finds the whole machine by itself
    part = case.threads < runtime.cores()
    told = {"untuned": False, "source": False, "own_loop": part, "ours": part, "auto": part}
    if told.get(case.side, True):
        found["OMP_NUM_THREADS"] = str(case.threads)
    return found


def run_case(case: Case) -> dict[str, Any]:
    """What `benchmarks.child` measured. Raises: Failure naming the case and the reason."""
    command = [sys.executable, "-m", "benchmarks.child", json.dumps(case.to_dict())]
    label = f"{case.part} {case.model} {case.batch} {case.side}"
    try:
        done = subprocess.run(command, env=environment(case), capture_output=True, text=True,
                              check=False, timeout=TIMEOUT)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(f"{label}: no result after {TIMEOUT:.0f} s") from None
    lines = done.stderr.strip().splitlines()
    if done.returncode:
        raise Failure(f"{label}: exit code {done.returncode}: {(lines or ['no message'])[-1]}")
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise Failure(f"{label}: printed no result") from None


def run_group(
    group: Group,
    say: Callable[[str], None],
    measure: Callable[[Case], Mapping[str, Any]] = run_case,
) -> dict[str, Any]:
    """The group's cases `repeats` times, taking turns; the order of the sides changes with them.

    A side that fails is reported, and left out from then on. Turns to an accuracy have seeds of
    their own, those of speed the same images and weights.
    """
    began = time.perf_counter()
    runs: dict[str, list[Mapping[str, Any]]] = {case.side: [] for case in group.cases}
    failures: dict[str, str] = {}
    for turn in range(group.repeats):
        shift = turn % len(group.cases)
        for case in (*group.cases[shift:], *group.cases[:shift]):
            if case.side in failures:
                continue
            try:
                seed = turn if case.part == "accuracy" else 0
                runs[case.side].append(measure(replace(case, seed=seed)))
            except Failure as error:
                failures[case.side] = str(error)
                say(f"FAILED {error}")
        say(f"{group.name}: turn {turn + 1} of {group.repeats}")
    return {
        "group": group.name,
        "cases": {case.side: case.to_dict() for case in group.cases},
        "runs": {side: list(found) for side, found in runs.items() if side not in failures},
        "failures": failures,
        "seconds": round(time.perf_counter() - began, 1),
    }
