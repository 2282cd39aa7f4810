"""The Python entrance: `check_parity(gluon_net, torch_net, inputs, …) -> Report`."""

from __future__ import annotations

import copy
import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from parity_tests.levels.structure import executed_rows, structure_rows
from parity_tests.levels.view import View, leaves_suffice, trace_pair, view_of
from parity_tests.levels.weights import (
    copy_paired,
    copy_weights,
    pairing_map,
    project_map,
    weights_rows,
)
from parity_tests.pairing.align import Pairing, pair_leaves
from parity_tests.reporting.environment import environment
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import LEVELS, Level, Mode, Side, Status

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
    allow: Mapping[str, str] | None = None,
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
        allow: reasons by path, or by pattern such as `features.*`: what fails there is a note that
            gives the reason.
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
    _check_values(torch_net)
    chosen = _check_levels(levels)
    input_arrays = arrays(inputs)
    report = Report(
        name or getattr(gluon_net, "model_name", None) or type(torch_net).__name__,
        chosen,
        environment=environment(),
    )
    if transfer:
        torch_net = copy.deepcopy(torch_net)
    nets = {Side.GLUON: gluon_net, Side.TORCH: torch_net}
    pair = _Pair(nets, input_arrays, masks or {}, strict)
    if transfer:
        pair.transfer()
    refused = _refused_inputs(input_arrays)
    if Level.BACKWARD in chosen and not refused:
        refused = pair.set_objective(labels)
    for level in chosen:
        if refused and level not in (Level.STRUCTURE, Level.WEIGHTS):
            report.add([_refusal(level, refused)])
        else:
            report.add(*pair.rows(level))
    for path, reason in (allow or {}).items():
        _allow(report, path, reason)
    if not report.ok:
        diagnose(report, pair.subject_of(report.failures))
    report.seconds = time.perf_counter() - started
    return report


def _allow(report: Report, pattern: str, reason: str) -> None:
    """Make notes of what failed under a path. Raises ParityError for one that nothing has."""
    if not reason.strip():
        raise ParityError(f"allow {pattern!r} has no reason; say why it may differ")
    if not any(fnmatch.fnmatchcase(row.path, pattern) for row in report.rows):
        known = ", ".join(list(dict.fromkeys(row.path for row in report.rows))[:8])
        raise ParityError(
            f"allow {pattern!r} is no path of this pair, expected one such as {known}"
        )
    failed = (Status.DIVERGED, Status.NOT_COMPARED)
    report.rows = [
        replace(row, status=Status.NOTE, detail=f"allowed, {reason}: {row.detail or row.status}")
        if row.status in failed and fnmatch.fnmatchcase(row.path, pattern)
        else row
        for row in report.rows
    ]
    for group, keys in report.coverage.expected.items():
        for key in keys:
            if any(fnmatch.fnmatchcase(part, pattern) for part in (key, key.split(" ")[0])):
                report.coverage.done(group, key)


def _refusal(level: Level, reason: str) -> Row:
    status = Status.NOT_COMPARED
    return Row(level=level, path=NET, quantity="inputs", status=status, detail=reason)


class _Pair:
    """Two nets, and the leaves by which each level compares them.

    These are the nets' own leaves where both were written leaf for leaf; else segments of what they
    execute, in inference and in training where these differ.
    """

    def __init__(
        self,
        nets: dict[Side, Any],
        inputs: Arrays,
        masks: Mapping[str, np.ndarray],
        strict: bool | None,
    ) -> None:
        self._nets = nets
        self._transfer_map = project_map(nets[Side.GLUON], nets[Side.TORCH])
        self._untrained = ""  # why the nets do not run in training
        own = pair_leaves(*(leaves_of(net) for net in nets.values()))
        strict = self._transfer_map is not None if strict is None else strict

        def subject(view: View | None) -> Subject:
            pairing = own if view is None else view.pairing
            by_side = nets if view is None else view.nets
            checked = _check_masks(masks, pairing)
            gluon, torch = by_side[Side.GLUON], by_side[Side.TORCH]
            segments = {} if view is None else view.segments
            return Subject(
                gluon,
                torch,
                pairing,
                inputs,
                Objective(),
                checked,
                strict=strict,
                segments=segments,
            )

        self._own = subject(None)
        self._parts: list[tuple[Subject, View | None, tuple[bool, ...]]]
        self._parts = [(self._own, None, (False, True))]
        if self._transfer_map is not None or masks:  # masks are by the paths of leaves
            return
        try:
            traced, self._untrained = trace_pair(nets, inputs)
        except DidNotRun:
            return  # the levels will say so, each for itself
        if not leaves_suffice(own, traced):
            views = [view_of(nets, each) for each in traced]
            self._parts = [(subject(view), view, view.traced.modes) for view in views]

    def transfer(self) -> None:
        """Give the torch net the Gluon net's values."""
        for subject, view, _ in self._parts:
            if view is not None:
                copy_paired(subject.pairing)
        if self._parts[0][1] is not None:
            return
        leaves = [pair.gluon for pair in self._own.pairing.pairs]
        leaves += [leaf for leaf in self._own.pairing.alone if leaf.side == Side.GLUON]
        by_leaf = pairing_map(self._own.pairing)
        try:
            copy_weights(leaves, self._nets[Side.TORCH], self._transfer_map or by_leaf)
        except ValueError:  # nets of one name that differ: copy what fits, the levels say the rest
            copy_weights(leaves, self._nets[Side.TORCH], by_leaf)

    def set_objective(self, labels: Any) -> str:
        """Decide what the backward pass starts from; why it cannot, if it cannot."""
        ours = self._transfer_map is not None
        return max(_set_objective(subject, labels, ours) for subject, _, _ in self._parts)

    def subject_of(self, failures: Sequence[Row]) -> Subject:
        """What the first of these rows was found in."""
        train = bool(failures) and failures[0].mode == Mode.TRAIN
        return self._parts[-1 if train else 0][0]

    def rows(self, level: Level) -> tuple[list[Row], Coverage]:
        """What a level says."""
        first, last = self._parts[0][0], self._parts[-1]
        if level == Level.WEIGHTS:
            nets = first.gluon_net, first.torch_net
            return weights_rows(*nets, first.pairing, self._transfer_map)
        if level == Level.BACKWARD:
            if True not in last[2]:
                return [_refusal(level, self._untrained)], Coverage()
            return backward_rows(last[0])
        if level == Level.ARTEFACTS:
            return _artefacts_rows(self._own)
        rows: list[Row] = []
        coverage = Coverage()
        for subject, view, modes in self._parts:
            if level == Level.FORWARD:
                more, reached = forward_rows(subject, modes)
            elif view is None:
                more, reached = structure_rows(subject.pairing)
            else:
                more, reached = executed_rows(view, subject)
            rows += more
            coverage.merge(reached)
        if level == Level.FORWARD and self._untrained:
            rows.append(_refusal(level, self._untrained))
        return rows, coverage


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


def _check_values(torch_net: Any) -> None:
    """Refuse tensors that numpy cannot hold, by name."""
    for name, tensor in (*torch_net.named_parameters(), *torch_net.named_buffers()):
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta:
            raise ParityError(f"torch's {name} is on the meta device and has no values; load them")
        if kind == "bfloat16":
            raise ParityError(f"torch's {name} is {kind}, which numpy does not have; call float()")


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
