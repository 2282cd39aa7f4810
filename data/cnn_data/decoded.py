"""Pixels of encoded images that are decoded once: kept in memory, and from one run to the next.

On two cores a small net trains on a small photograph in the time that decoding it takes; what
decoding an earlier run did is a file of the cache folder, named by the content of all images.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from gluon_cnn_parity import cache_folder
from gluon_cnn_parity.atomic import replacing_file

FORMAT = "cnn_data pixels 1"
LIMIT = 256 * 2**20  # bytes of pixels that are kept in memory
KEPT = 2**30  # bytes of all files: those that were used longest ago make room
WORTH_REMEMBERING = 1.0  # seconds of reading and decoding

_SUM = hashlib.sha256().digest_size  # behind the pixels: a damaged file is not believed


class Decoded:
    """uint8 (count, size, size, channels), and which images of it are `known`.

    Args:
        count: how many images there are; each has a row.
        size: height and width.
        channels: 1 or 3.
        fit: how pictures of other sizes were made to fit, see `cnn_data.readers.images.decode`.
    """

    def __init__(self, count: int, size: int, channels: int, fit: str) -> None:
        self.pixels = np.zeros((count, size, size, channels), np.uint8)
        self.known = np.zeros(count, bool)
        self.size, self.fit = size, fit
        self.seconds = 0.0  # that decoding took
        self._path: Path | None = None

    def to_gray(self) -> None:
        """Keep one channel of pictures that all have three equal ones."""
        self.pixels = np.ascontiguousarray(self.pixels[..., :1])

    def recall(self, sums: Iterable[str]) -> None:
        """Know all pixels, if an earlier run decoded the same images to the same form.

        `sums` tell the images' content, in the order of the rows.
        """
        form = (FORMAT, self.pixels.shape, self.fit, PIL.__version__, features.version("jpg"))
        key = hashlib.sha256("\n".join([*map(str, form), *sums]).encode()).hexdigest()
        path = self._path = cache_folder() / "images" / f"{key[:32]}.pixels"
        if self.known.all():
            return
        with suppress(OSError):
            if path.stat().st_size != self.pixels.nbytes + _SUM:
                return
            content = np.fromfile(path, np.uint8)
            pixels, written = content[:-_SUM], content[-_SUM:].tobytes()
            if hashlib.sha256(pixels.data).digest() != written:
                return
            self.pixels = pixels.reshape(self.pixels.shape)
            self.known[:] = True
            self._path = None  # it is there
            os.utime(path)

    def remember(self) -> None:
        """Write the pixels for the next run, where all are known and decoding them took long.

        Not being able to is no failure.
        """
        path = self._path
        if path is None or self.seconds < WORTH_REMEMBERING or not self.known.all():
            return
        self._path = None  # written once
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(path.parent, self.pixels.nbytes)
            with replacing_file(path, durable=False) as part, part.open("wb") as file:
                file.write(self.pixels.data)
                file.write(hashlib.sha256(self.pixels.data).digest())


def room_for(count: int, size: int, channels: int, fit: str) -> Decoded | None:
    """A place for the pixels of so many images, unless they are more than memory should keep."""
    few = count * size * size * channels < LIMIT
    return Decoded(count, size, channels, fit) if few else None


def _make_room(folder: Path, wanted: int) -> None:
    files = [(path, path.stat()) for path in folder.glob("*.pixels")]
    total = wanted + sum(status.st_size for _, status in files)
    for path, status in sorted(files, key=lambda file: file[1].st_mtime):
        if total > KEPT:
            path.unlink()
            total -= status.st_size
