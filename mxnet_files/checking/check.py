"""An import beside MXNet itself, where that is installed."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from mxnet_files.budget import Budget, rehearse
from mxnet_files.build import strip_prefixes
from mxnet_files.checking.local import CHOOSING, NodeError, local_errors
from mxnet_files.checking.oracle import SUBGRAPH_BACKEND, Oracle, import_mxnet
from mxnet_files.errors import SymbolError
from mxnet_files.load import load_symbol
from mxnet_files.reading.params_file import read_params
from mxnet_files.reading.reader import read_graph
from mxnet_files.registry import OPERATORS
from mxnet_files.running import distance, refusals, run

__all__ = ["CheckReport", "check_files", "compare_with_mxnet", "find_problems"]

ALLOWED = 8.0  # times MXNet's own distance from the float64 referee
ALLOWED_FUSED = 64.0  # the same, of MXNet's default backend: a folded BatchNorm rounds otherwise
UNIT32 = 2.0**-24
ONLY_FLOAT32 = {"SoftmaxActivation"}  # does not refuse float64 arrays, but ends the process


@dataclass(frozen=True)
class CheckReport:
    """How far the import is from MXNet.

    nodes: operator nodes of the graph; local: the error of each one compared, in `dtype` (float64,
    or float32 where an operator of MXNet has no float64); mxnet_error, import_error: largest
    distance of the float32 outputs from the float64 referee, as parts of the referee's largest
    output; problems: why the comparison proves nothing, if so; default_error: as mxnet_error, of
    MXNet with the backend that it chooses itself where nobody says otherwise, infinite where that
    cannot run the graph (mxnet_error is of the graph's operators one by one); referee: the outputs
    in float64, MXNet's own unless it computes only in float32 or `tied` nodes order equal elements
    otherwise than the import, whose own float64 it is then; mxnet_errors: as mxnet_error, of each
    output; steered: import_error is of float32 outputs with MXNet's choices in `CHOOSING` nodes:
    alone it chose otherwise among numbers that nearly tie.
    """

    nodes: int
    local: tuple[NodeError, ...]
    mxnet_error: float
    import_error: float
    dtype: str = "float64"
    problems: tuple[str, ...] = ()
    default_error: float = 0.0
    referee: tuple[np.ndarray, ...] = ()
    mxnet_errors: tuple[float, ...] = ()
    steered: bool = False

    @property
    def worst(self) -> NodeError:
        """The node that comes nearest to its bound, or passes it furthest."""
        return max(self.local, key=lambda error: error.units / error.bound)

    @property
    def ratio(self) -> float:
        """import_error over MXNet's own, which counts as one unit of float32 at least."""
        return self.import_error / max(self.mxnet_error, UNIT32)

    def as_dict(self) -> dict[str, Any]:
        """What the commands print as JSON."""
        return {
            "nodes": self.nodes,
            "dtype": self.dtype,
            "compared": len(self.local),
            "worst_local_units": self.worst.units,
            "worst_node": self.worst.name,
            "mxnet_float32_error": self.mxnet_error,
            "mxnet_default_backend_ok": self.default_ok,
            "import_float32_error": self.import_error,
            "tied_nodes": self.tied,
            "mxnet_choices": self.steered,
            "ok": self.ok,
        }

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, in words; empty if the import computes what MXNet computes."""
        found = list(self.problems)
        if len(self.local) < self.nodes:
            found.append(f"only {len(self.local)} of {self.nodes} nodes could be compared")
        found += [error.problem for error in self.local if not error.ok]
        if not self.ratio <= ALLOWED:
            found.append(f"float32 outputs are {self.ratio:.3g} times as far off as MXNet's")
        return tuple(found)

    @property
    def tied(self) -> list[str]:
        """Nodes that order equal elements otherwise than MXNet's CPU does."""
        return [error.name for error in self.local if error.tied is not None]

    @property
    def default_ok(self) -> bool:
        """MXNet's default backend computes what its plain graph computes."""
        return self.default_error <= ALLOWED_FUSED * max(self.mxnet_error, UNIT32)

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def backend_problem(self) -> str:
        """What to do about a graph that MXNet itself computes in two ways."""
        off = f"is off by {self.default_error:.1e} of its largest output"
        if self.default_error == float("inf"):
            off = "cannot run the graph"
        return (
            f"the import equals MXNet's plain graph, and MXNet's own default backend (oneDNN) "
            f"{off}: set {SUBGRAPH_BACKEND}=NONE, here and wherever MXNet runs this graph"
        )


def check_files(
    symbol: str | os.PathLike[str],
    params: str | os.PathLike[str],
    shapes: Mapping[str, Sequence[int]],
    seed: int = 0,
    *,
    budget: Budget | None = None,
    heads: Sequence[str] | None = None,
) -> CheckReport:
    """Import the files and compare with MXNet on random inputs of the given shapes."""
    module = load_symbol(symbol, params, heads=heads)
    arrays = strip_prefixes(read_params(params))[0]
    rng = np.random.default_rng(seed)
    inputs = {name: rng.normal(size=tuple(shape)) for name, shape in shapes.items()}
    mxnet = import_mxnet()
    asked = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    try:
        with refusals(f"the graph cannot be compared on {asked}", mxnet.MXNetError):
            text = Path(symbol).read_text("utf-8")
            if heads is not None:
                text = with_heads(text, heads)
            return compare_with_mxnet(module, text, arrays, inputs, budget)
    except mxnet.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SymbolError(
            f"MXNet cannot run the graph on {asked} ({reason}): say its input with --input-shape"
        ) from error


def with_heads(text: str, heads: Sequence[str]) -> str:
    """The symbol with other outputs."""
    document = json.loads(text)
    chosen = read_graph(document).with_heads(heads).heads
    return json.dumps({**document, "heads": [[head.node, head.index, 0] for head in chosen]})


def compare_with_mxnet(
    module: fx.GraphModule,
    text: str,
    arrays: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    budget: Budget | None = None,
) -> CheckReport:
    """Compare a module with MXNet on the same parameters and inputs, both by MXNet's names.

    MXNet keeps what every node gives, in float64: the budget's values bound it.
    """
    names = list(module.meta["mxnet_inputs"].values())
    if not inputs.keys() <= set(names):
        raise SymbolError(f"inputs {sorted(inputs)}, the graph has {names}")
    ordered = [inputs[name] for name in names if name in inputs]
    rehearse(module, [torch.from_numpy(x.astype(np.float32)) for x in ordered], budget)
    given = {**inputs, **_labels(text, names, arrays, inputs)}
    dtype, expected = _by_node(text, arrays, given)
    double = copy.deepcopy(module).double().eval()
    judged = double if dtype == "float64" else copy.deepcopy(module).float().eval()
    local = tuple(local_errors(judged, [x.astype(dtype) for x in ordered], expected))
    del judged
    ties = {error.tied: expected[error.tied] for error in local if error.tied is not None}
    choices = choices_of(text, expected)
    doubles = [torch.from_numpy(x.astype(np.float64)) for x in ordered]
    if dtype == "float64":
        theirs = _heads(text, {**arrays, **given}, expected)
    else:  # the import itself, node by node as MXNet computes
        theirs = [y.numpy() for y in run(_InOrder(double, ties), doubles)]
    del expected
    outputs = [y.numpy() for y in run(double, doubles)] if ties else theirs
    del double
    single = Oracle(text, arrays, given, "float32").forward()
    singles = [torch.from_numpy(x.astype(np.float32)) for x in ordered]
    float32 = copy.deepcopy(module).float().eval()
    found = [y.numpy() for y in run(float32, singles)]
    mxnet_error, import_error = together(single, theirs), together(found, outputs)
    steered = bool(choices) and not import_error <= ALLOWED * max(mxnet_error, UNIT32)
    if steered:  # numbers that nearly tie: every choice was compared, what follows is compared now
        chosen = [y.numpy() for y in run(_InOrder(float32, choices), singles)]
        import_error = together(chosen, theirs)
    return CheckReport(
        nodes=_count_nodes(text, module.meta["mxnet_passed"]),
        dtype=dtype,
        local=local,
        mxnet_error=mxnet_error,
        import_error=import_error,
        steered=steered,
        problems=tuple(find_problems(_flat(theirs))),
        default_error=_default_error(text, arrays, given, theirs),
        referee=tuple(outputs),
        mxnet_errors=tuple(distance(single, theirs)),
    )


def choices_of(
    text: str, by_node: Mapping[tuple[int, int], np.ndarray]
) -> dict[tuple[int, int], np.ndarray]:
    """What MXNet chose, in float32 where it is floating point."""
    nodes = read_graph(json.loads(text)).nodes
    return {
        entry: array.astype(np.float32) if array.dtype == np.float64 else array
        for entry, array in by_node.items()
        if nodes[entry[0]].op in OPERATORS and OPERATORS[nodes[entry[0]].op].name in CHOOSING
    }


class _InOrder(fx.Interpreter):
    """Runs a module with what the given outputs are, by the node's and the output's number."""

    def __init__(self, module: fx.GraphModule, ties: Mapping[tuple[int, int], np.ndarray]) -> None:
        super().__init__(module)
        self.ties = ties

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.run(*inputs)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        entry = n.meta.get("mxnet_number", -1), n.meta.get("mxnet", ("", "", 0))[2]
        return torch.from_numpy(self.ties[entry]) if entry in self.ties else result


def _heads(
    text: str, named: Mapping[str, np.ndarray], by_node: Mapping[tuple[int, int], np.ndarray]
) -> list[np.ndarray]:
    """The graph's outputs, of what MXNet computed for every node."""
    graph = read_graph(json.loads(text))
    nodes = [graph.nodes[head.node] for head in graph.heads]
    return [
        np.asarray(named[node.name], np.float64) if node.op == "null"
        else by_node[head.node, head.index]
        for node, head in zip(nodes, graph.heads, strict=True)
    ]  # fmt: skip


def _default_error(
    text: str,
    arrays: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    theirs: Sequence[np.ndarray],
) -> float:
    """How far off a user's own MXNet computes in float32; infinite where it cannot."""
    try:
        found = Oracle(text, arrays, given, "float32", fuse=True).forward()
    except import_mxnet().MXNetError:
        return math.inf
    return together(found, theirs)


def _by_node(
    text: str, arrays: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]
) -> tuple[str, dict[tuple[int, int], np.ndarray]]:
    """MXNet's outputs of every node in float64, or in float32 where it has no float64."""
    graph = read_graph(json.loads(text))
    if not {graph.nodes[number].op for number in graph.reachable()} & ONLY_FLOAT32:
        try:
            return "float64", Oracle(text, arrays, given, "float64", internals=True).by_node()
        except import_mxnet().MXNetError:
            pass  # an operator that refuses float64
    return "float32", Oracle(text, arrays, given, "float32", internals=True).by_node()


