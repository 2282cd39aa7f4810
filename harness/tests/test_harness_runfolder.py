import json
import os
from pathlib import Path

import pytest

from harness.errors import CommandError, UsageError
from harness.runfolder import RunFolder, default_name, read_json, read_sealed, replace_file, seal

STATE = {"rows": [1, 2]}


def _sealed(tmp_path: Path, content: str = "one") -> Path:
    folder = tmp_path / "last"
    seal(folder, {"a.txt": lambda p: p.write_text(content), "b": lambda p: p.touch()}, STATE)
    return folder


def test_default_names_count_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.new(None, "lenet-mnist5k").path for _ in range(3)]
    assert [p.name for p in made] == ["lenet-mnist5k", "lenet-mnist5k-2", "lenet-mnist5k-3"]


def test_the_newest_run_is_the_one_resumed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder.existing(None, "lenet-mnist5k") is None
    for _ in range(11):
        RunFolder.new(None, "lenet-mnist5k").write_config({})
    RunFolder.new(None, "lenet-mnist5k-other").write_config({})
    found = RunFolder.existing(None, "lenet-mnist5k")
    assert found is not None
    assert found.path.name == "lenet-mnist5k-11"


def test_a_path_makes_a_plain_name() -> None:
    assert default_name("alexnet", "folder:../a b/c/") == "alexnet-folder-c"


def test_a_named_folder_with_a_run_is_refused(tmp_path: Path) -> None:
    RunFolder.new(str(tmp_path / "run"), "x").write_config({})
    with pytest.raises(UsageError, match="--resume, or name another folder"):
        RunFolder.new(str(tmp_path / "run"), "x")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="file"):
        RunFolder.new(str(tmp_path / "file"), "x")
    with pytest.raises(CommandError, match="cannot write"):
        RunFolder.new(str(tmp_path / "file" / "below"), "x")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.new(str(tmp_path / "run"), "x")
    with folder, pytest.raises(CommandError, match="in use"), RunFolder(folder.path):
        pass
    with RunFolder(folder.path):
        pass  # free again


def test_metrics_leave_out_a_row_cut_by_a_crash(tmp_path: Path) -> None:
    folder = RunFolder.new(str(tmp_path / "run"), "x")
    folder.write_metrics([{"epoch": 1}, {"epoch": 2}])
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')
    assert folder.metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        replace_file(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_sealed_folder_comes_back(tmp_path: Path) -> None:
    folder = _sealed(tmp_path)
    assert read_sealed(folder) == (folder, STATE)
    _sealed(tmp_path, "two")
    assert (folder / "a.txt").read_text() == "two"
    assert os.listdir(tmp_path) == ["last"]


def test_nothing_sealed_is_none(tmp_path: Path) -> None:
    assert read_sealed(tmp_path / "last") is None


def test_a_failed_seal_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = _sealed(tmp_path)

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        seal(folder, {"a.txt": fail}, {})
    assert read_sealed(folder) == (folder, STATE)
    assert os.listdir(tmp_path) == ["last"]


def test_a_crash_between_the_renames_finds_the_previous_one(tmp_path: Path) -> None:
    folder = _sealed(tmp_path)
    folder.rename(tmp_path / "last.old")
    assert read_sealed(folder) == (tmp_path / "last.old", STATE)


@pytest.mark.parametrize("name", ["a.txt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    path = _sealed(tmp_path) / name
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "cut":
        path.write_bytes(content[:-2])
    else:
        path.unlink()
    with pytest.raises(CommandError, match=name.replace(".", r"\.")):
        read_sealed(path.parent)


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    manifest = _sealed(tmp_path) / "manifest.json"
    values = json.loads(manifest.read_text())
    values["sha256"]["../secret"] = "0"
    manifest.write_text(json.dumps(values))
    with pytest.raises(CommandError, match="outside"):
        read_sealed(manifest.parent)


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(CommandError, match="not JSON"):
        read_json(tmp_path / "deep.json")
    with pytest.raises(CommandError, match="is missing"):
        read_json(tmp_path / "none" / "config.json")
    with pytest.raises(CommandError, match="is a file"):
        read_json(tmp_path / "deep.json" / "config.json")
