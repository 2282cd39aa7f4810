from __future__ import annotations

import functools
import hashlib
import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnn_data import ArraySplit, DataError, Dataset, Split, decoded, encoded, load_dataset, network
from cnn_data.catalog import CATALOG, Original
from cnn_data.prepare import main, prepare
from cnn_data.prepared import build, find_prepared
from cnn_data.readers.idx import IDX_FILES
from cnn_data.tests import makers


def same(a: Dataset, b: Dataset) -> bool:
    for split in ("train", "test"):
        one, other = getattr(a, split), getattr(b, split)
        everything = np.arange(len(one))
        if not np.array_equal(one.labels, other.labels):
            return False
        if not np.array_equal(one.images(everything), other.images(everything)):
            return False
    return a.shape == b.shape


@pytest.fixture(scope="module")
def prepared_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare("mnist5k", folder)
    return folder


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    makers.shrink(monkeypatch, "mnist", counts=(20, 10))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", refuse)


def test_the_digits_come_back_bit_equal_without_tensorflow(prepared_digits: Path) -> None:
    path = find_prepared(CATALOG["mnist5k"], prepared_digits)
    assert path == prepared_digits / "mnist5k" / "1.0.0"
    read = load_dataset("mnist5k", prepared_digits)
    assert type(read.train).__name__ == "EncodedSplit"
    assert same(read, load_dataset("mnist5k"))
    assert "tensorflow" not in sys.modules


def test_a_prepared_set_is_found_from_any_folder_above(prepared_digits: Path) -> None:
    entry = CATALOG["mnist5k"]
    for folder in (prepared_digits, prepared_digits / "mnist5k", prepared_digits / "mnist5k/1.0.0"):
        assert find_prepared(entry, folder) == prepared_digits / "mnist5k" / "1.0.0"
    assert find_prepared(CATALOG["mnist"], prepared_digits / "mnist5k") is None


def test_preparing_again_keeps_what_is_there(prepared_digits: Path) -> None:
    info = prepared_digits / "mnist5k/1.0.0/dataset_info.json"
    before = info.stat().st_mtime_ns
    assert prepare("mnist5k", prepared_digits) == info.parent
    assert info.stat().st_mtime_ns == before


def test_original_files_are_prepared_and_read_back(tmp_path: Path, small_mnist: None) -> None:
    makers.write_mnist(tmp_path / "mnist")
    original = load_dataset("mnist", tmp_path)
    path = prepare("mnist", tmp_path)
    for file in (tmp_path / "mnist").glob("*-ubyte.gz"):
        file.unlink()
    read = load_dataset("mnist", tmp_path)
    assert path == tmp_path / "mnist" / "1.0.0"
    assert same(read, original)
    assert same(load_dataset("mnist", tmp_path, image_size=32, fit="pad"), _padded(original))


def _padded(dataset: Dataset) -> Dataset:
    def pad(split: Split) -> ArraySplit:
        images = split.images(np.arange(len(split)))
        return ArraySplit(np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))), split.labels)

    return replace(dataset, shape=(32, 32, 1), train=pad(dataset.train), test=pad(dataset.test))


def test_colour_sets_are_prepared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makers.shrink(monkeypatch, "cifar10", counts=(50, 10))
    files = {f"x/{name}": content for name, content in makers.cifar_files(10, "bin").items()}
    packed = makers.write_tar(tmp_path / "cifar-10-binary.tar.gz", files)
    original = load_dataset("cifar10", tmp_path)
    prepare("cifar10", tmp_path)
    packed.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decoded, "WORTH_REMEMBERING", -1.0)
    assert same(load_dataset("cifar10", tmp_path), original)
    monkeypatch.delattr(encoded, "decode")  # an earlier run did that
    assert same(load_dataset("cifar10", tmp_path), original)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address that serves it."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path, address: str) -> None:
    """Serve a small MNIST and write its addresses and checksums into the catalogue."""
    makers.write_mnist(folder)
    originals = []
    for name in IDX_FILES:
        content = (folder / f"{name}.gz").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        originals.append(Original(f"{address}{name}.gz", len(content), digest))
    makers.shrink(monkeypatch, "mnist", counts=(20, 10), originals=tuple(originals))


def test_what_is_nowhere_is_downloaded_once_checked_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    publish(monkeypatch, *server)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    downloaded = load_dataset("mnist", data_dir)
    assert same(downloaded, load_dataset("mnist", server[0]))
    for file in server[0].iterdir():
        file.unlink()
    assert same(load_dataset("mnist", data_dir), downloaded)
    assert "tensorflow" not in sys.modules


