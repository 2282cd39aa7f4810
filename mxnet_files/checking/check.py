"""An import beside MXNet itself, where that is installed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import fx

from mxnet_files.budget import Budget, rehearse
from mxnet_files.checking.local import CHOOSING, NodeError, local_errors
from mxnet_files.checking.oracle import SUBGRAPH_BACKEND, Oracle, import_mxnet
from mxnet_files.errors import NotComparable, SymbolError
from mxnet_files.reading.reader import SymbolGraph, read_graph
from mxnet_files.registry import OPERATORS
from mxnet_files.running import Named, distance, in_float64, in_json, of_precision, run

ALLOWED = 8.0  # times MXNet's own distance from the float64 referee
ALLOWED_FUSED = 64.0  # the same, of MXNet's default backend: a folded BatchNorm rounds otherwise
SUSPICIOUS = 1e-3  # of the largest output: more than most graphs lose in float32
UNIT32 = 2.0**-24
OVERFLOW = (
    "MXNet's float32 outputs overflow (infinite or NaN where float64 is not), and so do the "
    "import's: other inputs (--out DIR --data FILE), or trained weights, show more"
)
ONLY_FLOAT32 = {"SoftmaxActivation"}  # does not refuse float64 arrays, but ends the process


@dataclass(frozen=True)
class Crashes:
    """What MXNet has died in before, by stage; nodes that are left out for it.

    `tell` is told the stage that MXNet is in, "" for none: who watches the process needs it.
    """

    tell: Callable[[str, str], None] = lambda what, stage: None
    stages: dict[str, str] = field(default_factory=dict)  # how each ended, in words
    nodes: list[str] = field(default_factory=list)  # operator and name of what crashes
    how: str = ""
    left_out: Collection[int] = ()

    def enter(self, stage: str) -> None:
        """MXNet works on this now."""
        self.tell("stage", stage)

    @property
    def sentence(self) -> str:
        """What has made a comparison of the whole graph impossible, or ""."""
        if self.nodes:
            return f"MXNet crashed in {', '.join(self.nodes)}: it {self.how}"
        how = self.stages.get(OUTPUTS)
        return f"MXNet crashed on the whole graph, node by node it did not: it {how}" if how else ""


OUTPUTS = "outputs"


@dataclass(frozen=True)
class Subject:
    """An import, and MXNet's symbol, parameters and inputs beside it, by MXNet's names."""

    module: fx.GraphModule
    text: str
    arrays: Mapping[str, np.ndarray]
    inputs: Mapping[str, np.ndarray]
    budget: Budget | None = None

    @cached_property
    def graph(self) -> SymbolGraph:
        """The symbol, read."""
        return read_graph(json.loads(self.text))

    @cached_property
    def names(self) -> list[str]:
        """Of all inputs, labels too."""
        return list(self.module.meta["mxnet_inputs"].values())

    @cached_property
    def given(self) -> dict[str, np.ndarray]:
        """The inputs, and zeros for those that are not given: labels, which reach no output."""
        left = [name for name in self.names if name not in self.inputs]
        if not left:
            return dict(self.inputs)
        symbol = import_mxnet().sym.load_json(self.text)
        given = {**self.arrays, **self.inputs}
        arguments = symbol.list_arguments()
        shapes, _, _ = symbol.infer_shape(
            **{name: given[name].shape for name in arguments if name in given}
        )
        known = dict(zip(arguments, shapes, strict=True))
        return {**self.inputs, **{name: np.zeros(known[name]) for name in left}}

    def oracle(self, dtype: str, **options: Any) -> Oracle:
        """MXNet with all of it."""
        return Oracle(self.text, self.arrays, self.given, dtype, **options)

    def heads(self, by_node: Mapping[tuple[int, int], np.ndarray]) -> list[np.ndarray]:
        """The graph's outputs, of what MXNet computed for every node."""
        named = {**self.arrays, **self.given}
        nodes = self.graph.nodes
        return [
            of_precision([named[nodes[head.node].name]], "float64")[0]
            if nodes[head.node].op == "null"
            else by_node[head.node, head.index]
            for head in self.graph.heads
        ]  # fmt: skip

    def choices(
        self, by_node: Mapping[tuple[int, int], np.ndarray]
    ) -> dict[tuple[int, int], np.ndarray]:
        """What MXNet chose, in float32 where it is floating point."""
        nodes = self.graph.nodes
        return {
            entry: array.astype(np.float32) if array.dtype == np.float64 else array
            for entry, array in by_node.items()
            if nodes[entry[0]].op in OPERATORS and OPERATORS[nodes[entry[0]].op].name in CHOOSING
        }

    def count(self) -> int:
        """Operator outputs that the file holds, apart from those that are passed on unchanged."""
        used = set(self.graph.heads)
        for number in self.graph.reachable():
            used.update(self.graph.nodes[number].inputs)
        return sum(
            self.graph.nodes[entry.node].op != "null"
            and (entry.node, entry.index) not in self.module.meta["mxnet_passed"]
            for entry in used
        )


