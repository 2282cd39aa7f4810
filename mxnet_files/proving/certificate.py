"""`report.json`: what came, what was written, how far each is from MXNet; and checking it again."""

from __future__ import annotations

import json
import math
import platform
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gluon_cnn_parity import version_of
from gluon_cnn_parity.atomic import sha256
from mxnet_files.budget import Budget
from mxnet_files.checking.check import UNIT32
from mxnet_files.errors import SymbolError
from mxnet_files.proving.artefacts import RUNNERS
from mxnet_files.reading.inputs import read_arrays
from mxnet_files.running import distance, in_json, refusals

FORMAT = "mxnet-files certificate 1"
UNVERIFIED = "-unverified"  # in the name of a file that nothing was compared with
LARGEST_REPORT = 64 * 2**20  # bytes
_ANEW = "convert the net anew, or put back the file that convert wrote"
# times the distance of MXNet's own float32 outputs from float64: an engine that folds BatchNorm
# into convolutions, as ONNX Runtime does, rounds otherwise than the graph's operators one by one
ALLOWED = 64.0
PACKAGES = ("gluon-cnn-parity", "mxnet", "numpy", "onnx", "onnxruntime", "safetensors", "torch")


def bound(reference_error: float) -> float:
    """How far an output may be from float64, as a part of its largest value."""
    return ALLOWED * max(reference_error, UNIT32)


def versions() -> dict[str, str | None]:
    """Of this machine and the packages, None for one that is not installed."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{package: version_of(package) for package in PACKAGES},
    }


def describe(path: Path) -> dict[str, Any]:
    """A file's name, size and sha256."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def read_report(folder: Path) -> dict[str, Any]:
    """A folder's report.json. Raises `SymbolError` if it is not one that `convert` wrote."""
    path = folder / "report.json"
    if not path.is_file():
        raise SymbolError(
            f"{folder}: no report.json, expected a folder that convert wrote; "
            "name what its --out was"
        )
    if path.stat().st_size > LARGEST_REPORT:
        raise SymbolError(f"{path}: more than {LARGEST_REPORT >> 20} MiB; {_ANEW}")
    try:
        report = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SymbolError(f"{path}: not JSON ({error}); {_ANEW}") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise SymbolError(f"{path}: expected a report of the format {FORMAT!r}; {_ANEW}")
    return report


class Claims(NamedTuple):
    """What a report says that its folder is held against."""

    files: dict[str, str]  # the sha256 of each, by name
    bounds: list[float]  # of the outputs
    inputs: list[str]  # their names
    verified: bool
    verified_against: str


_Kind = tuple[Callable[[Any], bool], str]  # whether a field is of it, and the kind in words
_TEXT: _Kind = (lambda value: isinstance(value, str), "text")
_TRUTH: _Kind = (lambda value: isinstance(value, bool), "true or false")
_ROWS: _Kind = (lambda value: isinstance(value, list), "a list")
_BOUND: _Kind = (
    lambda value: isinstance(value, float) and 0 < value < math.inf,
    "a number above 0",
)


def read_claims(folder: Path) -> Claims:
    """What a folder's report says. Raises `SymbolError` that names a field which is damaged."""
    report = read_report(folder)

    def field(row: Any, key: str, kind: _Kind, where: str = "") -> Any:
        value = row.get(key) if isinstance(row, dict) else None
        fits, expected = kind
        if not fits(value):
            raise SymbolError(
                f"{folder}: report.json is damaged: {where}{key} is {reprlib.repr(value)}, "
                f"expected {expected}; {_ANEW}"
            )
        return value

    def column(name: str, key: str, kind: _Kind) -> list[Any]:
        rows = enumerate(field(report, name, _ROWS))
        return [field(row, key, kind, f"{name}[{place}].") for place, row in rows]

    names, digests = column("written", "name", _TEXT), column("written", "sha256", _TEXT)
    return Claims(
        dict(zip(names, digests, strict=True)),
        column("outputs", "bound", _BOUND),
        column("inputs", "name", _TEXT),
        field(report, "verified", _TRUTH),
        field(report, "verified_against", _TEXT),
    )


