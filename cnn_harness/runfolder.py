"""A run's folder: who may write it, and how its files are replaced, whole or not at all."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gluon_cnn_parity import did_you_mean
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.sealed import read_sealed, seal
from gluon_cnn_parity.atomic import replacing_file, unfit
from gluon_cnn_parity.cli import not_utf8

_TEMPORARY = re.compile(
    r"\.(?:best|config|metrics|curves|predictions|(?:confusion|errors|evaluation)[^/]*)\.\d+\.\w+"
)


def default_name(model: str, dataset: str) -> str:
    """`lenet-mnist5k`; `folder:/data/Cats & dogs` becomes `folder-Cats-dogs`.

    >>> default_name("lenet", "folder:/data/Cats & dogs/")
    'lenet-folder-Cats-dogs'
    """
    if dataset.startswith("folder:"):
        dataset = "folder-" + Path(dataset.removeprefix("folder:")).name
    return f"{model}-{re.sub(r'[^A-Za-z0-9._]+', '-', dataset).strip('-')}"


def require_utf8(place: str | Path, what: str) -> None:
    """Raise UsageError for a folder whose name MXNet and safetensors could not write or open."""
    if why := not_utf8(place):
        raise UsageError(f"{what} {place}: {why}")


class RunFolder:
    """One training run on disk; holds an exclusive lock, so two processes cannot mix their files.

    Use as a context manager. `config.json` is there from the start, `metrics.jsonl`
    and `metrics.csv` grow by a row an epoch, the rest is written by those who make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._new = False  # made for a run that has not begun
        self.program = ""  # what to call to continue the run, for messages: python -m …

    @classmethod
    def require_free(cls, out: str | None) -> None:
        """Refuse a place where no new run can be written, before the data are read.

        Raises: UsageError where `out` holds a run already, or has a name that is not UTF-8;
        CommandError where it cannot be made.
        """
        if out is not None:
            require_utf8(out, "--out")
            if cls(Path(out)).holds_run():
                raise UsageError(
                    f"--out {out} already holds a run: continue it with --resume, "
                    "or name another folder"
                )
        if why := unfit(Path(out or "runs")):
            raise CommandError(
                f"--out {out} {why}"
                if out is not None
                else f"runs, where runs are written without --out, {why} with --out"
            )

    @classmethod
    def new(cls, out: str | None, name: str) -> RunFolder:
        """The folder for a new run: `out`, or the next free of `runs/NAME`, `runs/NAME-2`, ….

        Raises: UsageError where `out` holds a run already; CommandError where it cannot be made.
        """
        cls.require_free(out)
        if out is not None:
            folder = cls(Path(out))
            folder._make(exist_ok=True)
            folder._new = True
            return folder
        number = 1
        while True:
            folder = cls(Path("runs") / (name if number == 1 else f"{name}-{number}"))
            try:
                folder._make(exist_ok=False)
                folder._new = True
                return folder
            except FileExistsError:  # taken, perhaps a moment ago by another process
                number += 1

    @classmethod
    def existing(cls, out: str | None, name: str | None) -> RunFolder | None:
        """The run to resume: `out`, or the newest of `runs/NAME`, `runs/NAME-2`, …; of all where
        `name` is None.

        None where it was stopped before it wrote anything. Raises: UsageError where there is none.
        """
        if out is not None:
            require_utf8(out, "--out")
            folder = cls(Path(out))
            if not folder.holds_run() and not (folder.path / ".lock").exists():
                beside = folder.path.parent
                runs = {path.parent.name for path in beside.glob("*/config.json")}
                raise UsageError(
                    f"--resume --out {out}: no run is there: leave out --resume to begin one"
                    f"{did_you_mean(folder.path.name, runs, f'{beside}/')}"
                )
            return folder if folder.holds_run() else None
        if name is None:
            written = sorted(
                Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime
            )
            if not written:
                raise UsageError(
                    "--resume: no run is in runs; name one with --out, or leave out --resume "
                    "to begin one"
                )
            return cls(written[-1].parent)
        numbered = re.compile(re.escape(name) + r"(?:-(\d+))?")
        found = [
            (int(match[1] or 1), path)
            for path in Path("runs").glob(name + "*")
            if (match := numbered.fullmatch(path.name)) and path.is_dir()
        ]
        if not found:
            raise UsageError(
                f"--resume: no run is in {Path('runs') / name}; name one with --out, or leave out "
                "--resume to begin one"
            )
        newest = cls(max(found)[1])
        return newest if newest.holds_run() else None

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
        if self._new and self.holds_run():  # another process was quicker, and has ended
            self._unlock()
            raise UsageError(f"{self.path} holds a run by now: name another --out")
        self._sweep()
        return self

    def _sweep(self) -> None:
        """Remove what a process that was killed left half-written; nobody else writes these."""
        for path in self.path.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def __exit__(self, *exception: object) -> None:
        self._unlock()  # the file stays: unlinking it would let a third process lock another one

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # closing lets the lock go
            self._lock = None

    @contextmanager
    def writing(self, name: str) -> Iterator[None]:
        """Turn the system's refusals into one line that says what is kept. Raises: CommandError."""
        last = self.path / "last"
        try:
            if self._lock is not None:
                held, named = os.fstat(self._lock), os.stat(self.path / ".lock")
                if (held.st_dev, held.st_ino) != (named.st_dev, named.st_ino):
                    raise CommandError(
                        f"{self.path} was replaced by another folder while this run trained into "
                        "it: nothing was written there"
                    )
            yield
        except OSError as error:
            if not self.path.is_dir():
                raise CommandError(
                    f"{self.path} has vanished while this run trained into it: {name} is not saved"
                ) from error
            kept = "; nothing was saved yet"
            if last.exists():
                kept = f"; {last} is whole as it was: when that is mended, {self.continuing()}"
            raise CommandError(
                f"cannot write {self.path / name}: {error.strerror or error}{kept}"
            ) from error

    def replace(self, name: str, write: Callable[[Path], object]) -> None:
        """Replace one file of the run, whole or not at all. Raises: CommandError."""
        with self.writing(name), replacing_file(self.path / name) as part:
            write(part)

    def save(self, writers: Mapping[str, Callable[[Path], object]], state: Any) -> None:
        """Replace the checkpoint `last/`; the one before it becomes `previous/`.

        Raises: CommandError; the checkpoint that was there is then whole and in its place.
        """
        with self.writing("last"):
            seal(self.path / "last", self.path / "previous", writers, state)

    def saved(self, which: str = "last") -> tuple[Path, Any] | None:
        """The checkpoint `last` or `previous`, every file checked: its folder and its state.

        None where no checkpoint was written yet. A crash between two renames leaves `previous`
        alone, which then is the last. Raises: CommandError naming the damaged file, and whether
        the other checkpoint is whole.
        """
        last, previous = self.path / "last", self.path / "previous"
        if not last.exists() and not previous.exists():
            return None
        path = previous if which == "previous" or not last.exists() else last
        if not path.exists():
            raise CommandError(f"{path} is not there, only {last}: {self.continuing()}")
        try:
            return path, read_sealed(path)
        except CommandError as error:
            if path == previous:
                raise
            raise CommandError(f"{error}; {self._offer()}") from error

    def _offer(self) -> str:
        """What can be done about a damaged `last/`."""
        previous = self.path / "previous"
        try:
            read_sealed(previous)
        except CommandError:
            return "no whole checkpoint is left: start a new run with another --out"
        return f"{previous}, the one before it, is whole: {self.continuing(' previous')}"

    def continuing(self, which: str = "") -> str:
        """`continue with`, and the command that does so."""
        command = f"{self.program} --resume{which} --out {shlex.quote(str(self.path))}"
        return f"continue with {command.strip()}"

    def take_previous(self) -> None:
        """Make `previous/` the last checkpoint, in the place of one that is given up."""
        with self.writing("last"):
            last, previous = self.path / "last", self.path / "previous"
            given_up = self.path / ".last.old"  # where a next save sweeps
            shutil.rmtree(given_up, ignore_errors=True)
            if last.exists():
                os.rename(last, given_up)
            os.rename(previous, last)
            shutil.rmtree(given_up, ignore_errors=True)

    def write_config(self, values: Mapping[str, Any]) -> None:
        text = json.dumps(values, indent=2, allow_nan=False) + "\n"
        self.replace("config.json", lambda part: part.write_text(text, encoding="utf-8"))

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        self.replace("metrics.jsonl", lambda part: part.write_text(text, encoding="utf-8"))
        self.replace("metrics.csv", lambda part: _write_csv(part, rows))


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """The rows under a line of their names; what a row of an older version lacks is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(name for row in reversed(rows) for name in row))
        )
        writer.writeheader()
        writer.writerows(rows)
