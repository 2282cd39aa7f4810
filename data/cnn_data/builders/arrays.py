"""Builders of the data sets whose images are all of one size: written as PNG, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from cnn_data.builders.base import Examples, ImageBuilder
from cnn_data.readers.originals import read_files
from cnn_data.splits import Pair


class _ArrayBuilder(ImageBuilder):
    def _splits(self, files: Sequence[Path]) -> dict[str, Examples]:
        train, test = read_files(self.entry, files)
        return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

    def _generate_examples(self, pair: Pair) -> Examples:
        images, labels = pair
        for index, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            key = f"{index:06}"
            picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            yield key, {"image": picture, "label": int(label), "file_name": key}


class Mnist5k(_ArrayBuilder):
    """The embedded digits, split as `load_dataset` splits them."""


class Mnist(_ArrayBuilder):
    """MNIST: the four IDX files of LeCun, Cortes and Burges."""


class FashionMnist(_ArrayBuilder):
    """Fashion-MNIST: four IDX files (Xiao, Rasul, Vollgraf 2017)."""


class Cifar10(_ArrayBuilder):
    """CIFAR-10: the binary or the Python version (Krizhevsky 2009)."""
