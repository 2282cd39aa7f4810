"""Augmentations named as in torchvision, and mixup: what each does, and that shards agree on it."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_data import AUGMENTATIONS, ArraySplit, Batches, DataError, augmentation, pixels
from cnn_data.augment import augment_batch

RAW = pixels("raw", (0.0,) * 3, (1.0,) * 3)
NAMES = [*AUGMENTATIONS, "random-resized-crop,random-horizontal-flip,color-jitter"]


def _photographs(count: int = 24, size: int = 9) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, size, 7, 3), dtype=np.uint8)


def _augmented(name: str, images: np.ndarray, seed: int = 7) -> np.ndarray:
    count = len(images)
    return augment_batch(images, name, np.random.default_rng(seed), count, slice(0, count))


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("none", "250509f7fbabd84a"),
        ("shift", "53ab4c7bd84ee440"),
        ("crop-flip", "d7055fc8cd73901c"),
    ],
)
def test_what_recipes_use_keeps_its_bits(name: str, digest: str) -> None:
    moved = augment_batch(_photographs(6)[2:5], name, np.random.default_rng(7), 6, slice(2, 5))
    assert hashlib.sha256(moved.tobytes()).hexdigest()[:16] == digest


def test_crop_flip_is_the_two_of_torchvision() -> None:
    both = _augmented("random-crop,random-horizontal-flip", _photographs())
    np.testing.assert_array_equal(_augmented("crop-flip", _photographs()), both)


@pytest.mark.parametrize("name", NAMES)
def test_every_augmentation_changes_copies_alone(name: str) -> None:
    images = _photographs()
    before = images.copy()
    moved = _augmented(name, images)
    assert moved.dtype == np.uint8
    assert moved.shape == (24, 3, 9, 7)
    assert (moved != images.transpose(0, 3, 1, 2)).any() == (name != "none")
    moved[:] = 1
    if name != "none":  # a view, of which batches make floats
        np.testing.assert_array_equal(images, before)


def test_a_flip_mirrors_about_half() -> None:
    images = _photographs(600)
    moved = _augmented("random-horizontal-flip", images)
    still, mirrored = (
        (moved == side).all(axis=(1, 2, 3))
        for side in (images.transpose(0, 3, 1, 2), images.transpose(0, 3, 1, 2)[..., ::-1])
    )
    assert (still ^ mirrored).all()
    assert 240 < mirrored.sum() < 360


def test_a_resized_crop_is_a_window_of_the_image() -> None:
    rows, columns = np.mgrid[0:64, 0:64]
    image = np.stack([rows * 3, columns * 3, rows * 0 + 7], axis=2).astype(np.uint8)
    moved = _augmented("random-resized-crop", np.repeat(image[None], 300, axis=0)).astype(float)
    assert (moved[:, 2] == 7).all()
    high = (moved[:, 0, -1, 0] - moved[:, 0, 0, 0]) / 3 + 1
    wide = (moved[:, 1, 0, -1] - moved[:, 1, 0, 0]) / 3 + 1
    area, ratio = high * wide / 64**2, wide / high
    assert 0.05 < area.min() < 0.15
    assert 0.9 < area.max() <= 1.02
    assert 0.7 < ratio.min() < 0.85
    assert 1.2 < ratio.max() < 1.45
    assert (np.diff(moved[:, 0, :, 5], axis=1) >= 0).all()  # neither turned nor mirrored


def test_a_window_that_never_fits_is_the_whole_image() -> None:
    narrow = np.arange(40, dtype=np.uint8).reshape(1, 40, 1, 1).repeat(50, axis=0)
    moved = _augmented("random-resized-crop", narrow)
    np.testing.assert_array_equal(moved, narrow.transpose(0, 3, 1, 2))


def test_colours_change_as_torchvisions_do() -> None:
    """torchvision's formulas, on one image, with this generator's factors."""
    images = _photographs(5, 8)
    factors = np.random.default_rng(7).uniform(0.6, 1.4, (3, 5))
    weights = np.array([0.2989, 0.587, 0.114])
    moved = _augmented("color-jitter", images)
    for image, got, (bright, contrast, saturation) in zip(images, moved, factors.T, strict=True):
        x = np.floor(np.clip(image * bright, 0, 255))
        mean = np.floor((x * weights).sum(axis=2)).mean()
        x = np.floor(np.clip(x * contrast + mean * (1 - contrast), 0, 255))
        grey = np.floor((x * weights).sum(axis=2, keepdims=True))
        x = np.floor(np.clip(x * saturation + grey * (1 - saturation), 0, 255))
        assert (
            np.abs(got.transpose(1, 2, 0) - x).max() <= 1
        )  # float32 may fall below a whole number
    assert abs(factors - 1).max() > 0.2


def test_grey_images_keep_their_grey_levels_but_brightness_and_contrast() -> None:
    flat = np.full((40, 6, 6, 1), 100, np.uint8)
    levels = {int(v) for image in _augmented("color-jitter", flat) for v in np.unique(image)}
    assert min(levels) < 70
    assert max(levels) > 130


@pytest.mark.parametrize("name", NAMES)
@given(shards=st.integers(2, 4), mixup=st.sampled_from([0.0, 0.2, 1.0]))
@settings(max_examples=6, deadline=None)
def test_shards_see_parts_of_the_same_batch(name: str, shards: int, mixup: float) -> None:
    split = ArraySplit(_photographs(26), np.arange(26) % 4)

    def epoch(shard: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(
            Batches(
                split, 10, RAW, augment=name, mixup=mixup, classes=4, shuffle=True, shard=shard,
                prefetch=False,
            ).epoch(1)
        )  # fmt: skip

    parts = [epoch((rank, shards)) for rank in range(shards)]
    for number, whole in enumerate(epoch((0, 1))):
        for which in (0, 1):
            joined = np.concatenate([part[number][which] for part in parts])
            np.testing.assert_array_equal(joined, whole[which])


def test_mixup_mixes_neighbours_and_their_labels_alike() -> None:
    split = ArraySplit(_photographs(40), np.arange(40) % 4)
    plain, mixed = (
        next(Batches(split, 40, RAW, mixup=alpha, classes=4, shuffle=True).epoch(3))
        for alpha in (0.0, 0.4)
    )
    x, y = mixed
    assert (x.dtype, y.dtype, y.shape) == (np.float32, np.float32, (40, 4))
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)
    share = np.float32(np.max(y[plain[1] != np.roll(plain[1], 1)][:, :]))
    one_hot = np.eye(4, dtype=np.float32)[plain[1]]
    candidates = (share, 1 - share)
    errors = [
        np.abs(y - (c * one_hot + (1 - c) * np.roll(one_hot, 1, 0))).max() for c in candidates
    ]
    share = candidates[int(np.argmin(errors))]
    assert min(errors) < 1e-6
    np.testing.assert_allclose(
        x, share * plain[0] + (1 - share) * np.roll(plain[0], 1, 0), atol=1e-3
    )
    assert 0 < share < 1


def test_every_batch_draws_a_share_of_its_own() -> None:
    batches = Batches(ArraySplit(_photographs(24), np.arange(24) % 4), 6, RAW, mixup=1.0, classes=4)
    shares = {float(y.max()) for epoch in (1, 2) for _, y in batches.epoch(epoch)}
    assert len(shares) == 8


def test_torchvisions_class_names_are_read() -> None:
    assert augmentation("RandomResizedCrop, ColorJitter") == "random-resized-crop,color-jitter"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("random-flip", "did you mean random-crop"),
        ("ColourJitter", "did you mean color-jitter"),
        ("none,shift", "unknown augmentation 'none'"),
        ("", "unknown augmentation ''"),
    ],
)
def test_a_near_miss_is_answered(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        augmentation(text)


def test_mixup_needs_to_know_the_classes() -> None:
    with pytest.raises(DataError, match="mixup of 0 classes"):
        Batches(ArraySplit(_photographs(4), np.arange(4)), 2, RAW, mixup=0.2)


def test_a_smaller_window_is_enlarged_as_pillow_does() -> None:
    image = _photographs(1, 7)
    moved = _augmented("random-resized-crop", image, seed=0)
    windows = [
        np.asarray(Image.fromarray(image[0, a:b, c:d, 0]).resize((7, 7), Image.Resampling.BILINEAR))
        for a in range(7) for b in range(a + 1, 8) for c in range(7) for d in range(c + 1, 8)
    ]  # fmt: skip
    assert any(np.array_equal(moved[0, 0], window) for window in windows)
