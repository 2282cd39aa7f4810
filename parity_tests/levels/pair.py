"""A pair of nets under comparison, and the leaves by which each level compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.backends.base import is_recorded, leaves_of
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.losses import Losses, check_labels, fixed_gradients, objective_of
from parity_tests.backends.optimizers import Optimizers
from parity_tests.backends.runs import NET, Arrays, Objective, arrays
from parity_tests.levels.backward import backward_rows
from parity_tests.levels.forward import forward_rows
from parity_tests.levels.quick import quick_rows
from parity_tests.levels.referee import DidNotRun, Subject, attempt, not_compared
from parity_tests.levels.saved import save_mapped
from parity_tests.levels.structure import executed_rows, structure_rows
from parity_tests.levels.view import (
    TracedPair,
    Unseen,
    View,
    are_near,
    leaves_suffice,
    trace_pair,
    view_of,
)
from parity_tests.levels.weights import (
    PER_GROUP,
    copy_paired,
    copy_weights,
    pairing_map,
    per_group,
    project_map,
    weights_rows,
)
from parity_tests.pairing.align import Pairing, pair_leaves
from parity_tests.reporting.rows import LEFT_OUT, Coverage, Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status


class NetPair:
    """Two nets, and the leaves by which each level compares them.

    These are the nets' own leaves where both were written leaf for leaf; else segments of what they
    execute, in inference and in training where these differ.
    """

    def __init__(
        self,
        nets: dict[Side, Any],
        inputs: Arrays,
        masks: Mapping[str, np.ndarray] | None = None,
        strict: bool | None = None,
        *,
        mapping: Mapping[str, str] | None = None,
        quick: bool = False,
    ) -> None:
        masks = masks or {}
        self._nets, self._inputs, self._quick = nets, inputs, quick
        self.remarks: list[str] = []
        self._trial: Any = None
        self._steps = 0
        self._transfer_map = project_map(nets[Side.GLUON], nets[Side.TORCH])
        self._untrained = ""  # why the nets do not run in training
        self._undriven = ""  # why their optimizers are not compared
        self._undifferentiated = ""  # why no gradient of Gluon's is that of the net
        self._unheeded = ""  # why Gluon's outputs are not those that are compared
        self._unseen = ""  # why what the nets execute cannot be followed
        own = pair_leaves(*(leaves_of(net) for net in nets.values()))
        strict = self._transfer_map is not None if strict is None else strict

        def subject(nets: Mapping[Side, Any], pairing: Pairing, **more: Any) -> Subject:
            of_both = nets[Side.GLUON], nets[Side.TORCH], pairing, inputs, Objective()
            return Subject(*of_both, _check_masks(masks, pairing), strict=strict, **more)

        def seen(view: View) -> Subject:
            more = {"modes": view.traced.modes, "recorded": view.recorded}
            return subject(view.nets, view.pairing, segments=view.segments, **more)

        self._own = subject(nets, own)
        self._parts: list[tuple[Subject, View | None]] = [(self._own, None)]
        if not mapping and (self._transfer_map is not None or masks):
            return  # masks are by the paths of leaves
        modes = (False,) if quick else (False, True)
        try:
            traced, self._untrained = trace_pair(nets, inputs, modes=modes, mapping=mapping)
        except DidNotRun as error:
            if any(map(is_recorded, nets.values())):
                raise ParityError(str(error)) from error
            self._unseen = str(error) if isinstance(error, Unseen) else ""
            return  # the levels will say so, each for itself
        if mapping or not leaves_suffice(own, traced):
            self._undifferentiated = _lacks_gradient(traced[-1])
            known: Mapping[str, str] = {}
            self._parts = []
            for each in traced:
                view = view_of(nets, each, inputs, known)
                known = view.traced.alignment.parameters
                self._parts.append((seen(view), view))
            told = any("lengths" in op.attributes for op in traced[0].executed(Side.GLUON))
            if told and not any(map(is_recorded, nets.values())):
                self._unheeded = _heeds_no_lengths(self._own, self._parts[0][0])

    def transfer(self) -> None:
        """Give the torch net the Gluon net's values."""
        recorded = is_recorded(self._nets[Side.TORCH])
        for subject, view in self._parts:
            if view is not None:
                copy_paired(subject.pairing, Side.GLUON if recorded else Side.TORCH)
        if self._parts[0][1] is not None:
            return
        leaves = [pair.gluon for pair in self._own.pairing.pairs]
        leaves += [leaf for leaf in self._own.pairing.alone if leaf.side == Side.GLUON]
        by_leaf = pairing_map(self._own.pairing)
        try:
            copy_weights(leaves, self._nets[Side.TORCH], self._transfer_map or by_leaf)
        except ValueError:  # nets of one name that differ: copy what fits, the levels say the rest
            copy_weights(leaves, self._nets[Side.TORCH], by_leaf)

    def save(self, path: Path) -> Iterator[Row]:
        """Write the torch net's state, if it holds all that Gluon has: see `save_mapped`."""
        failed = [row for row in self.rows(Level.WEIGHTS)[0] if row.status.failed]
        if failed:
            self.remarks.append(f"{path} is not written: not every tensor has its partner")
            yield from failed
            return
        subjects = [subject for subject, _ in self._parts]
        saved, words = save_mapped(path, self._nets[Side.TORCH], subjects, self._inputs)
        self.remarks.append(words)
        yield from saved

    def set_objective(self, labels: Any, loss: Losses | None = None) -> None:
        """Decide what the backward pass starts from."""
        for net in self._nets.values():
            if is_recorded(net):
                return self._record_objective(net, labels)
        ours = self._transfer_map is not None
        for subject, _ in self._parts:
            _set_objective(subject, labels, loss, ours)

    def _record_objective(self, net: Any, labels: Any) -> None:
        """The backward pass of a record is over; the other side starts from the same gradients."""
        if labels is not None:
            raise ParityError("a record has its own gradients of the outputs; leave the labels out")
        for subject, _ in self._parts:
            if True in subject.modes:
                subject.objective = Objective(upstream=net.heads)

    def prepare_training(
        self,
        batches: Sequence[tuple[Arrays, Any]],
        loss: Losses | None,
        optimizer: Optimizers,
        steps: int,
    ) -> None:
        """Make ready for the levels optimizer and training. Raises ParityError where that fails."""
        from parity_tests.levels.training.own import check_optimizers, own_trial

        makers = check_optimizers(optimizer)
        subject, view = self._parts[-1]
        self._steps = steps
        if self._unseen or self._undifferentiated:
            self._undriven = self._unseen or self._undifferentiated
            return
        if True not in subject.modes:
            return
        if view is not None and view.traced.packed:
            self._undriven = f"{view.traced.packed[0]}, of which no optimizer is followed"
            return
        if self._transfer_map is not None and loss is None:
            loss = self._own_losses(subject)
        self._trial = own_trial(self._nets, subject, view, batches, loss, makers, steps)

    def _own_losses(self, subject: Subject) -> Losses:
        objective = _own_loss(subject, np.zeros(1))
        return objective.losses[Side.GLUON], objective.losses[Side.TORCH]

    def subject_of(self, failures: Sequence[Row]) -> Subject:
        """What the first of these rows was found in."""
        train = bool(failures) and failures[0].mode == Mode.TRAIN
        return self._parts[-1 if train else 0][0]

    def rows(self, level: Level) -> tuple[list[Row], Coverage]:
        """What a level says.

        Of nets whose values leave their framework it is what layers alone say, and that.
        """
        rows, coverage = self._rows(level)
        if level in (Level.BACKWARD, Level.OPTIMIZER):
            rows = list(map(self._comparable, rows))
        if self._unseen and level in (Level.STRUCTURE, Level.FORWARD, Level.BACKWARD):
            rows = [row for row in rows if row.check != Check.INHERITED]
            rows.append(not_compared(level, NET, "operation", self._unseen))
        if self._unheeded and level == Level.FORWARD:
            rows.append(not_compared(level, NET, "output", self._unheeded))
        return rows, coverage

    def _comparable(self, row: Row) -> Row:
        """A row, or what says that its values have no partners one to one: see `per_group`."""
        if row.status != Status.DIVERGED:
            return row
        role = row.quantity.removesuffix(" gradient")
        pairs = (pair for subject, _ in self._parts for pair in subject.pairing.pairs)
        if not any(pair.path == row.path and per_group(pair, role) for pair in pairs):
            return row
        return not_compared(row.level, row.path, row.quantity, PER_GROUP, check=row.check)

    def _rows(self, level: Level) -> tuple[list[Row], Coverage]:
        first, last = self._parts[0][0], self._parts[-1]
        if level == Level.WEIGHTS:
            nets = first.gluon_net, first.torch_net
            return weights_rows(*nets, first.pairing, self._transfer_map)
        if level == Level.BACKWARD:
            if True not in last[0].modes:
                return [not_compared(level, NET, "inputs", self._untrained)], Coverage()
            if self._undifferentiated:
                return [not_compared(level, NET, "gradient", self._undifferentiated)], Coverage()
            objective = last[0].objective
            if objective.upstream and not any(g.any() for g in objective.upstream):
                detail = f"{LEFT_OUT}nothing to differentiate: every output holds whole numbers"
                row = not_compared(level, NET, "inputs", detail)
                row = replace(row, status=Status.NOTE, compared=1)
                return [row], Coverage()
            return backward_rows(last[0])
        if level in (Level.OPTIMIZER, Level.TRAINING):
            return self._trained(level)
        if level == Level.ARTEFACTS:
            return _artefacts_rows(self._own)
        if level == Level.FORWARD and self._quick:
            rows, coverage, words = quick_rows(first)
            self.remarks += [words] if words else []
            return rows, coverage
        rows, coverage = [], Coverage()
        for subject, view in self._parts:
            if level == Level.FORWARD:
                more, reached = forward_rows(subject)
            elif view is None:
                more, reached = structure_rows(subject.pairing)
            else:
                more, reached = executed_rows(view, subject)
                if False not in subject.modes:
                    more = [replace(row, mode=Mode.TRAIN) for row in more]
            rows += more
            coverage.merge(reached)
        said = any(row.detail == self._untrained for row in rows)
        if level == Level.FORWARD and self._untrained and not said:
            rows.append(not_compared(level, NET, "inputs", self._untrained))
        return rows, coverage

    def _trained(self, level: Level) -> tuple[list[Row], Coverage]:
        from parity_tests.levels.training.own import rows_of_level

        if self._trial is None:
            why = self._undriven or self._untrained
            return [not_compared(level, NET, "inputs", why)], Coverage()
        pairs = self._parts[-1][0].pairing.pairs
        if level == Level.TRAINING and any(per_group(p, r) for p in pairs for r in p.torch.tensors):
            return [not_compared(level, NET, "inputs", PER_GROUP)], Coverage()
        try:
            return rows_of_level(level, self._trial, self._steps)
        except DidNotRun as error:
            return [not_compared(level, NET, "inputs", error)], Coverage()


