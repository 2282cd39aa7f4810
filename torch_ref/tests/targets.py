"""MXNet's and torch's files, as fuzzing targets: all of them are read here without MXNet."""

from __future__ import annotations

import functools
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_data.tests.fuzzing import Target, one_line_errors
from mxnet_files.errors import SymbolError
from mxnet_files.load import import_symbol, load_symbol
from mxnet_files.proving.certificate import FORMAT, describe, read_samples, verify
from mxnet_files.reading.inputs import read_inputs
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


def _archives(arrays: dict[str, Any]) -> list[bytes]:
    """Arrays as `*.npz`, packed and not."""
    made = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, **arrays)
        made.append(stream.getvalue())
    return made


@functools.cache
def _module() -> Any:
    return import_symbol(json.loads(symbol_seeds()[0]), {})


def check_inputs(content: bytes) -> None:
    path = _FOLDER / "x.npz"
    path.write_bytes(content)
    with one_line_errors(SymbolError):
        read_inputs(_module(), path, [])


def inputs_seeds() -> Sequence[bytes]:
    rows = {"data": np.ones((2, 3, 4, 4), np.float32), "data2": np.arange(96).reshape(2, 48)}
    return _archives(rows)


def check_samples(content: bytes) -> None:
    path = _FOLDER / "samples.npz"
    path.write_bytes(content)
    with one_line_errors(SymbolError):
        read_samples(path, ["data"], 2**20)


def samples_seeds() -> Sequence[bytes]:
    return _archives({"input 0": np.ones((2, 3), np.float32), "output 0": np.ones(4)})


def check_certificate(content: bytes) -> None:
    (_converted() / "report.json").write_bytes(content)
    with one_line_errors(SymbolError):
        verify(_converted())


@functools.cache
def _converted() -> Path:
    """A folder whose files are none that are run."""
    folder = _FOLDER / "converted"
    folder.mkdir()
    (folder / "samples.npz").write_bytes(samples_seeds()[0])
    write_params(folder / "model.params", _ARRAYS)
    return folder


def certificate_seeds() -> Sequence[bytes]:
    report = {
        "format": FORMAT,
        "verified_against": "MXNet 1.9.1",
        "verified": True,
        "inputs": [{"name": "data", "shape": [2, 3], "dtype": "float32", "values": "random"}],
        "outputs": [{"shape": [4], "bound": 1e-5, "errors": {}}],
        "written": [describe(path) for path in sorted(_converted().glob("*.[np]*"))],
    }
    return [json.dumps(report).encode()]


TARGETS = {
    "params": Target(check_params, params_seeds),
    "safetensors": Target(
        lambda content: _check_tensors(".safetensors", content),
        lambda: _tensor_seeds(".safetensors"),
    ),
    "pt": Target(lambda content: _check_tensors(".pt", content), lambda: _tensor_seeds(".pt")),
    "symbol": Target(check_symbol, symbol_seeds),
    "inputs": Target(check_inputs, inputs_seeds),
    "samples": Target(check_samples, samples_seeds),
    "certificate": Target(check_certificate, certificate_seeds),
}
