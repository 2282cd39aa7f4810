"""MXNet's and torch's files, as fuzzing targets: all of them are read here without MXNet."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

import mxnet_files.__main__ as mxnet_files
from cnn_data.tests.fuzzing import Target, one_line_errors
from mxnet_files.errors import SymbolError
from mxnet_files.load import import_symbol, load_symbol
from mxnet_files.proving.certificate import FORMAT, describe, read_samples, verify
from mxnet_files.reading.inputs import read_inputs
from mxnet_files.reading.params_file import ParamsFileError, parse_params, write_params
from mxnet_files.reading.tensor_files import TensorFileError, read_tensors, write_tensors
from torch_ref import transfer

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


def _whole_model(folder: Path) -> None:
    """The files of one layer, in every format."""
    names = ("data", "fc_weight", "fc_bias")
    nodes: list[dict[str, Any]] = [{"op": "null", "name": name, "inputs": []} for name in names]
    inputs = [[place, 0, 0] for place in range(3)]
    nodes.append({"op": "FullyConnected", "name": "fc", "attrs": {"num_hidden": "2"},
                  "inputs": inputs})  # fmt: skip
    version = {"mxnet_version": ["int", 10901]}
    document = {"nodes": nodes, "arg_nodes": [0, 1, 2], "heads": [[3, 0, 0]], "attrs": version}
    (folder / "x-symbol.json").write_text(json.dumps(document))
    arrays = {"fc_weight": np.ones((2, 3), np.float32), "fc_bias": np.ones(2, np.float32)}
    for path in ("x-0000.params", "b.params"):
        write_params(folder / path, arrays)
    write_tensors(folder / "a.pt", arrays)


def _model_seeds(name: str) -> Sequence[bytes]:
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        _whole_model(Path(folder))
        return [(Path(folder) / name).read_bytes()]


def check_command(
    command: Callable[[list[str]], int], argv: str, damaged: str, content: bytes
) -> None:
    """A command on files one of which is damaged: all that it writes is there, or one line.

    `diff` and `report` may fail with what they found on stdout.
    """
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory(dir=_FOLDER) as name:
        folder = Path(name)
        _whole_model(folder)
        (folder / damaged).write_bytes(content)
        came = {*folder.iterdir()}
        words = [word.replace("@", f"{folder}/") for word in argv.split()]
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # numpy's, which would be lines too
            code = command(words)
        written = {str(path) for path in {*folder.iterdir()} - came}
    assert code in (0, 1)
    assert written == {word for word in words if "/out." in word and code == 0}
    lines = err.getvalue().splitlines()
    assert len(lines) == (code == 1 and not out.getvalue()), lines
    assert all("error: " in line and line.isprintable() for line in lines), lines


COMMANDS = {  # the command, its words with the folder as @, and which file is damaged
    "transfer": (transfer.main, "@x-0000.params @out.pt", "x-0000.params"),
    "transfer back": (transfer.main, "@a.pt @out.params", "a.pt"),
    "diff": (mxnet_files.main, "diff @x-0000.params @b.params", "b.params"),
    "report": (mxnet_files.main, "report @", "x-symbol.json"),
    "report of params": (mxnet_files.main, "report @", "x-0000.params"),
    "map": (
        mxnet_files.main,
        "map @x-0000.params --symbol @x-symbol.json --input 1,3 --out @out.pt"
        " --torch torch.nn:Linear(3,2)",
        "x-0000.params",
    ),
}


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
    **{
        name: Target(
            functools.partial(check_command, *words), functools.partial(_model_seeds, words[-1])
        )
        for name, words in COMMANDS.items()
    },
}
