from __future__ import annotations

import gc
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_data import AUGMENTATIONS, ArraySplit, Batches, DataError, pixels
from cnn_data.augment import augment_batch

RAW = pixels("raw", (0.0,), (1.0,))


def numbered(count: int, height: int = 1, width: int = 1) -> ArraySplit:
    """Image i holds the value i % 256 everywhere, and has label i."""
    values = np.arange(count).reshape(-1, 1, 1, 1) % 256
    images = np.broadcast_to(values, (count, height, width, 1))
    return ArraySplit(images.astype(np.uint8), np.arange(count))


def labels_of(batches: Batches, epoch: int, start: int = 0) -> list[list[int]]:
    return [labels.tolist() for _, labels in batches.epoch(epoch, start)]


def threads() -> int:
    return sum(thread.name.startswith("batches") for thread in threading.enumerate())


def test_batches_are_float32_nchw_with_int32_labels_and_a_short_last_one() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
    split = ArraySplit(images, np.arange(7))
    batches = Batches(split, 3, pixels("unit", (0.5,) * 3, (0.5,) * 3))
    got = list(batches.epoch(0))
    assert len(batches) == len(got) == 3
    assert [len(labels) for _, labels in got] == [3, 3, 1]
    values, labels = got[1]
    assert values.shape == (3, 3, 5, 4)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert labels.dtype == np.int32
    expected = images[3:6].transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
    np.testing.assert_array_equal(values, expected)


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 20),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_a_shuffled_epoch_is_a_permutation_and_a_function_of_seed_and_epoch(
    count: int, batch: int, epoch: int, seed: int
) -> None:
    def order(prefetch: bool) -> list[int]:
        batches = Batches(numbered(count), batch, RAW, shuffle=True, seed=seed, prefetch=prefetch)
        return [label for labels in labels_of(batches, epoch) for label in labels]

    assert sorted(order(False)) == list(range(count))
    assert order(False) == order(True)


def test_epochs_and_seeds_differ_and_no_shuffle_keeps_the_order() -> None:
    split = numbered(50)
    orders = [
        labels_of(Batches(split, 50, RAW, shuffle=True, seed=s), e)[0]
        for s, e in [(0, 0), (0, 1), (1, 0)]
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert labels_of(Batches(split, 50, RAW), 3)[0] == list(range(50))


@given(count=st.integers(8, 80), batch=st.integers(4, 32), shards=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_shards_partition_every_batch_in_equal_steps(count: int, batch: int, shards: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 6, 6, 1), dtype=np.uint8)
    split = ArraySplit(images, np.arange(count))

    def run(shard: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
        options = {"augment": "crop-flip", "shuffle": True, "prefetch": False}
        return list(Batches(split, batch, RAW, shard=shard, **options).epoch(1))  # type: ignore[arg-type]

    whole = run((0, 1))
    parts = [run((rank, shards)) for rank in range(shards)]
    steps = {len(part) for part in parts}
    assert len(steps) == 1
    assert steps.pop() in (len(whole), len(whole) - 1)
    for (values, labels), *pieces in zip(whole, *parts, strict=False):
        np.testing.assert_array_equal(values, np.concatenate([piece[0] for piece in pieces]))
        np.testing.assert_array_equal(labels, np.concatenate([piece[1] for piece in pieces]))
        assert min(len(piece[1]) for piece in pieces) > 0


def test_a_last_batch_smaller_than_the_shards_is_left_out_by_all() -> None:
    batches = [Batches(numbered(9), 4, RAW, shard=(rank, 2)) for rank in (0, 1)]
    assert [len(each) for each in batches] == [2, 2]
    assert [labels_of(each, 0) for each in batches] == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    assert [batches[0].global_size(step) for step in range(2)] == [4, 4]
    assert Batches(numbered(9), 4, RAW).global_size(2) == 1


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_starting_later_gives_the_same_batches(augment: str) -> None:
    batches = Batches(numbered(40, 6, 5), 7, RAW, augment=augment, shuffle=True, seed=3)
    whole = list(batches.epoch(2))
    for (values, labels), (again, same) in zip(whole[4:], batches.epoch(2, 4), strict=True):
        np.testing.assert_array_equal(values, again)
        np.testing.assert_array_equal(labels, same)
    assert list(batches.epoch(2, len(batches))) == []


@pytest.mark.parametrize("augment", ["shift", "crop-flip"])
def test_augmentation_changes_with_the_epoch_and_the_batch(augment: str) -> None:
    images = np.tile(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), (40, 1, 1, 1))
    batches = Batches(ArraySplit(images, np.zeros(40)), 20, RAW, augment=augment)
    drawn = [values for epoch in (0, 1) for values, _ in batches.epoch(epoch)]
    assert all((a != b).any() for a, b in pairwise(drawn))


@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    name=st.sampled_from(["shift", "crop-flip"]),
)
@settings(max_examples=60, deadline=None)
def test_an_augmented_constant_is_that_constant_on_background(
    seed: int, height: int, width: int, name: str
) -> None:
    images = np.full((5, height, width, 3), 200, np.uint8)
    moved = augment_batch(images, name, np.random.default_rng(seed), 5, slice(0, 5))
    assert moved.shape == (5, 3, height, width)
    reach = {"shift": 2, "crop-flip": 4}[name]
    for image in moved:
        rows, columns = np.nonzero(image[0])
        assert set(np.unique(image)) <= {0, 200}
        assert (image == image[0]).all()
        if len(rows):  # one rectangle, no smaller than what stays in view
            high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == high * wide
            assert high >= height - reach
            assert wide >= width - reach


