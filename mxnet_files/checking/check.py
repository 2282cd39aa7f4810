"""An import beside MXNet itself, where that is installed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from mxnet_files.budget import Budget, rehearse
from mxnet_files.build import strip_prefixes
from mxnet_files.checking.local import NodeError, local_errors
from mxnet_files.checking.oracle import SUBGRAPH_BACKEND, Oracle, import_mxnet
from mxnet_files.errors import SymbolError
from mxnet_files.load import load_symbol
from mxnet_files.operators.arithmetic import same
from mxnet_files.reading.params_file import read_params
from mxnet_files.reading.reader import read_graph
from mxnet_files.registry import OPERATORS
from mxnet_files.running import refusals, run

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
    cannot run the graph (mxnet_error is of the graph's operators one by one); referee,
    mxnet_outputs: the outputs in float64, and MXNet's in float32.
    """

    nodes: int
    local: tuple[NodeError, ...]
    mxnet_error: float
    import_error: float
    dtype: str = "float64"
    problems: tuple[str, ...] = ()
    default_error: float = 0.0
    referee: tuple[np.ndarray, ...] = ()
    mxnet_outputs: tuple[np.ndarray, ...] = ()

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
    given = {**inputs, **_labels(text, names, inputs)}
    dtype, expected = _by_node(text, arrays, given)
    double = copy.deepcopy(module).double().eval()
    judged = double if dtype == "float64" else copy.deepcopy(module).float().eval()
    local = local_errors(judged, [x.astype(dtype) for x in ordered], expected)
    del expected, judged
    if dtype == "float64":
        outputs = Oracle(text, arrays, given, "float64").forward()
    else:  # the import itself, node by node as MXNet computes
        exact = run(double, [torch.from_numpy(x.astype(np.float64)) for x in ordered])
        outputs = [y.numpy() for y in exact]
    del double
    single = Oracle(text, arrays, given, "float32").forward()
    referee, mxnet = _flat(outputs), _flat(single)
    found = _outputs(copy.deepcopy(module).float().eval(), [x.astype(np.float32) for x in ordered])
    return CheckReport(
        nodes=_count_nodes(text),
        dtype=dtype,
        local=tuple(local),
        mxnet_error=_distance(mxnet, referee),
        import_error=_distance(found, referee),
        problems=tuple(find_problems(referee)),
        default_error=_distance(_by_default(text, arrays, given), referee),
        referee=tuple(outputs),
        mxnet_outputs=tuple(single),
    )


def _by_default(
    text: str, arrays: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """The float32 outputs as a user's own MXNet computes them; None where it cannot."""
    try:
        return _flat(Oracle(text, arrays, given, "float32", fuse=True).forward())
    except import_mxnet().MXNetError:
        return None


def _distance(found: np.ndarray | None, referee: np.ndarray) -> float:
    """The largest error as a part of the referee's largest value; infinite for other shapes."""
    if found is None or found.shape != referee.shape:
        return float("inf")
    size = float(np.abs(referee).max(initial=0.0)) or 1.0
    return float(np.abs(found - referee).max(initial=0.0)) / size


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


def _outputs(module: fx.GraphModule, inputs: Sequence[np.ndarray]) -> np.ndarray:
    return _flat([y.numpy() for y in run(module, [torch.from_numpy(x) for x in inputs])])


def _count_nodes(text: str) -> int:
    """Operator outputs that the file holds, apart from identities, which the import drops."""
    graph = read_graph(json.loads(text))
    used = set(graph.heads)
    for number in graph.reachable():
        used.update(graph.nodes[number].inputs)
    operators = [graph.nodes[entry.node].op for entry in used]
    return sum(op != "null" and OPERATORS[op].build is not same for op in operators)


def _labels(
    text: str, names: Sequence[str], inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Zeros for the inputs that were not given: labels, which do not reach the outputs."""
    symbol = import_mxnet().sym.load_json(text)
    shapes, _, _ = symbol.infer_shape(**{name: x.shape for name, x in inputs.items()})
    known = dict(zip(symbol.list_arguments(), shapes, strict=True))
    return {name: np.zeros(known[name]) for name in names if name not in inputs}


def _flat(outputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([y.reshape(-1).astype(np.float64) for y in outputs])


def find_problems(referee: np.ndarray) -> list[str]:
    """A comparison of constants or of NaN proves nothing."""
    if not np.isfinite(referee).all():
        return ["MXNet's float64 output is not finite"]
    if referee.size > 1 and np.ptp(referee) == 0:
        return ["MXNet's output is the same number everywhere"]
    return []
