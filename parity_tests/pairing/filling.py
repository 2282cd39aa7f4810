"""`mxnet-files map`: MXNet's parameters in a user's own torch class, without MXNet.

Both sides are torch: the import of the symbol, and the user's net. What they execute is aligned, so
modules may have any names and stand in any order.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gluon_cnn_parity.atomic import unfit
from gluon_cnn_parity.cli import Parser, one_line, run_by, run_command
from mxnet_files.budget import Budget, in_float32, rehearse
from mxnet_files.convert import budget
from mxnet_files.errors import SymbolError, UsageError
from mxnet_files.load import load_symbol
from mxnet_files.reading.inputs import INPUT, INPUT_HELP, asked_input, random_inputs
from mxnet_files.reading.tensor_files import SUFFIXES, TensorFileError, write_tensors
from mxnet_files.running import run
from parity_tests.backends.base import referee
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.parts import part_of, with_parts
from parity_tests.backends.runs import place_of, reason_of
from parity_tests.backends.torch.tracing.trace import trace_torch
from parity_tests.backends.torch.tracing.vocabulary import read_torch
from parity_tests.backends.tracing import flatten
from parity_tests.cases.factories import load_net
from parity_tests.pairing.dataflow import Alignment, align
from parity_tests.pairing.graph import OperationGraph
from parity_tests.pairing.normalise import normalise

TIMES = 64  # as far from float64 as the import's own float32, times this, may the user's net be
SHOWN = 5


@dataclass(frozen=True)
class Filled:
    """What was filled, and how far the net's outputs then are from the import in float64."""

    names: dict[str, str]  # the net's names -> MXNet's
    ones: list[str]  # gammas that MXNet holds at 1
    kept: list[str]  # what no operation reads: as the factory gave it
    error: float  # of the largest output
    bound: float


def fill(module: torch.fx.GraphModule, net: nn.Module, inputs: Sequence[torch.Tensor]) -> Filled:
    """Copy the import's values into `net`, and compare both on the inputs.

    Args:
        module: what `load_symbol` gives.
        net: a module that computes the same; it is filled in place and left in eval mode.
        inputs: tensors of the graph's shapes, in its order; `net` is called with them too.

    Raises: ParityError, where a parameter has no partner, or the nets compute different things.
    """
    net.eval()
    try:
        traced = trace_torch(net, *inputs)
    except Exception as raised:  # a user's forward may raise anything
        reason = f"{reason_of(raised)}{place_of(raised)}"
        raise ParityError(f"the torch net cannot run: {reason}") from raised
    alignment = aligned(trace_torch(module, *inputs), traced)
    ones = fixed_gammas(alignment)
    sources, targets = tensors(module), tensors(net)
    mxnet_names = module.meta["mxnet_names"]

    def named(name: str) -> str:
        """In MXNet's words, the rows of a parameter too."""
        whole = whole_of(name, sources)
        return mxnet_names.get(whole, whole) + name.removeprefix(whole)

    lacking = (
        [named(name) for name in alignment.unmapped[0]],
        [name for name in alignment.unmapped[1] if name not in ones],
    )
    problems = [
        f"{side} alone has {', '.join(names)}"
        for side, names in zip(("MXNet", "torch"), lacking, strict=True)
        if names
    ]
    problems += [f"{named(a)} and {b} have other partners too" for a, b in alignment.conflicts]
    if problems:
        raise ParityError("parameters without one partner: " + "; ".join(problems))
    with torch.no_grad():
        for name, source in alignment.parameters.items():
            value, target = rows_of(source, sources), rows_of(name, targets)
            if value.numel() != target.numel():
                a, b = tuple(value.shape), tuple(target.shape)
                raise ParityError(f"{named(source)} is {a}, {name} is {b}")
            target.copy_(value.reshape(target.shape))
        for name in ones:
            targets[name].fill_(1)
    error, bound = distance(module, net, inputs)
    if not error <= bound:
        told = differences(alignment) or ["its operations are paired otherwise"]
        raise ParityError(
            f"the torch net computes something else: {error:.1e} of the largest output from the "
            f"import, expected at most {bound:.1e}; {'; '.join(told[:SHOWN])}"
        )
    names = {name: named(source) for name, source in alignment.parameters.items()}
    reached = (whole_of(name, targets) for name in (*names, *ones))
    filled = {id(targets[name]) for name in reached}  # tied ones have several names
    kept = [
        name
        for name in net.state_dict()
        if not name.endswith("num_batches_tracked")  # MXNet has none, and inference reads none
        and id(targets.get(name)) not in filled
    ]
    return Filled(names, ones, kept, error, bound)


def aligned(*graphs: OperationGraph) -> Alignment:
    """How two executed graphs align; what one holds in one array and the other in several, as rows.

    Such as `in_proj_weight[0:8]` of `nn.MultiheadAttention` beside three dense layers.
    """
    together = align(*(normalise(graph, read_torch) for graph in graphs))
    if not together.packed:
        return together
    join = referee().join
    apart = (with_parts(g, together.lengths(side), join) for side, g in enumerate(graphs))
    divided = align(*(normalise(graph, read_torch) for graph in apart))
    return together if any(divided.unmapped) else divided


