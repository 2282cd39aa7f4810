"""The Python entrance: `check_parity(gluon_net, torch_net, inputs, …) -> Report`."""

from __future__ import annotations

import fnmatch
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from parity_tests.backends.base import backend, is_recorded, referee, side_of, source_of
from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.losses import Losses
from parity_tests.backends.optimizers import Optimizers
from parity_tests.backends.runs import NET, Arrays, arrays
from parity_tests.isolation import isolated
from parity_tests.levels.diagnosis.divergences import diagnose
from parity_tests.levels.pair import NetPair
from parity_tests.levels.quick import QUICK
from parity_tests.levels.referee import DidNotRun, Subject, not_compared
from parity_tests.levels.repro import write_repro
from parity_tests.levels.saved import check_saved_path
from parity_tests.reporting.environment import environment
from parity_tests.reporting.progress import progress_line
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import ALLOWED, Row
from parity_tests.reporting.verdicts import LEVELS, Check, Level, Side, Status

__all__ = ["DEFAULT_LEVELS", "check_parity"]

DEFAULT_LEVELS = (Level.STRUCTURE, Level.WEIGHTS, Level.FORWARD, Level.BACKWARD)
QUICK_LEVELS = (Level.STRUCTURE, Level.WEIGHTS, Level.FORWARD)
TRAINED = (Level.OPTIMIZER, Level.TRAINING)
OF_NETS = (*DEFAULT_LEVELS, *TRAINED, Level.ARTEFACTS)
_OF_INPUTS = (Level.STRUCTURE, Level.FORWARD, Level.BACKWARD)  # what another batch may change

Batches = Sequence[tuple[Any, Any]]  # each (inputs, labels)


_P = ParamSpec("_P")


def _set_apart(check: Callable[_P, Report]) -> Callable[_P, Report]:
    """The check runs apart from what the user has set in either framework."""
    signature = inspect.signature(check)

    @wraps(check)
    def checked(*args: _P.args, **kwargs: _P.kwargs) -> Report:
        nets = signature.bind(*args, **kwargs).args[:2]
        with ExitStack() as stack:
            for net in nets:
                stack.enter_context(source_of(net).set_apart(net))
            return check(*args, **kwargs)

    return checked


