"""Data sets that tensorflow-datasets has prepared, read without TensorFlow, and preparing them.

A prepared set is a folder `NAME/VERSION` (or `NAME/CONFIG/VERSION`) with `dataset_info.json` and
ArrayRecord files. tensorflow_datasets is imported only where one is read or written.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from cnn_data.builders import builder_class
from cnn_data.catalog import Entry
from cnn_data.decoded import room_for
from cnn_data.encoded import EncodedSplit
from cnn_data.errors import DataError
from cnn_data.network import unreachable
from cnn_data.readers.images import check_fit
from cnn_data.splits import Dataset, mixed_order

_FORMAT = "array_record"
_AGAIN = "delete that folder and prepare it again with python -m cnn_data.prepare"
_TRIES = 3  # of a download that breaks off: 1 to 2 seconds
_AT_ONCE = 1000  # records read together when labels are collected


def find_prepared(entry: Entry, folder: Path) -> Path | None:
    """The prepared form of `entry` in `folder`, the newest if there are several, or None.

    Raises:
        DataError: there is one, but in a format that only TensorFlow reads.
    """
    infos = [folder / "dataset_info.json"]
    for below in ("*", f"{entry.name}/*", f"{entry.name}/*/*"):
        infos += folder.glob(f"{below}/dataset_info.json")
    formats = {}
    for path in infos:
        if path.is_file():
            info = _read_info(path)
            if info.get("name") == entry.name:
                formats[path.parent] = info.get("fileFormat")
    usable = [path for path, file_format in formats.items() if file_format == _FORMAT]
    if formats and not usable:
        path, file_format = next(iter(formats.items()))
        raise DataError(
            f"{path}: prepared as {file_format}, which needs TensorFlow; expected {_FORMAT}: "
            f"run python -m cnn_data.prepare {entry.name} with another --data-dir"
        )
    return max(usable, key=_version) if usable else None


def read_prepared(entry: Entry, path: Path, image_size: int, channels: int, fit: str) -> Dataset:
    """Open a prepared data set; images are decoded as they are asked for.

    Raises:
        DataError: damaged, or not the data set that the catalogue describes.
    """
    check_fit(image_size, channels, fit)
    import tensorflow_datasets as tfds

    with _telling(path, _AGAIN):
        builder = tfds.builder_from_directory(path)
        names = list(builder.info.splits)
        test = "test" if "test" in names else "validation"
        if "train" not in names or test not in names:
            raise DataError(f"{path}: holds the splits {names}; expected train and test")
        splits = []
        for number, split in enumerate(("train", test)):
            source = builder.as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            records = _Records(source, f"{path}: {split}")
            if entry.counts and len(source) != entry.counts[number]:
                raise DataError(
                    f"{path}: {split} holds {len(source)} images; expected {entry.counts[number]}"
                )
            decoded = room_for(len(source), image_size, channels, fit)
            content = hashlib.sha256()
            labels, file_names = records.labels(
                len(entry.class_names), content.update if decoded is not None else None
            )
            order = np.arange(len(labels))
            if entry.shape is None:  # in the order of the extracted folder
                by_name = np.argsort(file_names, kind="stable")
                order = by_name[mixed_order(len(labels))]
            if decoded is not None:
                decoded.recall([content.hexdigest()])
            splits.append(
                EncodedSplit(records, labels[order], image_size, channels, fit, order, decoded)
            )
    shape = (image_size, image_size, channels)
    return Dataset(entry.name, entry.class_names, shape, entry.mean, entry.std, *splits)


def build(
    entry: Entry, data_dir: Path, originals: Sequence[Path] | None = None, *, progress: bool = False
) -> Path:
    """Prepare `entry` below `data_dir`, from its original files or by downloading them.

    Returns:
        The folder of the prepared data set. A build that fails leaves none.

    Raises:
        DataError: no network (found out within 5 seconds), a failed download, wrong files, no
            permission to write.
    """
    if originals is None:
        host = unreachable(file.url for file in entry.originals)
        if host is not None:
            raise DataError(
                f"{entry.name} is not in {data_dir} and {host} cannot be reached: put its original "
                f"files ({', '.join(file.name for file in entry.originals)}) in --data-dir, or run "
                f"python -m cnn_data.prepare {entry.name} on a machine with a network and copy the "
                "result"
            )
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    # the host answered a moment ago; TFDS's ten tries, with doubling pauses, take minutes
    downloader.MAX_RETRIES = _TRIES
    (tfds.enable_progress_bar if progress else tfds.disable_progress_bar)()
    # TFDS announces itself on stdout, which belongs to whoever asked
    remedy = "see that it can be written to and that the network holds, or name another --data-dir"
    with _telling(data_dir, remedy), redirect_stdout(sys.stderr):
        data_dir.mkdir(parents=True, exist_ok=True)
        builder = builder_class(entry.name)(
            originals=originals, data_dir=data_dir, file_format=_FORMAT
        )
        builder.download_and_prepare()
    return Path(builder.data_dir)


class _Records:
    """The records of one split: serialised tf.train.Example, with an encoded image and a label."""

    def __init__(self, source: Any, name: str) -> None:
        from tensorflow_datasets.proto import tf_example_pb2

        self._parse = tf_example_pb2.Example.FromString
        self._source, self._name = source, name
        self._lock = threading.Lock()

    def _features(self, indices: np.ndarray) -> list[Any]:
        with self._lock, _telling(self._name, _AGAIN):
            records = self._source.__getitems__([int(index) for index in indices])
            return [self._parse(record).features.feature for record in records]

    def labels(
        self, classes: int, see: Callable[[bytes], None] | None = None
    ) -> tuple[np.ndarray, list[str]]:
        """All labels, int32 (N,), and the file names that go with them ("" where unknown).

        `see` is given each image's length and bytes.
        """
        labels: list[int] = []
        names: list[str] = []
        for start in range(0, len(self._source), _AT_ONCE):
            stop = min(start + _AT_ONCE, len(self._source))
            for features in self._features(np.arange(start, stop)):
                value = features["label"].int64_list.value
                if len(value) != 1 or not 0 <= value[0] < classes:
                    raise DataError(
                        f"{self._name} record {len(labels)}: label {list(value)}; "
                        f"expected 0 to {classes - 1}"
                    )
                if see is not None:
                    for part in features["image"].bytes_list.value:
                        see(f"{len(part)} ".encode() + part)
                labels.append(value[0])
                names.append(b"".join(features["file_name"].bytes_list.value).decode())
        return np.array(labels, np.int32), names

    def fetch(self, indices: np.ndarray) -> list[bytes | Path]:
        return [b"".join(each["image"].bytes_list.value) for each in self._features(indices)]

    def name(self, index: int) -> str:
        return f"{self._name} record {index}"


@contextmanager
def _telling(where: Path | str, remedy: str) -> Iterator[None]:
    """Turn whatever TFDS raises into one line; a DataError inside it is what went wrong."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DataError):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:
            raise DataError(str(cause).splitlines()[0]) from error
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        first = (said.splitlines() or [type(error).__name__])[0].rstrip(".:")
        raise DataError(f"{where}: {first}; {remedy}") from error


def _version(path: Path) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in path.name.split(".")]


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); prepare it again") from error
    return info if isinstance(info, dict) else {}
