"""What is measured: groups of sides that take turns, and how long a step of one takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SIDES", "Case", "Group", "groups", "step_times"]

# Side -> what it is
SIDES = {
    "untuned": "MXNet as it comes",
    "ours": "gluon_cnn",
    "eager": "PyTorch eager",
    "channels_last": "PyTorch channels-last",
    "fused_adam": "PyTorch eager, fused Adam",
    "compiled": "torch.compile",
    "source": "the source script",
    "numpy": "numpy",
}


@dataclass(frozen=True)
class Case:
    """One measurement, made by `benchmarks.child` in a process of its own."""

    part: str  # train, infer, accuracy, epoch, command, peak
    side: str
    model: str = "lenet"
    batch: int = 64
    threads: int = 1
    seconds: float = 2.0  # to measure for, after the first steps
    images: int = 0  # of a made-up data set
    data_dir: str | None = None
    epochs: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Group:
    """Cases that take turns; `name` is what `--only` looks in."""

    name: str
    cases: tuple[Case, ...]
    repeats: int


MEASURED = (
    ("lenet", 64),
    ("lenet", 500),
    ("mnist_bn_cnn", 64),
    ("cifar_cnn", 64),
    ("alexnet", 32),
    ("vgg16", 8),
)
TORCH = ("eager", "channels_last")
GROWTH = (1, 4, 16, 64, 256, 1024)


def groups(
    threads: int, data_dir: str | None, *, quick: bool, repeats: int, compiler: bool
) -> list[Group]:
    """All groups, in the order in which they run.

    `data_dir` holds MNIST; without it, time to accuracy and the memory of a full run are left
    out. `quick` is two turns of the smallest: it shows that everything runs, and no more.
    """
    torch_sides = (*TORCH, "compiled") if compiler else TORCH
    sides = ("untuned", "ours", *torch_sides)
    seconds = 0.5 if quick else 1.5
    turns = 2 if quick else repeats
    found = []
    for part in ("train", "infer"):
        for model, batch in MEASURED[:1] if quick else MEASURED:
            adam = ("fused_adam",) if part == "train" else ()  # a step of 45 million weights
            cases = (Case(part, s, model, batch, threads, seconds) for s in (*sides, *adam))
            found.append(Group(f"{part} {model} {batch}", tuple(cases), turns))
    peak = Case("peak", "numpy", batch=512 if quick else 3072, threads=threads)
    found.append(
        Group("peak", (peak, Case("peak", "eager", batch=peak.batch, threads=threads)), turns)
    )
    for batch in GROWTH[:3] if quick else GROWTH:
        for count in sorted({1, threads}):
            cases = (Case("train", s, "lenet", batch, count, 1.0) for s in ("ours", "eager"))
            found.append(
                Group(f"growth batch {batch} threads {count}", tuple(cases), min(turns, 3))
            )
    for images in (1_000, 10_000) if quick else (6_000, 60_000):
        case = Case("epoch", "ours", batch=64, threads=threads, images=images)
        found.append(Group(f"growth images {images}", (case,), min(turns, 3)))
    if data_dir is not None:
        accuracy = tuple(
            Case("accuracy", side, "lenet", batch, threads, data_dir=data_dir, epochs=epochs)
            for side, batch, epochs in (("source", 500, 12), ("ours", 128, 6), ("eager", 128, 6))
        )
        found.append(Group("accuracy", accuracy, 1 if quick else repeats))
        command = Case("command", "ours", threads=threads, data_dir=data_dir, epochs=1)
        found.append(Group("memory of a full MNIST run", (command,), 1))
    return found


WARM = 2.0  # steps are untimed until this many seconds have gone: graphs, memory, kernels
LEAST = 2  # steps that are timed, however long they take


def step_times(step: Callable[[], Any], seconds: float) -> list[float]:
    """How long each call took, for `seconds` after untimed ones, and twice at least."""
    began = time.perf_counter()
    while True:
        step()
        if time.perf_counter() - began > min(seconds, WARM):
            break
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times
