from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_data import DataError, load_dataset
from cnn_data.readers.archive import tar_members
from cnn_data.readers.cifar import parse_binary, parse_python, read_cifar
from cnn_data.readers.plain_pickle import UnsafePickle, read_plain
from cnn_data.tests.makers import (
    binary_batch,
    cifar_files,
    cifar_rows,
    python_batch,
    shrink,
    write_tar,
)

ROWS = 20
PLACES = {"bin": "cifar-10-batches-bin", "py": "cifar-10-batches-py"}
ARCHIVES = {"bin": "cifar-10-binary.tar.gz", "py": "cifar-10-python.tar.gz"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "cifar10", counts=(5 * ROWS, ROWS))


def place(folder: Path, version: str, form: str) -> None:
    files = cifar_files(ROWS, version)
    if form == "archive":
        members = {f"{PLACES[version]}/{name}": content for name, content in files.items()}
        write_tar(folder / ARCHIVES[version], {**members, "readme.html": b"hello"})
        return
    inside = folder / PLACES[version] if form == "folder" else folder
    inside.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (inside / name).write_bytes(content)


@pytest.mark.parametrize("version", ["bin", "py"])
@pytest.mark.parametrize("form", ["archive", "folder", "flat"])
@pytest.mark.parametrize("below", ["", "cifar10"])
def test_both_versions_are_read_packed_or_not(
    tmp_path: Path, version: str, form: str, below: str
) -> None:
    place(tmp_path / below, version, form)
    dataset = load_dataset("cifar10", tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (5 * ROWS, ROWS)
    assert dataset.shape == (32, 32, 3)
    assert dataset.class_names[:2] == ("plane", "car")
    pixels, labels = cifar_rows(ROWS, 5)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    images = dataset.test.images(np.arange(ROWS))
    np.testing.assert_array_equal(
        images[3, 7, 9], pixels[3, [7 * 32 + 9 + k for k in (0, 1024, 2048)]]
    )
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(ROWS, -1), pixels)
    third, _ = cifar_rows(ROWS, 2)
    np.testing.assert_array_equal(
        dataset.train.images(np.array([2 * ROWS + 4]))[0].transpose(2, 0, 1).ravel(), third[4]
    )


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    place(tmp_path, "bin", "flat")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3\.bin"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("change", [-3073, -1, 1, 3073])
def test_a_binary_batch_of_another_length_is_refused(change: int) -> None:
    content = binary_batch(*cifar_rows(ROWS, 0))
    content = content[:change] if change < 0 else content + bytes(change)
    with pytest.raises(DataError, match=f"x.bin: {len(content)} bytes; expected {ROWS * 3073}"):
        parse_binary(content, "x.bin", ROWS)


def test_a_label_out_of_range_is_refused() -> None:
    pixels, labels = cifar_rows(ROWS, 0)
    labels[6] = 200
    for parse, content in (
        (parse_binary, binary_batch(pixels, labels)),
        (parse_python, python_batch(pixels, labels)),
    ):
        with pytest.raises(DataError, match="label 200 at position 6; expected 0 to 9"):
            parse(content, "batch", ROWS)


def test_a_python_batch_of_other_lengths_is_refused() -> None:
    pixels, labels = cifar_rows(ROWS, 0)
    with pytest.raises(DataError, match=r"data are \(19, 3072\); expected \(20, 3072\)"):
        parse_python(python_batch(pixels[:-1], labels), "batch", ROWS)
    with pytest.raises(DataError, match="19 labels for 20 images"):
        parse_python(python_batch(pixels, labels[:-1]), "batch", ROWS)
    with pytest.raises(DataError, match="its data are NoneType"):
        parse_python(b"\x80\x02}.", "batch", ROWS)
    with pytest.raises(DataError, match="its data are NoneType"):
        parse_python(b"\x80\x02K\x01.", "batch", ROWS)


