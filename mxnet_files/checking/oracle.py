"""What MXNet itself computes for a symbol. The only module here that needs MXNet installed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from gluon_cnn_parity import memory
from gluon_cnn_parity.stderr import without_lines
from mxnet_files import operators  # noqa: F401 (fills OPERATORS)
from mxnet_files.errors import SymbolError
from mxnet_files.registry import OPERATORS

SUBGRAPH_BACKEND = "MXNET_SUBGRAPH_BACKEND"


def import_mxnet() -> Any:
    """The package. Raises: ModuleNotFoundError without it, SymbolError for an untried version."""
    try:
        import mxnet_compat

        mxnet_compat.install()  # first: MXNet beside a current numpy
        import mxnet
    except ModuleNotFoundError:
        message = "MXNet is not installed: nothing to check against"
        raise ModuleNotFoundError(message, name="mxnet") from None
    except ImportError as error:
        raise SymbolError(str(error)) from None
    memory.after_mxnet()
    return mxnet


@contextmanager
def unfused() -> Iterator[None]:
    """While open, graphs that are bound keep their operators.

    MXNet 1.9.1 fuses a convolution with the BatchNorm after it even where something else uses the
    convolution, too: the result is wrong, or it fails to bind, taking the running statistics for
    arguments.
    """
    kept = os.environ.get(SUBGRAPH_BACKEND)
    os.environ[SUBGRAPH_BACKEND] = "NONE"
    try:
        yield
    finally:
        if kept is None:
            del os.environ[SUBGRAPH_BACKEND]
        else:
            os.environ[SUBGRAPH_BACKEND] = kept


def without_subgraph_lines() -> AbstractContextManager[None]:
    """Keep MXNet's line about each graph that it binds from stderr; it has no switch for it."""
    return without_lines(b"SUBGRAPH_BACKEND", b"Subgraph backend")


class Oracle:
    """A symbol bound in MXNet on the CPU, every array in one dtype.

    text: the JSON; arrays: parameters by bare name; inputs: the other variables; internals: every
    node is an output, but for the numbers `left_out`; backward: `gradients` can be asked for; fuse:
    leave the choice of backend to the environment, as a user's own program does; the graph's
    operators run one by one without.
    """

    def __init__(
        self,
        text: str,
        arrays: Mapping[str, np.ndarray],
        inputs: Mapping[str, np.ndarray],
        dtype: str = "float64",
        *,
        internals: bool = False,
        backward: bool = False,
        fuse: bool = False,
        left_out: Collection[int] = (),
    ) -> None:
        mxnet = import_mxnet()
        self.mx: Any = mxnet
        document = in_dtype(text, dtype)
        self._numbers = name_apart(document) if internals else {}
        # MXNet's reader knows no \\u in strings
        symbol = mxnet.sym.load_json(json.dumps(document, ensure_ascii=False))
        self.symbol = self._nodes(symbol.get_internals(), left_out) if internals else symbol
        given = {**arrays, **inputs}
        self._args = {name: self._array(given[name], dtype) for name in symbol.list_arguments()}
        aux = {name: self._array(given[name], dtype) for name in symbol.list_auxiliary_states()}
        self._grads: dict[str, Any] = {}
        if backward:
            self._grads = {name: mxnet.nd.zeros_like(array) for name, array in self._args.items()}
        with nullcontext() if fuse else unfused(), without_subgraph_lines():
            self._executor = self.symbol.bind(
                mxnet.cpu(),
                self._args,
                args_grad=self._grads if backward else None,
                grad_req="write" if backward else "null",
                aux_states=aux,
            )

    def _nodes(self, internals: Any, left_out: Collection[int]) -> Any:
        """The outputs of all nodes, or of all but those that are left out."""
        if not left_out:
            return internals
        document = json.loads(internals.tojson())
        names = [document["nodes"][head[0]]["name"] for head in document["heads"]]
        kept = [
            internals[place]
            for place, name in enumerate(names)
            if name in self._numbers and self._numbers[name] not in left_out
        ]
        return self.mx.sym.Group(kept)

    def _array(self, array: np.ndarray, dtype: str) -> Any:
        kind = dtype if np.issubdtype(array.dtype, np.floating) else array.dtype
        return self.mx.nd.array(array, dtype=kind)

    def forward(self, train: bool = False) -> list[np.ndarray]:
        """The outputs."""
        return [output.asnumpy() for output in self._executor.forward(is_train=train)]

    def gradients(self, heads: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients of every argument for the given output gradients, in training mode."""
        self._executor.forward(is_train=True)
        outputs = zip(heads, self._executor.outputs, strict=True)
        self._executor.backward([self.mx.nd.array(head, dtype=y.dtype) for head, y in outputs])
        return {name: array.asnumpy() for name, array in self._grads.items()}

    def auxiliary(self) -> dict[str, np.ndarray]:
        """The auxiliary states as they are now."""
        return {name: array.asnumpy() for name, array in self._executor.aux_dict.items()}

    def by_node(self) -> dict[tuple[int, int], np.ndarray]:
        """Outputs of an `internals` oracle, by the node's number in the file and the output's.

        Those in float64 are MXNet's own memory: there may be gigabytes of them.
        """
        document = json.loads(self.symbol.tojson())
        names = [(document["nodes"][head[0]]["name"], head[1]) for head in document["heads"]]
        found = self._executor.forward(is_train=False)
        return {
            (self._numbers[name], output): value
            for (name, output), value in zip(names, map(shared, found), strict=True)
            if name in self._numbers
        }


def shared(array: Any) -> np.ndarray:
    """What an array of MXNet holds; in float64, which oneDNN does not rearrange, without a copy."""
    if array.size == 0 or array.dtype != np.float64:
        return array.asnumpy()
    return torch.from_dlpack(array.to_dlpack_for_read()).numpy()


def name_apart(document: Any) -> dict[str, int]:
    """Give operator nodes names of their own, where a name repeats; each one's number by name.

    A block that is called twice has its name on two nodes, and MXNet keeps them apart by name only.
    """
    nodes = document["nodes"]
    counts = Counter(node["name"] for node in nodes)
    numbers: dict[str, int] = {}
    for number, node in enumerate(nodes):
        if node["op"] == "null":
            continue
        name = node["name"]
        if counts[name] > 1:
            node["name"] = f"{name}~{number}"
            while counts[node["name"]]:
                node["name"] += "~"
            counts[node["name"]] += 1
        numbers[node["name"]] = number
    return numbers


def in_dtype(text: str, dtype: str) -> Any:
    """The parsed symbol without notes that pin a dtype; in `dtype` what it asks for in float32."""
    document = json.loads(text)
    set_dtype(document, dtype)
    return document


def set_dtype(document: Any, dtype: str) -> None:
    """Change a parsed symbol so, and those within it."""
    for node in document["nodes"]:
        for key in ("attrs", "attr", "param"):
            node.get(key, {}).pop("__dtype__", None)
        written = next((key for key in ("param", "attrs", "attr") if key in node), "attrs")
        attributes = node.setdefault(written, {})
        operator = OPERATORS.get(node["op"])
        if operator is not None and operator.gives_float32(attributes):
            attributes["dtype"] = dtype
        for graph in node.get("subgraphs", ()):
            set_dtype(graph, dtype)
