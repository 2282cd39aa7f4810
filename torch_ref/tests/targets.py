"""MXNet's and torch's files, as fuzzing targets: all of them are read here without MXNet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn_data.tests.fuzzing import Target, one_line_errors
from mxnet_files.errors import SymbolError
from mxnet_files.load import load_symbol
from mxnet_files.reading.params_file import ParamsFileError, parse_params, write_params
from mxnet_files.reading.tensor_files import TensorFileError, read_tensors, write_tensors

_SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")
_FOLDER = Path(_SCRATCH.name)
_ARRAYS: dict[str, np.ndarray] = {
    "fc_weight": np.ones((2, 3), np.float32),
    "b": np.arange(4, dtype=np.int64),
    "h": np.ones((1, 2, 2), np.float16),
}


def check_params(content: bytes) -> None:
    with one_line_errors(ParamsFileError):
        parse_params(content)


def params_seeds() -> Sequence[bytes]:
    path = _FOLDER / "seed.params"
    write_params(path, _ARRAYS)
    return [path.read_bytes()]


def _check_tensors(suffix: str, content: bytes) -> None:
    path = _FOLDER / f"x{suffix}"
    path.write_bytes(content)
    with one_line_errors(TensorFileError):
        read_tensors(path)


def _tensor_seeds(suffix: str) -> Sequence[bytes]:
    path = _FOLDER / f"seed{suffix}"
    write_tensors(path, _ARRAYS)
    return [path.read_bytes()]


def check_symbol(content: bytes) -> None:
    path = _FOLDER / "x-symbol.json"
    path.write_bytes(content)
    with one_line_errors(SymbolError):
        load_symbol(path)


def symbol_seeds() -> Sequence[bytes]:
    """Operators that take parameters, sizes and axes from the file."""
    nodes = [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "data2", "inputs": []},
        {"op": "Reshape", "name": "r", "attrs": {"shape": "(0, -1)"}, "inputs": [[0, 0, 0]]},
        {"op": "elemwise_add", "name": "s", "inputs": [[2, 0, 0], [1, 0, 0]]},
        {"op": "clip", "name": "c", "attrs": {"a_min": "0.0", "a_max": "6.0"},
         "inputs": [[3, 0, 0]]},
        {"op": "Pooling", "name": "p", "attrs": {"kernel": "(2, 2)", "pool_type": "max",
         "stride": "(2, 2)", "pad": "(1, 1)"}, "inputs": [[0, 0, 0]]},
        {"op": "transpose", "name": "t", "attrs": {"axes": "(0, 2, 3, 1)"}, "inputs": [[5, 0, 0]]},
        {"op": "sum", "name": "u", "attrs": {"axis": "1", "keepdims": "True"},
         "inputs": [[6, 0, 0]]},
    ]  # fmt: skip
    document = {
        "nodes": nodes,
        "arg_nodes": [0, 1],
        "node_row_ptr": list(range(len(nodes) + 1)),
        "heads": [[4, 0, 0], [7, 0, 0]],
        "attrs": {"mxnet_version": ["int", 10901]},
    }
    return [json.dumps(document).encode()]


TARGETS = {
    "params": Target(check_params, params_seeds),
    "safetensors": Target(
        lambda content: _check_tensors(".safetensors", content),
        lambda: _tensor_seeds(".safetensors"),
    ),
    "pt": Target(lambda content: _check_tensors(".pt", content), lambda: _tensor_seeds(".pt")),
    "symbol": Target(check_symbol, symbol_seeds),
}
