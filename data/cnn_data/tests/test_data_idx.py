from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_data import DataError, load, load_dataset
from cnn_data.readers.idx import IDX_FILES, find_idx, read_idx, read_idx_split
from cnn_data.tests.makers import digits, idx_bytes, shrink, write_mnist

SHARED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(
    shape=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    packed=st.booleans(),
    seed=st.integers(0, 99),
)
@SHARED
def test_what_is_written_is_read(tmp_path: Path, shape: list[int], packed: bool, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx_bytes(array), mtime=0) if packed else idx_bytes(array))
    np.testing.assert_array_equal(read_idx(path, shape), array)
    np.testing.assert_array_equal(read_idx(path, [None] * len(shape)), array)


@given(cut=st.integers(0, 107), packed=st.booleans())
@SHARED
def test_every_truncation_is_refused(tmp_path: Path, cut: int, packed: bool) -> None:
    content = idx_bytes(np.arange(100, dtype=np.uint8))
    content = gzip.compress(content, mtime=0) if packed else content
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(content[: min(cut, len(content) - 1)])
    with pytest.raises(DataError, match="train-labels-idx1-ubyte: "):
        read_idx(path, (100,))


@given(position=st.integers(0, 7), bit=st.integers(0, 7))
@SHARED
def test_every_flipped_bit_of_the_header_is_refused(
    tmp_path: Path, position: int, bit: int
) -> None:
    content = bytearray(idx_bytes(np.arange(100, dtype=np.uint8)))
    content[position] ^= 1 << bit
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_idx(path, (None,))


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
@SHARED
def test_a_flipped_bit_in_a_gzip_file_never_gives_other_values(
    tmp_path: Path, position: int, bit: int
) -> None:
    array = np.arange(100, dtype=np.uint8)
    content = bytearray(gzip.compress(idx_bytes(array), mtime=0))
    content[position % len(content)] ^= 1 << bit
    path = tmp_path / "file"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        np.testing.assert_array_equal(read_idx(path, (100,)), array)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "begins with nothing; expected 00000801"),
        (b"\x89PNG....", "begins with 89504e47"),
        (struct.pack(">4B", 0, 0, 8, 3), "begins with 00000803"),
        (struct.pack(">4B", 0, 0, 13, 1), "begins with 00000d01"),
        (struct.pack(">4BH", 0, 0, 8, 1, 0), "ends inside its header"),
        (struct.pack(">4BI", 0, 0, 8, 1, 2**32 - 1), "holds 4294967295; expected 4"),
        (idx_bytes(np.zeros(3)), "holds 3; expected 4; .*folder:PATH"),
        (idx_bytes(np.zeros(4)) + b"x", "promises 4 values, it holds more"),
        (idx_bytes(np.zeros(4))[:-1], "promises 4 values, it holds only 3"),
        (gzip.compress(idx_bytes(np.zeros(4)), mtime=0)[:-9], "cannot be read"),
        (gzip.compress(idx_bytes(np.zeros(4)) + b"x", mtime=0), "it holds more"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_idx(path, (4,))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much_asks_for_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 10, 2**31, 2**31))
    with pytest.raises(DataError, match="expected any x 28 x 28"):
        read_idx(path, (None, 28, 28))


def test_images_and_labels_must_fit_together(tmp_path: Path) -> None:
    images, labels = digits(12)
    (tmp_path / "images").write_bytes(idx_bytes(images))
    (tmp_path / "labels").write_bytes(idx_bytes(labels))
    got, classes = read_idx_split(tmp_path / "images", tmp_path / "labels", None, 28, 10)
    np.testing.assert_array_equal(got[..., 0], images)
    np.testing.assert_array_equal(classes, labels)
    assert classes.dtype == np.int32

    (tmp_path / "labels").write_bytes(idx_bytes(labels[:11]))
    with pytest.raises(DataError, match="images: holds 12 x 28 x 28; expected 11 x 28 x 28"):
        read_idx_split(tmp_path / "images", tmp_path / "labels", None, 28, 10)
    labels[7] = 10
    (tmp_path / "labels").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match="label 10 at position 7; expected 0 to 9"):
        read_idx_split(tmp_path / "images", tmp_path / "labels", 12, 28, 10)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_the_four_files_are_found_and_nothing_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool, below: str
) -> None:
    shrink(monkeypatch, "mnist", counts=(20, 10))
    write_mnist(tmp_path / below, packed=packed)
    dataset = load_dataset("mnist", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (20, 10)
    images, labels = digits(20, seed=1)
    np.testing.assert_array_equal(dataset.train.images(np.arange(20))[..., 0], images)
    np.testing.assert_array_equal(dataset.train.labels, labels)
    assert dataset.shape == (28, 28, 1)


@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_what_is_too_large_to_resize_at_once_is_resized_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: str
) -> None:
    shrink(monkeypatch, "mnist", counts=(20, 10))
    write_mnist(tmp_path)
    at_once = load_dataset("mnist", tmp_path, image_size=40, fit=fit)
    monkeypatch.setattr(load, "LARGEST_ARRAY", 20 * 40 * 40)
    later = load_dataset("mnist", tmp_path, image_size=40, fit=fit)
    assert type(later.train) is not type(at_once.train)
    assert type(later.test) is type(at_once.test)
    some = np.array([3, 19, 3, 0])
    np.testing.assert_array_equal(later.train.images(some), at_once.train.images(some))
    assert later.train.images(some).shape == (4, 40, 40, 1)
    assert later.shape == (40, 40, 1)


def test_pad_to_less_than_the_images_have_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "mnist", counts=(20, 10))
    write_mnist(tmp_path)
    for limit in (2**28, 0):
        monkeypatch.setattr(load, "LARGEST_ARRAY", limit)
        with pytest.raises(DataError, match="mnist: 28 x 28 cannot be padded to 20 x 20"):
            load_dataset("mnist", tmp_path, image_size=20, fit="pad")


def test_the_dotted_spelling_is_found_and_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=False)
    for name in IDX_FILES:
        (tmp_path / name).rename(tmp_path / name.replace("-idx", ".idx"))
    found = find_idx([tmp_path / "nowhere", tmp_path])
    assert found is not None
    assert [path.name for path in found] == [name.replace("-idx", ".idx") for name in IDX_FILES]
    found[2].unlink()
    with pytest.raises(DataError, match="lacks t10k-images-idx3-ubyte"):
        load_dataset("mnist", tmp_path)


def test_another_number_of_images_than_the_original_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: holds 20; expected 60000"):
        load_dataset("mnist", tmp_path)


def test_mnist_is_not_taken_for_fashion_mnist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrink(monkeypatch, "fashion_mnist", counts=(20, 10))
    write_mnist(tmp_path)
    load_dataset("fashion_mnist", tmp_path)  # labels unlike any known set's
    _, labels = digits(20)
    labels[:10] = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(labels), mtime=0))
    with pytest.raises(DataError, match="these are mnist's labels, not fashion_mnist's"):
        load_dataset("fashion_mnist", tmp_path)