def _count_nodes(text: str, passed: Collection[tuple[int, int]]) -> int:
    """Operator outputs that the file holds, apart from those that are `passed` on as they came."""
    graph = read_graph(json.loads(text))
    used = set(graph.heads)
    for number in graph.reachable():
        used.update(graph.nodes[number].inputs)
    return sum(
        graph.nodes[entry.node].op != "null" and (entry.node, entry.index) not in passed
        for entry in used
    )


def _labels(
    text: str,
    names: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Zeros for the inputs that were not given: labels, which do not reach the outputs."""
    left = [name for name in names if name not in inputs]
    if not left:
        return {}
    symbol = import_mxnet().sym.load_json(text)
    given = {**arrays, **inputs}
    arguments = symbol.list_arguments()
    shapes, _, _ = symbol.infer_shape(
        **{name: given[name].shape for name in arguments if name in given}
    )
    known = dict(zip(arguments, shapes, strict=True))
    return {name: np.zeros(known[name]) for name in left}


def together(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """The largest error of all outputs as a part of the largest value of all."""
    return distance([_flat(found)], [_flat(wanted)])[0]


def _flat(outputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([y.reshape(-1).astype(np.float64) for y in outputs])


def find_problems(referee: np.ndarray) -> list[str]:
    """A comparison of constants or of NaN proves nothing."""
    if not np.isfinite(referee).all():
        return ["MXNet's float64 output is not finite"]
    if referee.size > 1 and np.ptp(referee) == 0:
        return ["MXNet's output is the same number everywhere"]
    return []