def test_a_download_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    publish(monkeypatch, *server)
    with (server[0] / f"{IDX_FILES[0]}.gz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="wrong checksum"):
        prepare("mnist", tmp_path)
    assert find_prepared(CATALOG["mnist"], tmp_path) is None


def test_a_download_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    publish(monkeypatch, *server)
    (server[0] / f"{IDX_FILES[2]}.gz").unlink()
    with pytest.raises(DataError, match=rf"{IDX_FILES[2]}\.gz\. HTTP code: 404"):
        prepare("mnist", tmp_path)


def test_a_server_that_breaks_off_is_given_up_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: tuple[Path, str]
) -> None:
    publish(monkeypatch, *server)
    monkeypatch.setattr(_Quiet, "do_GET", lambda self: self.connection.close())
    began = time.perf_counter()
    with pytest.raises(DataError, match=r"see that .* the network holds"):
        prepare("mnist", tmp_path)
    assert time.perf_counter() - began < 8


def test_a_wrong_original_is_named_and_leaves_nothing_prepared(
    tmp_path: Path, small_mnist: None
) -> None:
    makers.write_mnist(tmp_path)
    path = tmp_path / f"{IDX_FILES[1]}.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=rf"{IDX_FILES[1]}\.gz: cannot be read"):
        prepare("mnist", tmp_path)
    assert not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "imagenette"])
def test_without_a_network_the_two_ways_out_are_named_at_once(
    tmp_path: Path, no_network: None, name: str
) -> None:
    began = time.perf_counter()
    with pytest.raises(DataError) as caught:
        load_dataset(name, tmp_path, image_size=32)
    assert time.perf_counter() - began < 5
    said = str(caught.value)
    assert "cannot be reached" in said
    assert "in --data-dir, or run python -m cnn_data.prepare" in said
    assert CATALOG[name].originals[0].name in said
    assert "\n" not in said


def test_a_server_that_never_answers_is_given_up_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> socket.socket:
        release.wait(20)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", hang)
    began = time.perf_counter()
    assert network.unreachable(["https://a.example/x", "http://b.example/y"], 0.3) == "a.example"
    assert time.perf_counter() - began < 2
    assert network.PATIENCE < 5
    release.set()


