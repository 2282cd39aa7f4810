from __future__ import annotations

import numpy as np
import pytest

from cnn_data import NORMALISATIONS, ArraySplit, DataError, Pixels, pixels

EVERY = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
MEAN, STD = (0.1307,), (0.3081,)


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [
        ("raw", 0, 255),
        ("unit", 0, 1),
        ("half", -1, 1),
        ("standard", -0.1307 / 0.3081, (1 - 0.1307) / 0.3081),
        ("lenet5", -0.1, 1.175),
    ],
)
def test_black_and_white_become_what_the_normalisation_promises(
    name: str, black: float, white: float
) -> None:
    values = pixels(name, MEAN, STD).apply(EVERY).ravel()
    assert values.dtype == np.float32
    assert values[0] == pytest.approx(black, abs=1e-6)
    assert values[255] == pytest.approx(white, rel=1e-6)
    np.testing.assert_allclose(np.diff(values), (white - black) / 255, rtol=1e-3)


def test_every_normalisation_is_tested_above_and_raw_is_exact() -> None:
    assert NORMALISATIONS == ("raw", "unit", "half", "standard", "lenet5")
    np.testing.assert_array_equal(pixels("raw", MEAN, STD).apply(EVERY), EVERY)


def test_channels_have_their_own_scale_and_shift() -> None:
    images = np.full((2, 3, 4, 5), 51, np.uint8)
    values = pixels("standard", (0.1, 0.2, 0.3), (0.5, 0.25, 0.1)).apply(images)
    assert values.shape == images.shape
    np.testing.assert_allclose(values[0, :, 0, 0], [0.2, 0.0, -1.0], atol=1e-6)
    assert Pixels((1.0, 2.0), (0.0, 1.0)).apply(images[:, :2])[0, 1, 0, 0] == 103


def test_the_result_is_contiguous_whatever_the_strides() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    values = pixels("unit", MEAN * 3, STD * 3).apply(images.transpose(0, 3, 1, 2))
    assert values.flags.c_contiguous
    np.testing.assert_allclose(values, images.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_nonsense_is_refused() -> None:
    with pytest.raises(DataError, match="choose one of raw, unit, half, standard, lenet5"):
        pixels("zscore", MEAN, STD)
    for mean, std in (((0.5,), (0.0,)), ((0.5,), (0.1, 0.1)), ((), ())):
        with pytest.raises(DataError, match="one positive std a channel"):
            pixels("standard", mean, std)


def test_a_split_checks_its_arrays() -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(N, H, W, C\)"):
        ArraySplit(np.zeros((2, 3, 3, 1)), np.zeros(2))
    with pytest.raises(DataError, match="expected one label each"):
        ArraySplit(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3))