@dataclass(frozen=True)
class CheckReport:
    """How far the import is from MXNet.

    nodes: operator nodes of the graph; local: the error of each one compared, in `dtype` (float64,
    or float32 where an operator of MXNet has no float64); mxnet_error, import_error: largest
    distance of the float32 outputs from the float64 referee, as parts of the referee's largest
    output; remarks: why the comparison shows little, if so; default_error: as mxnet_error, of
    MXNet with the backend that it chooses itself where nobody says otherwise, infinite where that
    cannot run the graph (mxnet_error is of the graph's operators one by one); referee: the outputs
    in float64, MXNet's own unless it computes only in float32 or `tied` nodes order equal elements
    otherwise than the import, whose own float64 it is then; mxnet_errors: as mxnet_error, of each
    output; steered: import_error is of float32 outputs with MXNet's choices in `CHOOSING` nodes:
    alone it chose otherwise among numbers that nearly tie; crashed: what MXNet died in, where it
    was watched; the nodes that do not depend on that are in `local`, and nothing else is compared;
    graph_error: mxnet_error where it is more than rounding, and MXNet's nodes one by one are right;
    overflows: MXNet's float32 is infinite or NaN where float64 is not, and the import's is alike;
    default_error is the distance from MXNet's own float32 then.
    """

    nodes: int
    local: tuple[NodeError, ...]
    mxnet_error: float
    import_error: float
    dtype: str = "float64"
    remarks: tuple[str, ...] = ()
    default_error: float = 0.0
    referee: tuple[np.ndarray, ...] = ()
    mxnet_errors: tuple[float, ...] = ()
    steered: bool = False
    crashed: str = ""
    graph_error: float = 0.0
    overflows: bool = False
    version: str = ""  # MXNet's

    @property
    def worst(self) -> NodeError:
        """The node that comes nearest to its bound, or passes it furthest."""
        return max(self.local, key=lambda error: error.units / error.bound)

    @property
    def ratio(self) -> float:
        """import_error over MXNet's own, which counts as one unit of float32 at least."""
        return 0.0 if self.overflows else self.import_error / max(self.mxnet_error, UNIT32)

    def as_dict(self) -> dict[str, Any]:
        """What the commands print as JSON, null for an error that is infinite."""
        return {
            "nodes": self.nodes,
            "dtype": self.dtype,
            "compared": len(self.local),
            "worst_local_units": in_json(self.worst.units),
            "worst_node": self.worst.name,
            "mxnet_float32_error": in_json(self.mxnet_error),
            "mxnet_default_backend_ok": self.default_ok,
            "import_float32_error": in_json(self.import_error),
            "tied_nodes": self.tied,
            "mxnet_choices": self.steered,
            "remarks": list(self.remarks),
            "ok": self.ok,
        }

    @property
    def failures(self) -> tuple[str, ...]:
        """What is wrong, in words; empty if the import computes what MXNet computes."""
        found = [self.crashed] if self.crashed else []
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
        """MXNet's plain graph computes what its nodes compute, and so does its default backend."""
        allowed = ALLOWED_FUSED * max(self.mxnet_error, UNIT32)
        return not self.graph_error and self.default_error <= (
            SUSPICIOUS if self.overflows else allowed
        )

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def backend_problem(self) -> str:
        """What to do about a graph that MXNet itself computes in two ways."""
        if self.graph_error:
            return (
                f"the import equals MXNet's nodes computed one by one, and MXNet's own graph is "
                f"off by {self.graph_error:.1e} of its largest output: MXNet leaves out what "
                f"nobody reads, even where it needs it itself (the mean of `moments`)"
            )
        off = f"is off by {self.default_error:.1e} of its largest output"
        if self.default_error == float("inf"):
            off = "cannot run the graph"
        return (
            f"the import equals MXNet's plain graph, and MXNet's own default backend (oneDNN) "
            f"{off}: set {SUBGRAPH_BACKEND}=NONE, here and wherever MXNet runs this graph"
        )


