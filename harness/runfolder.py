"""A run's folder: who may write it, and how its files are replaced, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import CommandError, UsageError

__all__ = ["RunFolder", "default_name", "read_json", "read_sealed", "replace_file", "seal"]

MANIFEST = "manifest.json"


def default_name(model: str, dataset: str) -> str:
    """`lenet-mnist5k`; `folder:/data/Cats & dogs` becomes `folder-Cats-dogs`.

    >>> default_name("lenet", "folder:/data/Cats & dogs/")
    'lenet-folder-Cats-dogs'
    """
    if dataset.startswith("folder:"):
        dataset = "folder-" + Path(dataset.removeprefix("folder:")).name
    return f"{model}-{re.sub(r'[^A-Za-z0-9._]+', '-', dataset).strip('-')}"


class RunFolder:
    """One training run on disk; holds an exclusive lock, so two processes cannot mix their files.

    Use as a context manager. `config.json` is there from the start, `metrics.jsonl` grows by a
    row an epoch, the rest is written by those who make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def new(cls, out: str | None, name: str) -> RunFolder:
        """The folder for a new run: `out`, or the next free of `runs/NAME`, `runs/NAME-2`, ….

        Raises: UsageError where `out` holds a run already; CommandError where it cannot be made.
        """
        if out is not None:
            folder = cls(Path(out))
            if folder.holds_run():
                raise UsageError(
                    f"--out {out} already holds a run: continue it with --resume, "
                    "or name another folder"
                )
            folder._make(exist_ok=True)
            return folder
        number = 1
        while True:
            folder = cls(Path("runs") / (name if number == 1 else f"{name}-{number}"))
            try:
                folder._make(exist_ok=False)
                return folder
            except FileExistsError:  # taken, perhaps a moment ago by another process
                number += 1

    @classmethod
    def existing(cls, out: str | None, name: str) -> RunFolder | None:
        """The run to resume: `out`, or the newest of `runs/NAME`, `runs/NAME-2`, …; else None."""
        if out is not None:
            folder = cls(Path(out))
            return folder if folder.holds_run() else None
        numbered = re.compile(re.escape(name) + r"(?:-(\d+))?")
        found = [
            (int(match[1] or 1), path)
            for path in Path("runs").glob(name + "*")
            if (match := numbered.fullmatch(path.name)) and cls(path).holds_run()
        ]
        return cls(max(found)[1]) if found else None

    def holds_run(self) -> bool:
        return any((self.path / name).exists() for name in ("config.json", "metrics.jsonl", "last"))

    def _make(self, *, exist_ok: bool) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self.path.mkdir(exist_ok=exist_ok)
            (self.path / ".lock").touch()
        except FileExistsError as error:
            if not exist_ok:
                raise
            raise CommandError(
                f"--out {self.path} is a file, expected a folder or a new name"
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> CommandError:
        return CommandError(
            f"cannot write the run folder {self.path}: {error.strerror}; "
            "name a writable folder with --out"
        )

    def __enter__(self) -> RunFolder:
        """Take the lock. Raises: CommandError where another process trains into this folder."""
        try:
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._unlock()
            raise CommandError(
                f"{self.path} is in use by another process that trains into it: "
                "wait for it, or name another --out"
            ) from None
        except OSError as error:
            raise self._unwritable(error) from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._unlock()  # the file stays: unlinking it would let a third process lock another one

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # closing lets the lock go
            self._lock = None

    def write_config(self, values: Mapping[str, Any]) -> None:
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        replace_file(self.path / "config.json", lambda part: part.write_text(text))

    def metrics(self) -> list[dict[str, Any]]:
        """The rows written so far, one an epoch; a last row cut by a crash is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        return rows

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        replace_file(self.path / "metrics.jsonl", lambda part: part.write_text(text))


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises: CommandError naming the file where it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise CommandError(f"{path} is missing: is {path.parent} the folder of a run?") from None
    except NotADirectoryError:
        raise CommandError(f"{path.parent} is a file, expected the folder of a run") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is not JSON: {error}") from error


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, flush it to disk, then rename it into place.

    The temporary name keeps the ending, since writers such as `savefig` go by it. Whoever reads
    `path` sees the old bytes or the new, also after a power cut.
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(part)
        _flush(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def seal(folder: Path, writers: Mapping[str, Callable[[Path], object]], state: Any) -> None:
    """Replace `folder` by one with the given files, `state`, and a sha256 for each file.

    The new folder is written and flushed beside the old one, which is kept until the new one is
    whole: at any moment `read_sealed` finds one of the two.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for name, write in writers.items():
            write(new / name)
            _flush(new / name)
        manifest = {"format": 1, "state": state, "sha256": {n: _sha256(new / n) for n in writers}}
        (new / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
        _flush(new / MANIFEST)
        _flush(new)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_sealed(folder: Path) -> tuple[Path, Any] | None:
    """Where a sealed folder is and its `state`, every file checked; None where none was written.

    Raises: CommandError naming the file that is missing or damaged.
    """
    if not folder.exists():  # a crash between two renames leaves the previous one under .old
        folder = folder.with_name(folder.name + ".old")
        if not folder.exists():
            return None
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != 1:
        raise CommandError(f"{folder / MANIFEST} is not a checkpoint manifest of format 1")
    sums = manifest.get("sha256")
    if not isinstance(sums, dict) or "state" not in manifest:
        raise CommandError(f"{folder / MANIFEST} holds no checksums")
    for name, expected in sums.items():
        if Path(name).name != name:
            raise CommandError(f"{folder / MANIFEST} names a file outside its folder: {name!r}")
        try:
            actual = _sha256(folder / name)
        except OSError as error:
            raise CommandError(
                f"{folder / name}: {error.strerror}; the checkpoint is not whole"
            ) from None
        if actual != expected:
            raise CommandError(
                f"{folder / name} is damaged: sha256 {actual[:12]}…, expected {expected[:12]}…"
            )
    return folder, manifest["state"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