def test_a_server_or_its_proxy_is_asked_at_the_right_port(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(network, "getproxies", dict)
    assert network.unreachable(["https://a.example/x", "https://a.example/y"]) is None
    assert network.unreachable(["http://a.example/x", "http://a.example:81/x"]) is None
    assert sorted(asked) == [("a.example", 80), ("a.example", 81), ("a.example", 443)]
    asked.clear()
    monkeypatch.setattr(network, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(network, "proxy_bypass", lambda host: host == "near")
    assert network.unreachable(["https://a.example/x", "https://near/y"]) is None
    assert sorted(asked) == [("near", 443), ("proxy", 3128)]


def test_the_newest_version_is_taken(tmp_path: Path) -> None:
    for version in ("9.0.0", "10.0.0", "2.1.0"):
        folder = tmp_path / "mnist" / version
        folder.mkdir(parents=True)
        info = {"name": "mnist", "fileFormat": "array_record", "version": version}
        (folder / "dataset_info.json").write_text(json.dumps(info))
    assert find_prepared(CATALOG["mnist"], tmp_path) == tmp_path / "mnist" / "10.0.0"


def edit_info(path: Path, **changes: object) -> None:
    file = path / "dataset_info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture
def prepared_mnist(tmp_path: Path, small_mnist: None) -> Path:
    makers.write_mnist(tmp_path / "files")
    files = [tmp_path / "files" / f"{name}.gz" for name in IDX_FILES]
    return build(CATALOG["mnist"], tmp_path / "data", files)


def test_a_format_that_needs_tensorflow_is_refused(prepared_mnist: Path) -> None:
    edit_info(prepared_mnist, fileFormat="tfrecord")
    with pytest.raises(DataError, match="prepared as tfrecord, which needs TensorFlow"):
        load_dataset("mnist", prepared_mnist.parents[1])


def test_a_prepared_set_of_another_size_is_refused(
    prepared_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers.shrink(monkeypatch, "mnist", counts=(20, 11))
    with pytest.raises(DataError, match="test holds 10 images; expected 11"):
        load_dataset("mnist", prepared_mnist.parents[1])


def test_labels_out_of_range_are_refused(
    prepared_mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers.shrink(monkeypatch, "mnist", class_names=("0", "1", "2"))
    with pytest.raises(DataError, match=r"train record 3: label \[3\]; expected 0 to 2"):
        load_dataset("mnist", prepared_mnist.parents[1])


@pytest.mark.parametrize("damage", ["empty", "cut", "missing", "info", "features"])
def test_a_damaged_prepared_set_is_one_line(prepared_mnist: Path, damage: str) -> None:
    (records,) = prepared_mnist.glob("*train.array_record*")
    if damage == "missing":
        records.unlink()
    elif damage == "info":
        (prepared_mnist / "dataset_info.json").write_text("{")
    elif damage == "features":
        (prepared_mnist / "features.json").write_text("{}")
    else:
        records.write_bytes(b"" if damage == "empty" else records.read_bytes()[:-100])
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", prepared_mnist.parents[1])
    assert "mnist" in str(caught.value)
    assert "prepare it again" in str(caught.value)
    assert "\n" not in str(caught.value)


def jpeg(value: int, size: tuple[int, int] = (20, 12)) -> bytes:
    return makers.encoded(makers.picture((value, 0, 0), size), "JPEG", quality=95)


def imagenette_files(train: int = 3, test: int = 1) -> dict[str, bytes]:
    """In an order that is not the sorted one."""
    files = {}
    for number, wordnet in reversed(list(enumerate(CATALOG["imagenette"].class_folders))):
        for part, count in (("val", test), ("train", train)):
            for i in reversed(range(count)):
                name = f"imagenette2-320/{part}/{wordnet}/{wordnet}_{i}.JPEG"
                files[name] = jpeg(20 * number + i + (10 if part == "val" else 0))
    return files


def test_imagenette_is_the_same_extracted_packed_and_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    files = imagenette_files()
    packed, loose = tmp_path / "packed", tmp_path / "loose"
    makers.write_tar(packed / "imagenette2-320.tgz", files)
    for name, content in files.items():
        (loose / name).parent.mkdir(parents=True, exist_ok=True)
        (loose / name).write_bytes(content)
    extracted = load_dataset("imagenette", loose, image_size=8)
    assert extracted.shape == (8, 8, 3)
    assert extracted.class_names[6] == "garbage truck"
    assert np.bincount(extracted.train.labels).tolist() == [3] * 10
    assert np.bincount(extracted.test.labels).tolist() == [1] * 10
    red = extracted.train.images(np.arange(30))[:, 0, 0, 0] // 20
    np.testing.assert_array_equal(red, extracted.train.labels)
    assert same(load_dataset("imagenette", packed, image_size=8), extracted)  # prepared once
    (packed / "imagenette2-320.tgz").unlink()
    assert same(load_dataset("imagenette", packed, image_size=8), extracted)
    assert same(load_dataset("imagenette", loose / "imagenette2-320", image_size=8), extracted)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"imagenette2-320/train/n99999999/a.JPEG": jpeg(1)}, "is of none of imagenette's classes"),
        ({"imagenette2-320/train/n01440764/a.JPEG": b"junk"}, r"a\.JPEG: cannot be read"),
        ({"imagenette2-320/../../evil": b"junk"}, "points outside the archive"),
    ],
)
def test_a_wrong_imagenette_archive_is_refused(tmp_path: Path, files: dict, said: str) -> None:
    makers.write_tar(tmp_path / "imagenette2-320.tgz", {**imagenette_files(1), **files})
    with pytest.raises(DataError, match=said):
        load_dataset("imagenette", tmp_path, image_size=8)
    assert find_prepared(CATALOG["imagenette"], tmp_path) is None


def test_imagenette_without_val_or_image_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image size of its own"):
        load_dataset("imagenette", tmp_path)
    makers.write_classes(tmp_path / "train", dict.fromkeys(CATALOG["imagenette"].class_folders, 1))
    with pytest.raises(DataError, match="holds train but no val"):
        load_dataset("imagenette", tmp_path, image_size=8)


def test_the_command_prints_what_it_did(
    tmp_path: Path, small_mnist: None, capsys: pytest.CaptureFixture[str]
) -> None:
    makers.write_mnist(tmp_path)
    assert main(["mnist", "--data-dir", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.pop("seconds") >= 0
    path = str(tmp_path / "mnist" / "1.0.0")
    assert result == {"name": "mnist", "path": path, "train": 20, "test": 10}
    assert main(["mnist", "--data-dir", str(tmp_path)]) == 0
    assert "20 training and 10 test images" in capsys.readouterr().out


def test_the_command_fails_in_one_line(
    tmp_path: Path, no_network: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cifar10", "--data-dir", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: cifar10 is not in ")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["minst"], ["mnist", "--nonsense"], ["folder:x"]])
def test_bad_usage_is_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_needs_no_preparing_and_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs no preparing"):
        prepare("folder:x")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file: File exists; see that it can be written to"):
        prepare("mnist5k", tmp_path / "file")
    with pytest.raises(DataError, match="no such folder; expected one that holds mnist"):
        load_dataset("mnist", tmp_path / "nowhere")


def test_a_folder_that_may_not_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"cifar10: .*Permission denied"):
        load_dataset("cifar10", tmp_path)
    assert main(["cifar10", "--data-dir", str(tmp_path)]) == 1
    assert "Permission denied" in capsys.readouterr().err
