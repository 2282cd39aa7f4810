"""How pixel values 0 to 255 become a network's input: y = x * scale + shift, per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_data.errors import DataError

__all__ = ["NORMALISATIONS", "Pixels", "pixels"]

NORMALISATIONS = ("raw", "unit", "half", "standard", "lenet5")

_AT_ONCE = 2**17  # values worked on together: half a megabyte stays in the cache


@dataclass(frozen=True)
class Pixels:
    """y = x * scale + shift, per channel, in float32: one rounding each."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def apply(self, images: np.ndarray) -> np.ndarray:
        """uint8 (n, C, H, W) of any strides -> float32 (n, C, H, W), contiguous."""
        channels = images.shape[1]
        if channels != len(self.scale):
            raise DataError(
                f"images have {channels} channels; this normalisation has {len(self.scale)}"
            )
        scale = np.array(self.scale, np.float32).reshape(-1, 1, 1)
        shift = np.array(self.shift, np.float32).reshape(-1, 1, 1)
        out = np.empty(images.shape, np.float32)
        step = max(1, _AT_ONCE // max(1, int(np.prod(images.shape[1:]))))
        for start in range(0, len(out), step):
            part = out[start : start + step]
            part[...] = images[start : start + step]
            part *= scale
            part += shift
        return out


def pixels(normalisation: str, mean: Sequence[float], std: Sequence[float]) -> Pixels:
    """The map that `normalisation` names, for data of this `mean` and `std` (of pixels / 255).

    - raw: 0 to 255 as they are (doc-2);
    - unit: x / 255;
    - half: (x / 255 - 0.5) / 0.5 (doc-1, doc-3);
    - standard: (x / 255 - mean) / std;
    - lenet5: background 0 becomes -0.1 and ink 255 becomes 1.175, so that the mean is near 0 and
      the variance near 1 (LeCun, Bottou, Bengio, Haffner 1998, section II.B).

    Args:
        normalisation: one of `NORMALISATIONS`.
        mean: of each channel's pixels / 255.
        std: of each channel's pixels / 255.

    Returns:
        The map, whose `apply` takes uint8 (n, C, H, W) to float32.

    Raises:
        DataError: an unknown name, or a `std` that is not positive.

    Examples:
        >>> pixels("half", mean=[0.13], std=[0.31]).apply(np.array([[[[0, 255]]]], np.uint8))
        array([[[[-1.,  1.]]]], dtype=float32)
    """
    channels = len(mean)
    if len(std) != channels or not channels or not all(value > 0 for value in std):
        raise DataError(
            f"mean {tuple(mean)}, std {tuple(std)}: expected one positive std a channel"
        )
    if normalisation == "standard":
        scale = tuple(1 / (255 * s) for s in std)
        return Pixels(scale, tuple(-m / s for m, s in zip(mean, std, strict=True)))
    fixed = {
        "raw": (1.0, 0.0),
        "unit": (1 / 255, 0.0),
        "half": (2 / 255, -1.0),
        "lenet5": (1.275 / 255, -0.1),
    }
    if normalisation not in fixed:
        known = ", ".join(NORMALISATIONS)
        raise DataError(f"unknown normalisation {normalisation!r}; choose one of {known}")
    one, offset = fixed[normalisation]
    return Pixels((one,) * channels, (offset,) * channels)
