"""Sealed folders and replaced files: whole or refused."""

import os
from pathlib import Path

import pytest

from cnn_harness.errors import CommandError
from cnn_harness.sealed import read_json, read_sealed, seal

STATE = {"rows": [1, 2], "loss": 0.1}


def _sealed(tmp_path: Path, content: str = "one") -> Path:
    folder = tmp_path / "last"
    writers = {"a.txt": lambda p: p.write_text(content), "b": lambda p: p.touch()}
    seal(folder, tmp_path / "previous", writers, STATE)
    return folder


def test_a_sealed_folder_comes_back(tmp_path: Path) -> None:
    folder = _sealed(tmp_path)
    assert read_sealed(folder) == STATE
    _sealed(tmp_path, "two")
    assert (folder / "a.txt").read_text() == "two"
    assert (tmp_path / "previous" / "a.txt").read_text() == "one"
    _sealed(tmp_path, "three")
    assert read_sealed(tmp_path / "previous") == STATE
    assert sorted(os.listdir(tmp_path)) == ["last", "previous"]


def test_a_failed_seal_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = _sealed(tmp_path)

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        seal(folder, tmp_path / "previous", {"a.txt": fail}, {})
    assert read_sealed(folder) == STATE
    assert os.listdir(tmp_path) == ["last"]


@pytest.mark.parametrize("name", ["a.txt", "manifest.json"])
def test_every_flipped_byte_and_every_cut_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = _sealed(tmp_path) / name
    content = path.read_bytes()
    for i in range(len(content)):
        for mask in (0x01, 0x20, 0xFF):
            path.write_bytes(content[:i] + bytes([content[i] ^ mask]) + content[i + 1 :])
            with pytest.raises(CommandError, match=name.replace(".", r"\.")):
                read_sealed(path.parent)
        path.write_bytes(content[:i])
        with pytest.raises(CommandError, match=name.replace(".", r"\.")):
            read_sealed(path.parent)
    path.unlink()
    with pytest.raises(CommandError, match=name.replace(".", r"\.")):
        read_sealed(path.parent)


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    writers = {"../secret": lambda p: p.write_text("x")}
    seal(tmp_path / "last", tmp_path / "previous", writers, STATE)
    with pytest.raises(CommandError, match="outside"):
        read_sealed(tmp_path / "last")


def test_links_where_the_new_folder_goes_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep").touch()
    for name in (".last.new", ".last.old"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    _sealed(tmp_path)
    assert os.listdir(tmp_path / "mine") == ["keep"]


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(CommandError, match="not JSON"):
        read_json(tmp_path / "deep.json")
    (tmp_path / "long.json").write_text("9" * 10_000)
    with pytest.raises(CommandError, match="not JSON"):
        read_json(tmp_path / "long.json")
    with pytest.raises(CommandError, match="is missing"):
        read_json(tmp_path / "none" / "config.json")
    with pytest.raises(CommandError, match="is a file"):
        read_json(tmp_path / "deep.json" / "config.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(CommandError, match="not a regular file"):
        read_json(tmp_path / "pipe.json")
    with pytest.raises(CommandError, match="not a regular file"):
        read_json(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(CommandError, match="too large"):
        read_json(tmp_path / "huge.json")
