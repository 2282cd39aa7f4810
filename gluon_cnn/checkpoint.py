"""Saving and resuming a run exactly: parameters, optimizer slots and counts, without pickle.

`Trainer.save_states` is a pickle, which executes code on loading and keeps counts per device.
Here the slots go to safetensors by the structural name of their parameter, and everything else
is JSON; a sha256 guards each file, since MXNet loads altered parameters without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon
from safetensors.numpy import load_file, save_file

from gluon_cnn.parallel import one_copy
from harness.errors import CommandError
from harness.runfolder import RunFolder, read_sealed, replace_file, seal

__all__ = ["load_last", "load_parameters", "save_best", "save_last"]


def save_best(folder: RunFolder, net: gluon.HybridBlock) -> None:
    """Replace `best.params` by the net's parameters, in MXNet's own format."""
    replace_file(folder.path / "best.params", lambda part: _save_parameters(net, part))


def _save_parameters(net: gluon.HybridBlock, path: Path) -> None:
    mx.nd.save(str(path), one_copy(net))


def save_last(
    folder: RunFolder, net: gluon.HybridBlock, trainer: gluon.Trainer, state: dict[str, Any]
) -> None:
    """Replace `last/`, the resumable checkpoint; `state` is what the training loop must know."""
    slots = _slots(net, trainer)
    counts = {
        _names(net, trainer)[index]: count
        for index, count in trainer._optimizer._index_update_count.items()
    }
    seal(
        folder.path / "last",
        {
            "net.params": lambda path: _save_parameters(net, path),
            "optimizer.safetensors": lambda path: save_file(slots, path),
        },
        {**state, "update_counts": counts},
    )


def load_last(
    folder: RunFolder, net: gluon.HybridBlock, trainer: gluon.Trainer, devices: list[mx.Context]
) -> dict[str, Any] | None:
    """Put the net and the trainer back to where `save_last` left them, and return its `state`.

    None where nothing was saved. Raises: CommandError where a file is missing, damaged, or of
    another net.
    """
    found = read_sealed(folder.path / "last")
    if found is None:
        return None
    path, state = found
    load_parameters(net, path / "net.params", devices)
    _restore_slots(net, trainer, load_file(path / "optimizer.safetensors"))
    counts = state.pop("update_counts")
    optimizer = trainer._optimizer
    names = _names(net, trainer)
    restored = {index: counts[name] for index, name in enumerate(names) if name in counts}
    for device_counts in optimizer._all_index_update_counts.values():
        device_counts.update(restored)
    for device_id in range(len(devices)):
        optimizer._all_index_update_counts[device_id] = dict(restored)
    optimizer._index_update_count = optimizer._all_index_update_counts[0]
    optimizer.num_update = max(restored.values(), default=0)
    return state


def load_parameters(net: gluon.HybridBlock, path: Path, devices: list[mx.Context]) -> None:
    """`load_parameters` with errors of one line. Raises: CommandError."""
    try:
        net.load_parameters(str(path), ctx=devices)
    except (mx.MXNetError, AssertionError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise CommandError(f"{path} cannot be loaded into {net.model_name}: {reason}") from error


def _names(net: gluon.HybridBlock, trainer: gluon.Trainer) -> list[str]:
    """The structural name of each of the trainer's parameters, in its order."""
    by_parameter = {id(p): name for name, p in net._collect_params_with_prefix().items()}
    return [by_parameter[id(parameter)] for parameter in trainer._params]


def _slots(net: gluon.HybridBlock, trainer: gluon.Trainer) -> dict[str, np.ndarray]:
    """The optimizer's arrays as `features.0.weight/0`, `/1`, …; Adam has two a parameter."""
    names = _names(net, trainer)
    arrays = {}
    for index, slots in trainer._updaters[0].states.items():
        for number, slot in enumerate(_as_tuple(slots)):
            arrays[f"{names[index]}/{number}"] = slot.asnumpy()
    return arrays


def _restore_slots(
    net: gluon.HybridBlock, trainer: gluon.Trainer, arrays: dict[str, np.ndarray]
) -> None:
    for index, (name, parameter) in enumerate(
        zip(_names(net, trainer), trainer._params, strict=True)
    ):
        if f"{name}/0" not in arrays:
            continue  # plain SGD keeps nothing, and fixed parameters have no slots
        for updater, value in zip(trainer._updaters, parameter.list_data(), strict=True):
            fresh = trainer._optimizer.create_state_multi_precision(index, value)
            for number, slot in enumerate(_as_tuple(fresh)):
                slot[:] = arrays[f"{name}/{number}"]
            updater.states[index] = fresh
            updater.states_synced[index] = True


def _as_tuple(slots: Any) -> tuple[mx.nd.NDArray, ...]:
    if slots is None:
        return ()
    return slots if isinstance(slots, tuple) else (slots,)