@given(cut=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_every_truncated_pickle_is_refused(cut: int) -> None:
    pixels, labels = cifar_rows(2, 0)
    content = python_batch(pixels, labels)
    with pytest.raises(DataError, match="not a plain CIFAR-10 batch"):
        parse_python(content[: -1 - cut], "batch", 2)


@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_damaged_pickle_raises_nothing_but_a_data_error(position: int, value: int) -> None:
    content = bytearray(python_batch(*cifar_rows(1, 0)))
    content[position % len(content)] = value
    try:
        images, labels = parse_python(bytes(content), "batch", 1)
    except DataError:
        return
    assert images.shape == (1, 32, 32, 3)
    assert 0 <= labels[0] < 10


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'touch {path}'\ntR.",
        b"\x80\x02cposix\nsystem\nU{length}touch {path}\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c{length}touch {path}\x85R.",
        b"(S'touch {path}'\nios\nsystem\n.",
        b"\x80\x02cbuiltins\neval\nU\x03{{}}\x81.",
        b"\x80\x02(cos\nsystem\nU{length}touch {path}o.",
    ],
)
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ran"
    order = b"touch " + str(path).encode()
    content = content.replace(b"{path}", str(path).encode()).replace(
        b"{length}", struct.pack("B", len(order))
    )
    with pytest.raises(UnsafePickle):
        read_plain(content)
    with pytest.raises(DataError):
        parse_python(content, "batch", 1)
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x02cos\nsystem\nU\x02ls\x85R.", "asks for os system"),
        (b"\x80\x02cnumpy\ndtype\nU\x02f8\x85R.", "asks for numpy dtype"),
        (b"\x80\x02cos\nsystem\n.", "holds a name"),
        (b"\x80\x02K\x01", "damaged"),
        (b"\x80\x02(K\x01.", "damaged: too many values"),
        (b"\x80\x02}K\x01b.", "a dict where"),
        (b"\x80\x02}K\x01a.", "a dict where a list belongs"),
        (b"", "damaged"),
        (b"\x80\x02}q\x00h\x00h\x00s.", "damaged"),
    ],
)
def test_what_is_no_plain_data_is_said(content: bytes, said: str) -> None:
    with pytest.raises(UnsafePickle, match=said):
        read_plain(content)


def test_plain_data_of_newer_pickles_is_read() -> None:
    # {b"a": [1, -2, 2.5], "é": (None, True, False), "n": 300} as Python 3 writes it, protocol 4
    content = (
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(C\x01a\x94]\x94(K\x01J\xfe\xff\xff\xff"
        b"G@\x04\x00\x00\x00\x00\x00\x00e\x8c\x02\xc3\xa9\x94N\x88\x89\x87\x94\x8c\x01n\x94M,\x01u."
    ).replace(b"\x95" + bytes(8), b"")
    assert read_plain(content) == {b"a": [1, -2, 2.5], "é": (None, True, False), "n": 300}


def link(kind: bytes, name: str = "cifar-10-batches-bin/link") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../evil.bin": b"x"}, "points outside the archive"),
        ({"/tmp/evil.bin": b"x"}, "points outside the archive"),
        ({"a/../../evil": b"x"}, "points outside the archive"),
        ({"link": link(tarfile.SYMTYPE)}, "is a link or a device"),
        ({"link": link(tarfile.LNKTYPE)}, "is a link or a device"),
        ({"fifo": link(tarfile.FIFOTYPE)}, "is a link or a device"),
        ({"big.bin": b"x" * 101}, "has 101 bytes; expected at most 100"),
    ],
)
def test_members_that_climb_out_or_link_are_refused(
    tmp_path: Path, members: dict, said: str
) -> None:
    path = write_tar(tmp_path / "x.tar.gz", {"fine/data_batch_1.bin": b"1", **members})
    with pytest.raises(DataError, match=said):
        list(tar_members(path, lambda name: True, 100))
    assert sorted(tmp_path.iterdir()) == [path]


@given(cut=st.integers(1, 1500))
@settings(max_examples=40, deadline=None)
def test_every_truncated_archive_is_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    content = np.random.default_rng(0).bytes(300)
    path = write_tar(folder / "x.tar.gz", {"a": content, "b": content, "c": content})
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    with pytest.raises(DataError, match="damaged archive"):
        list(tar_members(path, lambda name: True, 1000))


def test_an_archive_is_read_to_its_checksum(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar.gz", {"a": b"hello"})
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the CRC
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged archive"):
        list(tar_members(path, lambda name: True, 100))
    path.write_bytes(b"not gzip at all")
    with pytest.raises(DataError, match="damaged archive"):
        read_cifar(path)
