"""What Gluon saves of a net: the exported symbol, loaded again and run, and its graph."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mxnet import gluon

from parity_tests.backends.gluon.clones import clone, ndarray, release
from parity_tests.backends.gluon.numpy_mode import as_set, call
from parity_tests.backends.runs import Arrays


def artefacts(net: Any, inputs: Arrays) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """What the exported symbol computes when it is loaded again, and its graph.

    The graph is written without the names that a process counts up and without MXNet's version, so
    that equal graphs are equal files.
    """
    copied = clone(net, "float32")
    try:
        arrays = [ndarray(x, "float32") for x in inputs]
        copied.hybridize()
        live = call(copied, arrays)
        with as_set(), tempfile.TemporaryDirectory() as folder:
            stem = str(Path(folder) / "net")
            copied.export(stem)
            graph = json.loads(Path(f"{stem}-symbol.json").read_text())
            names = ["data"] if len(inputs) == 1 else [f"data{i}" for i in range(len(inputs))]
            loaded = gluon.SymbolBlock.imports(f"{stem}-symbol.json", names, f"{stem}-0000.params")
            again = call(loaded, arrays)
            release(loaded)
    finally:
        release(copied)
    values = {f"hybridized output {i}": y.asnumpy() for i, y in enumerate(live)}
    values |= {f"exported symbol's output {i}": y.asnumpy() for i, y in enumerate(again)}
    return values, {"symbol.json": _plain(graph)}


def _plain(graph: Mapping[str, Any]) -> bytes:
    nodes = [
        {
            "op": node["op"],
            "name": f"n{i}",
            "attrs": dict(sorted(node.get("attrs", {}).items())),
            "inputs": node["inputs"],
        }
        for i, node in enumerate(graph["nodes"])
    ]
    plain = {"nodes": nodes, "arg_nodes": graph["arg_nodes"], "heads": graph["heads"]}
    for node in nodes:  # what a variable carries is how it is initialised, by names
        node["attrs"] = {k: v for k, v in node["attrs"].items() if not k.startswith("__")}
    return (json.dumps(plain, indent=1) + "\n").encode()
