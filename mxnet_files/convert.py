"""`mxnet-files convert x-symbol.json x-0000.params --out x.pt2 [--onnx] [--check]`, `check`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from gluon_cnn_parity.cli import Parser, run_command
from mxnet_files.budget import Budget
from mxnet_files.checking.check import CheckReport, check_files
from mxnet_files.checking.oracle import SUBGRAPH_BACKEND
from mxnet_files.errors import SymbolError, UsageError
from mxnet_files.load import load_symbol
from mxnet_files.save import example_inputs, onnx_bytes, program_bytes, write_files

__all__ = ["check", "main"]

IMAGE = (1, 3, 224, 224)


def convert_parser() -> Parser:
    """The flags of `convert`."""
    parser = file_parser(
        "mxnet-files convert",
        "Import an MXNet symbol and its parameters into PyTorch, without MXNet.",
    )
    parser.add_argument("--out", type=Path, help="write a torch.export program here (*.pt2)")
    parser.add_argument("--onnx", action="store_true", help="write ONNX beside it, as *.onnx")
    parser.add_argument("--check", action="store_true", help="compare with MXNet, if installed")
    parser.add_argument("--code", action="store_true", help="print the module's code")
    return parser


def check_parser() -> Parser:
    """The flags of `check`, which converts and writes nothing."""
    parser = file_parser(
        "mxnet-files check",
        "Import an MXNet symbol and its parameters, and compare every node with MXNet's.",
    )
    parser.set_defaults(check=True, out=None, onnx=False, code=False)
    return parser


def file_parser(prog: str, description: str) -> Parser:
    """The arguments of every command that opens a model's two files."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument("symbol", type=Path, help="the *-symbol.json file")
    parser.add_argument("params", type=Path, help="the *.params file")
    parser.add_argument(
        "--input-shape",
        action="append",
        type=input_shape,
        metavar="[NAME=]N,C,H,W",
        help="shape of an input, once for each; one input without it is 1,3,224,224",
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


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`data=1,3,224,224` or `1,3,224,224`."""
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = (0,)
    if not all(0 < size < 2**31 for size in shape):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected positive sizes as 1,3,224,224")
    return name, shape


def choose_shapes(
    module: fx.GraphModule, given: Sequence[tuple[str, tuple[int, ...]]]
) -> dict[str, tuple[int, ...]]:
    """A shape for every required input, by MXNet's name."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    names = [module.meta["mxnet_inputs"][node.target] for node in placeholders if not node.args]
    if not given and len(names) == 1:
        return {names[0]: IMAGE}
    if len(names) == 1 and len(given) == 1 and not given[0][0]:
        return {names[0]: given[0][1]}
    shapes = dict(given)
    if set(shapes) != set(names) or len(shapes) != len(given):
        wanted = " ".join(f"--input-shape {name}=…" for name in names)
        raise UsageError(f"the graph's inputs are {', '.join(names)}; say {wanted}")
    return {name: shapes[name] for name in names}


def main(argv: Sequence[str] | None = None) -> int:
    """Import, check, save; 0 on success, 2 on bad usage, 1 on failure."""
    return run_command(
        lambda: convert(convert_parser().parse_args(argv)),
        prog="mxnet-files convert",
        errors=(SymbolError,),
    )


def check(argv: Sequence[str] | None = None) -> int:
    """Import and check; 0 where every node agrees with MXNet, 1 where one does not."""
    return run_command(
        lambda: convert(check_parser().parse_args(argv)),
        prog="mxnet-files check",
        errors=(SymbolError,),
    )


def convert(options: argparse.Namespace) -> int:
    """The command after its flags are read."""
    if options.onnx and options.out is None:
        raise UsageError("--onnx writes beside --out, which is missing")
    if options.out is not None and options.out.suffix != ".pt2":
        raise UsageError(
            f"--out {options.out} is a torch.export program: expected a name that ends in .pt2 "
            "(--onnx writes the same name with .onnx beside it)"
        )
    module = load_symbol(options.symbol, options.params)
    shapes = choose_shapes(module, options.input_shape or [])
    summary: dict[str, Any] = {
        "inputs": {name: list(shape) for name, shape in shapes.items()},
        "parameters": sum(value.numel() for value in module.parameters()),
    }
    lines = [f"{options.symbol.name}: {summary['parameters']:,} parameters"]
    if options.code:
        lines.append(module.code.strip())
    if options.check:
        report = check_files(options.symbol, options.params, shapes, budget=options.budget)
        summary["check"] = report.as_dict()
        lines.append(sentence(report))
        if not report.ok:
            raise SymbolError("the import differs from MXNet: " + "; ".join(report.failures[:5]))
        if not report.default_ok:
            raise SymbolError(default_backend_differs(report))
    if options.out is not None:
        save(module, example_inputs(list(shapes.values())), options, summary, lines)
    if options.json:
        print(json.dumps(summary, allow_nan=False))
    else:
        print("\n".join(lines))
    return 0


def save(
    module: fx.GraphModule,
    inputs: Sequence[Tensor],
    options: argparse.Namespace,
    summary: dict[str, Any],
    lines: list[str],
) -> None:
    """Write the files asked for."""
    data, shape = program_bytes(module, inputs, options.budget)
    files = {options.out: data}
    told = "compared with MXNet" if "check" in summary else "not compared with MXNet (--check does)"
    summary["compared_with"] = "MXNet" if "check" in summary else "the import alone"
    lines.append(f"{options.out}: torch.export program, input {shape}, equal to the import, {told}")
    summary["program"] = str(options.out)
    if options.onnx:
        path = options.out.with_suffix(".onnx")
        files[path], verified = onnx_bytes(module, inputs, options.budget)
        verified = verified or "nothing (onnx, onnxruntime not installed)"
        lines.append(f"{path}: ONNX opset 13, verified by {verified} against the import, {told}")
        summary["onnx"] = str(path)
    write_files(files)


def default_backend_differs(report: CheckReport) -> str:
    """What to do about a graph that MXNet itself computes in two ways."""
    off = f"is off by {report.default_error:.1e} of its largest output"
    if report.default_error == float("inf"):
        off = "cannot run the graph"
    return (
        f"the import equals MXNet's plain graph, and MXNet's own default backend (oneDNN) {off}: "
        f"set {SUBGRAPH_BACKEND}=NONE, here and wherever MXNet runs this graph"
    )


def sentence(report: CheckReport) -> str:
    """The report in a line."""
    worst = report.worst
    return (
        f"MXNet: {len(report.local)} of {report.nodes} nodes compared in {report.dtype}, worst "
        f"{worst.units:.1f} units at {worst.name}; float32 outputs {report.import_error:.1e} from "
        f"the float64 referee, MXNet's own {report.mxnet_error:.1e}"
    )
