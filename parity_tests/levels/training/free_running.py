"""Training free-running: two runs that start equal and are left alone.

In float64 every stage of every step is compared; `training_envelope` judges float32's loss curves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from parity_tests.backends.base import backend, referee
from parity_tests.backends.runs import NET, Noise
from parity_tests.backends.training import Batch, Key, Stages, State, Trainee
from parity_tests.levels.envelope import call_scales
from parity_tests.levels.training.ledger import Ledger
from parity_tests.levels.training.trial import Trial
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT, compare
from parity_tests.numerics.conventions import unbiased
from parity_tests.numerics.operators.table import tolerance
from parity_tests.numerics.perturb import largest_move
from parity_tests.pairing.align import Pairing
from parity_tests.reporting.progress import show
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status

TOGETHER = 1e-9  # relative distance of two free runs in float64
STAGES = ("logits", "loss", "logit gradient", "gradient", "slot", "weight", "buffer")


def free_rows(
    trial: Trial, steps: int, dtype: str = "float64", bound: float = TOGETHER
) -> list[Row]:
    """Rows of two runs that start equal and are left alone; they end with the first divergence.

    Distances are relative to the largest value that the leaf has in that stage: a bias is added to
    what the weights beside it make, and counts on their scale. Where MXNet computes an operator in
    float32 even in a float64 net, and that shows, the bound is what as much carries.
    """
    ledger = _free(trial, steps, dtype, bound, None)
    noise = _single_precision(trial) if ledger.failed and dtype == "float64" else None
    return (ledger if noise is None else _free(trial, steps, dtype, bound, noise)).rows()


def _free(trial: Trial, steps: int, dtype: str, bound: float, noise: Noise | None) -> Ledger:
    ledger = Ledger()
    gluon, theirs = trial.trainee(Side.GLUON, dtype), trial.trainee(Side.TORCH, dtype)
    idle = _IdleBiases(trial.pairing, gluon.state(), theirs.state())
    variances = None if trial.strict else _Variances(trial, theirs.state())
    shaken = Shaken(trial, dtype, noise)
    for number, batch in enumerate(trial.batches[:steps], 1):
        show(Level.TRAINING, f"step {number} of {steps}, free-running, {dtype}")
        ours, mine = gluon.step(batch), theirs.step(batch)
        moves = shaken.moves(batch, mine)
        a, b = idle.seen(ours, mine if variances is None else variances.biased(mine), bound)
        for order, row in _apart(a, b, dtype, bound, moves):
            ledger.add(number, order, idle.explained(row))
        if ledger.failed:
            break
    return ledger


def _single_precision(trial: Trial) -> Noise | None:
    """A quarter of what MXNet's operators in float32 may be off; None where the nets have none."""
    leaves = [
        pair.torch
        for pair in trial.pairing.pairs
        if any(_float64(pair.torch.family, mode, 1) > 2.0**20 for mode in ("inference", "train"))
    ]
    if not leaves:
        return None
    first = trial.batches[0]
    objective = replace(trial.objective, labels=first.labels)
    run = referee().run_net(
        trial.torch_net, first.inputs, "float64", train=True, objective=objective
    )
    noise = Noise({}, {}, 0.0)
    for leaf in leaves:
        for call in run.calls[leaf.path]:
            upstream = tuple(g for g in call.upstream if g is not None)
            if len(upstream) < len(call.outputs):
                continue  # nothing goes back from here
            scales = call_scales(leaf, call, train=True, upstream=upstream)
            for name, mode, values, found in (
                ("output", "inference", call.outputs, noise.outputs),
                ("input gradient", "train", call.input_gradients, noise.input_gradients),
            ):
                if name in scales.sizes and values and values[0] is not None:
                    factor = _float64(scales.family, mode, scales.length) / 4
                    size = factor * UNIT["float64"] * scales.sizes[name]
                    found[leaf.path] = relative(size, values[0])
    return noise


def _float64(family: str, mode: str, length: int) -> float:
    return tolerance(family, mode, "gluon", "float64").factor(length)


