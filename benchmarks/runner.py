"""Runs the groups: the sides of one are processes that stay, and take short turns."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from benchmarks.cases import AGAIN, COMPILED, CROWDED, RECIPE, Case, Group
from benchmarks.child import Child, Failure, in_turn
from benchmarks.results import flop_of_inference, flop_of_training
from gluon_cnn.runtime import machine
from gluon_cnn.runtime import settings as runtime
from gluon_cnn.training.recipes import OWN

# Left by whoever runs the benchmarks, they would decide it
THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_SPINCOUNT",
           "GOMP_CPU_AFFINITY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
           "MXNET_ENGINE_TYPE")  # fmt: skip
SETTLED = ("own_loop", "ours", "auto")  # which look, as they begin, at what else runs here


def environment(case: Case) -> dict[str, str]:
    """What the process of a case gets: the threads it is measured with, and nobody else's."""
    found = {k: v for k, v in runtime.child_environment({}).items() if k not in THREADS}
    # `untuned` and `source` are told nothing; SETTLED find the whole machine by themselves
    part = case.threads < runtime.cores()
    told = {"untuned": False, "source": False, **dict.fromkeys(SETTLED, part)}
    if told.get(case.side, True):
        found["OMP_NUM_THREADS"] = str(case.threads)
    return found


class Ready(Protocol):
    """What takes turns: a `Child`, but in tests."""

    def wait(self) -> None: ...

    def __call__(self, turn: int) -> Mapping[str, Any]: ...

    @property
    def peak_mb(self) -> float: ...

    def close(self) -> None: ...


Begin = Callable[[Case], Ready]


def start(case: Case) -> Child:
    """The process of a case, on its way. Raises: Failure naming the case and the reason."""
    command = [sys.executable, "-m", "benchmarks.child", json.dumps(case.to_dict())]
    return Child(f"{case.part} {case.model} {case.batch} {case.side}", command, environment(case))


def available_mb() -> float:
    """Memory that is free, or would be if it were wanted; 0 where the system does not say."""
    return (machine.available_memory() or 0) / 2**20


class Sides:
    """The processes of a group's sides, as many of them kept as memory has room for.

    The others are started anew for each of their turns. A side that fails is left out from then on,
    and `failures` says why.
    """

    def __init__(self, begin: Begin = start, available: Callable[[], float] = available_mb) -> None:
        self.failures: dict[str, str] = {}
        self._begin = begin
        self._available = available
        self._kept: dict[str, Ready] = {}
        self._largest = 0.0  # MB

    def __enter__(self) -> Sides:
        return self

    def __exit__(self, *_: object) -> None:
        for ready in self._kept.values():
            ready.close()

    def get_ready(self, cases: Sequence[Case]) -> None:
        """Starts who has room; those that compile first, for whom starting anew is dearest.

        Where memory would hold all twice, those start at once that measure nothing as they begin.
        """
        staying = [case for case in cases if not case.anew]
        if not staying:
            return
        several = any(case.anew and (case.model, case.batch) not in CROWDED for case in cases)
        others = 4 if several else 1  # engines in who is started anew
        first, *rest = sorted(staying, key=lambda case: case.side not in COMPILED)
        self._start([first])
        together = []
        if self._largest and self._has_room(2 * len(rest) + others - 1):
            together = [case for case in rest if case.side not in SETTLED]
        self._start(together)
        for case in rest:
            if case not in together and self._has_room(1 + others):
                self._start([case])

    def turn(self, case: Case, number: int) -> Mapping[str, Any] | None:
        """What it measured; None where it failed, now or before."""
        if case.side not in self._kept and case.side not in self.failures:
            self._start([case])
        ready = self._kept.get(case.side)
        if ready is None:
            return None
        try:
            found = ready(number)
        except Failure as error:
            self._leave_out(case, error)
            return None
        self._largest = max(self._largest, ready.peak_mb)
        if case.anew or not self._has_room(1):
            self._kept.pop(case.side).close()
        return found

    def _start(self, cases: Sequence[Case]) -> None:
        """All at once; returns when all are ready."""
        for case in cases:
            try:
                self._kept[case.side] = self._begin(case)
            except Failure as error:
                self._leave_out(case, error)
        for case in cases:
            if (ready := self._kept.get(case.side)) is None:
                continue
            try:
                ready.wait()
                self._largest = max(self._largest, ready.peak_mb)
            except Failure as error:
                self._leave_out(case, error)

    def _has_room(self, count: int) -> bool:
        return self._available() > 1.1 * count * self._largest

    def _leave_out(self, case: Case, error: Failure) -> None:
        self.failures[case.side] = str(error)
        if case.side in self._kept:
            self._kept.pop(case.side).close()


def run_group(
    group: Group,
    say: Callable[[str], None],
    sides: Callable[[], Sides] = Sides,
) -> dict[str, Any]:
    """The group's cases `repeats` times, taking turns; the order of the sides changes with them.

    A side that fails is reported, and left out. A turn to an accuracy has its number as its seed;
    all turns of speed have the same images and weights.
    """
    began = time.perf_counter()
    runs: dict[str, list[Mapping[str, Any]]] = {case.side: [] for case in group.cases}
    with sides() as each:
        each.get_ready(group.cases)
        ready = time.perf_counter()
        for number, case in in_turn(group.cases, group.repeats):
            found = each.turn(case, number)
            if found is not None:
                runs[case.side].append(found)
    ended = time.perf_counter()
    for reason in each.failures.values():
        say(f"FAILED {reason}")
    return {
        "group": group.name,
        "cases": {case.side: case.to_dict() for case in group.cases},
        "runs": {side: found for side, found in runs.items() if side not in each.failures},
        "failures": each.failures,
        "seconds": round(ended - began, 1),
        "turns_seconds": round(ended - ready, 1),
    }


# What was seen on 2 cores of an AMD EPYC (Zen 4)
BESIDES = 3.0  # seconds of engines beside each other
STARTING = 1.5  # seconds until a process is ready
COMPILING = 6.0  # seconds more where it compiles
RATE = 60e9  # floating-point operations a second and thread of a large net
EPOCH = 7.0  # seconds on MNIST, its looks at the test images included
EXPORTING = 6.0  # seconds to write and prove the files of a small net
PROVING = 130  # inferences of one image that a large net's proof costs more


def expected_seconds(group: Group) -> float:
    """About how long a group takes, which is said before it begins."""
    ready = sum(STARTING + (COMPILING if c.side in COMPILED else 0.0) for c in group.cases)
    first = group.cases[0]
    if first.part == "infer" and first.batch == 1:  # the first of its model's
        flop = flop_of_inference(first.model)
        ready += EXPORTING + PROVING * flop / (RATE * first.threads)
    return ready + group.repeats * sum(map(_turn_seconds, group.cases))


def _turn_seconds(case: Case) -> float:
    if case.part in ("accuracy", "command"):
        return EPOCH * (case.epochs or OWN[RECIPE].epochs)
    if case.part == "epoch":
        return case.images * EPOCH / 60_000
    if case.part == "import":
        return STARTING
    if case.part == "peak":
        return AGAIN + case.seconds
    count = flop_of_inference if case.part == "infer" else flop_of_training
    image = count(case.model) / (RATE * case.threads)
    if case.part == "waiting":
        return 2 * case.images * max(image, EPOCH / 60_000)
    if case.side == "auto" and (case.model, case.batch) not in CROWDED:
        return 2 * STARTING + max(BESIDES, 12 * case.batch * image)  # four engines
    return max(AGAIN + case.seconds, case.batch * image)
