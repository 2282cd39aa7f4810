"""What needs neither framework: numpy's matrix product, the engines that read an exported file, and
what both frameworks are fed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.cases import Case, Turn, repeated, step_times
from cnn_data import ArraySplit, Dataset, load_dataset

EVERY = 100  # batches between two looks at the test accuracy


def begin(case: Case) -> Turn:
    """Floating-point operations a second of an n×n product, n the case's batch."""
    n = case.batch
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)

    def turn(_: int) -> dict[str, Any]:
        times = step_times(lambda: np.matmul(a, b, out=out), case.seconds)
        # The best, not the middle: a peak is what can be reached
        return {"flops": 2 * n**3 / min(times), "seconds": statistics.median(times)}

    return turn


def begin_engine(case: Case) -> Turn:
    """Images a second of ONNX Runtime or OpenVINO alone, as documented, on the exported file."""
    assert case.export is not None
    (path,) = Path(case.export).glob("*.onnx")
    shape = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["input"]["shape"]
    x, _ = random_batch(tuple(shape[1:]), case.batch)
    run = engine_alone(case, case.side)
    return repeated(case, lambda: run(x))


def engine_alone(case: Case, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """An engine that reads ONNX as its documentation runs it, with the case's threads."""
    assert case.export is not None
    (path,) = Path(case.export).glob("*.onnx")
    return ENGINES_ALONE[name](path, case.threads)


def _onnxruntime(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"data": x})[0]


def _openvino(path: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads,
               "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
    model = openvino.Core().compile_model(path, "CPU", options)
    return lambda x: model(x)[0]


ENGINES_ALONE = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def random_batch(shape: tuple[int, ...], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 (batch, C, H, W), labels int64 (batch,)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *shape), dtype=np.float32)
    return x, rng.integers(0, 10, batch)


def made_up(images: int) -> Dataset:
    """Random digits, 28×28: `images` to train on, a sixth as many to test."""
    rng = np.random.default_rng(0)
    parts = [
        ArraySplit(rng.integers(0, 256, (n, 28, 28, 1), np.uint8), rng.integers(0, 10, n))
        for n in (images, max(1, images // 6))
    ]
    names = tuple(map(str, range(10)))
    return Dataset("made-up", names, (28, 28, 1), (0.5,), (0.3,), *parts)


def mnist(case: Case) -> Dataset:
    return load_dataset("mnist", case.data_dir)


def write_photographs(folder: Path, count: int, size: int) -> None:
    """JPEGs of `size`² pixels in ten folders, one a class; noise, which takes longest to decode."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"class{number % 10}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(path)
