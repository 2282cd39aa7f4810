"""From files to a module."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import fx

from mxnet_files.build import build_module, strip_prefixes
from mxnet_files.errors import SymbolError
from mxnet_files.reading.params_file import ParamsFileError, read_params
from mxnet_files.reading.reader import SymbolGraph, read_graph, read_symbol

__all__ = ["import_symbol", "load_symbol"]


def load_symbol(
    symbol: str | os.PathLike[str],
    params: str | os.PathLike[str] | None = None,
    *,
    inputs: Sequence[str] | None = None,
) -> fx.GraphModule:
    """Import `x-symbol.json` and `x-0000.params` as a torch module, in eval mode.

    symbol, params: the two files that `HybridBlock.export` or `save_checkpoint` wrote; a graph
        without parameters needs no second file.
    inputs: names of the variables that `forward` takes, in that order. Default: every variable that
        the parameters lack, in file order; labels of output layers come last and are optional.

    The module's keys are MXNet's names (`module.meta["mxnet_names"]` maps those that had to
    change), auxiliary states are buffers, and several heads give a tuple. Arrays that the graph
    does not use are left out with a warning. Nothing in either file is executed.

    Raises `SymbolError` (a `ValueError`) for files that are damaged, do not fit together, or use
    operators outside the supported ones (all of them are listed); `OSError` if one cannot be read.
    """
    graph = read_symbol(symbol)
    try:
        arrays = {} if params is None else read_params(params)
    except ParamsFileError as error:
        raise SymbolError(str(error)) from None
    return _import(graph, arrays, inputs)


def import_symbol(
    document: Any, arrays: Mapping[str, np.ndarray], *, inputs: Sequence[str] | None = None
) -> fx.GraphModule:
    """As `load_symbol`, from the parsed JSON and the arrays; arg: and aux: are optional."""
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
