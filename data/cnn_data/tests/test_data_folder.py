from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnn_data import (
    Batches,
    DataError,
    Split,
    absolute_name,
    decoded,
    encoded,
    inspection,
    load_dataset,
    pixels,
    read_image,
)
from cnn_data.encoded import EncodedSplit, Files
from cnn_data.folder import measure_pixels
from cnn_data.readers import images
from cnn_data.readers.images import decode_opened
from cnn_data.splits import ArraySplit
from cnn_data.tests import makers


def values_of(split: Split) -> list[int]:
    """The first channel of every picture's first pixel: which pictures are in a split."""
    images = split.images(np.arange(len(split)))
    return sorted(images[:, 0, 0, 0].tolist())


def test_a_tenth_of_each_class_is_held_out_for_good(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"cat": 20, "dog": 5, "eel": 1})
    dataset = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert dataset.class_names == ("cat", "dog", "eel")
    assert dataset.shape == (8, 8, 1)
    assert dataset.name == f"folder:{tmp_path}"
    assert np.bincount(dataset.train.labels).tolist() == [18, 4, 1]
    assert np.bincount(dataset.test.labels).tolist() == [2, 1]
    assert sorted(values_of(dataset.train) + values_of(dataset.test)) == list(range(1, 27))
    again = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert values_of(again.test) == values_of(dataset.test)


def test_labels_belong_to_their_pictures(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"a": 20, "b": 20})
    dataset = load_dataset(f"folder:{tmp_path}", image_size=4)
    for split in (dataset.train, dataset.test):
        first = split.images(np.arange(len(split)))[:, 0, 0, 0]
        np.testing.assert_array_equal(split.labels, (first > 20).astype(int))
        assert split.labels.dtype == np.int32


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_folders_are_used_if_there(tmp_path: Path, test: str) -> None:
    makers.write_classes(tmp_path / "train", {"a": 3, "b": 4})
    makers.write_classes(tmp_path / test, {"a": 1, "b": 2})
    dataset = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert np.bincount(dataset.train.labels).tolist() == [3, 4]
    assert np.bincount(dataset.test.labels).tolist() == [1, 2]
    assert values_of(dataset.test) == [1, 2, 3]


def test_train_alone_is_split_and_what_lies_beside_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    makers.write_classes(tmp_path / "train", {"a": 10, "b": 10})
    makers.write_classes(tmp_path, {"extra": 1})
    dataset = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert (len(dataset.train), len(dataset.test)) == (18, 2)
    assert "not used, since there is a train folder: extra" in caplog.text


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"plane": 2, "train": 2})
    assert load_dataset(f"folder:{tmp_path}", image_size=8).class_names == ("plane", "train")


def test_one_colour_picture_makes_three_channels(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"a": 10, "b": 10})
    assert load_dataset(f"folder:{tmp_path}", image_size=8).shape == (8, 8, 1)
    makers.picture((1, 2, 3)).save(tmp_path / "a" / "000.png")
    dataset = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert dataset.shape == (8, 8, 3)
    assert len(dataset.mean) == len(dataset.std) == 3
    assert dataset.train.images(np.array([0])).shape == (1, 8, 8, 3)


def test_images_are_known_by_content_and_the_rest_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    makers.write_classes(tmp_path, {"a": 4})
    folder = tmp_path / "a"
    (folder / "000.png").rename(folder / "000.JPG")  # a PNG by content
    (folder / "001.png").rename(folder / "001")
    makers.picture(9).save(folder / "x.JPeG", "JPEG")
    makers.picture(9).save(folder / "y.gif")
    (folder / "notes.txt").write_text("hello")
    (folder / ".DS_Store").write_bytes(b"junk")
    (tmp_path / ".git").mkdir()
    (tmp_path / "README").write_text("hello")
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(f"folder:{tmp_path}", image_size=8)
    assert len(dataset.train) + len(dataset.test) == 5
    assert dataset.class_names == ("a",)
    record, one_class = caplog.records
    assert "one class only, 'a'" in one_class.getMessage()
    assert record.getMessage() == f"{tmp_path}: not PNG or JPEG, left out: README, notes.txt, y.gif"


def empty(root: Path) -> None:
    root.mkdir(exist_ok=True)


def no_folders(root: Path) -> None:
    makers.picture(3).save(root / "a.png")


def class_without_images(root: Path) -> None:
    makers.write_classes(root, {"a": 3, "b": 0})


