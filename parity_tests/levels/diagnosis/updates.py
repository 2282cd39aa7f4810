"""What explains an update that is not the rule's: the rule once more, with one thing changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from parity_tests.levels.diagnosis.hypotheses import Explanation, only_explanation, single_value
from parity_tests.numerics.compare import UNIT
from parity_tests.numerics.update_rules import (
    Rule,
    Update,
    apply_update,
    bias_correction,
    parse_as_mxnet_float32,
)

Arrays = Mapping[str, np.ndarray]
# Of the step that an update takes. A foreign optimizer does not round its numbers to float32 as
# MXNet does, which is 6e-8 of each.
SLACK = 4e-7


def explain_update(
    rule: Rule, update: Update, before: Arrays, gradient: np.ndarray, after: Arrays, stage: str
) -> str:
    """The change of the rule that gives one side's slots and weight from its state before.

    `stage` is the slot, or "weight", whose value is not the rule's.
    """
    expected, sizes = apply_update(rule, update, before["weight"], gradient, before)
    dtype = str(before["weight"].dtype)
    bound = 16 * UNIT[dtype] * sizes[stage]
    apart = np.abs(after[stage].astype(np.float64) - expected[stage]) > bound
    if np.array_equal(after[stage], before[stage]):
        return "update missed: it is what it was before the step"
    one = only_explanation(single_value(after[stage], expected[stage], apart))
    if one:
        return one
    return only_explanation(
        Explanation(name, detail)
        for name, detail, variant in _variants(rule, update, before, gradient)
        if all(
            _reached(after[s], variant[s], before[s], expected[s], dtype)
            for s in (*rule.slots, "weight")
        )
    )


def _reached(
    after: np.ndarray, variant: np.ndarray, before: np.ndarray, expected: np.ndarray, dtype: str
) -> bool:
    """Whether a variant takes the step that was taken, and takes it better than the rule."""
    distance = float(np.abs(after.astype(np.float64) - variant).max())
    step = float(np.abs(after.astype(np.float64) - before).max())
    largest = max(float(np.abs(before).max()), step)
    own = float(np.abs(after.astype(np.float64) - expected).max())
    bound = SLACK * step + 16 * UNIT[dtype] * largest
    return distance <= bound and (distance <= own / 8 or own <= bound)


_Variant = tuple[str, str, dict[str, np.ndarray]]


def _variants(
    rule: Rule, update: Update, before: Arrays, gradient: np.ndarray
) -> Iterator[_Variant]:
    def run(changed: Rule, now: Update = update, g: np.ndarray = gradient) -> dict[str, np.ndarray]:
        return apply_update(changed, now, before["weight"], g, before)[0]

    if update.batch > 1:
        detail = f"the gradient is not divided by {update.batch}"
        yield "factor of B", detail, run(rule, replace(update, batch=1))
        detail = f"the gradient is divided by {update.batch} twice"
        yield "factor of B", detail, run(rule, g=gradient / update.batch)
    if update.last and update.last != update.rate:
        detail = f"the rate is {update.last:.6g}, that of the update before"
        yield "schedule off by one", detail, run(rule, replace(update, rate=update.last))
    if rule.wd:
        yield "no weight decay", "without wd·w", run(replace(rule, wd=0.0))
    if rule.clip is not None:
        yield "no clipping", "without clip_gradient", run(replace(rule, clip=None))
        norm = float(np.linalg.norm(gradient.astype(np.float64) / update.batch))
        scaled = gradient.astype(np.float64) * min(1.0, rule.clip / norm)
        detail = f"the norm is held below {rule.clip:g}, not each value"
        yield "clipped by norm", detail, run(replace(rule, clip=None), g=scaled)
    if rule.name == "adam":
        yield from _of_adam(rule, update, before, run)
    else:
        yield from _of_sgd(rule, update, before, gradient, run)


def _of_adam(rule: Rule, update: Update, before: Arrays, run: Any) -> Iterator[_Variant]:
    t = update.count
    late = rule.epsilon * math.sqrt(1 - rule.beta2**t)
    yield ("eps placement", "epsilon is added after the bias correction",
           run(replace(rule, epsilon=late)))  # fmt: skip
    slow = replace(update, rate=update.rate / bias_correction(rule, t))
    yield "no bias correction", "the rate is not corrected for the count", run(rule, slow)
    for count in (t - 1, t + 1):
        if count > 0:
            wrong = replace(
                update, rate=update.rate / bias_correction(rule, t) * bias_correction(rule, count)
            )
            detail = f"the correction is that of update {count}, not {t}"
            yield "step count off by one", detail, run(rule, wrong)
    if rule.wd:
        plain = run(replace(rule, wd=0.0))
        decay = update.rate * rule.wd * before["weight"].astype(np.float64)
        detail = "w·lr·wd is taken from the weight, and not added to the gradient"
        yield "decoupled weight decay", detail, {**plain, "weight": plain["weight"] - decay}


def _of_sgd(
    rule: Rule, update: Update, before: Arrays, gradient: np.ndarray, run: Any
) -> Iterator[_Variant]:
    w = before["weight"].astype(np.float64)
    if rule.clip is not None and rule.wd:
        whole = gradient.astype(np.float64) / update.batch + rule.wd * w
        clipped = np.clip(whole, -rule.clip, rule.clip) * update.batch
        detail = "wd·w is clipped together with the gradient"
        yield (
            "decay added before clipping", detail,
            run(replace(rule, wd=0.0, clip=None), g=clipped),
        )  # fmt: skip
    if not rule.momentum:
        return
    if rule.name == "nag":
        yield (
            "momentum without Nesterov", "the step is the slot's own",
            run(replace(rule, name="sgd")),
        )  # fmt: skip
        right = run(rule)
        lr, mu = parse_as_mxnet_float32(update.rate), parse_as_mxnet_float32(rule.momentum)
        g = gradient.astype(np.float64) / update.batch + rule.wd * w
        slot = mu * before["mom"].astype(np.float64) - lr * g
        detail = "MXNet 1.9.1 computes the slot again from the new weight, this does not"
        yield "NAG slot from the old weight", detail, {**right, "mom": slot}
        return
    right = run(rule)
    decayed = parse_as_mxnet_float32(rule.momentum) * before["mom"].astype(np.float64)
    if update.last and update.last != update.rate:
        mom = decayed * (update.rate / update.last) + (right["mom"] - decayed)
        detail = f"the slot follows the rate, from {update.last:.6g} to {update.rate:.6g}"
        yield "learning rate outside the slot", detail, {"mom": mom, "weight": w + mom}
    if update.count == 1:
        return  # a smaller rate would look the same; dampening spares the first step
    for weight in (0.1, 0.9, 0.5, 1 - rule.momentum):
        mom = decayed + weight * (right["mom"] - decayed)
        detail = f"the gradient enters with {weight:.3g} of its weight: dampening {1 - weight:.3g}"
        yield "dampening", detail, {"mom": mom, "weight": w + mom}


def explain_rates(ours: np.ndarray, theirs: np.ndarray) -> str:
    """A schedule that is one update ahead or behind."""
    for name, a, b in (("behind", ours[1:], theirs[:-1]), ("ahead", ours[:-1], theirs[1:])):
        if len(a) > 1 and np.allclose(a, b, rtol=1e-12, atol=0) and np.ptp(a):
            return f"schedule off by one: it is one update {name}"
    return ""