@_set_apart
def check_parity(
    gluon_net: Any,
    torch_net: Any,
    inputs: Any,
    labels: Any = None,
    levels: Sequence[str] | None = None,
    *,
    transfer: bool = False,
    masks: Mapping[str, np.ndarray] | None = None,
    strict: bool | None = None,
    allow: Mapping[str, str] | None = None,
    mapping: Mapping[str, str] | None = None,
    loss: Losses | None = None,
    batches: Batches = (),
    optimizer: Optimizers | None = None,
    steps: int = 10,
    quick: bool = False,
    save_mapped: str | Path | None = None,
    progress: bool = False,
    name: str = "",
    isolate: bool = False,
    repro: str | Path | None = None,
) -> Report:
    """Say, layer by layer, whether a Gluon net and a torch net compute the same thing.

    Neither net is changed: everything runs on copies, on the CPU, in float64 and float32.

    Args:
        gluon_net: an initialised Gluon block.
        torch_net: a torch module.
        inputs: one array (N, …), or a tuple of them, of numpy or either framework. Floats are
            rounded to float32, in which both nets can take them; whole numbers stay as they are.
        labels: classes (N,), or what `loss` takes. With them the backward pass starts from the
            loss, without from fixed gradients.
        levels: among structure, weights, forward, backward, optimizer, training and artefacts; the
            first four by default, the first three if `quick`. Optimizer and training need labels
            and an `optimizer`.
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
        mapping: from names of Gluon's modules or parameters to torch's, for what the alignment of
            what both nets execute would pair otherwise.
        loss: "softmax_ce" (the default; this project's nets have their own), "l2" (half the mean
            square), "l1", "sigmoid_bce", or a pair: Gluon's and torch's, each a name or a function
            of (first output, labels) that gives one value a sample or the mean of the batch.
        batches: more (inputs, labels), each compared like the first, and trained on.
        optimizer: "sgd(lr=0.1, momentum=0.9, wd=1e-4)", "nag(…)" or "adam(lr=0.001, beta1=0.9,
            beta2=0.999, epsilon=1e-8, wd=0.0)", each framework's own; or a pair: Gluon's and
            torch's, each such a text or a function of the net that gives a `gluon.Trainer` or a
            `torch.optim.Optimizer`.
        steps: of the level training, over and over the batches.
        quick: look at each operation once, in float32 and inference; the report says what that
            cannot see.
        save_mapped: write the torch net's state dict with Gluon's values to this `.safetensors` or
            `.pt` file, after loading it into a fresh net; implies `transfer`.
        progress: show on standard error, if that is a terminal, where the comparison is.
        name: of the report; empty for the net's own.
        isolate: compare in a child process, which native code may end: that becomes a row of the
            report, and everything else is compared.
        repro: a new folder for the first divergence: its arrays, and a script for each framework
            that shows it without this project. Nothing is written where there is none.

    Returns:
        The report; `ok` is False too where nothing was compared. Its paths are the torch net's
        module paths, its errors in u·s, and its `remarks` say how it was compared.

    Raises:
        ParityError: the arguments are not two nets and their inputs, or weights or inputs are NaN
            or infinite.

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
        given = {**locals(), "isolate": False}
        return isolated(lambda: check_parity(**given))
    started = time.perf_counter()
    # compiled code shows nobody what it runs either, but has the module at hand
    torch_net = getattr(torch_net, "_orig_mod", torch_net)
    _check_sides(gluon_net, torch_net)
    if not is_recorded(torch_net):
        _check_values(torch_net)
    chosen = _check_levels(levels, quick)
    if repro is not None and Path(repro).exists():
        raise ParityError(f"{repro} is there already; name a new folder for the divergence")
    if optimizer is None and (asked := [level for level in chosen if level in TRAINED]):
        raise ParityError(f"level {asked[0]} needs an optimizer, such as 'sgd(lr=0.1)'")
    saved = None if save_mapped is None else check_saved_path(save_mapped)
    moved = transfer or saved is not None
    source = torch_net if is_recorded(torch_net) else gluon_net  # of what is moved
    for net in [source] if moved else [gluon_net, torch_net]:
        _check_finite(net)
    every = [(arrays(inputs), labels), *((arrays(x), y) for x, y in batches)]
    _check_finite_inputs([values for values, _ in every])
    report = Report(
        name or getattr(gluon_net, "model_name", None) or type(torch_net).__name__,
        chosen,
        environment=environment(),
        quick=quick,
        remarks=[*([QUICK] if quick else ()), *_dtype_remarks(gluon_net, torch_net, every)],
    )
    if transfer and is_recorded(torch_net):
        gluon_net = backend(Side.GLUON).clone(gluon_net, None)
    elif moved:
        torch_net = referee().twin(torch_net)
    nets = {Side.GLUON: gluon_net, Side.TORCH: torch_net}
    with progress_line(report.name) if progress else nullcontext():
        for number, (values, known) in enumerate(every, 1):
            pair = NetPair(nets, values, masks, strict, mapping=mapping, quick=quick)
            if number == 1 and moved:
                pair.transfer()
            if number == 1 and optimizer is not None and not _refused_inputs(values):
                pair.prepare_training(every, loss, optimizer, steps)
            again = chosen if number == 1 else [each for each in chosen if each in _OF_INPUTS]
            one = _compared(report.name, pair, values, known, loss, again, allow or {}, number)
            if number == 1 and saved is not None:
                said = Level.WEIGHTS in chosen  # what keeps the file from being written
                one.add(r for r in pair.save(saved) if not said or r.check == Check.SAVED)
            if not one.ok and repro is not None and not Path(repro).exists():
                _write_repro(Path(repro), one, pair.subject_of(one.failures))
            report.merge(one, number)
            report.remarks += pair.remarks
    if len(every) > 1:
        report.remarks.append(f"{len(every)} batches: of each comparison the worst is shown")
    for pattern, reason in (allow or {}).items():
        report.remarks.append(_allowed(report, pattern, reason))
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


def _compared(
    name: str,
    pair: NetPair,
    inputs: Arrays,
    labels: Any,
    loss: Losses | None,
    levels: Iterable[Level],
    allow: Mapping[str, str],
    number: int,
) -> Report:
    """The batch of this number at these levels."""
    report = Report(name, tuple(levels))
    refused = _refused_inputs(inputs)
    if Level.BACKWARD in report.levels and not refused:
        pair.set_objective(labels, loss)
    for level in report.levels:
        if refused and level not in (Level.STRUCTURE, Level.WEIGHTS):
            report.add([not_compared(level, NET, "inputs", refused)])
        else:
            report.add(*JOURNAL.once(f"{level} {number}", partial(pair.rows, level)))
    for path, reason in allow.items():
        _allow(report, path, reason)
    if not refused:
        _count_allowed(report)
    if not report.ok:
        diagnose(report, pair.subject_of(report.failures))
    return report


def _allow(report: Report, pattern: str, reason: str) -> None:
    """Make notes of what failed under a path."""
    if not reason.strip():
        raise ParityError(f"allow {pattern!r} has no reason; say why it may differ")
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


def _count_allowed(report: Report) -> None:
    """Where a level compared nothing, count what is allowed there: a training that does not run."""
    for level in report.levels:
        allowed = [i for i, row in enumerate(report.rows) if row.level == level and row.allowance]
        if allowed and not report.compared(level):
            report.rows[allowed[0]] = replace(report.rows[allowed[0]], compared=1)


def _allowed(report: Report, pattern: str, reason: str) -> str:
    """What a pattern has made notes of. Raises ParityError for one that no path has."""
    under = [row for row in report.rows if fnmatch.fnmatchcase(row.path, pattern)]
    if not under:
        known = ", ".join(list(dict.fromkeys(row.path for row in report.rows))[:8])
        raise ParityError(
            f"allow {pattern!r} is no path of this pair, expected one such as {known}"
        )
    count = sum(row.detail.startswith(f"allowed, {reason}: ") for row in under)
    return f"allowed at {pattern}, {reason}: {count} of {len(under)} comparisons failed there"


def _dtype_remarks(
    gluon_net: Any, torch_net: Any, batches: Sequence[tuple[Arrays, Any]]
) -> list[str]:
    """What is rounded to float32 before it is compared, and why."""
    held: dict[Side, set[str]] = {}
    if not is_recorded(gluon_net):
        kinds = {np.dtype(p.dtype).name for p in gluon_net.collect_params().values()}
        held[Side.GLUON] = kinds
    if not is_recorded(torch_net):
        held[Side.TORCH] = {str(p.dtype).removeprefix("torch.") for p in torch_net.parameters()}
    remarks = []
    for side, kinds in held.items():
        for kind in sorted(kinds & {"float16", "float64"}):
            how = "rounded to float32 first" if kind == "float64" else "exact in float32"
            remarks.append(
                f"{side.framework}'s net is {kind}: its values, {how}, are compared in float32 and "
                f"float64, and its own arithmetic in {kind} is not"
            )
    kinds = {x.dtype.name for values, _ in batches for x in values}
    for kind in sorted(kinds & {"float16", "float64"}):
        remarks.append(f"inputs of {kind} were rounded to float32, which both nets can take")
    return remarks


def _check_sides(gluon_net: Any, torch_net: Any) -> None:
    sides = (side_of(gluon_net), side_of(torch_net))
    if sides != (Side.GLUON, Side.TORCH):
        raise ParityError(
            f"got a {sides[0]} net and a {sides[1]} net, expected Gluon's first, then torch's"
        )


def _check_values(torch_net: Any) -> None:
    """Refuse tensors that numpy cannot hold, by name, and a net whose calls cannot be seen."""
    if any(cls.__name__ == "ScriptModule" for cls in type(torch_net).__mro__):
        raise ParityError(
            "torch's net is a ScriptModule, which shows nobody what it runs; give the module that "
            "it was made of"
        )
    for name, tensor in (*torch_net.named_parameters(), *torch_net.named_buffers()):
        if type(tensor).__name__.startswith("Uninitialized"):
            raise ParityError(
                f"torch's {name} holds no values yet; run the net once on its input, so that every "
                "shape is known"
            )
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.is_meta:
            raise ParityError(f"torch's {name} is on the meta device and has no values; load them")
        if kind == "bfloat16":
            raise ParityError(f"torch's {name} is {kind}, which numpy does not have; call float()")


def _check_finite(net: Any) -> None:
    """Refuse NaN, and infinity in what is trained: a fixed mask of −∞ is what it should be."""
    found = []
    for name, values, trained in source_of(net).held(net):
        if values.dtype.kind == "f":
            bad = int((~np.isfinite(values) if trained else np.isnan(values)).sum())
            found += [f"{name} is NaN or infinite in {bad} of {values.size} values"] if bad else []
    if found:
        more = f", and {len(found) - 1} more of its tensors hold such values" * (len(found) > 1)
        raise ParityError(
            f"{side_of(net).framework}'s {found[0]}{more}: nothing computed from them can be "
            "compared; load or initialise finite weights"
        )


def _check_finite_inputs(batches: Sequence[Arrays]) -> None:
    for number, values in enumerate(batches, 1):
        for index, x in enumerate(values, 1):
            bad = int((~np.isfinite(x)).sum()) if x.dtype.kind == "f" else 0
            if bad:
                which = f"input {index}" + f" of batch {number}" * (len(batches) > 1)
                raise ParityError(
                    f"{which} is NaN or infinite in {bad} of {x.size} values: nothing computed "
                    "from it can be compared; give finite values"
                )


def _check_levels(levels: Sequence[str] | None, quick: bool) -> tuple[Level, ...]:
    known = QUICK_LEVELS if quick else OF_NETS
    if levels is None:
        return QUICK_LEVELS if quick else DEFAULT_LEVELS
    unknown = [level for level in levels if level not in known]
    if unknown or isinstance(levels, str):
        raise ParityError(
            f"unknown levels {levels if isinstance(levels, str) else unknown}; "
            f"expected a sequence of {', '.join(known)}{' with quick' * quick}"
        )
    return tuple(level for level in LEVELS if level in levels)


def _refused_inputs(inputs: Arrays) -> str:
    """Why nothing can be learnt from these inputs; empty where something can."""
    if not inputs or any(x.size == 0 for x in inputs):
        return "the inputs are empty"
    for x in inputs:
        if x.dtype.kind not in "fiub":
            raise ParityError(f"inputs of {x.dtype}, expected floats, whole numbers or bool")
    if all(x.size > 1 and x.min() == x.max() for x in inputs):
        return f"the inputs are constant, every value is {inputs[0].flat[0]}"
    return ""
