"""Imagenette's original files: https://github.com/fastai/imagenette.

Ten classes of ImageNet, as `train/n01440764/….JPEG` and `val/…`, in a .tgz or extracted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cnn_data.catalog import Entry
from cnn_data.errors import DataError
from cnn_data.readers.archive import tar_members
from cnn_data.readers.images import open_image

FORMATS = ("PNG", "JPEG")

_STEMS = ("imagenette2-320", "imagenette2-160", "imagenette2")
_PARTS = {"train": "train", "val": "test"}  # their folder -> our split
_LARGEST = 64 * 2**20  # bytes of one encoded image


def find_extracted(entry: Entry, folder: Path) -> tuple[Path, Path] | None:
    """The folders of training and of test classes, in `folder` or just below it, or None.

    Raises:
        DataError: there are training images, but no `val` beside them.
    """
    places = [folder, *(folder / name for name in (*entry.folders, *_STEMS))]
    places += [folder / name / stem for name in entry.folders for stem in _STEMS]
    for place in places:
        if any((place / "train" / wordnet).is_dir() for wordnet in entry.class_folders):
            if not (place / "val").is_dir():
                raise DataError(f"{place}: holds train but no val; extract imagenette again")
            return place / "train", place / "val"
    return None


def find_archive(entry: Entry, folder: Path) -> Path | None:
    """The packed release in `folder` or just below it, the 320-pixel one first, or None."""
    places = [folder, *(folder / name for name in entry.folders)]
    packed = (place / f"{stem}.tgz" for stem in _STEMS for place in places)
    return next((path for path in packed if path.is_file()), None)


def read_archive(entry: Entry, path: Path, split: str) -> Iterator[tuple[str, int, bytes]]:
    """Yield (name, label, encoded image) of one split, in the archive's order, in one pass.

    Raises:
        DataError: a damaged archive, a class that is not imagenette's, a file that is no image.
    """

    def wanted(name: PurePosixPath) -> bool:
        return len(name.parts) >= 3 and _PARTS.get(name.parts[-3]) == split

    for name, content in tar_members(path, wanted, _LARGEST):
        if name.name.startswith("."):
            continue
        folder = name.parts[-2]
        if folder not in entry.class_folders:
            raise DataError(f"{path}: {name} is of none of imagenette's classes; fetch it again")
        with open_image(content, f"{path}/{name}", FORMATS):
            yield "/".join(name.parts[-3:]), entry.class_folders.index(folder), content
