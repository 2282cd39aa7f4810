"""Weights of a user's nets from files, held against the net before a value is set.

Framework specific (mxnet, torch): each file goes into the net of its framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import torch

from mxnet_files.reading.params_file import BFLOAT16, ParamsFileError, read_params
from mxnet_files.reading.tensor_files import TensorFileError, read_tensors
from parity_tests.backends.gluon.numpy_mode import like
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import reason_of

SHOWN = 6  # names in a message


def import_symbol(path: str, params: str) -> Any:
    """MXNet's `SymbolBlock` of a `*-symbol.json` file and its parameters, which `export` wrote.

    The inputs are what the symbol reads and the parameters do not have, in its own order. Raises
    ParityError for files that do not belong together.
    """
    values = _read(read_params, params, "--gluon-params")
    held = {name.partition(":")[2] or name for name in values}
    if not Path(path).is_file():
        raise ParityError(f"--gluon: {path} is no file")
    try:
        symbol = mx.sym.load(path)
        inputs = [name for name in symbol.list_inputs() if name not in held]
        return mx.gluon.SymbolBlock.imports(path, inputs, params, ctx=mx.cpu())
    except Exception as error:  # MXNet raises whatever it meets
        raise ParityError(f"--gluon {path} with {params}: {reason_of(error)}") from error


def load_params(net: Any, path: str) -> None:
    """Set a Gluon net's parameters from a file of `save_parameters` or `export`.

    Raises ParityError, which lists what does not fit; the net is then as it was.
    """
    values = _read(read_params, path, "--gluon-params")
    parameters = dict(net._collect_params_with_prefix())
    exported = {name.partition(":")[2]: v for name, v in values.items() if _is_exported(name)}
    if exported:  # whose names are those of the whole net, with counters of the process
        values = exported
        parameters = _by_exported_name(net, exported)
    shapes = {name: tuple(p.shape or ()) for name, p in parameters.items()}
    _check_fit(path, "the Gluon net", shapes, {n: v.shape for n, v in values.items()})
    for name, parameter in parameters.items():
        value = values[name]
        array = mx.nd.array(value, dtype=value.dtype)
        if parameter._data is not None:
            held = parameter.data(parameter.list_ctx()[0])
            parameter.set_data(like(array.astype(parameter.dtype), held))
        else:
            parameter.dtype = value.dtype
            parameter._load_init(array, [mx.cpu()])


def _is_exported(name: str) -> bool:
    return name.startswith(("arg:", "aux:"))


def _by_exported_name(net: Any, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters under the names that a file has: as they are, or with its own first prefix."""
    parameters = dict(net.collect_params())
    if set(parameters) == set(values) or not net.prefix:
        return parameters
    short = {name.removeprefix(net.prefix): p for name, p in parameters.items()}
    first = next(iter(values))
    for prefix in (first[: i + 1] for i, letter in enumerate(first) if letter == "_"):
        if {name.removeprefix(prefix) for name in values} == set(short):
            return {prefix + name: p for name, p in short.items()}
    return parameters


def load_torch_weights(net: torch.nn.Module, path: str) -> None:
    """Set a torch net's state from a `.safetensors` or `.pt` state dict.

    Counters that MXNet does not have may be absent. Raises ParityError, which lists what does not
    fit; the net is then as it was.
    """
    values = _read(read_tensors, path, "--torch-weights")
    state = net.state_dict()
    needed = {n: tuple(t.shape) for n, t in state.items()}
    optional = {n for n in needed if n.endswith("num_batches_tracked") and n not in values}
    _check_fit(
        path,
        "the torch net",
        {n: shape for n, shape in needed.items() if n not in optional},
        {n: v.shape for n, v in values.items()},
    )
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(torch.from_numpy(np.array(value)))


def _read(read: Any, path: str, option: str) -> dict[str, np.ndarray]:
    try:
        values: dict[str, np.ndarray] = read(path)
    except (ParamsFileError, TensorFileError) as error:
        raise ParityError(f"{option}: {error}") from None
    except OSError as error:
        raise ParityError(f"{option}: {path}: {error.strerror or error}") from None
    for name, value in values.items():
        if value.dtype == BFLOAT16:
            raise ParityError(f"{option}: {name} is bfloat16, which numpy does not have")
    return values


def _check_fit(
    path: str,
    whose: str,
    needed: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise ParityError, with every kind of misfit, unless the file has exactly what is needed."""
    problems = []
    if lacking := [name for name in needed if name not in given]:
        problems.append(f"lacks {_some(lacking)}")
    if more := [name for name in given if name not in needed]:
        problems.append(f"has {_some(more)} beside")
    other = [
        f"{name} {given[name]} for {shape}"
        for name, shape in needed.items()
        if name in given and not _fits(shape, given[name])
    ]
    if other:
        problems.append(f"has {_some(other)}")
    if problems:
        raise ParityError(f"{path} does not fit {whose}: it {'; it '.join(problems)}")


def _fits(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether a shape is the one that is needed; MXNet writes 0, or -1, for what it defers."""
    return not shape or (
        len(shape) == len(given) and all(n in (m, 0, -1) for n, m in zip(shape, given, strict=True))
    )


def _some(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more
