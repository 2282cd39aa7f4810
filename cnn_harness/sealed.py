"""Folders that are whole or refused: each file with its sha256, replaced by renaming."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cnn_harness.errors import CommandError
from gluon_cnn_parity.atomic import replacing_folder, sha256

MANIFEST = "manifest.json"
FORMAT = 2
LARGEST_JSON = 64 * 2**20  # bytes; a run of 100,000 epochs has rows of 20 million


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises: CommandError naming the file where it is missing or damaged."""
    try:
        # A pipe would block, and a device may never end.
        if path.exists() and not path.is_file():
            raise CommandError(f"{path} is not a regular file, expected JSON")
        if path.stat().st_size > LARGEST_JSON:
            raise CommandError(f"{path} has {path.stat().st_size} bytes, too large to be ours")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(f"{path} is missing: is {path.parent} the folder of a run?") from None
    except NotADirectoryError:
        raise CommandError(f"{path.parent} is a file, expected the folder of a run") from None
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{path} is not JSON: {error}") from error


def seal(
    folder: Path, previous: Path, writers: Mapping[str, Callable[[Path], object]], state: Any
) -> None:
    """Replace `folder` by one with the given files, `state`, and a sha256 for each file.

    At any moment, whatever is cut off, one of the two names leads to a whole folder. The parent
    folder must exist: it is never made.
    """
    with replacing_folder(folder, previous) as new:
        for name, write in writers.items():
            write(new / name)
        sums = {name: sha256(new / name) for name in writers}
        (new / MANIFEST).write_text(_manifest(sums, state), encoding="utf-8")


def read_sealed(folder: Path) -> Any:
    """The `state` of a sealed folder, every file checked.

    Raises: CommandError naming the file that is missing or damaged.
    """
    path = folder / MANIFEST
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CommandError(f"{path} is damaged: not a checkpoint's manifest of format {FORMAT}")
    sums = manifest.get("sha256")
    if not isinstance(sums, dict) or "state" not in manifest:
        raise CommandError(f"{path} is damaged: it holds no checksums")
    # Nothing but what `seal` wrote, to the byte, has the checksum that stands in it.
    if path.read_text(encoding="utf-8") != _manifest(sums, manifest["state"]):
        raise CommandError(f"{path} is damaged: it does not match its own checksum")
    for name, expected in sums.items():
        if Path(name).name != name:
            raise CommandError(f"{path} names a file outside its folder: {name!r}")
        try:
            actual = sha256(folder / name)
        except OSError as error:
            raise CommandError(
                f"{folder / name}: {error.strerror}; the checkpoint is not whole"
            ) from None
        if actual != expected:
            raise CommandError(
                f"{folder / name} is damaged: sha256 {actual[:12]}…, expected {expected[:12]}…"
            )
    return manifest["state"]


def _manifest(sums: Mapping[str, str], state: Any) -> str:
    body = {"format": FORMAT, "sha256": dict(sums), "state": state}
    text = json.dumps(body, indent=2, allow_nan=False)
    own = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"own_sha256": own, **body}, indent=2, allow_nan=False) + "\n"
