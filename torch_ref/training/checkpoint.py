"""Saving and resuming a run of the mirror exactly; the twin of `gluon_cnn.training.checkpoint`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cnn_harness.errors import CommandError
from cnn_harness.progress import load_arrays, require_fitting, save_arrays
from cnn_harness.run_description import versions
from cnn_harness.runfolder import RunFolder
from torch_ref.training.average import Average

__all__ = [
    "PACKAGES",
    "environment",
    "load_last",
    "load_parameters",
    "optimizer_state",
    "save_best",
    "save_last",
    "set_optimizer_state",
]

AVERAGE = "average.safetensors"  # where the weights are averaged
PACKAGES = ("torch", "numpy")  # whose versions decide what a run computes


def environment() -> dict[str, Any]:
    """What decides a run's bits beside its configuration: versions and the thread count."""
    return versions(PACKAGES, torch.get_num_threads())


def save_best(folder: RunFolder, net: nn.Module) -> None:
    """Replace `best.safetensors` by the net's state dict."""
    folder.replace("best.safetensors", lambda path: save_arrays(_arrays(net), path))


def save_last(
    folder: RunFolder,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    average: Average | None = None,
) -> None:
    """Replace `last/`, the resumable checkpoint; `state` is what the training loop must know."""
    slots, counts = optimizer_state(net, optimizer)
    writers: dict[str, Callable[[Path], object]] = {
        "net.safetensors": lambda path: save_arrays(_arrays(net), path),
        "optimizer.safetensors": lambda path: save_arrays(slots, path),
    }
    if average is not None:
        averaged = average.arrays()
        writers[AVERAGE] = lambda path: save_arrays(averaged, path)
    folder.save(writers, {**state, "versions": environment(), "update_counts": counts})


def load_last(
    path: Path,
    state: dict[str, Any],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None = None,
) -> None:
    """Put the net, the optimizer and the average back to where `save_last` left them.

    `path` is the checkpoint's folder and `state` what was sealed in it. Raises: CommandError where
    the files are those of another net.
    """
    load_parameters(net, path / "net.safetensors")
    file, counts = path / "optimizer.safetensors", state.get("update_counts")
    if not isinstance(counts, dict):
        raise CommandError(f"{path} has no update counts of this net's parameters")
    set_optimizer_state(net, optimizer, load_arrays(file), counts, file)
    if average is not None:
        average.restore(load_arrays(path / AVERAGE), path / AVERAGE)


def optimizer_state(
    net: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The optimizer's slots by name, and the counts that it keeps beside them."""
    slots: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for name, parameter in _named(net, optimizer).items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                slots[f"{name}/{slot}"] = value.detach().cpu().numpy()
            else:
                counts[f"{name}/{slot}"] = value
    return slots, counts


def set_optimizer_state(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    slots: dict[str, np.ndarray],
    counts: dict[str, int],
    origin: Path | str,
) -> None:
    """Put back what `optimizer_state` gave; `origin` names where it is from in errors.

    Raises: CommandError where it is another net's.
    """
    named = _named(net, optimizer)
    for key, array in slots.items():
        name, _, slot = key.rpartition("/")
        like = named.get(name)
        fits = like is not None and array.shape == tuple(like.shape)
        if like is None or not fits or str(like.dtype) != f"torch.{array.dtype}":
            raise CommandError(f"{origin} holds {key}, which fits no parameter: another net's?")
        optimizer.state[like][slot] = torch.from_numpy(array.copy()).to(like.device)
    for key, count in counts.items():
        name, _, slot = key.rpartition("/")
        if name not in named or type(count) is not int or not 0 <= count < 2**31:
            raise CommandError(f"{origin} has no update counts of this net's parameters")
        optimizer.state[named[name]][slot] = count


def load_parameters(net: nn.Module, path: Path) -> None:
    """Load a `.safetensors` state dict with errors of one line. Raises: CommandError."""
    arrays = load_arrays(path)
    # `save_best` writes a number, as a batch norm's count of batches is, as an array of one
    held = {name: array.shape or (1,) for name, array in arrays.items()}
    expected = {name: tuple(value.shape) or (1,) for name, value in net.state_dict().items()}
    require_fitting(path, held, expected, str(net.model_name))
    try:
        net.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays.items()})
    except (RuntimeError, TypeError) as error:
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
