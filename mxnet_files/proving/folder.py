"""`convert --out DIR`: every form of a model, proven before any of it appears."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import fx

from gluon_cnn_parity.atomic import replacing_folder, writing
from mxnet_files.budget import Budget, rehearse
from mxnet_files.checking.apart import compare_apart, symbol_text
from mxnet_files.checking.check import CheckReport, Subject
from mxnet_files.checking.recorded import Recorded, replay
from mxnet_files.errors import NotComparable, SymbolError, UsageError
from mxnet_files.proving import artefacts
from mxnet_files.proving.certificate import (
    FORMAT,
    UNVERIFIED,
    bound,
    describe,
    read_report,
    versions,
)
from mxnet_files.proving.page import page
from mxnet_files.reading.params_file import read_params, strip_prefixes
from mxnet_files.reading.reader import read_graph
from mxnet_files.running import distance, in_float64, largest, of_precision, refusals, run
from mxnet_files.save import NOT_RUN, ONNX_RUNTIME, onnx_bytes, program_bytes
from mxnet_files.writing.model_file import write_model
from mxnet_files.writing.shapes import record_shapes, unrolled

MEANINGLESS = 0.5  # of the largest output: a bound that wrong outputs would keep too


@dataclass(frozen=True)
class Source:
    """The files that came, and the inputs that they are tried on, by MXNet's names."""

    symbol: Path
    params: Path
    inputs: Mapping[str, np.ndarray]  # float32, or the integers that the graph takes
    told: str  # where the inputs come from
    budget: Budget
    heads: Sequence[str] | None = None  # the nodes that are the outputs, not those of the file

    @property
    def name(self) -> str:
        """`resnet50` of `resnet50-symbol.json`."""
        return self.symbol.name.removesuffix(".json").removesuffix("-symbol") or "model"


@dataclass(frozen=True)
class Reference:
    """What the outputs are held against."""

    against: str  # "MXNet 1.9.1", "float64" …
    verified: bool
    outputs: list[np.ndarray]  # in float64
    errors: list[float]  # of the reference's own float32, as parts of the largest value
    check: CheckReport | None = None
    recorded: Recorded | None = None  # what stands in for MXNet's graph