def whole_of(name: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """The tensor that a parameter is, or is rows of."""
    part = part_of(name, tensors)
    return part[0] if part else name


def rows_of(name: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A tensor, or the rows of it that a name says."""
    part = part_of(name, tensors)
    return part[1](tensors[part[0]]) if part else tensors[name]


def tensors(net: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers under all their names."""
    return {
        **dict(net.named_parameters(remove_duplicate=False)),
        **dict(net.named_buffers(remove_duplicate=False)),
    }


def fixed_gammas(alignment: Alignment) -> list[str]:
    """Weights of batch norms whose partner in MXNet has `fix_gamma`, and so none."""
    return [
        pair.right.parameters["weight"].name
        for pair in alignment.pairs
        if pair.left.kind == pair.right.kind == "batch_norm"
        and "weight" not in pair.left.parameters
        and "weight" in pair.right.parameters
    ]


def distance(
    module: torch.fx.GraphModule, net: nn.Module, inputs: Sequence[torch.Tensor]
) -> tuple[float, float]:
    """How far the net is from the import in float64, and may be, of the largest output.

    Raises: ParityError for other numbers or shapes of outputs.
    """
    exact = run(copy.deepcopy(module).double(), [x.double() for x in inputs])
    near = run(module, inputs)
    with torch.no_grad():
        found = list(flatten(net(*inputs), torch.Tensor))
    shapes = [tuple(y.shape) for y in exact], [tuple(y.shape) for y in found]
    if shapes[0] != shapes[1]:
        raise ParityError(f"the torch net's outputs are {shapes[1]}, MXNet's {shapes[0]}")
    worst, bound = 0.0, TIMES * torch.finfo(torch.float32).eps
    for y, mine, theirs in zip(exact, near, found, strict=True):
        size = max(float(y.abs().max()), torch.finfo(torch.float32).tiny)
        error = float((theirs.double() - y).abs().max()) / size
        worst = error if not error <= worst else worst  # NaN too
        bound = max(bound, TIMES * float((mine.double() - y).abs().max()) / size)
    return worst, bound


def differences(alignment: Alignment) -> list[str]:
    """What is not alike in both nets' operations, in inference."""
    told = [
        f"{side} alone computes {operation}"
        for side, operations in zip(("MXNet", "torch"), alignment.alone, strict=True)
        for operation in operations
    ]
    told += [
        f"{pair.right}: {difference}"
        for pair in alignment.differing
        for difference in pair.differences
        if difference.what != "kept" and not (difference.what == "weight" and not difference.left)
    ]
    return told + [str(difference) for difference in alignment.outputs]


@run_by(run_command, prog="mxnet-files map", errors=(SymbolError, ParityError, TensorFileError))
def main(argv: Sequence[str] | None = None) -> int:
    """0 where the file is written, 1 where the class does not fit, 2 on bad usage."""
    parser = Parser(
        prog="mxnet-files map",
        description="Fill your own torch class with MXNet's parameters, whatever its modules' "
        "names and order. Its code is run; the files' is not.",
    )
    parser.add_argument("params", type=Path, help="the *.params file")
    parser.add_argument("--symbol", type=Path, required=True, help="the *-symbol.json file")
    parser.add_argument(
        "--torch", required=True, metavar="PKG:FACTORY", help="gives the net, without arguments"
    )
    parser.add_argument(
        "--input",
        action="append",
        type=asked_input,
        metavar=INPUT,
        help=INPUT_HELP,
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="the state dict, *.safetensors or *.pt"
    )
    parser.add_argument(
        "--budget", type=budget, metavar="NAME=SIZE,…", default=Budget(), help="as for convert"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    if options.out.suffix not in SUFFIXES:
        raise UsageError(f"--out is {options.out}, expected a name in {' or '.join(SUFFIXES)}")
    if why := unfit(options.out, file=True):  # before the work
        raise SymbolError(f"--out {options.out} {why}")
    module = load_symbol(options.symbol, options.params)
    drawn = random_inputs(module, options.input or [], options.budget)
    inputs = [torch.from_numpy(x) for x in drawn.values()]
    in_float32(module, inputs, options.budget)
    rehearse(module, inputs, options.budget)
    net: Any = load_net(options.torch, "--torch", Path.cwd())
    if not isinstance(net, nn.Module):
        raise UsageError(f"--torch {options.torch} gives {type(net).__name__}, expected a Module")
    filled = fill(module, net, inputs)
    state = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
    write_tensors(options.out, state)
    if options.json:
        print(json.dumps({**vars(filled), "out": str(options.out)}))
        return 0
    for name, source in filled.names.items():
        print(one_line(f"{name} is {source}"))
    for name in filled.ones:
        print(one_line(f"{name} is 1, as fix_gamma has it"))
    for name in filled.kept:
        print(one_line(f"{name} is read by no operation, and stays as the factory gave it"))
    print(
        one_line(
            f"{options.out}: {len(state)} tensors; outputs are {filled.error:.1e} of the largest "
            f"from the import, at most {filled.bound:.1e} allowed"
        )
    )
    return 0
