"""What is measured: groups of sides that take turns, and how long a step of one takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "INFERENCE",
    "OF_AN_EXPORT",
    "RECIPE",
    "SIDES",
    "TRAINING",
    "Case",
    "Group",
    "groups",
    "step_times",
]

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
    seed: int = 0  # of an accuracy's run: the number of its turn
    export: str | None = None  # folder of the model's export, for OF_AN_EXPORT

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
ANSWERED = (
    *((model, batch) for model in ("lenet", "mnist_bn_cnn", "cifar_cnn") for batch in (1, 64, 500)),
    *(("alexnet", 1), ("alexnet", 32), ("vgg16", 1), ("vgg16", 8)),
)
GROWTH = (1, 4, 16, 64, 256, 1024)
RECIPE = "quick-lenet-mnist"  # what `ours` and its PyTorch twin train with, to an accuracy on MNIST
SEEDS = 10


def groups(
    threads: int, data_dir: str | None, *, quick: bool, repeats: int, compiler: bool
) -> list[Group]:
    """All groups, in the order in which they run.

    `data_dir` holds MNIST; without it, time to accuracy and the memory of a full run are left
    out. `quick` is two turns of the smallest: it shows that everything runs, and no more.
    """
    seconds = 0.5 if quick else 0.7  # hundreds of steps of a small net, two of the largest
    turns = 2 if quick else repeats
    found = []
    for part, measured, sides in (
        ("train", TRAINED, ("untuned", *TRAINING, "own_loop", "ours")),
        ("infer", ANSWERED, ("untuned", *INFERENCE, "ours", "auto")),
    ):
        runnable = [side for side in sides if compiler or side not in COMPILED]
        for model, batch in (("lenet", 64),) if quick else measured:
            cases = (Case(part, side, model, batch, threads, seconds) for side in runnable)
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
            for side, batch, epochs in (("source", 500, 1), ("ours", 128, 3), ("eager", 128, 3))
        )
        found.append(Group("accuracy", accuracy, 1 if quick else max(repeats, SEEDS)))
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
