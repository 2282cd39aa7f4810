"""Fine-tuning: weights that a net begins with, and parameters that stay as they are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cnn_harness.errors import CommandError
from cnn_harness.initial import Pretrained, frozen, weights_file
from gluon_cnn_parity.atomic import sha256
from mxnet_files.reading.params_file import ParamsFileError, read_params
from mxnet_files.reading.tensor_files import TensorFileError, read_tensors
from torch_ref.transfer import TransferError, to_gluon, to_torch

__all__ = ["freeze", "read_weights", "set_weights", "train_mode"]


def read_weights(source: str) -> Pretrained:
    """The weights of a run, an export, or a `.params`, `.safetensors` or `.pt` file.

    Raises: UsageError, CommandError naming the file and what is wrong with it.
    """
    path = weights_file(Path(source))
    try:
        arrays = read_params(path) if path.suffix == ".params" else read_tensors(path)
        named = to_gluon(to_torch(arrays) if path.suffix == ".params" else arrays)
    except (ParamsFileError, TensorFileError, TransferError) as error:
        raise CommandError(f"--init-from {path}: {error}") from error
    return Pretrained(source, sha256(path), named)


def set_weights(net: nn.Module, pretrained: Pretrained, scale: float = 1.0) -> None:
    """Give a net what fits; what was loaded learns at `scale` times the rate."""
    state = net.state_dict()
    shapes = {name: tuple(state[own].shape) for name, own in _names(net).items()}
    fitting = to_torch(pretrained.fitting(shapes))
    values = {name: torch.from_numpy(a).to(state[name].dtype) for name, a in fitting.items()}
    net.load_state_dict(values, strict=False)
    own_names, parameters = _names(net), dict(net.named_parameters())
    for name in pretrained.loaded:
        parameter = parameters.get(own_names.get(name, ""))
        if parameter is not None:
            parameter.lr_scale = scale  # type: ignore[attr-defined]


def freeze(net: nn.Module, patterns: str) -> set[str]:
    """Train no parameter that the patterns name, by Gluon's names.

    Returns their names. Raises: UsageError for a pattern that names none, or where all are named.
    """
    parameters = dict(net.named_parameters())
    names = {name: own for name, own in _names(net).items() if own in parameters}
    kept = frozen(names, patterns)
    for name in kept:
        parameters[names[name]].requires_grad_(False)
    return kept


def train_mode(objective: nn.Module) -> None:
    """Train, but leave a BatchNorm all of whose parameters are frozen in inference: it computes
    with its running statistics, and leaves them alone."""
    objective.train()
    for module in objective.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.BatchNorm2d) and own and not any(p.requires_grad for p in own):
            module.eval()


def _names(net: nn.Module) -> dict[str, str]:
    """torch's name of each array by Gluon's."""
    own = {name: value.detach().cpu().numpy() for name, value in net.state_dict().items()}
    named = to_gluon(own)
    return dict(zip(named, to_torch(named), strict=True))
