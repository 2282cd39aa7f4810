"""A symbol's graph as its JSON says it: which leaf each node is of, all nodes as outputs, and cut.

Cut, every node reads given arrays in the place of what other nodes compute, so that one run judges
each of them alone.

Framework specific (mxnet): a symbol is MXNet's own kind of graph.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import mxnet as mx
from mxnet.gluon import HybridBlock

from parity_tests.backends.base import leaves_of
from parity_tests.backends.gluon import clones as gluon_clones

LEAF = "__leaf__"  # MXNet keeps attributes of its own form alone: two underscores around

# A node's name, made unique, and the number of its output.
Entry = tuple[str, int]


@dataclass(frozen=True)
class Graph:
    """The parsed JSON of a symbol file."""

    document: dict[str, Any]

    @cached_property
    def names(self) -> list[str]:
        """A unique name for each node: what MXNet's ONNX converter calls those that repeat."""
        unique: dict[str, None] = {}
        for number, node in enumerate(self.document["nodes"]):
            name = str(node["name"])
            unique[f"idx_{number}_{name}" if name in unique else name] = None
        return list(unique)

    @cached_property
    def entries(self) -> dict[Entry, tuple[int, int]]:
        """Every output of an operator that a node or a head uses, in the order of computation."""
        nodes, names = self.document["nodes"], self.names
        used = {(e[0], e[1]) for node in nodes for e in node["inputs"]}
        used |= {(head[0], head[1]) for head in self.document["heads"]}
        places = sorted(place for place in used if nodes[place[0]]["op"] != "null")
        return {(names[number], index): (number, index) for number, index in places}

    @cached_property
    def paths(self) -> dict[str, str]:
        """The leaf of each node that was traced within one: `path call` by the node's name."""
        pairs = zip(self.names, self.document["nodes"], strict=True)
        return {name: node["attrs"][LEAF] for name, node in pairs if LEAF in node.get("attrs", {})}

    @cached_property
    def operators(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Operator and attributes by the node's name."""
        pairs = zip(self.names, self.document["nodes"], strict=True)
        return {
            name: (node["op"], node.get("attrs", {}))
            for name, node in pairs
            if node["op"] != "null"
        }

    def opened(self) -> Graph:
        """The graph with every entry as an output."""
        return self._with(self.document["nodes"], self.entries.values())

    def cut(self) -> Graph:
        """The graph with every entry as an output, and read from a variable `stand_in(entry)`."""
        nodes: list[dict[str, Any]] = []
        moved: dict[tuple[int, int], int] = {}  # where an entry of the graph is read from
        heads: list[tuple[int, int]] = []
        places = {place: entry for entry, place in self.entries.items()}
        for number, node in enumerate(self.document["nodes"]):
            inputs = [[moved[e[0], e[1]], 0, 0] for e in node["inputs"]]
            nodes.append({**node, "inputs": inputs})
            if node["op"] == "null":
                moved[number, 0] = len(nodes) - 1
                continue
            place = len(nodes) - 1
            for (owner, index), entry in places.items():
                if owner == number:
                    heads.append((place, index))
                    nodes.append({"op": "null", "name": stand_in(entry), "inputs": []})
                    moved[number, index] = len(nodes) - 1
        return self._with(nodes, heads)

    def _with(self, nodes: list[dict[str, Any]], heads: Any) -> Graph:
        document = {k: v for k, v in self.document.items() if k not in ("nodes", "node_row_ptr")}
        document = copy.deepcopy(document)
        document["nodes"] = nodes
        document["arg_nodes"] = [i for i, node in enumerate(nodes) if node["op"] == "null"]
        document["heads"] = [[number, index, 0] for number, index in heads]
        return Graph(document)


def stand_in(entry: Entry) -> str:
    """The variable that stands for an entry in a cut graph."""
    return f"given({entry[0]}, {entry[1]})"


def inputs_of(count: int) -> list[str]:
    """What Gluon's export calls the inputs of a net."""
    return ["data"] if count == 1 else [f"data{number}" for number in range(count)]


def trace(net: HybridBlock, count: int) -> mx.sym.Symbol:
    """The symbol of a net with `count` inputs, each node marked with its leaf and the call."""
    copied = gluon_clones.clone(net, None, gradients=False)
    for leaf in leaves_of(copied):
        leaf.block.__dict__["forward"] = _marked(leaf.path, leaf.block.forward)
    outputs = copied(*(mx.sym.var(name) for name in inputs_of(count)))
    flat = list(_flat(outputs))
    return flat[0] if len(flat) == 1 else mx.sym.Group(flat)


def _marked(path: str, forward: Any) -> Any:
    calls = iter(range(10**6))

    def marked(*args: Any) -> Any:
        with mx.AttrScope(**{LEAF: f"{next(calls)} {path}"}):
            return forward(*args)

    return marked


def _flat(outputs: Any) -> Iterator[mx.sym.Symbol]:
    if isinstance(outputs, (list, tuple)):
        for output in outputs:
            yield from _flat(output)
    else:
        yield outputs
