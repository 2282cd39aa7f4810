"""Snapshots on disk: one folder of JSON and safetensors, each file with its sha256, written whole.

snapshot.json         schema, fingerprint, sides, settings, sha256 of every other file
NAME.json             the quantities of a subject, in the order of causes; of a user's own pair
                      also what each side executes, and whether the two agree (schema 2)
NAME.safetensors      their sampled values and sums, and the subject's inputs
NAME-SIDE-*.json      the exported graphs
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from cnn_harness.errors import CommandError, UsageError
from gluon_cnn_parity.atomic import replacing_folder, unfit
from parity_tests.gate.agreement import Accord, PairAgreement
from parity_tests.gate.record.operations import Operations
from parity_tests.gate.record.quantities import Failure, QuantityRecord, SideRecord
from parity_tests.reporting.verdicts import Check, Level

SCHEMA = 2
PLAIN = 1  # of snapshots in which no side's operations are
READABLE = (PLAIN, SCHEMA)
MANIFEST = "snapshot.json"

_COLUMNS = (
    "level", "check", "path", "kind", "name", "shape", "limit", "fraction", "distance", "digest32",
    "digest64", "nonfinite",
)  # fmt: skip


_KINDS = {
    "path": str, "kind": str, "name": str, "digest32": str, "digest64": str, "nonfinite": int,
}  # fmt: skip


class SnapshotError(CommandError):
    """A snapshot that cannot be used, and why, by name (exit code 2)."""

    exit_code = 2


@dataclass
class SubjectRecord:
    """One subject of a snapshot: what each side gave, and what it was given."""

    sides: dict[str, SideRecord] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    agreement: PairAgreement | None = None  # of a user's own pair


@dataclass
class Snapshot:
    """A whole snapshot in memory. `absent` says of a side that is not in it, why."""

    fingerprint: dict[str, dict[str, str]]
    settings: dict[str, Any]
    absent: dict[str, str] = field(default_factory=dict)
    subjects: dict[str, SubjectRecord] = field(default_factory=dict)
    name: str = ""

    @property
    def sides(self) -> list[str]:
        return sorted({side for record in self.subjects.values() for side in record.sides})


def write(snapshot: Snapshot, folder: Path) -> int:
    """Write a snapshot, whole or not at all, in the place of an old one; returns its size in bytes.

    Raises UsageError where something is in the way.
    """
    check_free(folder)
    files: dict[str, bytes] = {}
    for name, record in snapshot.subjects.items():
        files |= _files(name, record)
    manifest = {
        "schema": SCHEMA if any(map(_has_more, snapshot.subjects.values())) else PLAIN,
        "fingerprint": snapshot.fingerprint,
        "settings": snapshot.settings,
        "absent": snapshot.absent,
        "subjects": list(snapshot.subjects),
        "files": {name: _sha256(data) for name, data in sorted(files.items())},
    }
    manifest["seal"] = _sha256(_json(manifest))
    files[MANIFEST] = _json(manifest)
    folder = folder.resolve()  # where a link, or `.`, leads
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder, _previous(folder)) as new:
        for name, data in files.items():
            (new / name).write_bytes(data)
    shutil.rmtree(_previous(folder), ignore_errors=True)
    return sum(map(len, files.values()))


def _has_more(record: SubjectRecord) -> bool:
    """Whether a record has what the first schema has no place for."""
    operations = (side.operations for side in record.sides.values())
    return record.agreement is not None or any(one is not None for one in operations)


def _previous(folder: Path) -> Path:
    """Where the old snapshot is until the new one is in its place."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.previous")


def check_free(folder: Path) -> None:
    """Raise UsageError where no snapshot can be written, or what is there is not one."""
    if why := unfit(folder):
        raise UsageError(f"{folder} {why}")
    if not folder.exists() or (folder / MANIFEST).exists():
        return
    if any(folder.iterdir()):
        raise UsageError(f"{folder} is not a snapshot and not empty; name a new folder")


def _files(name: str, record: SubjectRecord) -> dict[str, bytes]:
    tensors: dict[str, np.ndarray] = {f"inputs/{k}": v for k, v in record.inputs.items()}
    described: dict[str, Any] = {"columns": list(_COLUMNS), "sides": {}}
    files: dict[str, bytes] = {}
    for side, of_side in record.sides.items():
        described["sides"][side] = {
            "quantities": [_row(quantity) for quantity in of_side.quantities],
            "failures": [list(vars(failure).values()) for failure in of_side.failures],
            "files": sorted(of_side.files),
        }
        if of_side.operations is not None:
            described["sides"][side]["operations"] = of_side.operations.as_dict()
        for number, quantity in enumerate(of_side.quantities):
            stem = f"{side}/{number}"
            tensors[f"{stem}/32"] = quantity.single
            tensors[f"{stem}/64"] = np.concatenate([quantity.double, quantity.sums])
        files |= {f"{name}-{side}-{file}": data for file, data in of_side.files.items()}
    if record.agreement is not None:
        described["agreement"] = list(vars(record.agreement).values())
    rows = _json(described)
    return {f"{name}.json": rows, f"{name}.safetensors": save(tensors), **files}


