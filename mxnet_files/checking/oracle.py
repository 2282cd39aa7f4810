"""What MXNet itself computes for a symbol. The only module here that needs MXNet installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mxnet_files.errors import SymbolError

__all__ = ["Oracle", "import_mxnet"]


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
    return mxnet


class Oracle:
    """A symbol bound in MXNet on the CPU, every array in one dtype.

    text: the JSON; arrays: parameters by bare name; inputs: the other variables; internals: every
    node is an output; backward: `gradients` can be asked for.
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
    ) -> None:
        mxnet = import_mxnet()
        self.mx: Any = mxnet
        symbol = mxnet.sym.load_json(in_dtype(text, dtype))
        self.symbol = symbol.get_internals() if internals else symbol
        given = {**arrays, **inputs}
        self._args = {name: self._array(given[name], dtype) for name in symbol.list_arguments()}
        aux = {name: self._array(given[name], dtype) for name in symbol.list_auxiliary_states()}
        self._grads = {name: mxnet.nd.zeros_like(array) for name, array in self._args.items()}
        self._executor = self.symbol.bind(
            mxnet.cpu(),
            self._args,
            args_grad=self._grads if backward else None,
            grad_req="write" if backward else "null",
            aux_states=aux,
        )

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

    def by_node(self) -> dict[tuple[str, int], np.ndarray]:
        """Outputs of an `internals` oracle, by node name and output number."""
        document = json.loads(self.symbol.tojson())
        names = [(document["nodes"][head[0]]["name"], head[1]) for head in document["heads"]]
        return dict(zip(names, self.forward(), strict=True))


OWN = "float32"  # what an array made by the file is, unless it says otherwise
MADE_IN = {"Embedding", "_zeros", "_ones", "_full", "_arange", "_linspace", "_eye"}


def in_dtype(text: str, dtype: str) -> str:
    """The symbol without notes that pin a dtype, and the float32 arrays it makes in `dtype`."""
    document = json.loads(text)
    for node in document["nodes"]:
        for key in ("attrs", "attr", "param"):
            attributes = node.get(key, {})
            attributes.pop("__dtype__", None)
            if node["op"] in MADE_IN and key != "attr" and attributes.get("dtype", OWN) == OWN:
                attributes["dtype"] = dtype
    return json.dumps(document)
