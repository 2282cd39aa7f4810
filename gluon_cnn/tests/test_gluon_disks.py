"""Disks that fill up, refuse to be written, or vanish: on real small file systems."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnn_harness.runfolder import RunFolder
from cnn_harness.tests.runs import rows, same_end
from gluon_cnn import train
from gluon_cnn.training import loop

ARGV = ["--batch-size", "1000", "--epochs", "2"]


def _mount(options: str, folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return (
        shutil.which("mount") is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 20 MB, which a test may make smaller."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mount("size=20m", folder):
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train.main([*ARGV, "--out", str(run)]) == 0
    return run


# LeNet with Adam: 0.18 MB of parameters, three times that a checkpoint, 0.1 MB of pictures
@pytest.mark.parametrize("size", ["100k", "600k", "1400k"])
def test_a_full_disk_keeps_the_checkpoint_and_room_lets_it_go_on(
    disk: Path, whole: Path, size: str, capsys
) -> None:
    run = disk / "run"
    assert _mount(f"remount,size={size}", disk)
    capsys.readouterr()
    assert train.main([*ARGV, "--out", str(run)]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: cannot write"), err
    assert "No space left" in err or "could not be written whole: is the disk full?" in err
    with RunFolder(run) as folder:
        kept = folder.saved()
    assert ("is whole as it was" in err) == (kept is not None)
    assert _mount("remount,size=20m", disk)
    assert train.main(["--resume", *ARGV, "--out", str(run)]) == 0
    same_end("gluon_cnn", whole, run)


def test_a_read_only_disk_is_said(disk: Path, capsys, refused) -> None:
    run = disk / "run"
    assert train.main([*ARGV, "--out", str(run)]) == 0
    before = rows(run)
    assert _mount("remount,ro", disk)
    capsys.readouterr()
    for argv in (["--resume", "--epochs", "3", "--out", str(run)], ["--out", str(disk / "new")]):
        err = refused(train.main, argv, 1, "Read-only file system")
        assert "cannot write the run folder" in err or "cannot be written: Read-only" in err
    assert rows(run) == before


def test_a_folder_that_vanishes_ends_the_run(tmp_path: Path, monkeypatch, refused) -> None:
    run = tmp_path / "run"
    evaluate = loop.evaluate

    def vanish(*arguments, **options):
        shutil.rmtree(run)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(loop, "evaluate", vanish)
    refused(
        train.main, [*ARGV, "--out", str(run)], 1, "has vanished while this run trained into it"
    )
    assert not run.exists()
