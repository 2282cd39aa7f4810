"""What torch saves of a net: its state, loaded again, and the traced graph, both run."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import torch

from parity_tests.backends.runs import Arrays
from parity_tests.backends.torch.clones import clone


def artefacts(net: Any, inputs: Arrays) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """What a saved and loaded state and the traced graph compute, and the graph.

    The graph is torch.fx's, by operations and paths.
    """
    copied = clone(net, "float32").eval()
    tensors = [torch.from_numpy(x.astype(np.float32)) for x in inputs]
    buffer = io.BytesIO()
    torch.save(copied.state_dict(), buffer)
    buffer.seek(0)
    loaded = clone(net, "float32").eval()
    with torch.no_grad():
        for value in loaded.state_dict().values():
            value.zero_()
        loaded.load_state_dict(torch.load(buffer, weights_only=True))
        graph = _Tracer().trace(copied)
        traced = torch.fx.GraphModule(copied, graph)
        values = {
            "loaded state's output": loaded(*tensors).numpy(),
            "traced graph's output": traced(*tensors).numpy(),
        }
    nodes = [
        {"op": n.op, "target": _target(n.target), "inputs": [str(i) for i in n.all_input_nodes]}
        for n in graph.nodes
    ]
    return values, {"graph.json": (json.dumps({"nodes": nodes}, indent=1) + "\n").encode()}


class _Tracer(torch.fx.Tracer):
    """Looks into containers alone: a leaf may decide by its input's shape."""

    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children())


def _target(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