def compare_with_mxnet(subject: Subject, crashes: Crashes | None = None) -> CheckReport:
    """Compare a module with MXNet on the same parameters and inputs.

    MXNet keeps what every node gives, in float64: the budget's values bound it. A crash of MXNet
    ends the process: `apart.compare_apart` is for graphs that nobody knows.
    """
    crashes = Crashes() if crashes is None else crashes
    module, inputs = subject.module, subject.inputs
    if not inputs.keys() <= set(subject.names):
        raise SymbolError(f"inputs {sorted(inputs)}, the graph has {subject.names}")
    ordered = [inputs[name] for name in subject.names if name in inputs]
    singles = [torch.from_numpy(x) for x in of_precision(ordered, "float32")]
    rehearse(module, singles, subject.budget)
    dtype, expected = _by_node(subject, crashes)
    double = in_float64(module)
    judged = double if dtype == "float64" else copy.deepcopy(module).float().eval()
    local = tuple(local_errors(judged, of_precision(ordered, dtype), expected))
    del judged
    nodes = subject.count()
    if crashes.sentence:
        return CheckReport(nodes, local, 0.0, 0.0, dtype, crashed=crashes.sentence)
    ties = {error.tied: expected[error.tied] for error in local if error.tied is not None}
    choices = subject.choices(expected)
    doubles = [torch.from_numpy(x) for x in of_precision(ordered, "float64")]
    if dtype == "float64":
        theirs = subject.heads(expected)
    else:  # the import itself, node by node as MXNet computes
        theirs = [y.numpy() for y in run(_InOrder(double, ties), doubles)]
    del expected
    outputs = [y.numpy() for y in run(double, doubles)] if ties else theirs
    del double
    crashes.enter(OUTPUTS)
    single = subject.oracle("float32").forward()
    crashes.enter("")
    float32 = copy.deepcopy(module).float().eval()
    found = [y.numpy() for y in run(float32, singles)]
    mxnet_error, import_error = together(single, theirs), together(found, outputs)
    steered = bool(choices) and not import_error <= ALLOWED * max(mxnet_error, UNIT32)
    if steered:  # numbers that nearly tie: every choice was compared, what follows is compared now
        chosen = [y.numpy() for y in run(_InOrder(float32, choices), singles)]
        import_error = together(chosen, theirs)
    overflows = mxnet_error == math.inf and together(found, single) <= SUSPICIOUS
    report = CheckReport(
        nodes=nodes,
        dtype=dtype,
        local=local,
        mxnet_error=mxnet_error,
        import_error=import_error,
        steered=steered,
        remarks=(*find_remarks(_flat(theirs)), *([OVERFLOW] if overflows else [])),
        overflows=overflows,
        default_error=_default_error(subject, single if overflows else theirs, crashes),
        referee=tuple(outputs),
        mxnet_errors=tuple(distance(single, theirs)),
        graph_error=_graph_error(subject, theirs, mxnet_error),
        version=import_mxnet().__version__,
    )
    loops = ", ".join(error.name for error in local if error.unwritten)
    if loops and all(error.ok for error in local) and not (report.ok and report.default_ok):
        raise NotComparable(
            f"MXNet leaves the rows of {loops} after its last turn as its memory was, and an "
            f"output depends on them; each of the {len(local)} nodes agrees"
        )
    return report


class _InOrder(Named):
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


def _graph_error(subject: Subject, theirs: Sequence[np.ndarray], error: float) -> float:
    """The error of MXNet's float32 graph, if its nodes one by one are right; else 0."""
    if error <= SUSPICIOUS:
        return 0.0
    singly = together(subject.heads(subject.oracle("float32", internals=True).by_node()), theirs)
    return error if error > ALLOWED_FUSED * max(singly, UNIT32) else 0.0


def _default_error(subject: Subject, theirs: Sequence[np.ndarray], crashes: Crashes) -> float:
    """How far off a user's own MXNet computes in float32; infinite where it cannot."""
    if "default backend" in crashes.stages:
        return math.inf
    crashes.enter("default backend")
    try:
        found = subject.oracle("float32", fuse=True).forward()
    except import_mxnet().MXNetError:
        return math.inf
    finally:
        crashes.enter("")
    return together(found, theirs)


def _by_node(subject: Subject, crashes: Crashes) -> tuple[str, dict[tuple[int, int], np.ndarray]]:
    """MXNet's outputs of every node in float64, or in float32 where it has no float64."""
    graph = subject.graph
    refused = {graph.nodes[number].op for number in graph.reachable()} & ONLY_FLOAT32
    for dtype in ("float64", "float32"):
        stage = f"{dtype} nodes"
        if dtype == "float64" and (refused or stage in crashes.stages):
            continue
        crashes.enter(stage)
        try:
            oracle = subject.oracle(dtype, internals=True, left_out=crashes.left_out)
            return dtype, oracle.by_node()
        except import_mxnet().MXNetError:
            if dtype == "float32":
                raise
        finally:
            crashes.enter("")
    raise AssertionError("unreachable")


def together(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> float:
    """The largest error of all outputs as a part of the largest value of all."""
    return distance([_flat(found)], [_flat(wanted)])[0]


def _flat(outputs: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([y.reshape(-1).astype(np.float64) for y in outputs])


def find_remarks(referee: np.ndarray) -> list[str]:
    """What a comparison shows little about: outputs that many a wrong import would have too."""
    finite = referee[np.isfinite(referee)]
    said = []
    if finite.size < referee.size:
        kind = "no output is finite" if not finite.size else "some outputs are infinite or NaN"
        said.append(f"{kind}, in the same places as MXNet's")
    if finite.size > 1 and np.ptp(finite) == 0:
        said.append(f"MXNet's output is the same number everywhere ({finite[0]:g})")
    if not said:
        return []
    return [f"{'; '.join(said)}: that shows little, other inputs (--out DIR --data FILE) show more"]
