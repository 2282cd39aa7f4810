"""MXNet 1.9.1's update rules once more, in float64, with the scale of what each update rounds.

A third writing beside MXNet's own and `torch_ref.optim`: one update from a given state, against
which either side's update is judged in u·s, and which knows nothing of the order of operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Rule:
    """An optimizer by MXNet's name, "sgd", "nag" or "adam", and its numbers but the rate."""

    name: str
    momentum: float = 0.0
    wd: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """MXNet's slots, by the names that `torch_ref.optim` gives them too."""
        if self.name == "adam":
            return ("mean", "var")
        return ("mom",) if self.momentum else ()

    @property
    def label(self) -> str:
        """`nag momentum=0.9 wd=0.01`: the numbers that are not the defaults."""
        plain = Rule(self.name)
        numbers = {k: v for k, v in vars(self).items() if k != "name" and v != getattr(plain, k)}
        return " ".join([self.name, *(f"{k}={v:g}" for k, v in numbers.items())])

    def mxnet_options(self) -> dict[str, Any]:
        """The numbers as MXNet's optimizer takes them, without the rate."""
        options: dict[str, Any] = {"wd": self.wd}
        if self.name == "adam":
            options |= {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}
        else:
            options["momentum"] = self.momentum
        return options | ({} if self.clip is None else {"clip_gradient": self.clip})


@dataclass(frozen=True)
class Update:
    """One update's own numbers: its rate, what gradients are divided by, its count from 1."""

    rate: float
    batch: int
    count: int
    last: float = 0.0  # the rate of the update before; 0 where there was none


def parse_as_mxnet_float32(value: float) -> float:
    """The float32 that MXNet's operators make of a Python number.

    A number reaches an operator as text. dmlc-core reads that digit by digit in float32, so where
    Python writes an exponent (below 1e-4) the result is up to two units off in the last place for 3
    numbers in 10: it divides a rounded mantissa by a rounded power of ten. A number above 1 is a
    rounded sum of its whole and its broken part. The lists of rates of the aggregated SGD update
    are read by the C++ library instead, correctly.
    """
    text = repr(abs(float(value)))
    mantissa, _, exponent = text.partition("e")
    whole, _, digits = mantissa.partition(".")
    read = np.float32(int(whole))
    digits = digits[:19]  # dmlc-core counts no more
    if digits:
        read = np.float32(read + np.float32(int(digits) / 10.0 ** len(digits)))
    if exponent:
        places, power = abs(int(exponent)), np.float32(1)
        while places:
            some = 8 if places >= 8 else 1
            power, places = np.float32(power * np.float32(10.0**some)), places - some
        read = np.float32(read / power if exponent.startswith("-") else read * power)
    return math.copysign(float(read), value)


def rounding_of(rule: Rule) -> float:
    """By what part of itself a step in exact numbers may differ from MXNet's.

    MXNet's operators hold their numbers in float32, 1 − β among them, which is off by u/(1 − β).
    Its NAG computes the slot a second time, from the weight that it has overwritten: a part wd·lr
    of the step, for rates of at most 1.
    """
    unit = 2.0**-24
    if rule.name == "adam":
        return unit * (4 + 1 / (1 - rule.beta1) + 1 / (1 - rule.beta2))
    if rule.name == "nag" and rule.momentum:
        return 4 * unit + (1 + rule.momentum) * rule.wd
    if rule.name not in ("sgd", "nag"):
        return 64 * unit  # one that is not written out here
    return 4 * unit


def bias_correction(rule: Rule, count: int) -> float:
    """What Adam's bias correction multiplies the rate with; 1 for the other rules."""
    if rule.name != "adam":
        return 1.0
    return math.sqrt(1 - rule.beta2**count) / (1 - rule.beta1**count)


def parsable_rate(rate: float, rule: Rule, count: int) -> float:
    """The nearest rate below that MXNet reads as float32 would round it, for update `count`.

    Within a few millionths of `rate`. What a schedule below 1e-4 would otherwise bring in is a
    relative difference of 1e-7 in single updates, which is MXNet's reading and not its rule.
    """
    for _ in range(1000):
        corrected = rate * bias_correction(rule, count)
        if rule.name == "sgd" or parse_as_mxnet_float32(corrected) == float(np.float32(corrected)):
            return rate
        rate *= 1 - 2.0**-25
    raise ValueError(f"no rate near {rate} is read by MXNet as it is written")