def relative(size: np.ndarray, values: np.ndarray) -> float:
    """The root mean square of sizes, by that of values."""
    whole = float(np.sqrt(np.mean(np.square(values))))
    return float(np.sqrt(np.mean(np.square(size)))) / whole if whole else 0.0


class Shaken:
    """The torch side once more, each step a little longer, shorter, or either at random, by what
    the rule's numbers are rounded, and with noise: how far that carries every stage."""

    def __init__(self, trial: Trial, dtype: str, noise: Noise | None = None) -> None:
        self._slack = trial.most_slack
        count = 3 if self._slack or noise is not None else 0
        self._trainees = [trial.trainee(Side.TORCH, dtype) for _ in range(count)]
        for seed, trainee in enumerate(self._trainees):
            if noise is not None:
                referee().shake(trainee.net, noise, seed)
        self._generator = np.random.default_rng(13)
        self._moves: dict[tuple[str, Key], float] = {}

    def moves(self, batch: Batch, clean: Stages) -> dict[tuple[str, Key], float]:
        """The largest move of each stage's groups, of any draw so far."""
        for draw, trainee in enumerate(self._trainees):
            noisy = self.stretched(trainee, draw, batch)
            for stage in STAGES:
                theirs = _stage(clean, stage)
                for key, value in _stage(noisy, stage).items():
                    at = stage, _group(stage, key)
                    move = largest_move(value, theirs[key])
                    if stage == "slot":  # whose own numbers are rounded, too
                        move = max(move, self._slack * float(np.abs(theirs[key]).max()))
                    self._moves[at] = max(self._moves.get(at, 0.0), move)
        return self._moves

    def stretched(self, trainee: Trainee, draw: int, batch: Batch) -> Stages:
        """One step that goes a little farther, or less far."""
        before = trainee.state().weights
        stages: Stages = trainee.step(batch)
        weights = {}
        for key, value in stages.after.weights.items():
            sign = (1, -1)[draw] if draw < 2 else self._generator.standard_normal()
            weights[key] = value + (self._slack * sign * (value - before[key])).astype(value.dtype)
        trainee.put(weights)
        return replace(stages, after=replace(stages.after, weights=weights))


class _Variances:
    """torch's unbiased running variances, made MXNet's biased ones step by step."""

    def __init__(self, trial: Trial, start: State) -> None:
        run = backend(Side.TORCH).run_net(
            trial.torch_net, trial.batches[0].inputs, "float64", train=True
        )
        self._of: dict[Key, tuple[float, int]] = {}
        for pair in trial.pairing.pairs:
            calls = run.calls[pair.torch.path]
            found = unbiased(pair.torch, calls[0].inputs) if len(calls) == 1 else {}
            self._of |= {(pair.torch.path, name): norm for name, norm in found.items()}
        self._theirs = dict(start.buffers)
        self._ours = dict(start.buffers)

    def biased(self, stages: Stages) -> Stages:
        """A step's stages with the variances that MXNet would have."""
        buffers = dict(stages.after.buffers)
        for key, (kept, n) in self._of.items():
            new = buffers[key] - kept * self._theirs[key]
            self._theirs[key] = buffers[key]
            self._ours[key] = kept * self._ours[key] + new * ((n - 1) / n)
            buffers[key] = self._ours[key].astype(buffers[key].dtype)
        return replace(stages, after=replace(stages.after, buffers=buffers))


