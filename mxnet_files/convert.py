"""`mxnet-files convert x-symbol.json x-0000.params --out DIR|x.pt2 …`, `check` and `verify`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from gluon_cnn_parity.atomic import unfit
from gluon_cnn_parity.cli import Parser, one_line, run_by, run_command
from mxnet_files.budget import Budget, in_float32
from mxnet_files.checking.apart import check_files
from mxnet_files.checking.check import CheckReport
from mxnet_files.checking.recorded import Recorded, replay
from mxnet_files.errors import NotComparable, SymbolError, UsageError
from mxnet_files.load import load_symbol
from mxnet_files.proving.certificate import UNVERIFIED
from mxnet_files.proving.certificate import verify as verify_folder
from mxnet_files.proving.folder import Source, write_folder
from mxnet_files.reading.inputs import INPUT, INPUT_HELP, asked_input, random_inputs, read_inputs
from mxnet_files.reading.reader import read_symbol
from mxnet_files.save import NOT_RUN, ONNX_RUNTIME, onnx_bytes, program_bytes, write_files


def convert_parser() -> Parser:
    """The flags of `convert`."""
    parser = file_parser(
        "mxnet-files convert",
        "Import an MXNet symbol and its parameters into PyTorch, without MXNet.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="a folder for model.py, its weights, torch.export program, ONNX file and certificate; "
        "or *.pt2 for the program alone",
    )
    parser.add_argument("--onnx", action="store_true", help="write ONNX beside *.pt2, as *.onnx")
    parser.add_argument(
        "--data", type=Path, help="inputs to try the folder's files on (*.npz, by their names)"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare with MXNet; --out does where it is installed, and with recorded results of "
        "its operators where not",
    )
    parser.add_argument("--code", action="store_true", help="print the module's code")
    return parser


def check_parser() -> Parser:
    """The flags of `check`, which converts and writes nothing."""
    parser = file_parser(
        "mxnet-files check",
        "Import an MXNet symbol and its parameters, and compare every node with MXNet's.",
    )
    parser.set_defaults(check=True, out=None, onnx=False, code=False, data=None)
    return parser


def file_parser(prog: str, description: str) -> Parser:
    """The arguments of every command that opens a model's two files."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument("symbol", type=Path, help="the *-symbol.json file")
    parser.add_argument("params", type=Path, help="the *.params file")
    parser.add_argument(
        "--input",
        "--input-shape",
        dest="input_shape",
        action="append",
        type=asked_input,
        metavar=INPUT,
        help=INPUT_HELP,
    )
    parser.add_argument(
        "--heads",
        type=lambda text: text.split(","),
        metavar="NAME,…",
        help="nodes whose outputs are wanted (NAME:1 for a second output), not those of the file",
    )
    parser.add_argument(
        "--budget",
        type=budget,
        metavar="NAME=SIZE,…",
        default=Budget(),
        help="the most that running the graph may take, worked out from shapes before it runs:"
        " values=, bytes= and operations=, with K, M, G or T",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def budget(text: str) -> Budget:
    """`bytes=16G,operations=1T`."""
    try:
        return Budget.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {error}") from None


@run_by(run_command, prog="mxnet-files convert", errors=(SymbolError,))
def main(argv: Sequence[str] | None = None) -> int:
    """Import, check, save; 0 on success, 2 on bad usage, 1 on failure."""
    return convert(convert_parser().parse_args(argv))


@run_by(run_command, prog="mxnet-files check", errors=(SymbolError,))
def check(argv: Sequence[str] | None = None) -> int:
    """Import and check; 0 where every node agrees with MXNet, 1 where one does not."""
    return convert(check_parser().parse_args(argv))


def convert(options: argparse.Namespace) -> int:
    """The command after its flags are read."""
    if options.onnx and options.out is None:
        raise UsageError("--onnx writes beside --out, which is missing")
    whole = options.out is not None and options.out.suffix != ".pt2"
    if whole and options.out.suffix in (".onnx", ".py", ".pt", ".safetensors", ".params"):
        raise UsageError(
            f"--out {options.out}: expected a folder, which holds all forms, or a torch.export "
            "program, a name that ends in .pt2 (--onnx writes .onnx beside it)"
        )
    if options.data is not None and not whole:
        raise UsageError("--data goes with --out FOLDER")
    if options.out is not None and (why := unfit(options.out, file=not whole)):  # before the work
        wrong = UsageError if options.out.is_file() else SymbolError
        raise wrong(f"--out {options.out} {why}")
    module = load_symbol(options.symbol, options.params, heads=options.heads)
    if whole:
        return convert_folder(module, options)
    inputs = random_inputs(module, options.input_shape or [], options.budget)
    examples = [torch.from_numpy(x) for x in inputs.values()]
    told = in_float32(module, examples, options.budget) if options.out is not None else ""
    summary: dict[str, Any] = {
        "inputs": {name: list(x.shape) for name, x in inputs.items()},
        "parameters": sum(value.numel() for value in module.parameters()),
    }
    lines = [f"{options.symbol.name}: {summary['parameters']:,} parameters{told}"]
    if options.code:
        lines.append(module.code.strip())
    report = compared(options, inputs)
    if isinstance(report, str):
        summary["not_compared"] = report
    elif isinstance(report, Recorded):
        summary["compared_with"] = report.sentence
    else:
        summary["compared_with"] = "MXNet"
        if report.crashed:
            raise SymbolError(crash(report))
        summary["check"] = report.as_dict()
        lines += [sentence(report), *map(remark, report.remarks)]
        if not report.ok:
            raise SymbolError("the import differs from MXNet: " + "; ".join(report.failures[:5]))
        if not report.default_ok:
            raise SymbolError(report.backend_problem)
    if options.out is not None:
        save(module, examples, options, summary, lines)
    if options.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        print("\n".join(lines))
    return 0


def compared(
    options: argparse.Namespace, inputs: Mapping[str, np.ndarray]
) -> CheckReport | Recorded | str:
    """The import beside MXNet, or its operators beside recorded values; or why neither."""
    if not options.check and options.out is None:
        return "nothing is written"
    limits = {"budget": options.budget, "heads": options.heads}
    try:
        return check_files(options.symbol, options.params, inputs, **limits)
    except NotComparable as error:
        if options.check:
            raise
        return str(error)
    except ModuleNotFoundError as error:
        if options.check or error.name != "mxnet":
            raise
    graph = read_symbol(options.symbol)
    recorded = replay(graph if options.heads is None else graph.with_heads(options.heads))
    return recorded.problem or recorded


def convert_folder(module: fx.GraphModule, options: argparse.Namespace) -> int:
    """`--out FOLDER`: every form, proven."""
    asked, told = options.input_shape or [], "random"
    if options.data is None:
        inputs = random_inputs(module, asked, options.budget)
    else:
        inputs = read_inputs(module, options.data, asked, options.budget)
        told = options.data.name
    given = [torch.from_numpy(x) for x in inputs.values()]
    widened = in_float32(module, given, options.budget)
    source = Source(options.symbol, options.params, inputs, told, options.budget, options.heads)
    report, crashed = write_folder(module, source, options.out)
    if options.code:
        print(module.code.strip())
    if crashed:
        written = ", ".join(row["name"] for row in report["written"])
        raise SymbolError(f"{crash(crashed)}; {options.out} holds {written}")
    if options.json:
        print(json.dumps(report, allow_nan=False))
        return 0
    print(f"{options.symbol.name}: {report['parameters']:,} parameters{widened}")
    if report["nodes"]:
        worst = max(report["nodes"], key=lambda row: row["units"] / (row["bound"] or 1))
        print(
            f"{report['verified_against']}: {len(report['nodes'])} nodes compared, each within its "
            f"bound; worst {worst['units']:.1f} of {worst['bound']:g} units at {worst['name']}"
        )
    else:
        print(f"compared with {report['verified_against']}")
    for told in report["remarks"]:
        print(remark(told))
    for row in report["written"]:
        errors = [output["errors"][row["name"]] for output in report["outputs"]
                  if row["name"] in output["errors"]]  # fmt: skip
        told = f", compared with {row['verified_against']}" if "verified_against" in row else ""
        if errors:
            told = f", {max(errors):.1e} from float64"
        print(f"{options.out / row['name']}: {row['bytes']:,} bytes{told}")
    if report["no_onnx"]:
        print(f"{options.out / 'model.onnx'}: not written: {report['no_onnx']}")
    print(f"{options.out / 'report.json'}: mxnet-files verify {options.out} checks it again")
    return 0


def crash(report: CheckReport) -> str:
    """What MXNet died in, and what was compared all the same."""
    wrong = [error.problem for error in report.local if not error.ok]
    told = "; ".join(wrong[:5]) if wrong else "within their bounds"
    return f"{report.crashed}; {len(report.local)} of {report.nodes} nodes are compared, {told}"


@run_by(run_command, prog="mxnet-files verify", errors=(SymbolError,))
def verify(argv: Sequence[str] | None = None) -> int:
    """Check a folder that `convert` wrote; 0 where it is what its report says, 1 where not."""
    parser = Parser(
        prog="mxnet-files verify",
        description="Hash the files of a converted folder again, and run them on its samples. "
        "Needs torch and safetensors, and ONNX Runtime for model.onnx; model.py is run.",
    )
    parser.add_argument("folder", type=Path, help="what convert --out wrote")
    parser.add_argument(
        "--budget",
        type=budget,
        metavar="bytes=SIZE",
        default=Budget(),
        help="the most that the samples may take once unpacked: bytes=, with K, M, G or T",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    found = verify_folder(options.folder, options.budget)
    if options.json:
        print(json.dumps(found.as_dict(), allow_nan=False))
        return 0 if found.ok else 1
    for line in found.lines:
        print(one_line(line))
    if not found.ok:
        raise SymbolError(
            f"{options.folder} is not what convert wrote: {'; '.join(found.problems)}; put the "
            "files back, or convert again"
        )
    word = "verified" if found.claims.verified else "not verified"
    told = f"{word} against {found.claims.verified_against}"
    print(one_line(f"the folder is what its report says: {told}"))
    return 0


def save(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    options: argparse.Namespace,
    summary: dict[str, Any],
    lines: list[str],
) -> None:
    """Write the files asked for; their names say where nothing was compared."""
    out, told = options.out, f"compared with {summary.get('compared_with')}"
    if "not_compared" in summary:
        told = f"not compared: {summary['not_compared']}"
        out = out.with_stem(out.stem + UNVERIFIED)
    data, shape = program_bytes(module, inputs, options.budget)
    files = {out: data}
    summary.setdefault("compared_with", "the import alone")
    lines.append(f"{out}: torch.export program, input {shape}, equal to the import, {told}")
    summary["program"] = str(out)
    if options.onnx:
        path = out.with_suffix(".onnx")
        onnx, opset, verified = onnx_bytes(module, inputs, options.budget)
        if ONNX_RUNTIME in verified:
            summary["onnx_compared_with"] = "the import"
            told = f"verified by {verified} against the import, {told}"
        else:
            path = path.with_stem(options.out.stem + UNVERIFIED)
            summary["onnx_compared_with"] = NOT_RUN
            told = f"compared with {NOT_RUN}"
        files[path] = onnx
        lines.append(f"{path}: ONNX opset {opset}, {told}")
        summary["onnx"] = str(path)
    write_files(files)


def remark(told: str) -> str:
    """What a comparison does not show, as a line."""
    return f"note: {told}"


def sentence(report: CheckReport) -> str:
    """The report in a line."""
    worst = report.worst
    tied = f"; equal elements in another order at {', '.join(report.tied)}" if report.tied else ""
    if report.steered:
        tied += "; with MXNet's choices among numbers that nearly tie"
    return (
        f"MXNet: {len(report.local)} of {report.nodes} nodes compared in {report.dtype}, worst "
        f"{worst.units:.1f} units at {worst.name}; float32 outputs {report.import_error:.1e} from "
        f"the float64 referee, MXNet's own {report.mxnet_error:.1e}{tied}"
    )