def _row(quantity: QuantityRecord) -> list[Any]:
    values = [getattr(quantity, column) for column in _COLUMNS]
    return [_number(v) if isinstance(v, float) else list(v) if isinstance(v, tuple) else v
            for v in values]  # fmt: skip


def _number(value: float) -> float | str:
    return float(f"{value:.6g}") if np.isfinite(value) else str(value)


def _json(value: Any) -> bytes:
    """Compact JSON, a line for each row of a table, so that two snapshots can be diffed."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return (text.replace('],["', '],\n["').replace('":{"', '":\n{"') + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(folder: Path) -> Snapshot:
    """A snapshot, every file checked. Raises SnapshotError by name.

    Where a writer was cut off between two renames, it is the one that was to be replaced.
    """
    name = folder.name
    if not folder.exists() and _previous(folder).exists():
        folder = _previous(folder)
    manifest = _manifest(folder)
    contents = _contents(folder, manifest)
    try:
        snapshot = Snapshot(
            manifest["fingerprint"], manifest["settings"], manifest["absent"], name=name
        )
        for subject in manifest["subjects"]:
            snapshot.subjects[subject] = _record(subject, contents)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise SnapshotError(
            f"{folder}: its files are whole and do not make a snapshot ({type(error).__name__}: "
            f"{error}); take it again"
        ) from error
    return snapshot


def _manifest(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SnapshotError(f"{folder} {what}, expected the folder of a snapshot")
    path = folder / MANIFEST
    if not path.exists():
        raise SnapshotError(f"{folder} has no {MANIFEST}: it is no snapshot, or a partial one")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise SnapshotError(f"{path} is not JSON: it was cut or changed; take it again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise SnapshotError(f"{path} is not the manifest of a snapshot")
    tables = [manifest.get(key) for key in ("fingerprint", "settings", "absent")]
    groups = tables[0].values() if isinstance(tables[0], dict) else [None]
    if not all(isinstance(table, dict) for table in (*tables, *groups)):
        raise SnapshotError(f"{path} is not the manifest of a snapshot")
    schema = manifest.get("schema")
    if schema not in READABLE:
        raise SnapshotError(
            f"{folder} has schema {schema!r}, this version reads "
            f"{', '.join(map(str, READABLE))}; compare it with the version that took it"
        )
    seal = manifest.pop("seal", None)
    if seal != _sha256(_json(manifest)):
        raise SnapshotError(f"{path} was changed after it was written (its seal is broken)")
    return manifest


def _contents(folder: Path, manifest: dict[str, Any]) -> dict[str, bytes]:
    contents = {}
    for name, expected in manifest["files"].items():
        if Path(name).name != name:
            raise SnapshotError(f"{folder / MANIFEST} names a file outside its folder: {name!r}")
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise SnapshotError(f"{folder / name}: {error.strerror}; it is partial") from None
        if _sha256(data) != expected:
            raise SnapshotError(
                f"{folder / name} was changed or cut: sha256 {_sha256(data)[:12]}…, "
                f"expected {expected[:12]}…"
            )
        contents[name] = data
    extra = {path.name for path in folder.iterdir()} - contents.keys() - {MANIFEST}
    if extra:
        raise SnapshotError(f"{folder / min(extra)} is not in the snapshot's manifest; remove it")
    return contents


def _record(name: str, contents: dict[str, bytes]) -> SubjectRecord:
    described = json.loads(contents[f"{name}.json"])
    try:
        tensors = load(contents[f"{name}.safetensors"])
    except Exception as error:  # safetensors has an exception of its own
        raise ValueError(f"{name}.safetensors: {error}") from error
    record = SubjectRecord()
    record.inputs = {
        key.removeprefix("inputs/"): value
        for key, value in tensors.items()
        if key.startswith("inputs/")
    }
    for side, part in described["sides"].items():
        of_side = SideRecord()
        for number, row in enumerate(part["quantities"]):
            values = dict(zip(described["columns"], row, strict=True))
            if values["name"] == "output gradient":  # the first versions had it under "forward"
                values["level"] = "backward"
            values["level"], values["check"] = Level(values["level"]), Check(values["check"])
            values["shape"] = tuple(values["shape"])
            for column in ("limit", "fraction", "distance"):
                values[column] = float(values[column])
            for column, kind in _KINDS.items():
                if not isinstance(values[column], kind):
                    raise ValueError(f"{name} has {column} {values[column]!r}")
            single = tensors[f"{side}/{number}/32"]
            both = tensors[f"{side}/{number}/64"]
            of_side.quantities.append(
                QuantityRecord(
                    **values, single=single, double=both[: single.size], sums=both[single.size :]
                )
            )
        of_side.failures = [
            Failure(Level(level), Check(check), *row) for level, check, *row in part["failures"]
        ]
        if "operations" in part:
            of_side.operations = Operations.from_dict(part["operations"])
        of_side.files = {file: contents[f"{name}-{side}-{file}"] for file in part["files"]}
        record.sides[side] = of_side
    if "agreement" in described:
        verdict, *row = described["agreement"]
        record.agreement = PairAgreement(Accord(verdict), *row)
    return record
