"""What an exported net ought to compute, from the live net alone: never from the files.

Every node of the live net's own trace is run in float64, along the net and alone on values rounded
to float32; the sizes of what is rounded, and how far that rounding may carry the outputs, come with
it. Bounds are those of the operators' table.

Framework specific (mxnet, torch): the trace is a symbol, and its float64 run a torch.fx graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mxnet as mx
import numpy as np
import torch
from mxnet.gluon import HybridBlock

from mxnet_files import SymbolError, import_symbol
from mxnet_files.checking.local import Walker
from mxnet_files.running import in_float64
from parity_tests.backends.gluon import clones as gluon_clones
from parity_tests.backends.gluon import runs as gluon_side
from parity_tests.backends.gluon.leaves import leaves
from parity_tests.backends.runs import NetRun, is_float
from parity_tests.levels.artefacts.exported import (
    EntryWalker,
    Values,
    Workspace,
    bound,
    mxnet_alone,
)  # fmt: skip
from parity_tests.levels.artefacts.graphs import Entry, Graph, trace
from parity_tests.levels.envelope import DRAWS
from parity_tests.numerics.compare import UNIT
from parity_tests.numerics.operators.table import kind_of_symbol, operator_of, tolerance
from parity_tests.numerics.perturb import largest_move

Arrays = Mapping[str, np.ndarray]


@dataclass
class Truth:
    """The live net's graph and values; `scales` and `deviations` are empty where torch lacks an
    operator (`unsupported` says which)."""

    graph: Graph
    parameters: dict[str, np.ndarray]  # float32, by full name
    owners: dict[str, str]  # Gluon path of the leaf that has a parameter
    auxiliary: set[str]
    single: Values  # float32, along the net: the imperative net's own at the end of a leaf
    imperative: set[Entry]  # whose value is the imperative net's own
    double: Values  # float64, each node alone on float32 values
    outputs: list[np.ndarray]  # float32, of the imperative net
    referee: list[np.ndarray]  # float64
    scales: Values
    deviations: list[float]
    unsupported: str = ""

    def factor(self, entry: Entry) -> float:
        """How many u·s a node may be off."""
        op, attributes = self.graph.operators[entry[0]]
        kind, length = _kind(op, attributes, self.double[entry], self.inputs_size(entry))
        return tolerance(kind, "inference", "gluon", "float32").factor(length)

    def inputs_size(self, entry: Entry) -> int:
        """Values in a node's first input; 0 where that is not a node."""
        nodes, places = self.graph.document["nodes"], self.graph.entries
        by_place = {place: e for e, place in places.items()}
        first = nodes[places[entry][0]]["inputs"][:1]
        source = by_place.get((first[0][0], first[0][1])) if first else None
        return 0 if source is None else self.double[source].size


