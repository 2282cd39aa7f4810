"""Saving and resuming a run exactly: parameters, optimizer slots and counts, without pickle.

`Trainer.save_states` is a pickle, which executes code on loading and keeps counts per device.
Here the slots go to safetensors by the structural name of their parameter, and everything else
is JSON; a sha256 guards each file, since MXNet loads altered parameters without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from cnn_harness.errors import CommandError
from cnn_harness.progress import load_arrays, require_fitting, save_arrays
from cnn_harness.run_description import versions
from cnn_harness.runfolder import RunFolder
from gluon_cnn.exporting.params_layout import LayoutError, read_layout
from gluon_cnn.runtime import settings as runtime
from gluon_cnn.training.average import Average
from gluon_cnn.training.parallel import one_copy, statistics

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
PACKAGES = ("mxnet", "numpy")  # whose versions decide what a run computes


def environment() -> dict[str, Any]:
    """What decides a run's bits beside its configuration: versions and the thread count."""
    return versions(PACKAGES, runtime.threads())


def save_best(folder: RunFolder, net: gluon.HybridBlock) -> None:
    """Replace `best.params` by the net's parameters, in MXNet's own format."""
    folder.replace("best.params", lambda path: _save_parameters(net, path))


def save_last(
    folder: RunFolder,
    net: gluon.HybridBlock,
    trainer: gluon.Trainer,
    state: dict[str, Any],
    average: Average | None = None,
) -> None:
    """Replace `last/`, the resumable checkpoint; `state` is what the training loop must know."""
    slots, counts = optimizer_state(net, trainer)
    slots |= _other_devices(net)
    writers: dict[str, Callable[[Path], object]] = {
        "net.params": lambda path: _save_parameters(net, path),
        "optimizer.safetensors": lambda path: save_arrays(slots, path),
    }
    if average is not None:
        averaged = average.arrays()
        writers[AVERAGE] = lambda path: save_arrays(averaged, path)
    folder.save(writers, {**state, "versions": environment(), "update_counts": counts})


def load_last(
    path: Path,
    state: dict[str, Any],
    net: gluon.HybridBlock,
    trainer: gluon.Trainer,
    devices: list[mx.Context],
    average: Average | None = None,
) -> None:
    """Put the net, the trainer and the average back to where `save_last` left them.

    `path` is the checkpoint's folder and `state` what was sealed in it. Raises: CommandError where
    the files are those of another net or optimizer.
    """
    load_parameters(net, path / "net.params", devices)
    file = path / "optimizer.safetensors"
    slots = load_arrays(file)
    names, counts = _names(net, trainer), state.get("update_counts")
    if (
        not isinstance(counts, dict)
        or not set(counts) <= set(names)
        or not all(type(count) is int and 0 <= count < 2**31 for count in counts.values())
    ):
        raise CommandError(f"{path} has no update counts of {net.model_name}'s parameters")
    _restore_other_devices(net, slots)
    set_optimizer_state(net, trainer, slots, counts, file)
    if average is not None:
        average.restore(load_arrays(path / AVERAGE), path / AVERAGE)


def optimizer_state(
    net: gluon.HybridBlock, trainer: gluon.Trainer
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The optimizer's slots by name, and how many updates each parameter has had."""
    names = _names(net, trainer)
    counts = trainer._optimizer._index_update_count.items()
    return _slots(net, trainer), {names[index]: count for index, count in counts}


def set_optimizer_state(
    net: gluon.HybridBlock,
    trainer: gluon.Trainer,
    slots: dict[str, np.ndarray],
    counts: dict[str, int],
    origin: Path | str,
) -> None:
    """Put back what `optimizer_state` gave; `origin` names where it is from in errors.

    Raises: CommandError where it is another optimizer's.
    """
    _restore_slots(net, trainer, slots, origin)
    optimizer = trainer._optimizer
    names = enumerate(_names(net, trainer))
    restored = {index: counts[name] for index, name in names if name in counts}
    for device_counts in optimizer._all_index_update_counts.values():
        device_counts.update(restored)
    for device_id in range(len(trainer._contexts)):
        optimizer._all_index_update_counts[device_id] = dict(restored)
    optimizer._index_update_count = optimizer._all_index_update_counts[0]
    optimizer.num_update = max(restored.values(), default=0)


def load_parameters(net: gluon.HybridBlock, path: Path, devices: list[mx.Context]) -> None:
    """`load_parameters` with errors of one line; the file's layout is checked first.

    Raises: CommandError.
    """
    try:
        held = read_layout(path)
        expected = {name: p.shape for name, p in net._collect_params_with_prefix().items()}
        require_fitting(path, held, expected, net.model_name)
        net.load_parameters(str(path), ctx=devices)
    except (LayoutError, mx.MXNetError, AssertionError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise CommandError(f"{path} cannot be loaded into {net.model_name}: {reason}") from error


def _save_parameters(net: gluon.HybridBlock, path: Path) -> None:
    """Write one device's parameters. MXNet says nothing of a disk that is full. Raises: OSError."""
    try:
        mx.nd.save(str(path), one_copy(net))
        read_layout(path)
    except (LayoutError, mx.MXNetError) as error:
        raise OSError(f"{path.name} could not be written whole: is the disk full?") from error


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


def _other_devices(net: gluon.HybridBlock) -> dict[str, np.ndarray]:
    """The running statistics of the devices after the first, which differ within an epoch."""
    return {
        f"@{number}/{name}": value.asnumpy()
        for name, parameter in statistics(net)
        for number, value in enumerate(parameter.list_data())
        if number
    }


def _restore_other_devices(net: gluon.HybridBlock, arrays: dict[str, np.ndarray]) -> None:
    """Take `_other_devices` out of `arrays`; another number of devices starts from the first's."""
    saved = {key: arrays.pop(key) for key in list(arrays) if key.startswith("@")}
    for name, parameter in statistics(net):
        for number, value in enumerate(parameter.list_data()):
            array = saved.get(f"@{number}/{name}")
            if array is not None and array.shape == value.shape and array.dtype == value.dtype:
                value[:] = array


def _restore_slots(
    net: gluon.HybridBlock,
    trainer: gluon.Trainer,
    arrays: dict[str, np.ndarray],
    origin: Path | str,
) -> None:
    """All slots, or none where no update was made. Raises: CommandError."""
    left = dict(arrays)
    for index, (name, parameter) in enumerate(
        zip(_names(net, trainer), trainer._params, strict=True)
    ):
        if parameter.grad_req == "null" or not arrays:
            continue
        for updater, value in zip(trainer._updaters, parameter.list_data(), strict=True):
            state = trainer._optimizer.create_state_multi_precision(index, value)
            for number, slot in enumerate(_as_tuple(state)):
                saved = arrays.get(f"{name}/{number}")
                if saved is None or saved.shape != slot.shape or saved.dtype != slot.dtype:
                    raise CommandError(
                        f"{origin} has no slot {number} of {name} that fits: another optimizer's?"
                    )
                slot[:] = saved
                left.pop(f"{name}/{number}", None)
            updater.states[index] = state
            updater.states_synced[index] = True
    if left:
        raise CommandError(
            f"{origin} has slots that the optimizer lacks: {', '.join(sorted(left))}"
        )


def _as_tuple(slots: Any) -> tuple[mx.nd.NDArray, ...]:
    if slots is None:
        return ()
    return slots if isinstance(slots, tuple) else (slots,)
