"""Files and folders that are replaced whole or not at all, whatever is cut off: process or power.

Written beside their place, flushed to the disk, and renamed into it: who reads the place sees the
old bytes or the new ones. One writer at a time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around native code that writes a file: what the disk refuses is an OSError of that file.

    safetensors has the system's number within its message; MXNet does not say it, so the file is
    written to once more. It is of no use then.

    >>> with writing(Path("x")):
    ...     raise ValueError("I/O error: No space left on device (os error 28)")
    Traceback (most recent call last):
    OSError: [Errno 28] No space left on device: 'x'
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        told = re.search(r"os error (\d+)", str(error))
        number = int(told[1]) if told else _refusal(path)
        if not number:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _refusal(path: Path) -> int | None:
    """The number of the error with which the system refuses to write to a file."""
    try:
        with path.open("ab") as file:
            file.write(bytes(2**16))
    except OSError as error:
        return error.errno
    return None


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal. Raises: OSError, also for a pipe or device."""
    if path.exists() and not path.is_file():  # a pipe would block, a device may never end
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unfit(place: Path, *, file: bool = False) -> str | None:
    """Why no folder, or no file, can be written at `place`; None where it can be.

    To be asked before work whose result goes there. Nothing is left, and no folder made.

    >>> unfit(Path(__file__))
    'is a file, expected a folder or a new name'
    >>> unfit(Path(__file__).parent, file=True)
    'is a folder, expected the name of a file'
    """
    try:
        if file and place.is_dir():
            return "is a folder, expected the name of a file"
        if not file and place.exists() and not place.is_dir():
            return "is a file, expected a folder or a new name"
        anchor = place.parent if file else place
        if file and not anchor.exists():
            return f"cannot be written: there is no folder {anchor}; make it, or name another place"
        while not anchor.exists() and anchor != anchor.parent:
            anchor = anchor.parent
        if not anchor.is_dir():
            return f"cannot be written: {anchor} is a file; name another place"
        with tempfile.TemporaryFile(dir=anchor):  # what access() says is not all: a disk is full
            return None
    except OSError as error:
        return f"cannot be written: {error.strerror}; name another place"


@contextmanager
def replacing_file(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """The name under which the block writes a file, which then replaces the one at `path`.

    The temporary name keeps the ending, since writers such as `savefig` go by it. Where the block
    fails, the old file stays as it was. What need not outlive a loss of power is not waited for
    where it is not `durable`. Raises: OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing_file(f"{folder}/a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
    [('a.txt', 'whole')]
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield part
        if durable:
            flush(part)
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):  # where it could not be made, it cannot be removed either
            part.unlink(missing_ok=True)
        name_place(error, path, part)
        raise
    if durable:
        flush(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a file by one that holds `text` in UTF-8. Raises: OSError."""
    with replacing_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_together(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Replace files of one folder, made if missing, that say the same; None: that one is removed.

    All are written before an old one goes, and all old ones go before a new one comes: whatever is
    cut off, an old file never stands beside a new one. Raises: OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[Path, Path] = {}
    try:
        for name, text in texts.items():
            if text is not None:
                path = folder / name
                part = parts[path] = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
                part.write_text(text, encoding="utf-8")
                flush(part)
        for name in texts:
            (folder / name).unlink(missing_ok=True)
        for path, part in parts.items():
            os.replace(part, path)
    except BaseException as error:
        for part in parts.values():
            part.unlink(missing_ok=True)
        name_place(error, *next(reversed(parts.items()), (folder, folder)))
        raise
    flush(folder)


@contextmanager
def replacing_folder(folder: Path, previous: Path) -> Iterator[Path]:
    """A new folder for the block's files, which then replaces `folder`; that becomes `previous`.

    At any moment, whatever is cut off, `folder` or else `previous` is whole: read the one where
    the other is missing. Where the block fails, both stay as they were. The parent folder must
    exist. Raises: OSError.
    """
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    for leftover in (new, old):  # of a process that was killed
        _remove(leftover)
    try:
        new.mkdir()
        yield new
        for path in new.iterdir():
            flush(path)
        flush(new)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        name_place(error, folder, new)
        raise
    if folder.exists():
        if previous.exists():
            os.rename(previous, old)
        os.rename(folder, previous)
    os.rename(new, folder)
    flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def name_place(error: BaseException, path: Path, part: Path) -> None:
    """Say what could not be written: a full disk is told without a name, and the part's name means
    nothing to anybody."""
    if isinstance(error, OSError) and error.errno:
        named = Path(os.fsdecode(error.filename or part))
        if part in (named, *named.parents):
            error.filename = str(path)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()  # whatever it points at is not ours
    elif path.exists():
        shutil.rmtree(path)
