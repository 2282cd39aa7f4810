"""Small files in the originals' formats, for tests."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn_data.catalog import CATALOG
from cnn_data.readers.idx import IDX_FILES


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Let the catalogue promise something else of `name` for the length of a test."""
    monkeypatch.setitem(CATALOG, name, replace(CATALOG[name], **changes))


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 (count, 28, 28) and labels that hold every class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return images, (np.arange(count) % 10).astype(np.uint8)


def write_mnist(folder: Path, train: int = 20, test: int = 10, packed: bool = True) -> None:
    """The four IDX files, of random digits."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [idx_bytes(part) for seed, n in ((1, train), (2, test)) for part in digits(n, seed)]
    for name, content in zip(IDX_FILES, contents, strict=True):
        path = folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(content, 1) if packed else content)


def cifar_rows(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (rows, 3072), planes in turn, and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, 3072), dtype=np.uint8), np.arange(rows) % 10


def binary_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1).tobytes()


def python_batch(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """What Python 2's pickle wrote, opcode by opcode (protocol 2)."""
    values = pixels.tobytes()
    return b"".join(
        (
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]",
            b"q\x05(" + b"".join(b"K" + bytes([int(label)]) for label in labels) + b"e",
            b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            b"K\x00\x85q\x09U\x01bq\x0a\x87Rq\x0b(K\x01M" + struct.pack("<H", len(pixels)),
            b"M\x00\x0c\x86q\x0ccnumpy\ndtype\nq\x0dU\x02u1q\x0eK\x00K\x01\x87Rq\x0f",
            b"(K\x03U\x01|q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<i", len(values)) + values + b"tb",
            b"U\x09filenamesq\x11]q\x12(U\x05a.pngq\x13eu.",
        )
    )


def cifar_files(rows: int, version: str) -> dict[str, bytes]:
    """The six batches of the "bin" or the "py" version, by file name."""
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    write, suffix = (binary_batch, ".bin") if version == "bin" else (python_batch, "")
    return {name + suffix: write(*cifar_rows(rows, seed)) for seed, name in enumerate(names)}


def write_tar(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """A .tar.gz of members by name; a TarInfo is put in as it is, without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def picture(value: int | tuple[int, int, int], size: tuple[int, int] = (8, 6)) -> Image.Image:
    """One colour, (width, height); grayscale if `value` is a number."""
    return Image.new("L" if isinstance(value, int) else "RGB", size, value)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and holds a hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    ihdr = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\x00" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + data + chunk(b"IEND", b"")


def write_classes(
    root: Path, counts: Mapping[str, int], colour: bool = False, suffix: str = "png"
) -> None:
    """A folder of one-colour pictures, one sub-folder a class; each picture has its own value."""
    value = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            value = (value + 1) % 256
            image = picture((value, 0, 255 - value) if colour else value)
            image.save(root / name / f"{i:03}.{suffix}")
