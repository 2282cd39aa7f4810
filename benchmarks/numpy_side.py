"""The float32 matrix product of numpy's BLAS, and what both frameworks are fed."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from benchmarks.cases import Case, step_times
from cnn_data import ArraySplit, Dataset, load_dataset

__all__ = ["RECIPE", "made_up", "measure", "mnist", "random_batch"]

# What `ours` and its PyTorch twin train with, to an accuracy on MNIST
RECIPE: dict[str, Any] = {"model": "lenet", "dataset": "mnist", "optimizer": "adam", "lr": 0.003,
          "schedule": "cosine", "augment": "shift", "normalise": "standard"}  # fmt: skip
EVERY = 100  # batches between two looks at the test accuracy


def measure(case: Case) -> dict[str, Any]:
    """Floating-point operations a second of an n×n product, n the case's batch."""
    n = case.batch
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    times = step_times(lambda: np.matmul(a, b, out=out), case.seconds)
    # The best, not the middle: a peak is what can be reached
    return {"flops": 2 * n**3 / min(times), "seconds": statistics.median(times)}


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