def write_folder(
    module: fx.GraphModule, source: Source, folder: Path
) -> tuple[dict[str, Any], CheckReport | None]:
    """Write model.py, model.safetensors, model.pt2, model.onnx, samples and the reports.

    All of it is built aside, run again and compared, and then put in the place of `folder`, which
    must not exist yet unless it is one that this function wrote. Returns the report, and beside it
    what was compared where MXNet crashed on the graph: nothing is verified then. Raises
    `SymbolError` where anything does not compute what MXNet computes; nothing is left then.
    """
    replaceable(folder)
    reference = compare(module, source)
    for place, error in enumerate(reference.errors):
        if not np.isfinite(error):
            raise SymbolError(
                f"output {place} overflows: infinite or NaN in float32 where it is not in float64, "
                "so that nothing can be proven of it and nothing was written; give --data with "
                "inputs of yours, or trained weights"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    previous = folder.with_name(f".{folder.name}.before")
    with replacing_folder(folder, previous) as new:
        report = fill(module, source, reference, new)
    remove(previous)
    check = reference.check
    return report, check if check is not None and check.crashed else None


def replaceable(folder: Path) -> None:
    """Refuse to write over anything but an older result."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"--out {folder} is there and no folder: choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            read_report(folder)
        except SymbolError:
            raise UsageError(
                f"--out {folder} holds other files than convert writes: choose a new folder"
            ) from None


def remove(folder: Path) -> None:
    """Delete an older result."""
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def compare(module: fx.GraphModule, source: Source) -> Reference:
    """Against MXNet, or recorded results of its operators and the import in float64."""
    arrays = strip_prefixes(read_params(source.params))[0]
    text = symbol_text(source.symbol, source.heads)
    try:
        report = compare_apart(Subject(module, text, arrays, source.inputs, source.budget))
    except NotComparable as error:
        return without_mxnet(module, source, str(error))
    except ModuleNotFoundError:
        recorded = replay(read_graph(json.loads(text)))
        reference = without_mxnet(module, source, recorded.problem)
        if recorded.problem:
            return reference
        return replace(reference, against=recorded.sentence, verified=True, recorded=recorded)
    del arrays
    if report.crashed and all(error.ok for error in report.local):
        return replace(without_mxnet(module, source, report.crashed), check=report)
    if not report.ok:
        raise SymbolError("the import differs from MXNet: " + "; ".join(report.failures[:5]))
    if not report.default_ok:
        raise SymbolError(report.backend_problem)
    worst = max(report.mxnet_errors, default=0.0)
    if bound(worst) >= MEANINGLESS:
        return Reference(
            f"nothing: MXNet's own float32 outputs are {worst:.1e} of the largest from float64 on "
            "these inputs, so that any would pass; give --data with inputs of yours",
            False, list(report.referee), list(report.mxnet_errors), report,
        )  # fmt: skip
    against = f"MXNet {report.version}"
    if report.tied:
        against += f", but for the order of equal elements in {', '.join(report.tied)}"
    return Reference(against, True, list(report.referee), list(report.mxnet_errors), report)


def without_mxnet(module: fx.GraphModule, source: Source, reason: str) -> Reference:
    """The import in float64, and why nothing was compared with it."""
    given = [torch.from_numpy(x) for x in source.inputs.values()]
    rehearse(module, given, source.budget)
    doubles = of_precision(list(source.inputs.values()), "float64")
    exact = run(in_float64(module), [torch.from_numpy(x) for x in doubles])
    outputs = [y.numpy() for y in exact]
    errors = distance([y.numpy() for y in run(module, given)], outputs)
    if any(y.size for y in outputs) and not any(np.isfinite(y).any() for y in outputs):
        raise SymbolError("no output is finite, which proves nothing: give --data")
    return Reference(f"nothing: {reason}", False, outputs, errors)


def fill(module: fx.GraphModule, source: Source, reference: Reference, new: Path) -> dict[str, Any]:
    """Every file of the folder; returns the report."""
    inputs = [torch.from_numpy(x) for x in source.inputs.values()]
    ending = "" if reference.verified else UNVERIFIED
    plain = unrolled(module, inputs)
    free = record_shapes(plain, inputs, source.budget)
    with refusals("model.py cannot be written for this graph"):
        written = write_model(plain, source.name)
    (new / f"model{ending}.py").write_text(written.text, "utf-8")
    state = {key: value.clone().contiguous() for key, value in written.state.items()}
    with writing(new / "model.safetensors"):
        save_file(
            state, new / "model.safetensors", {"mxnet_names": json.dumps(dict(written.names))}
        )
    shutil.copymode(new / f"model{ending}.py", new / "model.safetensors")  # it makes private files
    program, _ = program_bytes(module, inputs, source.budget)
    (new / f"model{ending}.pt2").write_bytes(program)
    del program
    opset, no_onnx = write_onnx(module, inputs, source.budget, new / f"model{ending}.onnx")
    samples: dict[str, Any] = {f"input {i}": x for i, x in enumerate(source.inputs.values())}
    samples |= {f"output {i}": y for i, y in enumerate(reference.outputs)}
    np.savez_compressed(new / "samples.npz", **samples)
    compared = outputs(new, source, reference)
    report: dict[str, Any] = {
        "format": FORMAT,
        "model": source.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "verified_against": reference.against,
        "verified": reference.verified,
        "remarks": [] if reference.check is None else list(reference.check.remarks),
        "recorded": None if reference.recorded is None else asdict(reference.recorded),
        "source": [describe(source.symbol), describe(source.params)],
        "heads": source.heads,
        "inputs": [
            {"name": name, "shape": list(x.shape), "dtype": str(x.dtype), "values": source.told}
            for name, x in source.inputs.items()
        ],
        "batch": "free" if free else "fixed",
        "opset": opset,
        "no_onnx": no_onnx,
        "outputs": compared,
        "parameters": sum(value.numel() for value in module.parameters()),
        "operators": operators(reference.check),
        "nodes": nodes(reference.check),
        "weights": dict(written.names),
        "versions": versions(),
        "written": files(new, reference, compared),
    }
    (new / "report.html").write_text(page(report), "utf-8")
    rows = [*report["written"], describe(new / "report.html")]
    report["written"] = sorted(rows, key=itemgetter("name"))
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=True)
    (new / "report.json").write_text(text + "\n", "utf-8")
    return report


def write_onnx(
    module: fx.GraphModule, inputs: list[torch.Tensor], budget: Budget, path: Path
) -> tuple[int, str]:
    """The ONNX file and its opset; 0 and the reason for what ONNX, or its Runtime, cannot hold."""
    try:
        data, opset, verified = onnx_bytes(module, inputs, budget)
    except SymbolError as error:
        return 0, str(error)
    if ONNX_RUNTIME not in verified:
        path = path.with_name(f"model{UNVERIFIED}.onnx")
    path.write_bytes(data)
    return opset, ""


def outputs(new: Path, source: Source, reference: Reference) -> list[dict[str, Any]]:
    """Each output's bound, and how far each file's is from float64; none may be beyond it."""
    rows: list[dict[str, Any]] = [
        {
            "shape": list(y.shape),
            "largest": largest(y),
            "reference_float32_error": error,
            "bound": bound(error),
            "errors": {},
        }
        for y, error in zip(reference.outputs, reference.errors, strict=True)
    ]
    for path in sorted(new.iterdir()):
        runner = artefacts.RUNNERS.get(path.suffix)
        if runner is None:
            continue
        try:
            errors = distance(runner(path, source.inputs), reference.outputs)
        except ModuleNotFoundError:
            continue
        for row, error in zip(rows, errors, strict=True):
            row["errors"][path.name] = error
            if error == float("inf"):
                raise SymbolError(
                    f"{path.name} gives another shape, dtype or infinity than {reference.against}: "
                    "nothing was written"
                )
            if not error <= row["bound"]:
                raise SymbolError(
                    f"{path.name} is {error:.1e} from {reference.against}, expected at most "
                    f"{row['bound']:.1e} of the largest output: nothing was written"
                )
    return rows


def files(
    new: Path, reference: Reference, compared: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every file so far, and what the outputs of those that can be run were compared with."""
    rows = [describe(path) for path in sorted(new.iterdir())]
    for row in rows:
        if Path(row["name"]).suffix in artefacts.RUNNERS:
            ran = all(row["name"] in output["errors"] for output in compared)
            row["verified"] = ran and reference.verified
            row["verified_against"] = reference.against if ran else NOT_RUN
    return rows


def nodes(check: CheckReport | None) -> list[dict[str, Any]]:
    """Every node's error beside its bound."""
    if check is None:
        return []
    return [
        {
            "name": error.name,
            "operator": error.op,
            "units": error.units,
            "bound": 0.0 if error.exact else error.bound,
        }
        for error in check.local
    ]


def operators(check: CheckReport | None) -> list[dict[str, Any]]:
    """Nodes of each kind and the worst of them."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for error in check.local if check is not None else ():
        groups[error.op].append(error)
    rows = []
    for name, errors in sorted(groups.items()):
        worst = max(errors, key=lambda error: error.units / error.bound)
        rows.append(
            {
                "name": name,
                "nodes": len(errors),
                "worst_units": worst.units,
                "bound": 0.0 if worst.exact else worst.bound,
                "worst_node": worst.name,
            }
        )
    return rows