def _kind(op: str, attributes: Mapping[str, str], y: np.ndarray, size: int) -> tuple[str, int]:
    """Kind in the tolerance table, and the length of the sum, of a node of the graph."""
    pools = op == "Pooling" and attributes.get("pool_type") in ("avg", "sum")
    kind = kind_of_symbol("mean" if pools else op)
    if pools and attributes.get("global_pool") not in ("True", "1"):
        window = json.loads("[" + attributes["kernel"].strip("()[] ,") + "]")
        return kind, int(np.prod(window))
    if operator_of(kind).pool:
        return kind, max(1, size // max(1, y.size))
    return kind, y.shape[-1] if "softmax" in kind else 1


def find_truth(net: HybridBlock, space: Workspace) -> Truth:
    """Run the live net and its trace; fills `space.stand_ins`. Raises what MXNet raises."""
    graph = Graph(json.loads(trace(net, len(space.inputs)).tojson()))
    copied = gluon_clones.clone(net, "float32", gradients=False)
    parameters = {n: p.data().asnumpy() for n, p in copied.collect_params().items()}
    symbol = mx.sym.load_json(json.dumps(graph.document))
    along = {
        dtype: dict(
            zip(graph.entries, bound(graph.opened(), parameters, space.inputs, dtype), strict=True)
        )
        for dtype in ("float32", "float64")
    }
    space.stand_ins = {e: _rounded(value) for e, value in along["float64"].items()}
    double = mxnet_alone(graph, parameters, space, "float64")
    inputs = tuple(space.inputs.values())
    run = gluon_side.run_net(net, inputs, "float32")
    own = _of_leaves(graph, run)
    walker, unsupported = None, ""
    try:
        module = in_float64(import_symbol(graph.document, parameters))
        walker = _Sizes(module, graph, space, double)
        _walk(walker, space)
    except (SymbolError, RuntimeError) as error:
        walker, unsupported = None, str(error).strip().splitlines()[0]
    truth = Truth(
        graph=graph,
        parameters=parameters,
        owners={
            p.name: leaf.path for leaf in leaves(copied) for p in leaf.block._reg_params.values()
        },
        auxiliary=set(symbol.list_auxiliary_states()),
        single={**along["float32"], **own},
        imperative=set(own),
        double=double,
        outputs=list(run.outputs),
        referee=bound(graph, parameters, space.inputs, "float64"),
        scales={} if walker is None else walker.sizes_of,
        deviations=[],
        unsupported=unsupported,
    )
    if walker is not None:
        truth.deviations = _deviations(walker.module, truth, space)
    return truth


def _rounded(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if is_float(value) else value


def _of_leaves(graph: Graph, run: NetRun) -> Values:
    """The imperative net's values for the last nodes of each call of a leaf."""
    last: dict[str, list[Entry]] = {}
    paths = graph.paths
    for entry in graph.entries:
        if entry[0] in paths:
            last.setdefault(paths[entry[0]], []).append(entry)
    values: Values = {}
    for label, entries in last.items():
        call, _, path = label.partition(" ")
        calls = run.calls.get(path, [])
        outputs = calls[int(call)].outputs if int(call) < len(calls) else ()
        if 0 < len(outputs) <= len(entries):
            values.update(zip(entries[-len(outputs) :], outputs, strict=True))
    return values


def _walk(walker: Walker, space: Workspace) -> Any:
    module: Any = walker.module
    names = module.meta["mxnet_inputs"].values()
    x = [space.inputs[name] for name in names if name in space.inputs]
    with torch.no_grad():
        return walker.run(
            *(torch.from_numpy(v.astype(np.float64) if is_float(v) else v) for v in x)
        )


class _Sizes(EntryWalker):
    """The size of what each node rounds, alone on the given values."""

    def __init__(self, module: Any, graph: Graph, space: Workspace, double: Values) -> None:
        super().__init__(module, graph.names)
        self.space, self.double = space, double
        self.sizes_of: Values = {}

    def seen(self, n: torch.fx.Node, result: Any) -> Any:
        entry = self.entry(n)
        if entry not in self.double or not isinstance(result, torch.Tensor):
            return None
        size = self.size(n, torch.from_numpy(self.double[entry]))
        self.sizes_of[entry] = np.zeros(1) if size is None else size.double().numpy()
        passed = torch.from_numpy(self.space.stand_ins[entry])
        return passed.to(result.dtype)


class _Noise(EntryWalker):
    """Adds to what each node gives: a bound is four standard deviations."""

    def __init__(self, module: Any, names: list[str], sigmas: Values, draw: int) -> None:
        super().__init__(module, names)
        self.sigmas, self.draw = sigmas, draw
        self.generator = np.random.default_rng(draw)

    def seen(self, n: torch.fx.Node, result: Any) -> Any:
        sigma = self.sigmas.get(self.entry(n))
        if sigma is None or not isinstance(result, torch.Tensor) or not sigma.any():
            return None
        shape = tuple(result.shape)
        if self.draw % 2 and len(shape) > 1:  # one for a channel: what moves together adds up
            shape = (1, shape[1]) + (1,) * (len(shape) - 2)
        return result + torch.from_numpy(sigma * self.generator.standard_normal(shape))


def _deviations(module: Any, truth: Truth, space: Workspace) -> list[float]:
    """The largest move of each output under float32's rounding at every node."""
    unit, names = UNIT["float32"] / 4, truth.graph.names
    sigmas = {e: truth.factor(e) * unit * size for e, size in truth.scales.items()}
    deviations = [0.0] * len(truth.referee)
    for draw in range(DRAWS):
        outputs = _walk(_Noise(module, names, sigmas, draw), space)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for place, (noisy, clean) in enumerate(zip(outputs, truth.referee, strict=True)):
            deviations[place] = max(deviations[place], largest_move(noisy.numpy(), clean))
    return deviations
