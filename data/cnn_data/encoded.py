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

from cnn_data.decoded import Decoded, room_for
from cnn_data.readers.images import check_fit, decode

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

    Args:
        encoded: the images.
        labels: integers (N,).
        size: height and width of what `images` returns.
        channels: 1 or 3.
        fit: "resize" or "pad", see `cnn_data.readers.images.decode`.
        rows: which of `encoded` belong to the labels, (N,); by default the first N.
        decoded: the pixels of all of `encoded`, as far as they are known, in the same form. Without
            it decoded pixels are kept only where the split's are few: `cnn_data.decoded.LIMIT`.

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
        rows: np.ndarray | None = None,
        decoded: Decoded | None = None,
    ) -> None:
        check_fit(size, channels, fit)
        self._encoded = encoded
        self._labels = np.ascontiguousarray(labels, dtype=np.int32)
        self._shape, self._fit = (size, size, channels), fit
        self._rows = np.arange(len(self._labels)) if rows is None else rows
        if decoded is None and rows is None:
            decoded = room_for(len(self._labels), size, channels, fit)
        self._decoded = decoded

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def images(self, indices: np.ndarray) -> np.ndarray:
        rows, decoded = self._rows[np.asarray(indices, dtype=np.intp)], self._decoded
        if decoded is None:
            out = np.empty((len(rows), *self._shape), np.uint8)
            self._decode(rows, out, np.arange(len(rows)))
            return out
        missing = np.unique(rows[~decoded.known[rows]])
        if len(missing):
            began = time.perf_counter()
            self._decode(missing, decoded.pixels, missing)
            decoded.known[missing] = True
            decoded.seconds += time.perf_counter() - began
            decoded.remember()
        return decoded.pixels[rows]

    def name(self, index: int) -> str:
        return self._encoded.name(int(self._rows[index]))

    def _decode(self, rows: np.ndarray, out: np.ndarray, places: np.ndarray) -> None:
        """Decode the images at `rows` into `out[places]`."""
        sources = self._encoded.fetch(rows)
        size, _, channels = self._shape

        def work(part: range) -> None:
            for i in part:
                name = self._encoded.name(int(rows[i]))
                out[places[i]] = decode(sources[i], name, size, channels, self._fit, FORMATS)

        first = min(_TASTE, len(rows))
        began = time.perf_counter()
        work(range(first))
        if time.perf_counter() - began < SLOW * first:
            work(range(first, len(rows)))
            return
        step = max(1, len(rows) // (8 * _cores()))
        parts = [range(i, min(i + step, len(rows))) for i in range(first, len(rows), step)]
        futures = [decoding_pool().submit(work, part) for part in parts]
        wait(futures)  # all of them: they write into `out`
        for future in futures:
            future.result()  # the first error in order, if any


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=1)
def decoding_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), thread_name_prefix="decode")
