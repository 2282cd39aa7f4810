"""A split whose images stay encoded until they are asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from cnn_data.readers.images import check_fit, decode

__all__ = ["FORMATS", "EncodedImages", "EncodedSplit", "Files", "decoding_pool"]

CACHE_LIMIT = 256 * 2**20  # bytes of decoded pixels that a split may keep
SLOW = 0.5e-3  # seconds an image above which threads pay: below, they fight over the interpreter
_TASTE = 4  # images that are timed to find out

FORMATS = ("PNG", "JPEG")


class EncodedImages(Protocol):
    """PNG or JPEG images by index: their bytes or paths, and what to call them in an error."""

    def fetch(self, indices: np.ndarray) -> Sequence[bytes | Path]: ...

    def name(self, index: int) -> str: ...


class Files:
    """Encoded images that are files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def fetch(self, indices: np.ndarray) -> Sequence[bytes | Path]:
        return [self.paths[index] for index in indices]

    def name(self, index: int) -> str:
        return str(self.paths[index])


class EncodedSplit:
    """A split that decodes as it goes, in as many threads as there are cores.

    Decoded pixels are kept only where the whole split's are less than `CACHE_LIMIT` bytes.

    Args:
        encoded: the images, in the order of `labels`.
        labels: integers (N,).
        size: height and width of what `images` returns.
        channels: 1 or 3.
        fit: "resize" or "pad", see `cnn_data.readers.images.decode`.

    Raises:
        DataError: here for a size that makes no sense; from `images` for an unreadable image.
    """

    def __init__(
        self,
        encoded: EncodedImages,
        labels: np.ndarray,
        size: int,
        channels: int,
        fit: str = "resize",
    ) -> None:
        check_fit(size, channels, fit)
        self._encoded = encoded
        self._labels = np.ascontiguousarray(labels, dtype=np.int32)
        self._shape, self._fit = (size, size, channels), fit
        whole = (len(self._labels), *self._shape)
        cached = int(np.prod(whole, dtype=np.int64)) < CACHE_LIMIT
        self._cache = np.zeros(whole, np.uint8) if cached else None
        self._decoded = np.zeros(len(self._labels), bool)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices, dtype=np.intp)
        if self._cache is None:
            out = np.empty((len(indices), *self._shape), np.uint8)
            self._decode(indices, out, np.arange(len(indices)))
            return out
        missing = np.unique(indices[~self._decoded[indices]])
        self._decode(missing, self._cache, missing)
        self._decoded[missing] = True
        return self._cache[indices]

    def name(self, index: int) -> str:
        return self._encoded.name(index)

    def _decode(self, indices: np.ndarray, out: np.ndarray, rows: np.ndarray) -> None:
        """Decode the images at `indices` into `out[rows]`."""
        sources = self._encoded.fetch(indices)
        size, _, channels = self._shape

        def work(part: range) -> None:
            for i in part:
                name = self._encoded.name(int(indices[i]))
                out[rows[i]] = decode(sources[i], name, size, channels, self._fit, FORMATS)

        first = min(_TASTE, len(indices))
        began = time.perf_counter()
        work(range(first))
        if time.perf_counter() - began < SLOW * first:
            work(range(first, len(indices)))
            return
        step = max(1, len(indices) // (8 * _cores()))
        parts = [range(i, min(i + step, len(indices))) for i in range(first, len(indices), step)]
        futures = [decoding_pool().submit(work, part) for part in parts]
        wait(futures)  # all of them: they write into `out`
        for future in futures:
            future.result()  # the first error in order, if any


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def decoding_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="decode")
