"""Fine-tuning: weights that a net begins with, and parameters that stay as they are."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import gluon

from cnn_harness.errors import CommandError
from cnn_harness.initial import Pretrained, frozen, weights_file
from cnn_harness.progress import load_arrays
from gluon_cnn.exporting.params_layout import LayoutError, read_layout
from gluon_cnn_parity.atomic import sha256

__all__ = ["freeze", "read_weights", "set_weights"]

# What `export` calls a parameter, whatever the net's own prefix: arg:lenet_features_0_weight
_EXPORTED = re.compile(r"(?:.+_)?(features|classifier)_(\d+)_([a-z_]+)")
_FROM_TORCH = {"weight": "gamma", "bias": "beta"}  # where running statistics stand beside them


def read_weights(source: str) -> Pretrained:
    """The weights of a run, an export, or a `.params`, `.safetensors` or `.pt` file.

    Raises: UsageError, CommandError naming the file and what is wrong with it.
    """
    path = weights_file(Path(source))
    if path.suffix == ".params":
        arrays = _from_gluon(_load_params(path))
    elif path.suffix == ".safetensors":
        arrays = _from_torch(load_arrays(path))
    else:
        arrays = _from_pickle(path)
    return Pretrained(source, sha256(path), arrays)


def set_weights(net: gluon.HybridBlock, pretrained: Pretrained, scale: float = 1.0) -> None:
    """Give an initialised net what fits; what was loaded learns at `scale` times the rate."""
    parameters = net._collect_params_with_prefix()
    fitting = pretrained.fitting({name: p.shape for name, p in parameters.items()})
    for name, array in fitting.items():
        parameters[name].set_data(mx.nd.array(array, dtype=parameters[name].dtype))
    for name in pretrained.loaded:
        if name in parameters:
            parameters[name].lr_mult = scale


def freeze(net: gluon.HybridBlock, patterns: str) -> set[str]:
    """Train no parameter that the patterns name; a BatchNorm all of whose are named computes with
    its running statistics, and leaves them alone.

    Returns their names. Raises: UsageError for a pattern that names none, or where all are named.
    """
    parameters = net._collect_params_with_prefix()
    kept = frozen([n for n, p in parameters.items() if p.grad_req != "null"], patterns)
    for name in kept:
        parameters[name].grad_req = "null"
    for norm in _norms(net):
        if norm.gamma.grad_req == norm.beta.grad_req == "null":
            norm._kwargs["use_global_stats"] = True
    return kept


def _norms(net: gluon.Block) -> list[gluon.nn.BatchNorm]:
    if isinstance(net, gluon.nn.BatchNorm):
        return [net]
    return [norm for child in net._children.values() for norm in _norms(child)]


def _load_params(path: Path) -> dict[str, np.ndarray]:
    try:
        read_layout(path)  # MXNet allocates whatever a header says
        return {name: value.asnumpy() for name, value in mx.nd.load(str(path)).items()}
    except (LayoutError, mx.MXNetError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CommandError(f"{path} cannot be loaded: {reason}") from error


def _from_gluon(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = {}
    for name, array in arrays.items():
        bare = name.removeprefix("arg:").removeprefix("aux:")
        match = _EXPORTED.fullmatch(bare)
        named[".".join(match.groups()) if match else bare] = array
    return named


def _from_torch(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    named = {}
    for name, array in arrays.items():
        path, _, role = name.rpartition(".")
        normalises = f"{path}.running_mean" in arrays
        if role != "num_batches_tracked":  # torch counts batches, MXNet does not
            new = _FROM_TORCH.get(role, role) if normalises else role
            named[f"{path}.{new}" if path else new] = array
    return named


def _from_pickle(path: Path) -> dict[str, np.ndarray]:
    """A `.pt` file, read by torch in a process of its own: beside MXNet it would change threads."""
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "from_torch.params"
        command = [sys.executable, "-m", "torch_ref.transfer", str(path), str(params)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["the process died"])[-1]
            reason = reason.removeprefix("error: ").partition(" error: ")[2] or reason
            raise CommandError(f"--init-from {path}: {reason.removeprefix('error: ')}")
        return _from_gluon(_load_params(params))
