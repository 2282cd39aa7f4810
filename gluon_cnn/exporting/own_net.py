"""A net that a user wrote, for `export --gluon package.module:factory`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from cnn_harness.errors import UsageError
from gluon_cnn.exporting.exported import INPUT, OWN_FORMAT
from gluon_cnn.exporting.params_layout import read_layout
from gluon_cnn.exporting.reload import BATCHES
from gluon_cnn_parity.factories import FactoryError, load_net, place_of, reason_of

_OF_NUMPY = "can only accept MXNet numpy ndarrays"  # as MXNet says it
MXNET = "mxnet"  # its engine fuses the models of this project alone


@dataclass(frozen=True)
class OwnNet:
    """The net, called by the factory's name; `input_shape` is without the batch."""

    model: str
    net: HybridBlock
    input_shape: tuple[int, ...]
    inputs: np.ndarray  # float32 (max(BATCHES), *input_shape), random
    output_shape: tuple[int, ...]  # without the batch

    def describe(self, output: str, versions: Mapping[str, str]) -> dict[str, Any]:
        """What NAME.json says of it: it knows no classes and no normalisation."""
        return {
            "format": OWN_FORMAT,
            "name": self.model,
            "input": {"name": INPUT, "shape": ["batch", *self.input_shape], "dtype": "float32"},
            "output": {"name": output, "shape": ["batch", *self.output_shape], "dtype": "float32"},
            "versions": dict(versions),
        }


def open_own_net(spec: str, params: Path | None, shape: tuple[int, ...]) -> OwnNet:
    """What `spec` gives, with the parameters of a file, tried on random inputs.

    Args:
        spec: `package.module:factory`, or a class; found from the current directory too.
        params: what `save_parameters`, `export` or a Module's checkpoint wrote; None where the
            factory initialises its net.
        shape: of the input, with the batch.

    Raises:
        UsageError: what comes is no hybrid block, the file does not fit it, or it does not run on
            the shape, or gives something else than one float32 array with a row for each input.
    """
    try:
        net = load_net(spec, "--gluon", Path.cwd())
    except FactoryError as error:
        raise UsageError(str(error)) from error
    if not isinstance(net, HybridBlock):
        kind = type(net).__name__
        raise UsageError(f"--gluon {spec} gives a {kind}, expected a HybridBlock, which exports")
    if params is not None:
        load(net, params)
    x = np.random.default_rng(0).normal(size=(max(BATCHES), *shape[1:])).astype(np.float32)
    rows = [run(net, x[:n], spec) for n in BATCHES]
    if not net.collect_params().keys():
        raise UsageError(f"--gluon {spec} has no parameters, and MXNet opens no files without any")
    return OwnNet(spec.rpartition(":")[2], net, shape[1:], x, rows[-1].shape[1:])


def load(net: HybridBlock, params: Path) -> None:
    """Parameters by the blocks' paths, or by the names of a symbol file."""
    if not params.is_file():
        raise UsageError(f"--params {params}: no such file")
    try:
        read_layout(params)  # MXNet allocates whatever a header says
        net.load_parameters(str(params), ctx=mx.cpu())
    except (mx.MXNetError, AssertionError, ValueError, KeyError, OSError) as error:
        raise UsageError(f"--params {params} does not fit the net: {reason_of(error)}") from error


def run(net: HybridBlock, x: np.ndarray, spec: str) -> np.ndarray:
    """The output, checked to be one that files can be held against."""
    try:
        output = net(mx.nd.array(x))
        values = output.asnumpy() if isinstance(output, mx.nd.NDArray) else None
    except RuntimeError as error:  # MXNetError is one
        hint = ""
        if "initialized" in str(error):
            hint = ": give its parameters with --params, or initialise it in the factory"
        raise UsageError(
            f"--gluon {spec} does not run on {x.shape}{hint}: {reason_of(error)}{place_of(error)}"
        ) from error
    except Exception as error:  # a user's forward may raise anything
        reason = f"{reason_of(error)}{place_of(error)}"
        if _OF_NUMPY in str(error):
            reason = (
                "it takes arrays of mx.np, expected those of mx.nd: write its files by the net's "
                "own export(), and convert them with `mxnet-files convert`"
            )
        raise UsageError(f"--gluon {spec} does not run on {x.shape}: {reason}") from error
    if values is None:
        raise UsageError(
            f"--gluon {spec} gives {type(output).__name__}, expected one array: wrap the net in a "
            "block that returns one"
        )
    if values.ndim == 0 or len(values) != len(x) or values.dtype != np.float32:
        raise UsageError(
            f"--gluon {spec} gives {values.dtype} of {values.shape} for {len(x)} inputs, expected "
            "float32 with a row for each"
        )
    return values


def engines_for(engines: list[str]) -> list[str]:
    """Those that read any export."""
    return [name for name in engines if name != MXNET]