def class_of_text(root: Path) -> None:
    makers.write_classes(root, {"a": 3, "b": 0})
    (root / "b" / "x.txt").write_text("hello")


def zero_bytes(root: Path) -> None:
    makers.write_classes(root, {"a": 3})
    (root / "a" / "zero.png").write_bytes(b"")


def not_an_image(root: Path) -> None:
    makers.write_classes(root, {"a": 3})
    (root / "a" / "bad.JPEG").write_text("hello")


def half_a_header(root: Path) -> None:
    makers.write_classes(root, {"a": 3})
    (root / "a" / "bad").write_bytes(makers.encoded(makers.picture(3))[:20])


def nested(root: Path) -> None:
    makers.write_classes(root / "a", {"inner": 3})
    makers.write_classes(root, {"b": 3})


def single(root: Path) -> None:
    makers.write_classes(root, {"a": 1, "b": 1})


def empty_test(root: Path) -> None:
    makers.write_classes(root / "train", {"a": 3})
    (root / "test").mkdir()


def flat_train(root: Path) -> None:
    (root / "train").mkdir()
    makers.picture(3).save(root / "train" / "a.png")
    makers.write_classes(root / "test", {"a": 3})


def other_classes(root: Path) -> None:
    makers.write_classes(root / "train", {"a": 3, "b": 3})
    makers.write_classes(root / "test", {"a": 3, "c": 3})


