"""The envelope of a loss curve in float32: how far rounding alone carries it, measured.

The same run is made again several times: with one ulp of noise in every pixel of every batch, and
at every leaf, forward and backward, with a quarter of the rounding that the levels forward and
backward allow it. A ulp in the pixels alone is not enough. It reaches the first sums and averages
out there, while rounding goes on in every leaf; and what carries two runs apart is mostly that one
unit of one image falls on the other side of a ReLU, which is a matter of chance that grows with the
noise. On LeNet such an event at step 40 took Gluon's loss 7,000 times as far as pixels alone had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from parity_tests.backends.base import leaves_of, referee
from parity_tests.backends.losses import loss_scales
from parity_tests.backends.runs import NET, Noise, Objective, rounded
from parity_tests.levels.envelope import call_scales, sigma
from parity_tests.levels.training.free_running import Shaken, relative
from parity_tests.levels.training.ledger import Ledger
from parity_tests.levels.training.trial import Trial
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT, compare
from parity_tests.numerics.operators.table import tolerance
from parity_tests.numerics.perturb import largest_move
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Mode, Side

DRAWS = 4


def noise_of(torch_net: Any, images: Any, objective: Objective) -> Noise:
    """A quarter of what the tolerance table allows in float32, on one batch with its labels.

    Raises DidNotRun.
    """
    inputs = images if isinstance(images, tuple) else (images,)
    run = referee().run_net(torch_net, inputs, "float64", train=True, objective=objective)
    outputs: dict[str, float] = {}
    input_gradients: dict[str, float] = {}
    for leaf in leaves_of(torch_net):
        for call in run.calls[leaf.path]:
            upstream = tuple(g for g in call.upstream if g is not None)
            if len(upstream) < len(call.outputs):
                continue  # nothing goes back from here
            scales = call_scales(leaf, call, train=True, upstream=upstream)
            outputs[leaf.path] = relative(sigma(scales, "output", True), call.outputs[0])
            gradient = call.input_gradients[0] if call.input_gradients else None
            if gradient is not None and "input gradient" in scales.sizes:
                size = sigma(scales, "input gradient", True)
                input_gradients[leaf.path] = relative(size, gradient)
    loss = referee().run_loss(objective, rounded(run.outputs[0], "float64"), "float64")
    size = loss_scales(objective, run.outputs[0], loss)["loss gradient"]
    factor = tolerance("loss", "train", "gluon", "float32").factor(size.shape[-1])
    size = factor / 4 * UNIT["float32"] * size
    return Noise(outputs, input_gradients, relative(size, loss["loss gradient"]))


def one_ulp(images: np.ndarray, seed: Iterable[int]) -> np.ndarray:
    """Every float32 value moved to its neighbour, up or down at random."""
    if images.dtype.kind != "f":
        return images
    images = images.astype(np.float32)
    up = np.random.default_rng(list(seed)).random(images.shape) < 0.5
    return np.nextafter(images, np.where(up, np.inf, -np.inf).astype(np.float32))


def curve_rows(trial: Trial, steps: int, *, draws: int = DRAWS) -> list[Row]:
    """Free runs in float32: Gluon's mean loss of every step, beside torch's.

    The bound is `ENVELOPE_FACTOR` times the largest move of any draw so far, and the rounding of
    the loss itself.
    """
    first = trial.batches[0]
    noise = noise_of(trial.torch_net, first.inputs, replace(trial.objective, labels=first.labels))
    gluon, clean = trial.trainee(Side.GLUON, "float32"), trial.trainee(Side.TORCH, "float32")
    shaken = [trial.trainee(Side.TORCH, "float32") for _ in range(draws)]
    for seed, trainee in enumerate(shaken):
        referee().shake(trainee.net, noise, seed)
    stretch = Shaken(trial, "float32").stretched if trial.most_slack else None
    ledger = Ledger()
    largest = 0.0
    for number, batch in enumerate(trial.batches[:steps], 1):
        ours, theirs = gluon.step(batch), clean.step(batch)
        loss = _mean(theirs.loss)
        for seed, trainee in enumerate(shaken):
            images = one_ulp(batch.images, (seed, number))
            moved = replace(batch, images=images)
            noisy = (stretch(trainee, seed % 3, moved) if stretch else trainee.step(moved)).loss
            largest = max(largest, largest_move(_mean(noisy), loss))
        bound = ENVELOPE_FACTOR * largest + _own_rounding(
            replace(trial.objective, labels=batch.labels), theirs.logits, theirs.loss
        )
        verdict = compare(
            np.array([_mean(ours.loss)]),
            np.array([loss]),
            scale=bound / ENVELOPE_FACTOR / UNIT["float64"],
            factor=ENVELOPE_FACTOR,
            content="nonzero",
        )
        row = Row.judged(
            replace(verdict, unit="envelopes"),
            level=Level.TRAINING, path=NET, quantity="loss", check=Check.FREE_RUNNING,
            side=Side.GLUON, dtype="float32", mode=Mode.TRAIN,
            distance=abs(_mean(ours.loss) - loss) / abs(loss),
        )  # fmt: skip
        ledger.add(number, (1,), row)
    return ledger.rows()


def _mean(loss: np.ndarray) -> float:
    return float(loss.mean(dtype=np.float64))


def _own_rounding(objective: Objective, logits: np.ndarray, loss: np.ndarray) -> float:
    """What the two losses may differ by, evaluated on the same logits."""
    sizes = loss_scales(objective, logits, {"loss": loss, "loss gradient": np.zeros_like(logits)})
    factors = (
        tolerance("loss", "train", side, "float32").factor(logits.shape[-1])
        for side in ("gluon", "torch")
    )
    return sum(factors) * UNIT["float32"] * float(sizes["loss"].mean())
