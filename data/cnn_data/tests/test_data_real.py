"""With the real files that GLUON_CNN_DATA names; skipped where it is unset."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cnn_data import Batches, load_dataset, pixels
from cnn_data.catalog import CATALOG

ROOT = Path(os.environ.get("GLUON_CNN_DATA", "/nonexistent"))

needs_mnist = pytest.mark.skipif(
    not (ROOT / "mnist").is_dir(), reason="GLUON_CNN_DATA has no mnist folder"
)
needs_cifar = pytest.mark.skipif(
    not (ROOT / "cifar10-jpeg-train.zip").is_file(),
    reason="GLUON_CNN_DATA has no cifar10-jpeg-train.zip",
)


@needs_mnist
def test_mnist_is_mnist() -> None:
    dataset = load_dataset("mnist", ROOT)
    assert (len(dataset.train), len(dataset.test)) == CATALOG["mnist"].counts
    assert tuple(dataset.train.labels[:10]) == CATALOG["mnist"].first_labels
    first_twenty = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6, 9, 0, 1, 5, 9, 7, 3, 4]  # doc-2
    assert dataset.test.labels[:20].tolist() == first_twenty
    values = np.bincount(dataset.train.images(np.arange(60_000)).ravel(), minlength=256)
    share = values / values.sum()
    mean = (share * np.arange(256) / 255).sum()
    std = np.sqrt((share * (np.arange(256) / 255 - mean) ** 2).sum())
    assert dataset.mean == (round(mean, 4),)
    assert dataset.std == (round(std, 4),)


@needs_mnist
def test_the_embedded_digits_are_digits_of_mnist() -> None:
    mnist = load_dataset("mnist", ROOT)
    known = {
        (image.tobytes(), int(label))
        for split in (mnist.train, mnist.test)
        for image, label in zip(split.images(np.arange(len(split))), split.labels, strict=True)
    }
    digits = load_dataset("mnist5k")
    for split in (digits.train, digits.test):
        images = split.images(np.arange(len(split)))
        assert all(
            (i.tobytes(), int(n)) in known for i, n in zip(images, split.labels, strict=True)
        )


@needs_cifar
def test_a_folder_of_photographs_trains_in_colour(tmp_path: Path) -> None:
    with zipfile.ZipFile(ROOT / "cifar10-jpeg-train.zip") as packed:
        for name in packed.namelist():
            if name.endswith("0.jpg"):  # a tenth
                packed.extract(name, tmp_path)
    dataset = load_dataset(f"folder:{tmp_path}", image_size=32)
    assert dataset.class_names[:2] == ("airplane", "automobile")
    assert np.bincount(dataset.train.labels).tolist() == [180] * 10
    assert np.bincount(dataset.test.labels).tolist() == [20] * 10
    # near those published for all of CIFAR-10
    assert dataset.mean == pytest.approx(CATALOG["cifar10"].mean, abs=0.03)
    assert dataset.std == pytest.approx(CATALOG["cifar10"].std, abs=0.02)
    batches = Batches(dataset.train, 128, pixels("standard", dataset.mean, dataset.std))
    values = np.concatenate([values for values, _ in batches.epoch(0)])
    assert values.shape == (1800, 3, 32, 32)
    np.testing.assert_allclose(values.mean((0, 2, 3)), 0, atol=0.06)
    np.testing.assert_allclose(values.std((0, 2, 3)), 1, atol=0.06)
