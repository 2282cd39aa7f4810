"""The Python entrance: `check_parity(gluon_net, torch_net, inputs, …) -> Report`."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from parity_tests.backends.base import leaves_of, side_of
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.losses import cross_entropy, fixed_gradients
from parity_tests.backends.runs import NET, Arrays, Objective, arrays
from parity_tests.levels.backward import backward_rows
from parity_tests.levels.diagnosis.divergences import diagnose
from parity_tests.levels.forward import forward_rows
from parity_tests.levels.referee import DidNotRun, Subject
from parity_tests.levels.structure import structure_rows
from parity_tests.levels.weights import copy_weights, pairing_map, project_map, weights_rows
from parity_tests.pairing.align import Pairing, pair_leaves
from parity_tests.reporting.environment import environment
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import LEVELS, Level, Side, Status

__all__ = ["DEFAULT_LEVELS", "check_parity"]

DEFAULT_LEVELS = (Level.STRUCTURE, Level.WEIGHTS, Level.FORWARD, Level.BACKWARD)
_OF_NETS = (*DEFAULT_LEVELS, Level.ARTEFACTS)


def check_parity(
    gluon_net: Any,
    torch_net: Any,
    inputs: Any,
    labels: Any = None,
    levels: Sequence[str] = DEFAULT_LEVELS,
    *,
    transfer: bool = False,
    masks: Mapping[str, np.ndarray] | None = None,
    strict: bool | None = None,
    name: str = "",
) -> Report:
    """Say, layer by layer, whether a Gluon net and a torch net compute the same thing.

    Neither net is changed: everything runs on copies, on the CPU, in float64 and float32.

    Args:
        gluon_net: an initialised Gluon block.
        torch_net: a torch module.
        inputs: one array (N, …), or a tuple of them, of numpy or either framework.
        labels: classes (N,), integers. With them the backward pass starts from softmax
            cross-entropy (this project's nets: from their own loss), without from fixed gradients.
        levels: among structure, weights, forward, backward and artefacts.
        transfer: first copy Gluon's weights into a copy of the torch net; else weights are compared
            as they are.
        masks: for the torch path of a Dropout, a boolean array in the shape of its input, True
            where a value is kept: both sides then drop the same values in training. Without one
            Dropout passes its input on.
        strict: make a divergence, instead of a note, of differences between the frameworks that
            are known and predicted (torch's BatchNorm stores the unbiased variance). None: for
            this project's own nets, which promise to have none.
        name: of the report; empty for the net's own.

    Returns:
        The report; `ok` is False too where nothing was compared. Its paths are the torch net's
        module paths, its errors in u·s.

    Raises:
        ParityError: the arguments are not two nets and their inputs.

    Examples:
        >>> import mxnet as mx
        >>> import torch
        >>> gluon_net = mx.gluon.nn.Dense(2, in_units=3)
        >>> gluon_net.initialize()
        >>> inputs = np.array([[1.0, -2.0, 0.5]], np.float32)
        >>> report = check_parity(gluon_net, torch.nn.Linear(3, 2), inputs, transfer=True)
        >>> report.ok, report.first_divergence
        (True, None)
    """
    started = time.perf_counter()
    _check_sides(gluon_net, torch_net)
    chosen = _check_levels(levels)
    input_arrays = arrays(inputs)
    gluon_leaves = leaves_of(gluon_net)
    transfer_map = project_map(gluon_net, torch_net)
    report = Report(
        name or getattr(gluon_net, "model_name", None) or type(torch_net).__name__,
        chosen,
        environment=environment(),
    )
    pairing = pair_leaves(gluon_leaves, leaves_of(torch_net))
    if transfer:
        torch_net = copy.deepcopy(torch_net)
        try:
            copy_weights(gluon_leaves, torch_net, transfer_map or pairing_map(pairing))
        except ValueError:  # nets of one name that differ: copy what fits, the levels say the rest
            copy_weights(gluon_leaves, torch_net, pairing_map(pairing))
        pairing = pair_leaves(gluon_leaves, leaves_of(torch_net))
    subject = Subject(
        gluon_net,
        torch_net,
        pairing,
        input_arrays,
        Objective(),
        _check_masks(masks or {}, pairing),
        strict=transfer_map is not None if strict is None else strict,
    )
    makers: dict[Level, Callable[[], tuple[list[Row], Coverage]]] = {
        Level.STRUCTURE: lambda: structure_rows(pairing),
        Level.WEIGHTS: lambda: weights_rows(gluon_net, torch_net, pairing, transfer_map),
        Level.FORWARD: lambda: forward_rows(subject),
        Level.BACKWARD: lambda: backward_rows(subject),
        Level.ARTEFACTS: lambda: _artefacts_rows(subject),
    }
    refused = _refused_inputs(input_arrays)
    if Level.BACKWARD in chosen and not refused:
        refused = _set_objective(subject, labels, transfer_map is not None)
    for level in chosen:
        if refused and level not in (Level.STRUCTURE, Level.WEIGHTS):
            status = Status.NOT_COMPARED
            row = Row(level=level, path=NET, quantity="inputs", status=status, detail=refused)
            report.add([row])
        else:
            report.add(*makers[level]())
    if not report.ok:
        diagnose(report, subject)
    report.seconds = time.perf_counter() - started
    return report


def _artefacts_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    # Its exporter brings gluon_cnn's commands and data, which the other levels do without.
    from parity_tests.levels.artefacts.hybridized import artefacts_rows

    return artefacts_rows(subject)


def _check_sides(gluon_net: Any, torch_net: Any) -> None:
    sides = (side_of(gluon_net), side_of(torch_net))
    if sides != (Side.GLUON, Side.TORCH):
        raise ParityError(
            f"got a {sides[0]} net and a {sides[1]} net, expected Gluon's first, then torch's"
        )


def _check_levels(levels: Sequence[str]) -> tuple[Level, ...]:
    unknown = [level for level in levels if level not in _OF_NETS]
    if unknown or isinstance(levels, str):
        raise ParityError(
            f"unknown levels {levels if isinstance(levels, str) else unknown}; "
            f"expected a sequence of {', '.join(_OF_NETS)}"
        )
    return tuple(level for level in LEVELS if level in levels)


def _check_masks(masks: Mapping[str, np.ndarray], pairing: Pairing) -> dict[str, np.ndarray]:
    known = [pair.torch.path for pair in pairing.pairs if pair.torch.kind == "dropout"]
    unknown = [path for path in masks if path not in known]
    if unknown:
        raise ParityError(
            f"masks for {', '.join(unknown)}, expected torch paths of paired dropout leaves: "
            f"{', '.join(known) or 'there are none'}"
        )
    return {path: np.asarray(mask, dtype=bool) for path, mask in masks.items()}


def _refused_inputs(inputs: Arrays) -> str:
    """Why nothing can be learnt from these inputs; empty where something can."""
    if not inputs or any(x.size == 0 for x in inputs):
        return "the inputs are empty"
    for x in inputs:
        if not np.isfinite(x).all():
            return "the inputs are not finite"
        if x.size > 1 and x.min() == x.max():
            return f"the inputs are constant, every value is {x.flat[0]}"
    return ""


def _set_objective(subject: Subject, labels: Any, ours: bool) -> str:
    """Decide what the backward pass starts from; why it cannot, if it cannot."""
    try:
        outputs = subject.run(Side.TORCH, "float64", train=False).outputs
    except DidNotRun:
        return ""  # the levels will say so, each for itself
    if labels is None:
        subject.objective = fixed_gradients(outputs)
        return ""
    (known,) = arrays(labels)
    classes = outputs[0].shape[-1]
    if known.shape != outputs[0].shape[:1] or known.min() < 0 or known.max() >= classes:
        raise ParityError(
            f"labels {known.shape} from {known.min()} to {known.max()}, expected "
            f"({outputs[0].shape[0]},) from 0 to {classes - 1}"
        )
    subject.objective = _own_loss(subject, known) if ours else cross_entropy(known)
    return ""


def _own_loss(subject: Subject, labels: np.ndarray) -> Objective:
    from gluon_cnn.training.losses import loss_for as gluon_loss_for
    from torch_ref.training.losses import loss_for as torch_loss_for

    return Objective(
        labels=labels,
        losses={
            Side.GLUON: gluon_loss_for(subject.gluon_net),
            Side.TORCH: torch_loss_for(subject.torch_net),
        },
    )
