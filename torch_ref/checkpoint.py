"""Saving and resuming a run of the mirror exactly; the twin of `gluon_cnn.checkpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from harness.errors import CommandError
from harness.runfolder import RunFolder, read_sealed, replace_file, seal

__all__ = ["load_last", "load_parameters", "save_best", "save_last"]


def save_best(folder: RunFolder, net: nn.Module) -> None:
    """Replace `best.safetensors` by the net's state dict."""
    arrays = _arrays(net)
    replace_file(folder.path / "best.safetensors", lambda part: save_file(arrays, part))


def save_last(
    folder: RunFolder,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Replace `last/`, the resumable checkpoint; `state` is what the training loop must know."""
    slots: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for name, parameter in _named(net, optimizer).items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                slots[f"{name}/{slot}"] = value.detach().cpu().numpy()
            else:
                counts[f"{name}/{slot}"] = value
    seal(
        folder.path / "last",
        {
            "net.safetensors": lambda path: save_file(_arrays(net), path),
            "optimizer.safetensors": lambda path: save_file(slots, path),
        },
        {**state, "update_counts": counts},
    )


def load_last(
    folder: RunFolder, net: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Put the net and the optimizer back to where `save_last` left them; returns its `state`.

    None where nothing was saved. Raises: CommandError where a file is missing, damaged, or of
    another net.
    """
    found = read_sealed(folder.path / "last")
    if found is None:
        return None
    path, state = found
    load_parameters(net, path / "net.safetensors")
    named = _named(net, optimizer)
    for key, array in load_file(path / "optimizer.safetensors").items():
        name, _, slot = key.rpartition("/")
        like = named[name]
        optimizer.state[like][slot] = torch.from_numpy(array.copy()).to(like.device)
    for key, count in state.pop("update_counts").items():
        name, _, slot = key.rpartition("/")
        optimizer.state[named[name]][slot] = count
    return state


def load_parameters(net: nn.Module, path: Path) -> None:
    """Load a `.safetensors` state dict with errors of one line. Raises: CommandError."""
    try:
        arrays = load_file(path)
        net.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays.items()})
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"{path} cannot be loaded: {reason}") from error


def _arrays(net: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(value.detach().cpu().numpy())
        for name, value in net.state_dict().items()
    }


def _named(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {name: p for name, p in net.named_parameters() if id(p) in held}
