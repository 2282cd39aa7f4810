"""What is measured: groups of sides that take turns, and how long a step of one takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Side -> what it is
SIDES = {
    "untuned": "MXNet as it comes",
    "ours": "gluon_cnn",
    "own_loop": "own loop, training_step",
    "auto": "gluon_cnn --engine auto",
    "eager": "PyTorch eager",
    "fused_adam": "eager, fused Adam",
    "channels_last": "channels-last",
    "fused_adam_channels_last": "channels-last, fused Adam",
    "compiled": "torch.compile",
    "compiled_channels_last": "torch.compile, channels-last",
    "frozen": "torch.compile, frozen",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "source": "the source script",
    "numpy": "numpy",
}
# Which of them run what, ours last; the others are those that ours is held against
TRAINING = ("eager", "fused_adam", "channels_last", "fused_adam_channels_last", "compiled",
            "compiled_channels_last")  # fmt: skip
INFERENCE = ("eager", "channels_last", "compiled", "compiled_channels_last", "frozen",
             "onnxruntime", "openvino")  # fmt: skip
COMPILED = ("compiled", "compiled_channels_last", "frozen")  # which need a C++ compiler
OF_AN_EXPORT = ("auto", "onnxruntime", "openvino")  # which open the files of `gluon_cnn.export`
BESIDE = ("onnxruntime", "openvino")  # which `auto` runs beside itself, in one process


# What a measurement that is ready gives for the turn of that number, from 0
Turn = Callable[[int], Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """One measurement, made in turns by a process of its own: `benchmarks.child`."""

    part: str  # train, infer, import, accuracy, epoch, waiting, command, peak
    side: str
    model: str = "lenet"
    batch: int = 64  # 0: the recipe's
    threads: int = 1
    seconds: float = 2.0  # to measure for, in each turn
    images: int = 0  # of a made-up data set
    data_dir: str | None = None
    epochs: int = 0
    export: str | None = None  # folder of the model's export, for OF_AN_EXPORT

    @property
    def anew(self) -> bool:
        """Whether every turn has a process of its own: each has other luck with its memory."""
        return (self.part, self.side) == ("infer", "auto")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Group:
    """Cases that take turns; `name` is what `--only` looks in."""

    name: str
    cases: tuple[Case, ...]
    repeats: int


TRAINED = (
    ("lenet", 64),
    ("lenet", 500),
    ("mnist_bn_cnn", 64),
    ("cifar_cnn", 64),
    ("alexnet", 32),
    ("vgg16", 8),
)
ANSWERED = tuple(
    (model, batch)
    for model in ("lenet", "lenet5", "mnist_bn_cnn", "cifar_cnn", "alexnet", "vgg16")
    for batch in (1, 64, 500)
)
# Side -> what a program of it imports first
IMPORTED = {
    "ours": "import gluon_cnn",
    "untuned": "import mxnet_compat; mxnet_compat.install(); import mxnet",
    "eager": "import torch",
}
# A call takes half a minute and 14 GB (ONNX Runtime more than 23, which it is killed for), and its
# first one counts: those beside each other of which one was the fastest
LONG: dict[tuple[str, int], tuple[str, ...]] = {("vgg16", 500): ("openvino", "auto")}
# `auto` alone: other engines in its process do not fit into 23 GB beside the other sides
CROWDED = {*LONG, ("vgg16", 64)}
GROWTH = (1, 4, 16, 64, 256, 1024)
PHOTOGRAPHS = (("cifar_cnn", 64, 20_000), ("alexnet", 32, 320))  # and how many
RECIPE = "quick-lenet-mnist"  # what `ours` and its PyTorch twin train with, to an accuracy on MNIST
SEEDS = 10
PROCESSES = 5  # of `auto`, each with the engines beside it


def groups(
    threads: int, data_dir: str | None, *, quick: bool, repeats: int, compiler: bool
) -> list[Group]:
    """All groups, in the order in which they run.

    `data_dir` holds MNIST; without it, time to accuracy and the memory of a full run are left
    out. `quick` is two turns of the smallest: it shows that everything runs, and no more.
    """
    seconds = 0.3  # of a turn: tens of steps of a small net, one of the largest
    turns = 2 if quick else repeats
    few = min(turns, 3)
    found = []
    for part, measured, sides in (
        ("train", TRAINED, ("untuned", *TRAINING, "own_loop", "ours")),
        ("infer", ANSWERED, ("untuned", *INFERENCE, "ours", "auto")),
    ):
        runnable = [side for side in sides if compiler or side not in COMPILED]
        for model, batch in (("lenet", 64),) if quick else measured:
            some: tuple[str, ...] = sides
            count = turns
            if part == "infer":
                crowded = (model, batch) in CROWDED
                some = LONG.get((model, batch), sides if crowded else _without(sides, BESIDE))
                count = few if crowded else min(turns, PROCESSES)
            cases = (Case(part, s, model, batch, threads, seconds) for s in runnable if s in some)
            found.append(Group(f"{part} {model} {batch}", tuple(cases), count))
    imports = tuple(Case("import", side, threads=threads) for side in IMPORTED)
    found.append(Group("import", imports, turns))
    peak = Case("peak", "numpy", batch=512 if quick else 3072, threads=threads)
    found.append(
        Group("peak", (peak, Case("peak", "eager", batch=peak.batch, threads=threads)), turns)
    )
    for batch in GROWTH[:3] if quick else GROWTH:
        for count in sorted({1, threads}):
            cases = (Case("train", s, "lenet", batch, count, seconds) for s in ("ours", "eager"))
            found.append(Group(f"growth batch {batch} threads {count}", tuple(cases), few))
    for images in (1_000, 10_000) if quick else (6_000, 60_000):
        case = Case("epoch", "ours", batch=64, threads=threads, images=images)
        found.append(Group(f"growth images {images}", (case,), few))
    for model, batch, images in PHOTOGRAPHS[:1] if quick else PHOTOGRAPHS:
        count = 500 if quick else images
        case = Case("waiting", "ours", model, batch, threads, images=count)
        found.append(Group(f"waiting {model} {batch}", (case,), few))
    if data_dir is not None:
        accuracy = (
            Case("accuracy", "source", batch=500, threads=threads, data_dir=data_dir, epochs=1),
            *(Case("accuracy", side, batch=0, threads=threads, data_dir=data_dir)
              for side in ("ours", "eager")),
        )  # fmt: skip
        found.append(Group("accuracy", accuracy, 1 if quick else max(repeats, SEEDS)))
        command = Case("command", "ours", threads=threads, data_dir=data_dir, epochs=1)
        found.append(Group("memory of a full MNIST run", (command,), 1))
    return found


def _without(sides: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(side for side in sides if side not in others)


WARM = 0.7  # seconds of steps before the first turn, at least one: graphs, memory, kernels
AGAIN = 0.1  # seconds of untimed steps in each turn: meanwhile other processes had the caches


def step_times(step: Callable[[], Any], seconds: float, untimed: float = AGAIN) -> list[float]:
    """How long each call took that ended in the `seconds` after those untimed, one at least.

    A call that is longer than the untimed seconds fills the caches within itself, and counts.
    """
    times: list[float] = []
    began = ended = time.perf_counter()
    while not times or ended - began < untimed + seconds:
        start = time.perf_counter()
        step()
        ended = time.perf_counter()
        if ended - began > untimed:
            times.append(ended - start)
    return times


def repeated(case: Case, step: Callable[[], Any]) -> Turn:
    """The turn of a case whose step is one batch, warmed here: images a second."""
    if (case.model, case.batch) not in LONG:
        _warm(step, min(case.seconds, WARM))

    def turn(_: int) -> dict[str, Any]:
        times = step_times(step, case.seconds)
        middle = statistics.median(times)
        return {"images_per_second": case.batch / middle, "seconds": middle, "steps": len(times)}

    return turn


def _warm(step: Callable[[], Any], seconds: float) -> None:
    began = time.perf_counter()
    while True:
        step()
        if time.perf_counter() - began > seconds:
            break


ROUNDS = 5  # of slices, one of each program
FEWEST = 2  # rounds, where they take longer than MOST
MOST = 4.0  # seconds
PAUSE = 0.05  # seconds before a slice: the threads of the program before it still spin


def side_by_side(
    programs: Mapping[str, Callable[[], Any]], seconds: float
) -> dict[str, list[float]]:
    """Seconds of a call of programs that compute the same, in one process, slice by slice.

    Two processes of one program differ by up to 30 % for as long as they live; here all have the
    same memory and cores. A slice takes so many seconds; each program begins rounds.
    """
    for step in programs.values():
        _warm(step, 2 * seconds)
    times: dict[str, list[float]] = {name: [] for name in programs}
    began = time.perf_counter()
    for number in range(ROUNDS):
        if number >= FEWEST and time.perf_counter() - began > MOST:
            break
        first = number % len(programs)
        for name in [*programs][first:] + [*programs][:first]:
            time.sleep(PAUSE)
            slice_of = step_times(programs[name], seconds, untimed=seconds / 2)
            times[name].append(statistics.median(slice_of))
    return times
