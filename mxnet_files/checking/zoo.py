"""All models of `mxnet.gluon.model_zoo.vision`, imported and compared with MXNet.

`python -m mxnet_files.checking.zoo [MODEL …]` prints a table of models, then one of families.

Weights are random and seeded (He's variance); BatchNorm's moving statistics are those of one random
batch, shifted and stretched at random, so that they are neither 0 and 1 nor exactly right.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gluon_cnn_parity import did_you_mean
from gluon_cnn_parity.cli import Parser, run_by, run_command
from mxnet_files.checking import third_party
from mxnet_files.checking.check import CheckReport, Subject, compare_with_mxnet
from mxnet_files.checking.oracle import import_mxnet
from mxnet_files.checking.third_party import NETS
from mxnet_files.errors import SymbolError
from mxnet_files.layers import BatchNorm
from mxnet_files.load import import_symbol, load_symbol
from mxnet_files.reading.params_file import read_params, strip_prefixes, write_params

RESNETS = [f"resnet{depth}_v{version}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)]
VGGS = [f"vgg{depth}{bn}" for bn in ("", "_bn") for depth in (11, 13, 16, 19)]
MODELS = (
    *RESNETS,
    *VGGS,
    "alexnet",
    *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
    *("squeezenet1.0", "squeezenet1.1", "inceptionv3"),
    *(f"mobilenet{width}" for width in ("1.0", "0.75", "0.5", "0.25")),
    *(f"mobilenetv2_{width}" for width in ("1.0", "0.75", "0.5", "0.25")),
)
INPUT_SIDES = {"inceptionv3": 299}  # pixels; all others 224


def export_model(name: str, folder: Path, side: int = 0, seed: int = 0) -> tuple[Path, Path]:
    """Write `NAME-symbol.json` and `NAME-0000.params` with random weights; needs MXNet."""
    mxnet = import_mxnet()
    side = side or INPUT_SIDES.get(name, 224)
    symbol = mxnet.gluon.model_zoo.vision.get_model(name, prefix=name.replace(".", "_") + "_")(
        mxnet.sym.var("data")
    )
    arrays = random_parameters(symbol, (1, 3, side, side), seed)
    text = symbol.tojson()
    calibrate(text, arrays, side, seed)
    symbol_path, params_path = folder / f"{name}-symbol.json", folder / f"{name}-0000.params"
    symbol_path.write_text(text, "utf-8")
    states = set(symbol.list_auxiliary_states())
    prefixed = {("aux:" if key in states else "arg:") + key: a for key, a in arrays.items()}
    write_params(params_path, prefixed)
    return symbol_path, params_path


def random_parameters(symbol: Any, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """He-normal weights, small biases, gammas about 1."""
    rng = np.random.default_rng(seed)
    shapes, _, states = symbol.infer_shape(data=shape)
    arrays: dict[str, np.ndarray] = {}
    for key, size in [
        *zip(symbol.list_arguments(), shapes, strict=True),
        *zip(symbol.list_auxiliary_states(), states, strict=True),
    ]:
        if key.endswith("weight"):
            value = rng.normal(size=size) * np.sqrt(2 / np.prod(size[1:]))
        elif key.endswith(("gamma", "var")):
            value = rng.uniform(0.5, 1.5, size)
        else:
            value = rng.normal(size=size) * 0.1
        if key != "data":
            arrays[key] = value.astype(np.float32)
    return arrays


def calibrate(text: str, arrays: dict[str, np.ndarray], side: int, seed: int) -> None:
    """Give BatchNorm the statistics of a random batch, then disturb them."""
    module = import_symbol(json.loads(text), arrays)
    layers = [layer for layer in module.modules() if isinstance(layer, BatchNorm)]
    if not layers:
        return
    for layer in layers:
        layer.momentum, layer.rest = 0.0, 1.0  # running = batch
    rng = np.random.default_rng(seed + 1)
    with torch.no_grad():
        module.train()(torch.from_numpy(rng.normal(size=(2, 3, side, side)).astype(np.float32)))
    for key, value in module.named_buffers():
        if key.endswith("var"):
            deviation = np.sqrt(value.numpy())
            mean = key.removesuffix("var") + "mean"
            shift = rng.normal(size=deviation.shape) * 0.2 * deviation
            arrays[mean] = (module.get_buffer(mean).numpy() + shift).astype(np.float32)
            stretch = rng.uniform(0.5, 2, deviation.shape)
            arrays[key] = (value.numpy() * stretch + 1e-3).astype(np.float32)


def check_model(name: str, folder: Path, side: int = 0) -> tuple[CheckReport, float]:
    """Export, import and compare one model; the report and the seconds the import took."""
    symbol, params = export_model(name, folder, side)
    start = time.perf_counter()
    module = load_symbol(symbol, params)
    seconds = time.perf_counter() - start
    side = side or INPUT_SIDES.get(name, 224)
    x = np.random.default_rng(7).normal(size=(1, 3, side, side))
    arrays = strip_prefixes(read_params(params))[0]
    subject = Subject(module, symbol.read_text("utf-8"), arrays, {"data": x})
    return compare_with_mxnet(subject), seconds


@run_by(run_command, prog="python -m mxnet_files.checking.zoo", errors=(SymbolError,))
def main(argv: Sequence[str] | None = None) -> int:
    """Check models and print the table in Markdown; 1 if any differs from MXNet."""
    parser = Parser(prog="python -m mxnet_files.checking.zoo", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all 34")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument(
        "--others", action="store_true", help="nets by others instead: gluoncv2, GluonCV, recurrent"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep rows; go on from them")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for a step")
    options = parser.parse_args(argv)
    known = [net.name for net in NETS] if options.others else MODELS
    unknown = [name for name in options.models if name not in known]
    if unknown:
        nearest = did_you_mean(unknown[0], known)
        parser.error(f"unknown models {', '.join(unknown)}; known: {', '.join(known)}{nearest}")
    if options.others:
        return others(options)
    say: Callable[[str], object] = (lambda _: None) if options.json else partial(print, flush=True)
    say("\n".join(HEADING))
    failures: list[str] = []
    reports: dict[str, CheckReport] = {}
    for name in options.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            report, seconds = check_model(name, Path(folder))
        reports[name] = report
        say(row(name, report, seconds))
        failures += [f"{name}: {failure}" for failure in (*report.failures, *report.remarks)]
    say("\n" + "\n".join(family_table(reports)))
    if options.json:
        models = {name: report.as_dict() for name, report in reports.items()}
        print(json.dumps({"ok": not failures, "models": models}, allow_nan=False))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def others(options: argparse.Namespace) -> int:
    """The nets by others: a table, or its rows as JSON."""
    chosen = [net for net in NETS if not options.models or net.name in options.models]
    say = partial(print, file=sys.stderr, flush=True)
    rows = third_party.run_all(chosen, options.timeout, options.results, say)
    if options.json:
        print(json.dumps({"ok": not third_party.report(rows), "nets": [asdict(r) for r in rows]}))
    else:
        print(third_party.table(rows))
    return third_party.report(rows)


HEADING = (
    "| model | nodes | worst node, float64, u·s | MXNet float32 | import float32 | ratio | s |",
    "|---|---|---|---|---|---|---|",
)


def row(name: str, report: CheckReport, seconds: float) -> str:
    """One line of the table: errors of the float32 outputs are parts of the largest output."""
    worst = f"{report.worst.units:.1f} ({report.worst.op})"
    errors = f"{report.mxnet_error:.1e} | {report.import_error:.1e} | {report.ratio:.2f}"
    return f"| {name} | {report.nodes} | {worst} | {errors} | {seconds:.2f} |"


def family_table(reports: Mapping[str, CheckReport]) -> list[str]:
    """The worst of each family, in Markdown."""
    families: dict[str, list[CheckReport]] = {}
    for name, report in reports.items():
        families.setdefault(family(name), []).append(report)
    lines = [
        "| family | models | nodes | worst node, float64, u·s | float32, × MXNet's own |",
        "|---|---|---|---|---|",
    ]
    for name, found in families.items():
        worst = max((report.worst for report in found), key=lambda error: error.units)
        nodes = sum(len(report.local) for report in found)
        ratio = max(report.ratio for report in found)
        lines.append(
            f"| {name} | {len(found)} | {nodes} | {worst.units:.1f} ({worst.op}) | {ratio:.2f} |"
        )
    return lines


def family(name: str) -> str:
    """`resnet50_v1` is of ResNet v1, `vgg11_bn` of VGG-BN."""
    if name.startswith("resnet"):
        return f"ResNet {name[-2:]}"
    if name.startswith("vgg"):
        return "VGG with BN" if name.endswith("_bn") else "VGG"
    known = {"alexnet": "AlexNet", "inceptionv3": "Inception v3", "mobilenetv2": "MobileNet v2"}
    known |= {"mobilenet": "MobileNet v1", "densenet": "DenseNet", "squeezenet": "SqueezeNet"}
    return next(text for start, text in known.items() if name.startswith(start))


if __name__ == "__main__":
    sys.exit(main())
