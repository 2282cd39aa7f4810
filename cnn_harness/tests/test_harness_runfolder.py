import os
import shutil
from pathlib import Path

import pytest

from cnn_harness.errors import CommandError, UsageError
from cnn_harness.runfolder import RunFolder, default_name


def test_default_names_count_up(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.new(None, "lenet-mnist5k").path for _ in range(3)]
    assert [p.name for p in made] == ["lenet-mnist5k", "lenet-mnist5k-2", "lenet-mnist5k-3"]


def test_the_newest_run_is_the_one_resumed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no run is in runs/lenet-mnist5k"):
        RunFolder.existing(None, "lenet-mnist5k")
    for _ in range(11):
        RunFolder.new(None, "lenet-mnist5k").write_config({})
    RunFolder.new(None, "lenet-mnist5k-other").write_config({})
    found = RunFolder.existing(None, "lenet-mnist5k")
    assert found is not None
    assert found.path.name == "lenet-mnist5k-11"
    for number, path in enumerate(sorted(Path("runs").iterdir())):
        os.utime(path / "config.json", (number, number))
    newest = RunFolder.existing(None, None)  # of all, whatever their names
    assert newest is not None
    assert newest.path.name == "lenet-mnist5k-other"


def test_no_run_at_all_is_an_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "empty").mkdir(parents=True)
    with pytest.raises(UsageError, match="no run is in runs; name one with --out"):
        RunFolder.existing(None, None)


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
    with pytest.raises(CommandError, match="cannot be written"):
        RunFolder.new(str(tmp_path / "file" / "below"), "x")


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    folder = RunFolder.new(str(tmp_path / "run"), "x")
    with folder, pytest.raises(CommandError, match="in use"), RunFolder(folder.path):
        pass
    with RunFolder(folder.path):
        pass  # free again


def test_a_new_folder_that_another_process_filled_is_refused(tmp_path: Path) -> None:
    slow = RunFolder.new(str(tmp_path / "run"), "x")
    with RunFolder.new(str(tmp_path / "run"), "x") as quick:
        quick.write_config({})
    with pytest.raises(UsageError, match="holds a run by now"), slow:
        pass


def test_a_run_stopped_before_it_wrote_anything_is_the_newest(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder.new(None, "lenet-mnist5k").write_config({})
    RunFolder.new(None, "lenet-mnist5k")
    assert RunFolder.existing(None, "lenet-mnist5k") is None


def _save(folder: RunFolder, content: str) -> None:
    folder.save({"a.txt": lambda p: p.write_text(content)}, {"is": content})


def _run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.new(str(tmp_path / "run"), "x")
    folder.program = "python -m pack.train"
    return folder


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    with _run(tmp_path) as folder:
        assert folder.saved() is None
        for content in ("one", "two", "three"):
            _save(folder, content)
        assert folder.saved() == (folder.path / "last", {"is": "three"})
        assert folder.saved("previous") == (folder.path / "previous", {"is": "two"})
        folder.take_previous()
        assert folder.saved() == (folder.path / "last", {"is": "two"})
        with pytest.raises(CommandError, match="previous is not there"):
            folder.saved("previous")
        assert sorted(os.listdir(folder.path)) == [".lock", "last"]


def test_a_damaged_checkpoint_offers_the_one_before(tmp_path: Path) -> None:
    with _run(tmp_path) as folder:
        _save(folder, "one")
        _save(folder, "two")
        (folder.path / "last/a.txt").write_text("twa")
        with pytest.raises(CommandError) as refused:
            folder.saved()
        assert "last/a.txt is damaged" in str(refused.value)
        command = f"python -m pack.train --resume previous --out {folder.path}"
        assert str(refused.value).endswith(command)
        (folder.path / "previous/a.txt").unlink()
        with pytest.raises(CommandError, match="no whole checkpoint is left"):
            folder.saved()


def test_a_crash_between_the_renames_finds_the_previous_one(tmp_path: Path) -> None:
    with _run(tmp_path) as folder:
        _save(folder, "one")
        (folder.path / "last").rename(folder.path / "previous")
        assert folder.saved() == (folder.path / "previous", {"is": "one"})
        _save(folder, "two")
        assert folder.saved() == (folder.path / "last", {"is": "two"})


def test_a_full_disk_is_said_and_keeps_what_was_there(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with _run(tmp_path) as folder:
        with pytest.raises(CommandError, match=r"No space left.*nothing was saved yet"):
            folder.save({"a.txt": fail}, {})
        _save(folder, "one")
        with pytest.raises(CommandError, match=r"No space left.*last is whole.*--resume --out"):
            folder.save({"a.txt": fail}, {})
        with pytest.raises(CommandError, match=r"best\.params: No space left"):
            folder.replace("best.params", fail)
        assert folder.saved() == (folder.path / "last", {"is": "one"})
        assert sorted(os.listdir(folder.path)) == [".lock", "last"]


def test_a_folder_that_vanishes_is_not_made_again(tmp_path: Path) -> None:
    with _run(tmp_path) as folder:
        _save(folder, "one")
        shutil.rmtree(folder.path)
        with pytest.raises(CommandError, match="has vanished"):
            _save(folder, "two")
        with pytest.raises(CommandError, match="has vanished"):
            folder.write_config({})
        assert not folder.path.exists()


def test_a_folder_that_is_replaced_is_not_written(tmp_path: Path) -> None:
    with _run(tmp_path) as folder:
        folder.path.rename(tmp_path / "moved")
        RunFolder.new(str(folder.path), "x")
        with pytest.raises(CommandError, match="was replaced by another folder"):
            _save(folder, "two")
        assert os.listdir(folder.path) == [".lock"]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    folder = _run(tmp_path)
    for name in (".best.12.params", ".config.34.json", ".mine.png", "best.params"):
        (folder.path / name).touch()
    with folder:
        assert sorted(os.listdir(folder.path)) == [".lock", ".mine.png", "best.params"]