@pytest.mark.parametrize(
    ("make", "named", "said"),
    [
        (empty, "", "no class folders; expected one sub-folder a class"),
        (no_folders, "", "no class folders"),
        (class_without_images, "b", "no PNG or JPEG image in this class"),
        (class_of_text, "b", "no PNG or JPEG image in this class"),
        (zero_bytes, "a/zero.png", "is empty (0 bytes)"),
        (not_an_image, "a/bad.JPEG", "cannot be read as an image"),
        (half_a_header, "a/bad", "cannot be read as an image"),
        (nested, "a/inner", "a folder inside class 'a'"),
        (single, "", "one image a class; expected two"),
        (empty_test, "test", "no class folders"),
        (flat_train, "train", "no class folders"),
        (other_classes, "test", "extra ['c'], missing ['b']"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, make: Callable[[Path], None], named: str, said: str
) -> None:
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        load_dataset(f"folder:{tmp_path}", image_size=8)
    assert str(caught.value).startswith(f"{tmp_path / named}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_must_make_sense(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"a": 3})
    with pytest.raises(
        DataError, match="no such folder; expected a folder with one sub-folder a class"
    ):
        load_dataset("folder:/no/such/folder", image_size=8)
    with pytest.raises(DataError, match="no image size of its own; give image_size"):
        load_dataset(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="image size 0"):
        load_dataset(f"folder:{tmp_path}", image_size=0)
    with pytest.raises(DataError, match="unknown fit 'squash'"):
        load_dataset(f"folder:{tmp_path}", image_size=8, fit="squash")


def test_pad_refuses_a_larger_picture_before_training_starts(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"a": 3})  # 8 x 6
    padded = load_dataset(f"folder:{tmp_path}", image_size=8, fit="pad")
    assert padded.train.images(np.array([0]))[0, :, 0, 0].tolist()[0] == 0
    with pytest.raises(DataError, match=r"000\.png: 8 x 6, more than 7 x 7"):
        load_dataset(f"folder:{tmp_path}", image_size=7, fit="pad")


@pytest.mark.parametrize("slow", [0.0, 9.0])
def test_a_picture_damaged_behind_its_header_stops_the_epoch_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: float
) -> None:
    monkeypatch.setattr(encoded, "SLOW", slow)
    makers.write_classes(tmp_path, {"a": 30}, colour=True)
    paths = sorted((tmp_path / "a").iterdir())
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = makers.encoded(Image.fromarray(noise))
    paths[20].write_bytes(whole[: len(whole) // 2])
    split = EncodedSplit(Files(paths), np.zeros(30), 8, 3)
    batches = Batches(split, 15, pixels("unit", (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(DataError, match="damaged image") as caught:
        list(batches.epoch(0))
    assert str(paths[20]) in str(caught.value)


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_images_come_in_order_from_threads_with_and_without_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool, cached: bool
) -> None:
    makers.write_classes(tmp_path, {"a": 100})
    paths = sorted((tmp_path / "a").iterdir())
    monkeypatch.setattr(encoded, "SLOW", 0.0 if slow else 9.0)
    if not cached:
        monkeypatch.setattr(decoded, "LIMIT", 0)
    split = EncodedSplit(Files(paths), np.zeros(100), 8, 1)
    for indices in ([5, 3, 99, 3, 0], range(100), range(99, -1, -1), []):
        wanted = np.array(indices, dtype=int)
        images = split.images(wanted)
        assert images.shape == (len(wanted), 8, 8, 1)
        np.testing.assert_array_equal(images[:, 0, 0, 0], wanted + 1)


def test_decoded_pixels_are_kept_only_where_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers.write_classes(tmp_path, {"a": 10})
    paths = sorted((tmp_path / "a").iterdir())
    few = EncodedSplit(Files(paths), np.zeros(10), 8, 1)
    monkeypatch.setattr(decoded, "LIMIT", 10 * 8 * 8)
    many = EncodedSplit(Files(paths), np.zeros(10), 8, 1)
    everything = np.arange(10)
    before = few.images(everything), many.images(everything)
    np.testing.assert_array_equal(*before)
    before[0][:] = 0  # what was handed out is not the cache
    shutil.rmtree(tmp_path / "a")
    np.testing.assert_array_equal(few.images(everything), before[1])
    with pytest.raises(DataError, match="no such file"):
        many.images(everything)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of pixels that outlive a run; any run is long enough for that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (decoded, inspection):
        monkeypatch.setattr(module, "WORTH_REMEMBERING", -1.0)
    return tmp_path / "cache" / "gluon_cnn" / "images"


def pixels_of(root: Path, size: int = 8) -> list[np.ndarray]:
    dataset = load_dataset(f"folder:{root}", image_size=size)
    return [split.images(np.arange(len(split))) for split in (dataset.train, dataset.test)]


def test_a_folder_is_decoded_once(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers.write_classes(tmp_path / "photos", {"a": 15, "b": 15}, colour=True)
    decodings: list[str] = []

    def counted(image: Image.Image, name: str, *rest: Any) -> np.ndarray:
        decodings.append(name)
        return decode_opened(image, name, *rest)

    monkeypatch.setattr(inspection, "decode_opened", counted)
    monkeypatch.setattr(images, "decode_opened", counted)
    first = pixels_of(tmp_path / "photos")
    assert len(decodings) == 30  # to see that they are whole, and not again to train on them
    for before, again in zip(first, pixels_of(tmp_path / "photos"), strict=True):
        np.testing.assert_array_equal(before, again)
    assert len(decodings) == 30
    other = pixels_of(tmp_path / "photos", 6)
    assert len(decodings) == 60
    (tmp_path / "photos" / "a").rename(tmp_path / "photos" / "c")
    assert not np.array_equal(pixels_of(tmp_path / "photos", 6)[0], other[0])


@pytest.mark.parametrize("damage", ["cut", "bit", "folder"])
def test_pixels_that_were_damaged_since_are_decoded_again(
    tmp_path: Path, kept: Path, damage: str
) -> None:
    makers.write_classes(tmp_path / "photos", {"a": 15, "b": 15}, colour=True)
    first = pixels_of(tmp_path / "photos")
    (path,) = kept.glob("*.pixels")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "bit":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        path.unlink()
        path.mkdir()
    for before, again in zip(first, pixels_of(tmp_path / "photos"), strict=True):
        np.testing.assert_array_equal(before, again)


def test_pixels_used_longest_ago_make_room(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        makers.write_classes(tmp_path / name, {"x": 12}, colour=ord(name) % 2 == 0)
        Image.new("RGB", (8, 8), (ord(name),) * 3).save(tmp_path / name / "x" / "own.png")
    pixels_of(tmp_path / "a")
    (oldest,) = kept.glob("*.pixels")
    os.utime(oldest, (1, 1))
    monkeypatch.setattr(decoded, "KEPT", 2 * oldest.stat().st_size)
    pixels_of(tmp_path / "b")
    pixels_of(tmp_path / "a")  # used again
    (other,) = set(kept.glob("*.pixels")) - {oldest}
    os.utime(other, (1, 1))
    pixels_of(tmp_path / "c")
    assert oldest.exists()
    assert not other.exists()
    assert len(list(kept.glob("*.pixels"))) == 2


@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P"])
def test_gray_pictures_of_a_folder_are_what_they_are_alone(
    tmp_path: Path, mode: str, fit: str
) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 11, 7), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    for number, gray in enumerate(values):
        picture = Image.fromarray(gray.astype(np.uint16) * 257 if mode == "I;16" else gray)
        if mode == "LA":
            picture.putalpha(Image.fromarray(gray[::-1].copy()))
        elif mode == "P":
            picture.putpalette([value for value in range(255, -1, -1) for _ in range(3)])
        elif mode == "1":
            picture = picture.convert("1")
        picture.save(tmp_path / "a" / f"{number}.png")
    dataset = load_dataset(f"folder:{tmp_path}", image_size=13, fit=fit)
    for i in range(len(dataset.train)):
        alone = read_image(dataset.train.name(i), 13, 1, fit)
        np.testing.assert_array_equal(dataset.train.images(np.array([i]))[0], alone)


def test_slow_pictures_are_decoded_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: set[str] = set()

    def crawl(*_: object) -> np.ndarray:
        used.add(threading.current_thread().name)
        time.sleep(0.01)
        return np.zeros((8, 8, 1), np.uint8)

    monkeypatch.setattr(encoded, "decode", crawl)
    monkeypatch.setattr(encoded, "_cores", lambda: 2)
    encoded.decoding_pool.cache_clear()
    EncodedSplit(Files([tmp_path] * 30), np.zeros(30), 8, 1).images(np.arange(30))
    assert sum(name.startswith("decode") for name in used) == 2
    encoded.decoding_pool.cache_clear()


def test_training_and_predicting_see_the_same_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for i in range(4):
        array = rng.integers(0, 256, (20 + i, 31, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "a" / f"{i}.jpg")
    dataset = load_dataset(f"folder:{tmp_path}", image_size=16)
    for i in range(len(dataset.train)):
        path = dataset.train.name(i)
        np.testing.assert_array_equal(
            dataset.train.images(np.array([i]))[0], read_image(path, 16, 3)
        )


def test_mean_and_std_are_those_of_a_fixed_sample() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 3), dtype=np.uint8)
    images[..., 2] = 51
    mean, std = measure_pixels(ArraySplit(images, np.zeros(300)))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], (images / 255).std((0, 1, 2))[:2], rtol=1e-12)
    assert std[2] == 1.0  # never changes: nothing to divide by
    many = ArraySplit(np.concatenate([images] * 4), np.zeros(1200))
    assert measure_pixels(many) == measure_pixels(many)
    assert measure_pixels(many)[0] == pytest.approx(mean, abs=0.02)


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = makers.encoded(Image.fromarray(noise))
    path.write_bytes(whole[: len(whole) // 2])


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """A folder with every kind of file that cannot be trained on."""
    root = tmp_path / "photos"
    makers.write_classes(root, {"a": 30, "b": 30})
    truncated(root / "a" / "cut.png")
    os.mkfifo(root / "a" / "pipe.png")
    os.mkfifo(root / "b" / "pipe")
    (root / "b" / "null.jpg").symlink_to("/dev/zero")
    (root / "b" / "gone.jpg").symlink_to(tmp_path / "gone")
    (root / "b" / "empty.jpg").touch()
    (root / "b" / "wide.png").write_bytes(makers.png_header(20_000, 20_000))
    return root


def test_every_damaged_file_is_named_in_one_report(spoilt: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(f"folder:{spoilt}", image_size=8)
    said = str(caught.value)
    assert "\n" not in said
    for part in (
        "7 of 67 files cannot be used",
        "a/cut.png: damaged image",
        "a/pipe.png: a FIFO; expected an image file",
        "b/pipe: a FIFO",
        "b/null.jpg: a device",
        "b/gone.jpg: no such file (a broken link)",
        "b/empty.jpg: is empty (0 bytes)",
        "b/wide.png: more than 89,478,485 pixels",
        "--skip-damaged",
    ):
        assert part in said


def test_damaged_files_can_be_left_out_by_name(
    spoilt: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = load_dataset(f"folder:{spoilt}", image_size=8, skip_damaged=True)
    assert len(dataset.train) + len(dataset.test) == 60
    names = ["cut.png", "empty.jpg", "gone.jpg", "null.jpg", "pipe", "pipe.png", "wide.png"]
    assert sorted(Path(name).name for name in dataset.skipped) == names
    for name in names:
        assert name in caplog.text
    makers.write_classes(tmp_path / "whole", {"a": 30, "b": 30})
    whole = load_dataset(f"folder:{tmp_path / 'whole'}", image_size=8)
    assert dataset.content == whole.content
    for path in (spoilt / "b").glob("*.png"):
        path.write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="no PNG or JPEG image in this class, now that the damaged"):
        load_dataset(f"folder:{spoilt}", image_size=8, skip_damaged=True)


def test_what_was_whole_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(inspection, "WORTH_REMEMBERING", -1.0)
    root = tmp_path / "photos"
    makers.write_classes(root, {"a": 5, "b": 5})
    before = load_dataset(f"folder:{root}", image_size=8)
    read: list[Path] = []
    find = inspection._finding

    def counted(path: Path, *rest: Any) -> inspection.Finding:
        read.append(path)
        return find(path, *rest)

    monkeypatch.setattr(inspection, "_finding", counted)
    assert load_dataset(f"folder:{root}", image_size=8).content == before.content
    assert read == []
    changed = root / "a" / "000.png"
    makers.picture(200).save(changed)
    os.utime(changed, (1, 1))
    assert load_dataset(f"folder:{root}", image_size=8).content != before.content
    assert read == [changed]
    (memory,) = (tmp_path / "cache" / "gluon_cnn" / "images").iterdir()
    for damage in ("[", '{"format": "another"}', memory.read_text().replace("[", '["x", ')):
        memory.write_text(damage)
        read.clear()
        load_dataset(f"folder:{root}", image_size=8)
        assert len(read) == 10


def test_a_folder_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers.write_classes(tmp_path / "photos", {"a": 5, "b": 5})
    monkeypatch.chdir(tmp_path)
    spelt = ("folder:photos", "folder:./photos/", f"folder:{tmp_path / 'photos'}")
    contents = {load_dataset(name, image_size=8).content for name in spelt}
    assert len(contents) == 1
    assert {absolute_name(name) for name in spelt} == {spelt[2]}
    (tmp_path / "photos").rename(tmp_path / "moved")
    contents.add(load_dataset("folder:moved", image_size=8).content)
    assert len(contents) == 1
    (tmp_path / "moved" / "b").rename(tmp_path / "moved" / "c")  # other classes
    contents.add(load_dataset("folder:moved", image_size=8).content)
    makers.picture(99).save(tmp_path / "moved" / "a" / "000.png")  # another image
    contents.add(load_dataset("folder:moved", image_size=8).content)
    (tmp_path / "moved" / "a" / "001.png").rename(tmp_path / "moved" / "a" / "0.png")  # first now
    contents.add(load_dataset("folder:moved", image_size=8).content)
    assert len(contents) == 4
    for name in ("folder:", "folder: ", "folder:a\0b"):
        with pytest.raises(DataError, match="names no folder; expected folder:PATH"):
            load_dataset(name, image_size=8)


def one_class(root: Path) -> None:
    makers.write_classes(root, {"a": 5})


def unequal(root: Path) -> None:
    makers.write_classes(root, {"a": 5, "b": 50})


def shared(root: Path) -> None:
    makers.write_classes(root / "train", {"a": 5, "b": 5})
    makers.write_classes(root / "test", {"a": 1, "b": 1})
    shutil.copy(root / "train" / "a" / "004.png", root / "test" / "b" / "000.png")


def all_equal(root: Path) -> None:
    makers.write_classes(root, {"a": 5, "b": 5})
    for path in root.glob("*/*"):
        makers.picture(7).save(path)


def sound(root: Path) -> None:
    makers.write_classes(root, {"a": 6, "b": 50})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (one_class, "one class only, 'a'"),
        (unequal, "very unequal classes: 50 images of 'b', 5 of 'a'"),
        (shared, "2 test images are training images too"),
        (all_equal, "all 10 training images are equal"),
        (sound, ""),
    ],
)
def test_weak_data_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None], said: str
) -> None:
    make(tmp_path)
    load_dataset(f"folder:{tmp_path}", image_size=8)
    assert [said in record.getMessage() for record in caplog.records] == ([True] if said else [])


def test_a_class_whose_name_is_not_utf8_is_named_at_once(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"a": 3})
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"class folder b'caf\\xe9': the name is not UTF-8; "):
        load_dataset(f"folder:{tmp_path}", image_size=8)


def test_a_class_whose_name_this_python_cannot_read_is_not_called_wrong(tmp_path: Path) -> None:
    makers.write_classes(tmp_path, {"a": 3, "b\u00e4r": 3})
    code = "import sys; from cnn_data import load_dataset; load_dataset(sys.argv[1], image_size=8)"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, f"folder:{tmp_path}"],
        env={**os.environ, **plain, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "reads names as ascii, and the name is UTF-8: run it with PYTHONUTF8=1" in done.stderr
