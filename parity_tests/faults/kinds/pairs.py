"""Plants faults into pairs of nets that are otherwise equal, and checks the pair level by level.

Framework specific (mxnet, torch): the nets that get faults are built of both frameworks' layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.api import check_parity
from parity_tests.cases.pairs import Case, project_case, set_equal_values
from parity_tests.faults.base import Detection, first_detection

Plant = Callable[[Case], None]

# One after the other, until one of them speaks: what comes later cannot be the first divergence.
_ROUNDS = (("structure", "weights"), ("forward",), ("backward",), ("artefacts",))


def in_model(model: str, plant: Plant, **options: Any) -> Callable[[], Detection]:
    """A fault in one of this project's models, at toy size."""
    return in_pair(lambda: project_case(model), plant, **options)


def in_pair(make: Callable[[], Case], plant: Plant, **options: Any) -> Callable[[], Detection]:
    """A fault in any pair that `make` makes clean; `options` are those of `check_parity`."""

    def run() -> Detection:
        case = make()
        plant(case)
        return detected(case, **options)

    return run


def detected(case: Case, rounds: Sequence[Sequence[str]] = _ROUNDS, **options: Any) -> Detection:
    """What is said first of a pair with a fault, level by level."""
    for levels in rounds:
        report = check_parity(
            case.gluon_net, case.torch_net, case.inputs, case.labels, levels, **options
        )
        if not report.ok:
            return first_detection(report)
    return Detection()


def plain_case(
    ours: list[Any], theirs: list[nn.Module], shape: tuple[int, ...], seed: int = 0
) -> Case:
    """A pair of plain sequential nets with equal, random weights."""
    gluon_net = gluon_nn.HybridSequential(prefix="fault_")
    gluon_net.add(*ours)
    torch_net = nn.Sequential(*theirs)
    set_equal_values(gluon_net, torch_net, seed)
    inputs = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return Case("plain", gluon_net, torch_net, inputs)


def replaced(path: str, make: Callable[[Any], nn.Module]) -> Plant:
    """Put what `make` makes of a torch layer in its place."""

    def plant(case: Case) -> None:
        case.torch_net.set_submodule(path, make(case.torch_net.get_submodule(path)))

    return plant


def turned(path: str, cls: type[nn.Module]) -> Plant:
    """Let a torch layer compute something else while it looks the same: a faulty operator."""

    def plant(case: Case) -> None:
        case.torch_net.get_submodule(path).__class__ = cls

    return plant


def edited(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Change the values of one torch parameter or buffer."""

    def plant(case: Case) -> None:
        tensor = case.torch_net.state_dict()[name]
        before = tensor.numpy().copy()
        changed = np.ascontiguousarray(change(before.copy()))
        if np.array_equal(changed, before):
            raise ValueError(f"the fault planted into {name} changes nothing")
        tensor.copy_(torch.from_numpy(changed))

    return plant


def exchanged(first: str, second: str) -> Plant:
    """Exchange two torch tensors of one shape."""

    def plant(case: Case) -> None:
        state = case.torch_net.state_dict()
        value = state[first].clone()
        state[first].copy_(state[second])
        state[second].copy_(value)

    return plant
