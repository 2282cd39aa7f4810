"""Members of a .tar.gz, read in memory: nothing is ever extracted."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from cnn_data.errors import DataError


def tar_members(
    path: Path, wanted: Callable[[PurePosixPath], bool], most_bytes: int
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield (name, bytes) of each regular file that is `wanted`, in the archive's order.

    One pass, so that the archive need not fit in memory. It is read to its end, which is where
    gzip keeps its checksum.

    Raises:
        DataError: damaged or truncated; a member that is a link or a device, that has a name
            outside the archive, or that is wanted and larger than `most_bytes`.
    """
    try:
        with gzip.open(path) as unpacked:
            with tarfile.open(fileobj=unpacked, mode="r|") as archive:
                for member in archive:
                    name = _checked_name(path, member)
                    if not member.isreg() or not wanted(name):
                        continue
                    if member.size > most_bytes:
                        raise DataError(
                            f"{path}: member {member.name!r} has {member.size} bytes; "
                            f"expected at most {most_bytes}"
                        )
                    content = archive.extractfile(member)
                    yield name, b"" if content is None else content.read()
            while unpacked.read(2**20):
                pass
    except DataError:
        raise
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: damaged archive ({error}); fetch it again") from error


def _checked_name(path: Path, member: tarfile.TarInfo) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"{path}: member {member.name!r} points outside the archive; refused")
    if not (member.isreg() or member.isdir()):
        raise DataError(f"{path}: member {member.name!r} is a link or a device; refused")
    return name
