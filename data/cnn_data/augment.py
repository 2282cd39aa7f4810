"""Light augmentation of a whole batch at once, on uint8 pixels, before normalisation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from gluon_cnn_parity import did_you_mean
from cnn_data.errors import DataError

# Images uint8 (n, C, H, W), the generator, the number of images of the whole batch, and their part
_Draw = Callable[[np.ndarray, np.random.Generator, int, slice], np.ndarray]

_SHIFT, _PADDING = 2, 4  # pixels that a picture may move, each way
_JITTER = 0.4  # brightness, contrast and saturation change by factors of 1 ± this
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random resized crop
_TRIES = 10  # for a window that fits; torchvision tries as often, and then takes the middle


def augmentation(text: str) -> str:
    """The name, or several joined by commas, as `AUGMENTATIONS` has them.

    torchvision's class names are read too.

    >>> augmentation("RandomCrop,RandomHorizontalFlip")
    'random-crop,random-horizontal-flip'

    Raises: DataError for a name that is none.
    """
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name.strip()).lower() for name in text.split(",")]
    for name in names:
        if name not in AUGMENTATIONS or (name == "none" and len(names) > 1):
            raise DataError(
                f"unknown augmentation {name!r}; choose one of {', '.join(AUGMENTATIONS)}, or "
                f"several with commas{did_you_mean(name, AUGMENTATIONS)}"
            )
    return ",".join(names)


def augment_batch(
    images: np.ndarray, names: str, rng: np.random.Generator, count: int, part: slice
) -> np.ndarray:
    """Augment `images` uint8 (n, H, W, C); the result is uint8 (n, C, H, W).

    One after the other, as the names stand:

    - shift: moved by up to 2 pixels along each axis;
    - crop-flip: random-crop and random-horizontal-flip (He, Zhang, Ren, Sun 2015, section 4.2);
    - random-crop: padded by 4 and cropped at random;
    - random-horizontal-flip: mirrored left to right half of the time;
    - random-resized-crop: a window of 8 to 100 % of the area, its sides 3:4 to 4:3, made as large
      as the image (Szegedy et al. 2014, section 6);
    - color-jitter: brightness, then contrast, then saturation times a factor of 0.6 to 1.4.

    The last four are torchvision's transforms of these names, whose numbers they draw from this
    generator; torchvision changes the order of the colours, and reads a window from the file.
    What is uncovered is background, 0. The choices are drawn for the whole batch of `count` images
    and `images` is its `part`, so that what happens to an image does not depend on the sharding.
    """
    moved = images.transpose(0, 3, 1, 2)
    for name in names.split(","):
        for draw in AUGMENTATIONS[name]:
            moved = draw(moved, rng, count, part)
    return moved


def mix(
    x: np.ndarray, y: np.ndarray, classes: int, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mixup (Zhang et al. 2017, section 2): every image of a batch with the one before it.

    x' = λ·x + (1 − λ)·x₋₁ with one λ ~ Beta(alpha, alpha) for the batch, as torchvision's
    references draw it; labels (n,) become shares of the classes, float32 (n, classes), mixed
    likewise.
    """
    share = np.float32(rng.beta(alpha, alpha))
    shares = np.zeros((len(y), classes), np.float32)
    shares[np.arange(len(y)), y] = 1.0
    return _mixed(x, share), _mixed(shares, share)


def _mixed(values: np.ndarray, share: np.float32) -> np.ndarray:
    return values * share + np.roll(values, 1, axis=0) * (np.float32(1) - share)


def _crop(
    reach: int, images: np.ndarray, rng: np.random.Generator, count: int, part: slice
) -> np.ndarray:
    n, _, height, width = images.shape
    rows, columns = rng.integers(0, 2 * reach + 1, size=(2, count))[:, part]
    padded = np.pad(images.transpose(0, 2, 3, 1), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    # (n, rows, columns, C, H, W); numpy's stub knows no tuple of axes
    windows = sliding_window_view(padded, (height, width), axis=(1, 2))  # type: ignore[call-overload]
    return windows[np.arange(n), rows, columns]  # (n, C, H, W)


def _flip(images: np.ndarray, rng: np.random.Generator, count: int, part: slice) -> np.ndarray:
    mirrored = rng.random(count)[part] < 0.5
    flipped = images.copy()
    flipped[mirrored] = images[mirrored, :, :, ::-1]
    return flipped


def _resized_crop(
    images: np.ndarray, rng: np.random.Generator, count: int, part: slice
) -> np.ndarray:
    _, channels, height, width = images.shape
    area = height * width * rng.uniform(*_AREA, (count, _TRIES))
    ratio = np.exp(rng.uniform(math.log(_RATIO[0]), math.log(_RATIO[1]), (count, _TRIES)))
    place = rng.random((count, 2))
    wide, high = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (wide >= 1) & (high >= 1) & (wide <= width) & (high <= height)
    cropped = np.empty(images.shape, np.uint8)
    for to, number in enumerate(range(count)[part]):
        (tries,) = np.nonzero(fits[number])
        w, h = (width, height)
        if len(tries):
            w, h = int(wide[number, tries[0]]), int(high[number, tries[0]])
        left = int(place[number, 0] * (width - w + 1))
        top = int(place[number, 1] * (height - h + 1))
        for channel in range(channels):
            window = Image.fromarray(images[to, channel, top : top + h, left : left + w])
            resized = window.resize((width, height), Image.Resampling.BILINEAR)
            cropped[to, channel] = np.asarray(resized)
    return cropped


def _jitter(images: np.ndarray, rng: np.random.Generator, count: int, part: slice) -> np.ndarray:
    factors = rng.uniform(1 - _JITTER, 1 + _JITTER, (3, count, 1, 1, 1)).astype(np.float32)[:, part]
    brightness, contrast, saturation = factors
    jittered = _blend(images, np.float32(0), brightness)
    grey = np.floor(_grey(jittered)).mean(axis=(1, 2, 3), keepdims=True, dtype=np.float32)
    jittered = _blend(jittered, grey, contrast)
    if jittered.shape[1] != 3:
        return jittered
    return _blend(jittered, np.floor(_grey(jittered)), saturation)


def _grey(images: np.ndarray) -> np.ndarray:
    """The luma of colours (ITU-R BT.601), float32 (n, 1, H, W); what is grey stays as it is."""
    if images.shape[1] != 3:
        return images.astype(np.float32)
    weights = np.array([0.2989, 0.587, 0.114], np.float32)[:, None, None]
    return (images * weights).sum(axis=1, keepdims=True)


def _blend(images: np.ndarray, other: np.ndarray | np.float32, factor: np.ndarray) -> np.ndarray:
    return np.clip(images * factor + other * (1 - factor), 0, 255).astype(np.uint8)


AUGMENTATIONS: dict[str, tuple[_Draw, ...]] = {
    "none": (),
    "shift": (partial(_crop, _SHIFT),),
    "crop-flip": (partial(_crop, _PADDING), _flip),
    "random-crop": (partial(_crop, _PADDING),),
    "random-horizontal-flip": (_flip,),
    "random-resized-crop": (_resized_crop,),
    "color-jitter": (_jitter,),
}