class Verified:
    """What checking a folder again found, line by line."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.lines: list[str] = []
        self.problems: list[str] = []
        self.errors: dict[str, list[float]] = {}

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """What the command prints as JSON, null for an error that is infinite."""
        errors = {name: [in_json(error) for error in each] for name, each in self.errors.items()}
        return {"ok": self.ok, "problems": self.problems, "errors": errors}


def verify(folder: Path, budget: Budget | None = None) -> Verified:
    """Hash the files again, and run each on the stored inputs against the stored outputs.

    The files are run only where all of them are the ones that the report names: model.py is a
    program. The samples take at most the bytes of the budget. Raises `SymbolError` for a folder
    that holds no report, and for a report or samples that are damaged.
    """
    claims = read_claims(folder)
    files, bounds = claims.files, claims.bounds
    found = Verified(claims)
    held = {path.name: path for path in folder.iterdir()}
    for name, digest in files.items():
        problem = _file_problem(name, held.get(name), digest)
        if problem:
            found.problems.append(problem)
    unknown = held.keys() - {*files, "report.json"}
    found.problems += [f"{name} is not in the report" for name in sorted(unknown)]
    if found.problems or "samples.npz" not in files:
        found.problems = found.problems or ["samples.npz is not in the report"]
        return found
    found.lines.append(f"{len(files)} files are those of the report")
    most = (budget or Budget()).bytes
    inputs, wanted = read_samples(folder / "samples.npz", claims.inputs, most)
    if len(wanted) != len(bounds) or not wanted:
        found.problems.append("samples.npz holds other outputs than the report")
        return found
    for name in files:
        runner = RUNNERS.get(Path(name).suffix)
        if runner is not None:
            _run(found, folder / name, runner, (inputs, wanted, bounds))
    if not found.errors:
        found.problems.append("nothing could be run")
    return found


def _run(
    found: Verified, path: Path, runner: Any, samples: tuple[Any, Any, Sequence[float]]
) -> None:
    """One file beside the stored outputs."""
    inputs, wanted, bounds = samples
    try:
        with refusals(path.name):
            errors = distance(runner(path, inputs), wanted)
    except ModuleNotFoundError as error:
        found.lines.append(f"{path.name}: not run, {error.name} is not installed")
        return
    except SymbolError as error:
        found.problems.append(str(error))
        return
    found.errors[path.name] = errors
    worst = max(range(len(errors)), key=lambda place: errors[place] / bounds[place])
    told = f"{path.name}: {errors[worst]:.1e} from the stored outputs, bound {bounds[worst]:.1e}"
    if errors[worst] <= bounds[worst]:
        found.lines.append(told)
    else:
        found.problems.append(told)


def _file_problem(name: str, path: Path | None, digest: str) -> str:
    """Why a file is not the one that the report names; empty if it is."""
    if Path(name).name != name or name in (".", ".."):
        return f"the report names {name!r}, which is no file of the folder"
    if path is None or path.is_symlink() or not path.is_file():
        return f"{name} is missing"
    return "" if sha256(path) == digest else f"{name} is not the file that was written (sha256)"


def read_samples(
    path: Path, names: Sequence[str], most: int
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Inputs by name, and outputs, all of at most so many bytes. Raises `SymbolError`."""
    expected = f"not the samples of a report ({_ANEW})"
    arrays = read_arrays(path, most, expected)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise SymbolError(f"{path}: {expected}: {name} is {array.dtype}, expected numbers")
    try:
        inputs = {name: arrays.pop(f"input {place}") for place, name in enumerate(names)}
        return inputs, [arrays[f"output {place}"] for place in range(len(arrays))]
    except KeyError as error:
        raise SymbolError(f"{path}: {expected}: {error} is missing") from None
