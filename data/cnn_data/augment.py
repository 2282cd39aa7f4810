"""Light augmentation of a whole batch at once, on uint8 pixels, before normalisation."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cnn_data.errors import DataError

__all__ = ["AUGMENTATIONS", "augment_batch", "check_augmentation"]

AUGMENTATIONS = ("none", "shift", "crop-flip")

_REACH = {"shift": 2, "crop-flip": 4}  # pixels that a picture may move, each way


def check_augmentation(name: str) -> None:
    """Raise DataError unless `name` is one of AUGMENTATIONS."""
    if name not in AUGMENTATIONS:
        raise DataError(f"unknown augmentation {name!r}; choose one of {', '.join(AUGMENTATIONS)}")


def augment_batch(
    images: np.ndarray, name: str, rng: np.random.Generator, count: int, part: slice
) -> np.ndarray:
    """Augment `images` uint8 (n, H, W, C); the result is uint8 (n, C, H, W).

    - shift: moved by up to 2 pixels along each axis;
    - crop-flip: padded by 4, cropped at random, mirrored left to right half of the time
      (He, Zhang, Ren, Sun 2015, section 4.2).

    What is uncovered is background, 0. The choices are drawn for the whole batch of `count` images
    and `images` is its `part`, so that what happens to an image does not depend on the sharding.
    """
    if name == "none":
        return images.transpose(0, 3, 1, 2)
    reach = _REACH[name]
    n, height, width, _ = images.shape
    rows, columns = rng.integers(0, 2 * reach + 1, size=(2, count))[:, part]
    mirrored = rng.random(count)[part] < 0.5
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    # (n, rows, columns, C, H, W); numpy's stub knows no tuple of axes
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    moved = windows[np.arange(n), rows, columns]  # (n, C, H, W)
    if name == "crop-flip":
        moved[mirrored] = moved[mirrored, :, :, ::-1]
    return moved