def apply_update(
    rule: Rule, update: Update, weight: np.ndarray, gradient: np.ndarray, slots: Arrays
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The weight ("weight") and the slots after one update, and s of each, in float64.

    `gradient` is that of a loss summed over `update.batch` samples.
    """
    w, g = weight.astype(np.float64), gradient.astype(np.float64)
    old = {name: slots[name].astype(np.float64) for name in rule.slots}
    if rule.name == "adam":
        return _adam(rule, update, w, g, old)
    read = _read_in_a_list if rule.name == "sgd" else parse_as_mxnet_float32
    lr, wd, mu = read(update.rate), read(rule.wd), parse_as_mxnet_float32(rule.momentum)
    g, size = _clipped(g * parse_as_mxnet_float32(1 / update.batch), rule.clip)
    if not rule.momentum:
        step, most = -lr * (g + wd * w), lr * (size + wd * np.abs(w))
        return {"weight": w + step}, {"weight": np.abs(w) + most}
    decayed = mu * old["mom"]
    ahead = decayed - lr * (g + wd * w)
    most = np.abs(decayed) + lr * (size + wd * np.abs(w))
    if rule.name == "sgd":
        return {"mom": ahead, "weight": w + ahead}, {"mom": most, "weight": np.abs(w) + most}
    new = w - decayed + (mu + 1) * ahead
    reach = np.abs(w) + np.abs(decayed) + (mu + 1) * most
    # MXNet 1.9.1 computes the slot a second time, from the weight that it has overwritten.
    slot = decayed - lr * (g + wd * new)
    return (
        {"mom": slot, "weight": new},
        {"mom": np.abs(decayed) + lr * (size + wd * reach), "weight": reach},
    )


def _read_in_a_list(value: float) -> float:
    return float(np.float32(value))


def _clipped(g: np.ndarray, clip: float | None) -> tuple[np.ndarray, np.ndarray]:
    """g within ±clip, and its scale: what is clipped has the bound's."""
    if clip is None:
        return g, np.abs(g)
    bound = parse_as_mxnet_float32(clip)
    return np.clip(g, -bound, bound), np.minimum(np.abs(g), bound)


def _adam(
    rule: Rule, update: Update, w: np.ndarray, g: np.ndarray, old: Arrays
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    lr = parse_as_mxnet_float32(update.rate * bias_correction(rule, update.count))
    beta1, beta2 = parse_as_mxnet_float32(rule.beta1), parse_as_mxnet_float32(rule.beta2)
    wd, epsilon = parse_as_mxnet_float32(rule.wd), parse_as_mxnet_float32(rule.epsilon)
    g = g * parse_as_mxnet_float32(1 / update.batch)
    size = np.abs(g) + wd * np.abs(w)
    g = g + wd * w
    if rule.clip is not None:  # decay is added before clipping, and clipped with it
        bound = parse_as_mxnet_float32(rule.clip)
        size = np.where(np.abs(g) < bound, size, bound)
        g = np.clip(g, -bound, bound)
    mean = beta1 * old["mean"] + (1 - beta1) * g
    variance = beta2 * old["var"] + (1 - beta2) * g**2
    mean_size = beta1 * np.abs(old["mean"]) + (1 - beta1) * size
    variance_size = beta2 * old["var"] + (1 - beta2) * (g**2 + 2 * np.abs(g) * size)
    root = np.sqrt(variance)
    below = root + epsilon
    with np.errstate(divide="ignore", invalid="ignore"):
        root_size = np.where(root > 0, root + variance_size / (2 * root), 0.0)
    step_size = lr * (mean_size / below + np.abs(mean) / below**2 * root_size)
    return (
        {"mean": mean, "var": variance, "weight": w - lr * mean / below},
        {"mean": mean_size, "var": variance_size, "weight": np.abs(w) + step_size},
    )
