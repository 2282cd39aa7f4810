"""Every image file of a folder read whole before it is trained on: which are damaged, and how.

What was found whole is remembered by size and time of change, so that a large folder is read once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import as_completed
from dataclasses import astuple, dataclass
from pathlib import Path

from tqdm import tqdm

from gluon_cnn_parity import cache_folder
from cnn_data.decoded import WORTH_REMEMBERING, Decoded
from cnn_data.encoded import FORMATS, decoding_pool
from cnn_data.errors import DataError
from cnn_data.readers.images import (
    decode_opened,
    fits,
    is_grayscale,
    open_image,
    require_regular,
)
from gluon_cnn_parity.atomic import write_text

FORMAT = "cnn_data images 1"
MOST_BYTES = 2**30  # of one file: an image of the most pixels, uncompressed, has fewer
SILENCE = 30.0  # seconds without a word, where there is no terminal

_AT_ONCE = 64  # files that a worker takes
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff")
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_SIZE = 64  # pixels to which images are decoded: damage shows at any size


@dataclass(frozen=True)
class ImageFile:
    """What is known of a whole image file."""

    sha256: str  # of the file's bytes
    width: int  # pixels, as stored
    height: int
    grayscale: bool


Finding = ImageFile | str | None  # whole; what is wrong with it; no PNG or JPEG at all
_Key = tuple[int, int]  # bytes, and nanoseconds of the last change
_REMEMBERED = (int, int, str, int, int, bool)  # types of a key and an ImageFile


def inspect_images(
    root: Path, paths: Sequence[Path], decoded: Decoded | None = None
) -> list[Finding]:
    """Read every file of `paths`, all below `root`, in as many threads as there are cores.

    A file that is remembered with its size and time of change is not read again. Nothing that is
    no regular file is opened: a pipe would block. What is decoded to be seen whole is kept in
    `decoded`, in three channels, a row a path.
    """
    memory = _Memory(root)
    findings: dict[Path, Finding] = {}
    keys: dict[Path, _Key] = {}
    unread = []
    for row, path in enumerate(paths):
        with contextlib.suppress(OSError):
            status = path.stat()
            keys[path] = (status.st_size, status.st_mtime_ns)
            if stat.S_ISREG(status.st_mode) and (known := memory.get(path, keys[path])):
                findings[path] = known
                continue
        unread.append((row, path))
    began = time.monotonic()
    findings |= _read(root, unread, decoded)
    seconds = time.monotonic() - began
    if decoded is not None:
        decoded.seconds += seconds
    if seconds > WORTH_REMEMBERING:
        whole = {p: f for p, f in findings.items() if isinstance(f, ImageFile)}
        memory.store({path: (*keys[path], *astuple(found)) for path, found in whole.items()})
    return [findings[path] for path in paths]


def _read(
    root: Path, paths: Sequence[tuple[int, Path]], decoded: Decoded | None
) -> dict[Path, Finding]:
    def read(part: Sequence[tuple[int, Path]]) -> dict[Path, Finding]:
        return {path: _finding(path, row, decoded) for row, path in part}

    parts = [paths[i : i + _AT_ONCE] for i in range(0, len(paths), _AT_ONCE)]
    futures = [decoding_pool().submit(read, part) for part in parts]
    findings: dict[Path, Finding] = {}
    said = time.monotonic()
    try:
        with tqdm(
            total=len(paths), desc=f"reading {root}", unit=" images", delay=1.0, leave=False,
            disable=None,
        ) as bar:  # fmt: skip
            for future in as_completed(futures):
                findings |= future.result()
                bar.update(len(future.result()))
                if bar.disable and time.monotonic() - said > SILENCE:
                    said = time.monotonic()
                    print(f"reading {root}: {len(findings)}/{len(paths)} images", file=sys.stderr)
    finally:
        for future in futures:
            future.cancel()  # where this was interrupted: nobody waits for the rest
    return findings


def _finding(path: Path, row: int, decoded: Decoded | None) -> Finding:
    name = str(path)
    try:
        require_regular(path, name)
        with path.open("rb") as file:
            first = file.read(8)
            if path.suffix.lower() not in _SUFFIXES and not first.startswith(_MAGIC):
                return None
            content = first + file.read(MOST_BYTES)
        if len(content) > MOST_BYTES:
            return f"more than {MOST_BYTES} bytes, refused"
        with open_image(content, name, FORMATS) as image:
            width, height, grayscale = image.width, image.height, is_grayscale(image)
            if decoded is None or not fits(width, height, decoded.size, decoded.fit):
                decode_opened(image, name, _SIZE, 3)
            else:
                decoded.pixels[row] = decode_opened(image, name, decoded.size, 3, decoded.fit)
                decoded.known[row] = True
        return ImageFile(hashlib.sha256(content).hexdigest(), width, height, grayscale)
    except DataError as error:
        return str(error).removeprefix(f"{name}: ")
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


class _Memory:
    """The image files below a folder that were whole when they were last read, in a JSON file."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        place = hashlib.sha256(str(self._root).encode("utf-8", "surrogateescape")).hexdigest()
        self._path = cache_folder() / "images" / f"{place[:32]}.json"
        self._files: dict[str, list] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("format") == FORMAT:
                self._files = dict(content["files"])

    def get(self, path: Path, key: _Key) -> ImageFile | None:
        found = self._files.get(str(path.absolute().relative_to(self._root)))
        if not isinstance(found, list) or tuple(map(type, found)) != _REMEMBERED:
            return None
        return ImageFile(*found[2:]) if tuple(found[:2]) == key else None

    def store(self, files: dict[Path, Iterable[object]]) -> None:
        """Remember these files, and no others; not being able to is no failure."""
        rows = {str(p.absolute().relative_to(self._root)): list(row) for p, row in files.items()}
        text = json.dumps({"format": FORMAT, "folder": str(self._root), "files": rows})
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, text)