def _lacks_gradient(traced: TracedPair) -> str:
    """Why MXNet gives no gradient of what its net computes in training; empty where it does."""
    graph = traced.executed(Side.GLUON)
    computed, _ = graph.leading_to(graph.outputs)
    whys = (op.lacks_gradient for op in graph if op.index in computed)
    return next(filter(None, whys), "") if graph.train else ""


def _heeds_no_lengths(own: Subject, executed: Subject) -> str:
    """Why a net gives something else here than its layers do that heed lengths; empty if not."""
    try:
        runs = [attempt(Side.GLUON, s.run_gluon, "float32", train=False) for s in (own, executed)]
    except DidNotRun as error:
        return str(error)
    if all(are_near(*both) for both in zip(*(run.outputs for run in runs), strict=False)):
        return ""
    return (
        "on a CPU MXNet 1.9.1 computes every step, whatever lengths a layer with "
        "`use_sequence_length` is given: the net gives other outputs here than on a GPU, whose are "
        "compared; put F.SequenceMask or F.SequenceLast behind it, or unroll cells with "
        "`valid_length`"
    )


def _artefacts_rows(subject: Subject) -> tuple[list[Row], Coverage]:
    # Its exporter brings gluon_cnn's commands and data, which the other levels do without.
    from parity_tests.levels.artefacts.hybridized import artefacts_rows

    return artefacts_rows(subject)


def _check_masks(masks: Mapping[str, np.ndarray], pairing: Pairing) -> dict[str, np.ndarray]:
    known = [pair.torch.path for pair in pairing.pairs if pair.torch.kind == "dropout"]
    unknown = [path for path in masks if path not in known]
    if unknown:
        raise ParityError(
            f"masks for {', '.join(unknown)}, expected torch paths of paired dropout leaves: "
            f"{', '.join(known) or 'there are none'}"
        )
    return {path: np.asarray(mask, dtype=bool) for path, mask in masks.items()}


def _set_objective(subject: Subject, labels: Any, loss: Losses | None, ours: bool) -> None:
    try:
        outputs = subject.run(Side.TORCH, "float64", train=subject.modes[0]).outputs
    except DidNotRun:
        return  # the levels will say so, each for itself
    if labels is None:
        subject.objective = fixed_gradients(outputs)
        return
    (known,) = arrays(labels)
    if ours and loss is None:
        check_labels(outputs[0], known, classes=True)
        subject.objective = _own_loss(subject, known)
    else:
        subject.objective = objective_of(loss or "softmax_ce", outputs, known)


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
