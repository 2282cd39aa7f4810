"""The Python entrance: `check_parity(gluon_net, torch_net, inputs, …) -> Report`."""

from __future__ import annotations

import copy
import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.backends.base import backend, is_recorded, side_of
from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import NET, Arrays, arrays
from parity_tests.isolation import isolated
from parity_tests.levels.diagnosis.divergences import diagnose
from parity_tests.levels.pair import NetPair, refusal
from parity_tests.levels.referee import DidNotRun, Subject
from parity_tests.levels.repro import write_repro
from parity_tests.reporting.environment import environment
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import ALLOWED, Row
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
    allow: Mapping[str, str] | None = None,
    name: str = "",
    isolate: bool = False,
    repro: str | Path | None = None,
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
        transfer: first copy Gluon's weights into a copy of the torch net, or those of a recorded
            torch net into a copy of Gluon's; else weights are compared as they are.
        masks: for the torch path of a Dropout, a boolean array in the shape of its input, True
            where a value is kept: both sides then drop the same values in training. Without one
            Dropout passes its input on.
        strict: make a divergence, instead of a note, of differences between the frameworks that
            are known and predicted (torch's BatchNorm stores the unbiased variance). None: for
            this project's own nets, which promise to have none.
        allow: reasons by path, or by pattern such as `features.*`: what fails there is a note that
            gives the reason.
        name: of the report; empty for the net's own.
        isolate: compare in a child process, which native code may end: that becomes a row of the
            report, and everything else is compared.
        repro: a new folder for the first divergence: its arrays, and a script for each framework
            that shows it without this project. Nothing is written where there is none.

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
    if isolate:
        return isolated(
            lambda: check_parity(
                gluon_net,
                torch_net,
                inputs,
                labels,
                levels,
                transfer=transfer,
                masks=masks,
                strict=strict,
                allow=allow,
                name=name,
                repro=repro,
            )
        )
    started = time.perf_counter()
    _check_sides(gluon_net, torch_net)
    if not is_recorded(torch_net):
        _check_values(torch_net)
    chosen = _check_levels(levels)
    if repro is not None and Path(repro).exists():
        raise ParityError(f"{repro} is there already; name a new folder for the divergence")
    input_arrays = arrays(inputs)
    report = Report(
        name or getattr(gluon_net, "model_name", None) or type(torch_net).__name__,
        chosen,
        environment=environment(),
    )
    if transfer and is_recorded(torch_net):
        gluon_net = backend(Side.GLUON).clone(gluon_net, None)
    elif transfer:
        torch_net = copy.deepcopy(torch_net)
    nets = {Side.GLUON: gluon_net, Side.TORCH: torch_net}
    pair = NetPair(nets, input_arrays, masks or {}, strict)
    if transfer:
        pair.transfer()
    refused = _refused_inputs(input_arrays)
    if Level.BACKWARD in chosen and not refused:
        refused = pair.set_objective(labels)
    for level in chosen:
        if refused and level not in (Level.STRUCTURE, Level.WEIGHTS):
            report.add([refusal(level, refused)])
        else:
            report.add(*JOURNAL.once(level, partial(pair.rows, level)))
    for path, reason in (allow or {}).items():
        _allow(report, path, reason)
    if not report.ok:
        diagnose(report, pair.subject_of(report.failures))
        if repro is not None:
            _write_repro(Path(repro), report, pair.subject_of(report.failures))
    report.seconds = time.perf_counter() - started
    return report


def _write_repro(folder: Path, report: Report, subject: Subject) -> None:
    """Write the first divergence, or note in the report why that cannot be."""
    try:
        write_repro(folder, report, subject)
    except (ParityError, DidNotRun) as error:
        detail = f"{folder} was not written: {error}"
        level = report.failures[0].level if report.failures else report.levels[0]
        status = Status.NOTE
        report.add([Row(level=level, path=NET, quantity="repro", status=status, detail=detail)])


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
        replace(row, status=Status.NOTE, detail=f"{ALLOWED}{reason}: {row.detail or row.status}")
        if row.status in failed and fnmatch.fnmatchcase(row.path, pattern)
        else row
        for row in report.rows
    ]
    for group, keys in report.coverage.expected.items():
        for key in keys:
            if any(fnmatch.fnmatchcase(part, pattern) for part in (key, key.split(" ")[0])):
                report.coverage.done(group, key)


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