def test_shift_moves_each_pixel_by_at_most_two_and_reaches_every_offset() -> None:
    images = np.zeros((400, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    moved = augment_batch(images, "shift", np.random.default_rng(0), 400, slice(0, 400))
    found = {tuple(np.argwhere(image[0])[0] - 4) for image in moved}
    assert found == {(row, column) for row in range(-2, 3) for column in range(-2, 3)}


def test_crop_flip_mirrors_about_half_of_the_images() -> None:
    images = np.zeros((1000, 9, 21, 1), np.uint8)
    images[:, :, 10:12, 0] = (100, 200)
    moved = augment_batch(images, "crop-flip", np.random.default_rng(0), 1000, slice(0, 1000))
    middle = moved[:, 0, 4].astype(int)
    falls = [row[row > 0].tolist() == [200, 100] for row in middle]
    assert {tuple(row[row > 0]) for row in middle} == {(100, 200), (200, 100)}
    assert 420 < sum(falls) < 580


def test_augmentation_leaves_the_data_set_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 1), dtype=np.uint8)
    before = images.copy()
    for values, _ in Batches(ArraySplit(images, np.zeros(10)), 4, RAW, augment="crop-flip").epoch(
        0
    ):
        values[:] = -1
    np.testing.assert_array_equal(images, before)


class Failing(ArraySplit):
    """Raises when image 5 is asked for."""

    def images(self, indices: np.ndarray) -> np.ndarray:
        if 5 in indices:
            raise DataError("image 5 is damaged")
        return super().images(indices)


@pytest.mark.parametrize("prefetch", [True, False])
def test_what_goes_wrong_in_the_thread_is_raised_in_its_place(prefetch: bool) -> None:
    split = Failing(np.zeros((8, 1, 1, 1), np.uint8), np.arange(8))
    seen: list[int] = []

    def consume() -> None:
        for _, labels in Batches(split, 2, RAW, prefetch=prefetch).epoch(0):
            seen.extend(labels.tolist())

    with pytest.raises(DataError, match="image 5 is damaged"):
        consume()
    assert seen == [0, 1, 2, 3]
    assert threads() == 0


def test_the_thread_ends_when_the_consumer_stops_early() -> None:
    batches = Batches(numbered(1000), 1, RAW)
    for _ in batches.epoch(0):
        assert threads() == 1
        break
    iterator = batches.epoch(1)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    abandoned = batches.epoch(2)
    next(abandoned)
    del abandoned
    batches.epoch(3)  # never started
    gc.collect()
    assert threads() == 0


def test_the_thread_runs_ahead_by_a_bounded_number_of_batches() -> None:
    asked: list[int] = []

    class Counting(ArraySplit):
        def images(self, indices: np.ndarray) -> np.ndarray:
            asked.extend(indices)
            return super().images(indices)

    split = Counting(np.zeros((50, 1, 1, 1), np.uint8), np.arange(50))
    iterator = Batches(split, 1, RAW).epoch(0)
    next(iterator)
    deadline = time.monotonic() + 5
    while len(asked) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert asked == [0, 1, 2]
    iterator.close()  # type: ignore[attr-defined]


def test_what_was_prepared_for_nobody_is_not_begun() -> None:
    asked: list[int] = []

    class Slow(ArraySplit):
        def images(self, indices: np.ndarray) -> np.ndarray:
            asked.extend(indices)
            time.sleep(0.1)
            return super().images(indices)

    iterator = Batches(Slow(np.zeros((50, 1, 1, 1), np.uint8), np.arange(50)), 1, RAW).epoch(0)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert len(asked) <= 2  # the first, and the one under way


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": -3}, "batch size -3"),
        ({"augment": "cutout"}, "choose one of none, shift, crop-flip"),
        ({"seed": -1}, "seed -1"),
        ({"shard": (2, 2)}, "shard 2 of 2"),
        ({"shard": (0, 0)}, "shard 0 of 0"),
        ({"batch_size": 2, "shard": (0, 3)}, "one image each"),
        ({"batch_size": 99, "shard": (0, 11)}, "a split of 10 images"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Batches(numbered(10), **{"batch_size": 4, "pixels": RAW, **options})


def test_an_empty_split_and_an_impossible_start_are_refused() -> None:
    with pytest.raises(DataError, match="a split of 0 images"):
        Batches(numbered(0), 4, RAW)
    with pytest.raises(DataError, match="batch 0 to 3"):
        Batches(numbered(10), 4, RAW).epoch(0, 4)
    with pytest.raises(DataError, match="epoch -1"):
        Batches(numbered(10), 4, RAW).epoch(-1)


def test_pixels_of_other_channels_are_refused() -> None:
    with pytest.raises(DataError, match="1 channels; this normalisation has 3"):
        next(Batches(numbered(4), 2, pixels("unit", (0.5,) * 3, (0.5,) * 3)).epoch(0))
