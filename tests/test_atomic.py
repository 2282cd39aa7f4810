"""Files and folders that are replaced: the old one or the new one, whole, at any moment."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from gluon_cnn_parity.atomic import (
    replacing_file,
    replacing_folder,
    sha256,
    write_text,
    write_together,
    writing,
)

# Comes before the code of a writer, which then dies before its N-th call of the named functions.
DYING = """
import os, sys
from pathlib import Path
from gluon_cnn_parity.atomic import replacing_folder, write_text, write_together
steps = int(sys.argv[1])
def dying(call):
    def counted(*arguments):
        global steps
        if steps == 0:
            os._exit(9)
        steps -= 1
        return call(*arguments)
    return counted
for name in sys.argv[2:]:
    setattr(os, name, dying(getattr(os, name)))
"""


def _killed(
    folder: Path, before: Callable[[Path], None], code: str, *calls: str
) -> Iterator[tuple[Path, int]]:
    """A writer that dies before the first of its calls, the second, and so on until it lives.

    Each time where it wrote, after `before`, and its exit code.
    """
    for steps in count():
        place = folder / str(steps)
        place.mkdir()
        before(place)
        command = [sys.executable, "-c", DYING + code, str(steps), *calls]
        died = subprocess.run(command, cwd=place, check=False).returncode
        yield place, died
        if died != 9:
            return


WRITER = """
write_text("file.txt", "new")
with replacing_folder(Path("folder"), Path("previous")) as part:
    (part / "a").write_text("new")
    (part / "b").write_text("new")
"""


def test_what_cannot_be_written_is_called_by_its_own_name(tmp_path: Path) -> None:
    for write in (
        lambda path: write_text(path, ""),
        lambda path: replacing_folder(path, path.with_name("previous")).__enter__(),
    ):
        with pytest.raises(FileNotFoundError) as refused:
            write(tmp_path / "nowhere" / "answers.csv")
        assert refused.value.filename == str(tmp_path / "nowhere" / "answers.csv")


def _write(place: Path, content: str) -> None:
    write_text(place / "file.txt", content)
    with replacing_folder(place / "folder", place / "previous") as part:
        (part / "a").write_text(content)
        (part / "b").write_text(content)


def test_a_killed_writer_leaves_what_was_or_what_is_to_be(tmp_path: Path) -> None:
    def before(place: Path) -> None:
        for content in ("oldest", "old"):
            _write(place, content)

    codes: list[int] = []
    states: list[str] = []
    for place, code in _killed(tmp_path, before, WRITER, "fsync", "rename", "replace"):
        codes.append(code)
        folder = next(p for p in (place / "folder", place / "previous") if p.exists())
        a, b = ((folder / name).read_text() for name in ("a", "b"))
        assert a == b
        states.append(f"{(place / 'file.txt').read_text()} {folder.name} {a}")
        _write(place, "newest")  # the next writer leaves nothing of the killed one
        assert (place / "folder" / "a").read_text() == "newest"
        assert {path.name for path in place.iterdir() if path.is_dir()} == {"folder", "previous"}
    assert codes == [9] * 10 + [0]
    assert states == [
        *["old folder old"] * 2, *["new folder old"] * 6,
        "new previous old", "new folder new", "new folder new",
    ]  # fmt: skip


TOGETHER = 'write_together(Path("."), {"a.txt": "new", "b.txt": "new", "c.txt": None})'


def test_files_that_belong_together_are_never_of_two_times(tmp_path: Path) -> None:
    def before(place: Path) -> None:
        write_together(place, dict.fromkeys(("a.txt", "b.txt", "c.txt"), "old"))

    codes: list[int] = []
    states: list[str] = []
    for place, code in _killed(tmp_path, before, TOGETHER, "fsync", "unlink", "replace"):
        codes.append(code)
        found = {path.name: path.read_text() for path in sorted(place.glob("[!.]*"))}
        assert len(set(found.values())) < 2, found
        states.append(" ".join([*found, *set(found.values())]))
    assert codes[:-1] == [9] * (len(codes) - 1)
    assert states[0] == "a.txt b.txt c.txt old"
    assert states[-1] == "a.txt b.txt new"
    assert "" in states  # the old ones are gone before a new one comes


def test_what_could_not_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    full = OSError(28, "No space left on device")  # as a full disk says it, without a name
    with pytest.raises(OSError, match="No space") as told, replacing_file(path):
        raise full
    assert told.value.filename == str(path)


def test_a_block_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with replacing_file(path) as part:
            part.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "curves.png") as part:
        assert part.name == f".curves.{os.getpid()}.png"
        part.touch()


def test_native_code_that_names_no_reason_gets_the_systems(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), writing(tmp_path / "a"):
        raise RuntimeError("shapes differ")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as told, writing(tmp_path / "b"):
            raise RuntimeError("FileStream.Write incomplete")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert told.value.filename == str(tmp_path / "b")


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "old")
    with pytest.raises(FileNotFoundError), replacing_file(tmp_path / "file.txt"):
        pass
    assert (tmp_path / "file.txt").read_text() == "old"


def test_the_sum_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            sha256(path)
