"""From files to a module."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx

from mxnet_files.build import build_module
from mxnet_files.errors import SymbolError
from mxnet_files.reading.params_file import ParamsFileError, read_params, strip_prefixes
from mxnet_files.reading.reader import SymbolGraph, read_graph, read_symbol

__all__ = ["import_symbol", "load_symbol"]


def load_symbol(
    symbol: str | os.PathLike[str],
    params: str | os.PathLike[str] | None = None,
    *,
    inputs: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
) -> fx.GraphModule:
    """Import `x-symbol.json` and `x-0000.params` as a torch module, in eval mode.

    The module's keys are MXNet's names (`module.meta["mxnet_names"]` maps those that had to
    change), auxiliary states are buffers, and several heads give a tuple. Arrays that the graph
    does not use are left out with a warning. Nothing in either file is executed.

        module = load_symbol("lenet-symbol.json", "lenet-0000.params")
        logits = module(torch.zeros(1, 1, 28, 28))  # (1, 10)

    Args:
        symbol: the graph that `HybridBlock.export` or `save_checkpoint` wrote.
        params: the parameters that it wrote beside; a graph without parameters needs none.
        inputs: names of the variables that `forward` takes, in that order. Default: every variable
            that the parameters lack, in file order; labels of output layers come last and are
            optional.
        heads: names of the nodes that are the outputs, `name:1` for a second output. Default: the
            file's own. What they do not need is not read: `heads=["detection"]` opens a training
            graph whose losses are not supported.

    Returns:
        A module that takes tensors of MXNet's shapes and layouts, such as float32 (N, C, H, W).

    Raises:
        SymbolError: files that are damaged, do not fit together, or use operators outside the
            supported ones (all of them are listed). A `ValueError`.
        OSError: one of them cannot be read.
    """
    graph = read_symbol(symbol)
    if heads is not None:
        graph = graph.with_heads(heads)
    try:
        arrays = {} if params is None else read_params(params)
    except ParamsFileError as error:
        raise SymbolError(str(error)) from None
    return _import(graph, arrays, inputs)


def import_symbol(
    document: Any, arrays: Mapping[str, np.ndarray], *, inputs: Sequence[str] | None = None
) -> fx.GraphModule:
    """As `load_symbol`, from the parsed JSON and the arrays.

    Args:
        document: what `json.load` gives for a `*-symbol.json` file.
        arrays: parameters by name; the prefixes `arg:` and `aux:` are optional.
        inputs: as for `load_symbol`.

    Returns:
        The module, as `load_symbol` gives it.

    Raises:
        SymbolError: as for `load_symbol`.

    Examples:
        >>> import torch
        >>> variable = {"op": "null", "name": "data", "inputs": []}
        >>> relu = {"op": "relu", "name": "relu0", "inputs": [[0, 0, 0]]}
        >>> graph = {"nodes": [variable, relu], "arg_nodes": [0], "heads": [[1, 0, 0]]}
        >>> module = import_symbol(graph, {})
        >>> module(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    return _import(read_graph(document), arrays, inputs)


def _import(
    graph: SymbolGraph, arrays: Mapping[str, np.ndarray], inputs: Sequence[str] | None
) -> fx.GraphModule:
    module = build_module(graph, arrays, inputs)
    used = set(module.meta["mxnet_names"].values())
    unused = [name for name in strip_prefixes(arrays)[0] if name not in used]
    if unused:
        shown = ", ".join(unused[:5]) + (" …" if len(unused) > 5 else "")
        warnings.warn(f"arrays that the graph does not use ({len(unused)}): {shown}", stacklevel=3)
    return module
