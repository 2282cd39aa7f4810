"""The readers of original data files, as fuzzing targets."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cnn_data import DataError, read_image
from cnn_data.readers.cifar import parse_binary, parse_python, read_cifar
from cnn_data.readers.idx import read_idx
from cnn_data.tests.fuzzing import Target, one_line_errors
from cnn_data.tests.makers import (
    binary_batch,
    cifar_files,
    cifar_rows,
    encoded,
    idx_bytes,
    python_batch,
)

ROWS = 2
_SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")


def _file(content: bytes, name: str = "file") -> Path:
    """The content as a file, in a folder that holds nothing else."""
    path = Path(_SCRATCH.name) / name
    path.write_bytes(content)
    return path


def _nothing_beside(path: Path) -> None:
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a file was written"
    path.unlink()


def check_idx(content: bytes) -> None:
    for packed in (content, gzip.compress(content, 1)):
        path = _file(packed)
        with one_line_errors(DataError):
            assert read_idx(path, (None, 4, 4)).shape[1:] == (4, 4)
        _nothing_beside(path)


def idx_seeds() -> Sequence[bytes]:
    return [idx_bytes(np.arange(n * 16).reshape(n, 4, 4) % 256) for n in (0, 1, 3)]


def check_cifar(content: bytes) -> None:
    """`content` is a .tar, packed here so that gzip's checksum does not hide what is inside."""
    path = _file(gzip.compress(content, 1), "cifar.tar.gz")
    with one_line_errors(DataError):
        (images, labels), _ = read_cifar(path, ROWS)
        assert images.shape == (5 * ROWS, 32, 32, 3)
        assert labels.max() < 10
    _nothing_beside(path)


def cifar_seeds() -> Sequence[bytes]:
    seeds = []
    for version in ("bin", "py"):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for name, member in cifar_files(ROWS, version).items():
                info = tarfile.TarInfo(f"cifar-10-batches/{name}")
                info.size = len(member)
                archive.addfile(info, io.BytesIO(member))
        seeds.append(content.getvalue())
    return seeds


def check_cifar_packed(content: bytes) -> None:
    path = _file(content, "cifar.tar.gz")
    with one_line_errors(DataError):
        read_cifar(path, ROWS)
    _nothing_beside(path)


def check_pickle(content: bytes) -> None:
    with one_line_errors(DataError):
        images, labels = parse_python(content, "data_batch_1", ROWS)
        assert images.shape == (ROWS, 32, 32, 3)
        assert labels.dtype == np.int32


def check_binary(content: bytes) -> None:
    with one_line_errors(DataError):
        assert parse_binary(content, "data_batch_1.bin", ROWS)[0].shape == (ROWS, 32, 32, 3)


def check_image(content: bytes) -> None:
    path = _file(content, "picture")
    for channels, size, fit in ((3, 8, "resize"), (1, None, "resize"), (3, 64, "pad")):
        with one_line_errors(DataError):
            pixels = read_image(path, size, channels, fit)
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == channels
            assert size is None or pixels.shape[:2] == (size, size)
    _nothing_beside(path)


def image_seeds() -> Sequence[bytes]:
    """Every format and mode that a camera, a scanner or a mean person might send."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (9, 11, 3), np.uint8))
    gray = colour.convert("L")
    deep = Image.fromarray(rng.integers(0, 65536, (9, 11), np.uint16))
    clear = colour.copy()
    clear.putalpha(gray)
    turned = Image.Exif()
    turned[0x0112] = 6
    frames = [colour.rotate(angle) for angle in (90, 180)]
    return [
        encoded(colour), encoded(gray), encoded(deep), encoded(clear),
        encoded(colour.convert("P")), encoded(gray.convert("1")), encoded(gray.convert("LA")),
        encoded(colour, "PNG", save_all=True, append_images=frames),
        encoded(colour, "JPEG", exif=turned), encoded(gray, "JPEG", progressive=True),
        encoded(colour.convert("CMYK"), "JPEG"),
        encoded(colour.convert("P"), "GIF", save_all=True, append_images=frames),
        encoded(colour, "BMP"), encoded(colour, "PPM"), encoded(gray, "PPM"),
        encoded(colour, "TIFF"), encoded(deep, "TIFF"), encoded(colour.convert("CMYK"), "TIFF"),
        encoded(colour, "TIFF", compression="tiff_lzw"),
        encoded(colour, "WEBP", save_all=True, append_images=frames), encoded(clear, "WEBP"),
    ]  # fmt: skip


TARGETS = {
    "idx": Target(check_idx, idx_seeds),
    "cifar": Target(check_cifar, cifar_seeds),
    "cifar-packed": Target(
        check_cifar_packed, lambda: [gzip.compress(s, 1) for s in cifar_seeds()]
    ),
    "cifar-pickle": Target(check_pickle, lambda: [python_batch(*cifar_rows(ROWS, 0))]),
    "cifar-binary": Target(check_binary, lambda: [binary_batch(*cifar_rows(ROWS, 0))]),
    "image": Target(check_image, image_seeds),
}
