"""TFDS builders that need no TensorFlow: they write what `load_dataset` reads back.

Importing a builder imports tensorflow_datasets (half a second), so `builder_class` does it late.
"""

from __future__ import annotations

from typing import Any

from cnn_data.errors import DataError

__all__ = ["builder_class"]


def builder_class(name: str) -> Any:
    """The builder of the data set `name`, a subclass of TFDS's GeneratorBasedBuilder."""
    from cnn_data.builders import arrays, imagenette

    builders = {
        "mnist5k": arrays.Mnist5k,
        "mnist": arrays.Mnist,
        "fashion_mnist": arrays.FashionMnist,
        "cifar10": arrays.Cifar10,
        "imagenette": imagenette.Imagenette,
    }
    if name not in builders:
        raise DataError(f"{name} has no builder; choose one of {', '.join(builders)}")
    return builders[name]
