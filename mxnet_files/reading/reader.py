"""A `*-symbol.json` file as a checked graph: no framework, nothing executed.

The format is NNVM's: a list of nodes in topological order, each `{"op", "name", "inputs"}` with its
attributes under `attrs` (since 1.0), `attr` (0.9 to 0.12) or `param` (0.8, where `attr` holds the
user's own notes), and `heads` naming the outputs. Two things changed meaning with time:

- before 0.9 auxiliary states (BatchNorm's moving mean and variance) were not inputs; a node that
  lacks trailing inputs gets variables named `{node}_{input}` (`complete_inputs` in `build`);
- before 0.9.5 `axis=-1` of argmax and argmin was the default and meant the whole array.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gluon_cnn_parity import did_you_mean
from mxnet_files.errors import SymbolError
from mxnet_files.reading.params_file import FILE_MAGIC

LARGEST_FILE = 64 * 2**20  # bytes; the largest file of the model zoo has 0.7 MB
JOINED = "_sg_"  # begins the names of what MXNet's backends make of several operators
DEEPEST = 4  # loops and branches within one another
MOST_NODES = 50_000  # a cell unrolled over a thousand steps has 20,000
MOST_VALUES = 4_000_000  # of JSON, each of which takes some 100 bytes
LONGEST_NAME = 1_024  # characters
OLDEST = 800  # the version of files that carry none (MXNet's own reader assumes the same)


@dataclass(frozen=True)
class Entry:
    """Output `index` of node number `node`."""

    node: int
    index: int


@dataclass(frozen=True)
class Node:
    """One node as written. `op` is `null` for a variable (an input or a parameter)."""

    op: str
    name: str
    inputs: tuple[Entry, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    strict: bool = True  # False in 0.8 files, whose attributes mix the user's with the operator's
    inner: tuple[SymbolGraph, ...] = ()  # what is fused, or what a loop or a branch runs

    @property
    def where(self) -> str:
        """How errors call this node."""
        return f"node {self.name!r} ({self.op})"


@dataclass(frozen=True)
class SymbolGraph:
    """All nodes, inputs before users; `heads` are the outputs; `version` e.g. 10901 for 1.9.1.

    `np_shape`: written where `mx.np`'s shapes were on, among which () is one.
    """

    nodes: tuple[Node, ...]
    heads: tuple[Entry, ...]
    version: int = OLDEST
    np_shape: bool = False

    def reachable(self) -> list[int]:
        """Numbers of the nodes that the heads need, in file order."""
        return sorted(self._met())

    def operations(self) -> Iterator[Node]:
        """The nodes that the heads need, variables apart, and those of their subgraphs."""
        for number in self.reachable():
            node = self.nodes[number]
            if node.op != "null":
                yield node
                for graph in node.inner:
                    yield from graph.operations()

    def variables(self) -> list[int]:
        """Numbers of the variables in the order in which MXNet meets them from the heads."""
        return [number for number in self._met() if self.nodes[number].op == "null"]

    def _met(self) -> Iterable[int]:
        """Numbers of the nodes in the order in which MXNet meets them from the heads."""
        seen: dict[int, None] = {}
        stack = [head.node for head in reversed(self.heads)]
        while stack:
            number = stack.pop()
            if number not in seen:
                seen[number] = None
                stack.extend(entry.node for entry in reversed(self.nodes[number].inputs))
        return seen

    def with_heads(self, names: Sequence[str]) -> SymbolGraph:
        """The graph with other outputs: nodes by name, `split0:1` for a node's second output.

        `softmax_output` is `softmax`, as MXNet writes it. Raises `SymbolError`.
        """
        return replace(self, heads=tuple(self._head(name) for name in names))

    def _head(self, text: str) -> Entry:
        name, _, index = text.rpartition(":")
        if not (name and index.isascii() and index.isdigit() and len(index) < 10):
            name, index = text, "0"
        found: list[int] = []
        for wanted in (name, name.removesuffix("_output")):
            found = found or [
                number
                for number, node in enumerate(self.nodes)
                if node.name == wanted and node.op != "null"
            ]
        if len(found) != 1:
            problem = f"is the name of {len(found)} nodes" if found else "is no node of the graph"
            own = ", ".join(self.nodes[head.node].name for head in self.heads[:5])
            names = [node.name for node in self.nodes if node.op != "null"]
            near = did_you_mean(name[:60], names)
            raise SymbolError(f"head {text[:60]!r} {problem}, whose own heads are {own}{near}")
        return Entry(found[0], int(index))


def read_symbol(path: str | os.PathLike[str]) -> SymbolGraph:
    """Read and check a symbol file. Raises `SymbolError`, and `OSError` if it cannot be opened."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise SymbolError(f"{path}: expected a regular file")
    with open(path, "rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if data.startswith(FILE_MAGIC.to_bytes(16, "little")):
        raise SymbolError(
            f"{path}: this is a .params file, expected a *-symbol.json: are the two exchanged?"
        )
    if len(data) > LARGEST_FILE:
        raise SymbolError(f"{path}: more than {LARGEST_FILE >> 20} MiB, no symbol file is so large")
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:  # all but the first value follow one
        raise SymbolError(f"{path}: more than {MOST_VALUES:,} values, no symbol file has so many")
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        detail = "nested too deep" if isinstance(error, RecursionError) else error
        raise SymbolError(f"{path}: not the JSON of a symbol file ({detail})") from None
    return read_graph(document, str(path))


def read_graph(
    document: Any, where: str = "symbol", outer_version: int | None = None, depth: int = 0
) -> SymbolGraph:
    """Check a parsed symbol file. Raises `SymbolError`.

    `outer_version` is that of the file, for a graph inside `depth` nodes of it.
    """
    if depth > DEEPEST:
        raise SymbolError(f"{where}: more than {DEEPEST} subgraphs within one another")
    if not isinstance(document, dict) or not {"nodes", "heads"} <= document.keys():
        raise SymbolError(f"{where}: expected an object with 'nodes' and 'heads' (a symbol file)")
    rows = _list(document["nodes"], f"{where}: nodes", MOST_NODES)
    if not rows:
        raise SymbolError(f"{where}: no nodes; an exported symbol has at least one")
    attrs = document.get("attrs", {})
    version = outer_version or _version(attrs, where)
    counts = len(rows)
    nodes = tuple(_node(row, number, version, where, depth) for number, row in enumerate(rows))
    heads = tuple(
        _entry(head, counts, f"{where}: head {number}")
        for number, head in enumerate(_list(document["heads"], f"{where}: heads", MOST_NODES))
    )
    if not heads:
        raise SymbolError(f"{where}: no heads, so the graph has no output")
    for number in _list(document.get("arg_nodes", []), f"{where}: arg_nodes", MOST_NODES):
        if not _is_count(number) or number >= counts or nodes[number].op != "null":
            raise SymbolError(f"{where}: arg_nodes names {number!r:.40}, which is no variable")
    np_shape = isinstance(attrs, dict) and attrs.get("is_np_shape") == ["int", 1]
    return SymbolGraph(nodes, heads, version, np_shape)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise SymbolError(f"{where}: expected a list of at most {most:,}")
    return value


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise SymbolError(f"{where}: {key} must be a string of at most {LONGEST_NAME} characters")
    return value


def _version(attrs: Any, where: str) -> int:
    """`{"mxnet_version": ["int", 10901]}` -> 10901."""
    written = attrs.get("mxnet_version") if isinstance(attrs, dict) else None
    if written is None:
        return OLDEST
    if not (isinstance(written, list) and len(written) == 2 and _is_count(written[1])):
        raise SymbolError(f"{where}: mxnet_version {written!r:.60}, expected ['int', 10901]")
    return written[1]


def _entry(value: Any, nodes: int, where: str) -> Entry:
    """`[node, output]` or `[node, output, version]`, the node below `nodes`."""
    if not (isinstance(value, list) and 2 <= len(value) <= 3 and all(map(_is_count, value))):
        raise SymbolError(f"{where}: {value!r:.60}, expected [node, output]")
    if value[0] >= nodes:
        raise SymbolError(f"{where}: node {value[0]} does not come before (cycle or cut-off file)")
    return Entry(value[0], value[1])


def _strings(row: Mapping[str, Any], key: str, where: str) -> dict[str, str]:
    value = row.get(key, {})
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise SymbolError(f"{where}: {key} must map names to strings")
    return value


def _node(row: Any, number: int, version: int, where: str, depth: int) -> Node:
    where = f"{where}: node {number}"
    if not isinstance(row, dict):
        raise SymbolError(f"{where}: {row!r:.60}, expected an object with op, name and inputs")
    op, name = _text(row, "op", where), _text(row, "name", where)
    where = f"{where} {name[:60]!r}"
    inputs = tuple(
        _entry(value, number, f"{where}: input {place}")
        for place, value in enumerate(_list(row.get("inputs", []), f"{where}: inputs", MOST_NODES))
    )
    if op == "null" and inputs:
        raise SymbolError(f"{where}: a variable (op null) has inputs")
    attributes = {
        **_strings(row, "param", where),
        **_strings(row, "attr", where),
        **_strings(row, "attrs", where),
    }
    if version < 905 and op in ("argmax", "argmin") and attributes.get("axis") == "-1":
        del attributes["axis"]
    graphs = _list(row.get("subgraphs", []), f"{where}: subgraphs", MOST_NODES)
    if op.startswith(JOINED) and graphs and (len(graphs) > 1 or depth):
        raise SymbolError(f"{where}: {len(graphs)} subgraphs, expected one, without others inside")
    inner = tuple(read_graph(each, f"{where}: subgraph", version, depth + 1) for each in graphs)
    return Node(op, name, inputs, attributes, strict="param" not in row, inner=inner)