class _IdleBiases:
    """Biases right before a BatchNorm: what it subtracts again has no effect and no gradient.

    The gradient is rounding alone, and Adam divides it by its own size, so that such a bias wanders
    by up to the learning rate a step, and the running mean after it. The bias is noted. The running
    mean is compared without the biases that it has seen.
    """

    def __init__(self, pairing: Pairing, *start: State) -> None:
        self._after: dict[Key, tuple[Key, float]] = {}  # a bias -> the running mean, what it keeps
        leaves = [pair.torch for pair in pairing.pairs]
        for leaf, norm in pairwise(leaves):
            kept: Any = norm.hyper.get("kept")
            key = (leaf.path, "bias")
            trained = all(key in state.weights for state in start)
            if norm.kind == "batchnorm" and kept is not None and trained:
                self._after[key] = ((norm.path, "running_mean"), float(np.float32(kept)))
        self._biases = [dict(state.weights) for state in start]
        self._means = [{key: 0.0 * state.weights[key] for key in self._after} for state in start]

    def seen(self, ours: Stages, theirs: Stages, bound: float) -> tuple[Stages, Stages]:
        """The stages of a step, with running means that hold no bias."""
        for key in list(self._after):
            if not all(_no_gradient(stages, key, bound) for stages in (ours, theirs)):
                del self._after[key]  # it has an effect: what follows it is no BatchNorm's alone
        cleared = []
        for side, stages in enumerate((ours, theirs)):
            buffers = dict(stages.after.buffers)
            for key, (mean, kept) in self._after.items():
                seen = self._means[side]
                seen[key] = kept * seen[key] + (1 - kept) * self._biases[side][key]
                buffers[mean] = buffers[mean] - seen[key]
            self._biases[side] = dict(stages.after.weights)
            cleared.append(replace(stages, after=replace(stages.after, buffers=buffers)))
        return cleared[0], cleared[1]

    def explained(self, row: Row) -> Row:
        if row.status != Status.DIVERGED or (row.path, row.quantity) not in self._after:
            return row
        diagnosis = "its gradient is rounding alone: BatchNorm subtracts what it adds"
        return replace(row, status=Status.NOTE, diagnosis=diagnosis)


def _no_gradient(stages: Stages, key: Key, bound: float) -> bool:
    beside = [np.abs(g).max() for (path, _), g in stages.gradients.items() if path == key[0]]
    return bool(np.abs(stages.gradients[key]).max() <= bound * max(beside))


# A row's place within its step: stage, tensor.
_Placed = tuple[tuple[int, int], Row]


def _apart(
    a: Stages, b: Stages, dtype: str, bound: float, moves: Mapping[tuple[str, Key], float]
) -> Iterator[_Placed]:
    for place, stage in enumerate(STAGES):
        ours, theirs = _stage(a, stage), _stage(b, stage)
        largest: dict[Key, float] = {}
        for key, value in theirs.items():
            group = _group(stage, key)
            largest[group] = max(largest.get(group, 0.0), float(np.abs(value).max()))
        for number, (key, value) in enumerate(ours.items()):
            group = _group(stage, key)
            move = moves.get((stage, group), 0.0) / largest[group] if largest[group] else 0.0
            verdict = compare(
                value, theirs[key], scale=largest[group] / UNIT[dtype],
                factor=bound + ENVELOPE_FACTOR * move,
                dtype=dtype, unit=dtype,
                content="any" if stage in ("weight", "buffer") else "nonzero",
            )  # fmt: skip
            row = Row.judged(
                replace(verdict, unit="of the largest value"),
                level=Level.TRAINING, path=key[0], quantity=key[1], check=Check.FREE_RUNNING,
                side=Side.GLUON, dtype=dtype, mode=Mode.TRAIN,
            )  # fmt: skip
            yield (place, -number if stage == "gradient" else number), row


def _group(stage: str, key: Key) -> Key:
    """Whose values a tensor counts beside: weights and biases of a leaf, means, variances."""
    path, name = key
    if stage == "slot":
        return path, name.rpartition(" ")[2]
    return key if stage == "buffer" else (path, stage)


def _stage(stages: Stages, stage: str) -> dict[Key, np.ndarray]:
    """A stage's tensors by (path, quantity)."""
    if stage in ("logits", "loss", "logit gradient"):
        return {(NET, stage): getattr(stages, stage.replace(" ", "_"))}
    if stage == "gradient":
        return {(path, f"{role} gradient"): g for (path, role), g in stages.gradients.items()}
    if stage == "slot":
        return {
            (path, f"{role} {name}"): value
            for (path, role), slots in stages.after.slots.items()
            for name, value in slots.items()
        }
    return stages.after.weights if stage == "weight" else stages.after.buffers
