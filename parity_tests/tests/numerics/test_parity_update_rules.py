"""Where torch.optim's rules differ from MXNet's: by what the formulas predict, within rounding."""

from __future__ import annotations

import math
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from parity_tests.backends.gluon.optimizer import GluonUpdater
from parity_tests.backends.torch.optimizer import TorchUpdater, torch_optimizer, torchs_own
from parity_tests.numerics.update_rules import Rule, parsable_rate, parse_as_mxnet_float32

# Numbers that float32 holds exactly, so that float64 shows the difference of the rules alone.
W = np.array([1.0, -2.0, 0.5, 3.0])
G = np.array([0.5, 0.25, -1.0, 2.0])
RATE, SLOWER = 0.25, 0.0625


class Beside:
    """MXNet's optimizer and a torch one over one parameter, in float64."""

    def __init__(self, rule: Rule, make: Any = torchs_own) -> None:
        self._gluon = mx.gluon.Parameter("w", shape=W.shape, dtype="float64")
        self._gluon.initialize()
        self._gluon.set_data(mx.nd.array(W, dtype="float64"))
        self._torch = torch.nn.Parameter(torch.from_numpy(W.copy()))
        self.gluon = GluonUpdater({"w": self._gluon}, rule)
        self.torch = TorchUpdater({"w": self._torch}, rule, make)

    def step(self, gradient: np.ndarray, rate: float, clip: float | None = None) -> None:
        """One update of both; `clip` clips torch's gradient by hand, as its loops do."""
        with mx.autograd.record():
            loss = (self._gluon.data() * mx.nd.array(gradient, dtype="float64")).sum()
        loss.backward()
        self._torch.grad = torch.from_numpy(gradient.copy())
        if clip is not None:
            torch.nn.utils.clip_grad_value_([self._torch], clip)
        for updater in (self.gluon, self.torch):
            updater.update(rate, 1)

    @property
    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        return self._gluon.data().asnumpy(), self._torch.detach().numpy().copy()

    def slots(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.gluon.slots()["w"][name], self.torch.slots()["w"][name]


def near(actual: np.ndarray, expected: np.ndarray, relative: float = 1e-15) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * np.abs(expected).max())
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("name", ["sgd", "nag"])
def test_a_falling_rate_parts_the_two_momentums(name: str) -> None:
    """MXNet's slot keeps the old rate: the weights part by μ·mom·(1 − new/old), NAG's by μ times
    that again."""
    pair = Beside(Rule(name, momentum=0.5))
    pair.step(G, RATE)
    near(*pair.weights)
    near(*pair.slots("mom"))
    mom = pair.slots("mom")[0]
    pair.step(2 * G, SLOWER)
    ours, theirs = pair.weights
    share = 0.5 if name == "sgd" else 0.5 * 0.5
    near(ours - theirs, share * mom * (1 - SLOWER / RATE))
    ours, theirs = pair.slots("mom")
    near(ours - theirs, 0.5 * mom * (1 - SLOWER / RATE))


def test_weight_decay_spoils_nags_slot() -> None:
    """MXNet 1.9.1 computes the slot a second time, with the new weight in place of the old one:
    it is off by −lr·wd·(new − old), and the next step by μ² of that."""
    pair = Beside(Rule("nag", momentum=0.5, wd=0.125))
    pair.step(G, RATE)
    near(*pair.weights)
    new, _ = pair.weights
    ours, theirs = pair.slots("mom")
    fault = -RATE * 0.125 * (new - W)
    near(ours - theirs, fault)
    pair.step(G, RATE)
    ours, theirs = pair.weights
    near(ours - theirs, 0.5 * 0.5 * fault)


def test_adams_epsilon_is_added_before_the_bias_correction() -> None:
    """lr 0.1, eps 1e-3 and g = 1e-3: MXNet moves a weight by 0.0031, torch by 0.05."""
    pair = Beside(Rule("adam", epsilon=1e-3))
    pair.step(np.full(4, 1e-3), 0.1)
    ours, theirs = pair.weights
    g, eps, rate = 1e-3, 1e-3, 0.1
    predicted = rate * g / (g + eps / math.sqrt(1 - 0.999))
    assert round(predicted, 4) == 0.0031
    near(W - ours, np.full(4, predicted), 1e-4)  # MXNet forms 1 − β2 in float32: 1.3e-5 off
    near(W - theirs, np.full(4, rate * g / (g + eps)), 1e-12)
    assert abs(rate * g / (g + eps) - 0.05) < 1e-15


def test_torchs_adam_is_mxnets_once_epsilon_is_corrected_too() -> None:
    """MXNet's eps is torch's eps/√(1 − β2ᵗ): so corrected, both move alike in every step."""
    rule = Rule("adam", beta1=0.875, beta2=0.9921875, epsilon=2.0**-8)
    pair, plain = Beside(rule), Beside(rule)
    for t in range(1, 21):
        for group in pair.torch.optimizer.param_groups:
            group["eps"] = rule.epsilon / math.sqrt(1 - rule.beta2**t)
        pair.step(G / t**4, 0.125)
        plain.step(G / t**4, 0.125)
    near(*pair.slots("mean"))
    near(*pair.slots("var"))
    ours, theirs = pair.weights
    near(ours - W, theirs - W, 1e-7)  # MXNet rounds the corrected rate to float32
    ours, theirs = plain.weights
    assert np.abs(ours - theirs).max() > 0.01


def test_mxnet_forms_one_minus_beta_in_float32() -> None:
    """float32(0.999) is 1.3e-8 off, which is 1.3e-5 of 1 − 0.999."""
    pair = Beside(Rule("adam"))
    pair.step(G, 0.1)
    ours, theirs = pair.slots("var")
    near(ours / theirs, np.full(4, (1 - float(np.float32(0.999))) / (1 - 0.999)))
    assert abs(ours[0] / theirs[0] - 1) > 1e-5


def test_adam_clips_decay_and_gradient_together() -> None:
    """torch has no clipping of its own; clipped by hand before its step, only g is."""
    rule = Rule("adam", beta1=0.5, wd=0.5, clip=0.75)
    pair = Beside(rule)
    pair.step(G, RATE, clip=0.75)
    ours, theirs = pair.slots("mean")
    near(ours, 0.5 * np.clip(G + 0.5 * W, -0.75, 0.75))
    near(theirs, 0.5 * (np.clip(G, -0.75, 0.75) + 0.5 * W))
    assert np.abs(ours - theirs).max() > 0.1


def test_sgd_clips_the_gradient_alone_as_torch_does_by_hand() -> None:
    pair = Beside(Rule("sgd", momentum=0.5, wd=0.5, clip=0.75))
    pair.step(G, RATE, clip=0.75)
    near(*pair.weights)
    near(W - pair.weights[0], RATE * (np.clip(G, -0.75, 0.75) + 0.5 * W))


def test_adams_decay_is_coupled() -> None:
    """In a first step Adam moves by lr·sign(g + wd·w); AdamW by lr·sign(g) and lr·wd·w."""

    def adamw(parameters: list[torch.nn.Parameter], rule: Rule) -> torch.optim.Optimizer:
        betas = (rule.beta1, rule.beta2)
        return torch.optim.AdamW(parameters, betas=betas, eps=rule.epsilon, weight_decay=rule.wd)

    pair = Beside(Rule("adam", beta1=0.875, beta2=0.9921875, wd=0.125, epsilon=1e-30), adamw)
    gradient = np.array([0.5, 0.125, -1.0, 2.0])  # the second changes sign with decay
    pair.step(gradient, RATE)
    ours, theirs = pair.weights
    near(W - ours, RATE * np.sign(gradient + 0.125 * W), 1e-6)
    near(W - theirs, RATE * (np.sign(gradient) + 0.125 * W), 1e-6)


# --- how MXNet reads numbers


def _read(rule: str, rate: float) -> float:
    """What a rate acts as: a first step from 0 with gradient −1."""
    parameter = mx.gluon.Parameter("w", shape=(1,), dtype="float64")
    parameter.initialize()
    parameter.set_data(mx.nd.zeros((1,), dtype="float64"))
    updater = GluonUpdater({"w": parameter}, Rule(rule))
    with mx.autograd.record():
        loss = -parameter.data().sum()
    loss.backward()
    updater.update(rate, 1)
    return float(parameter.data().asscalar())


def test_mxnet_misreads_numbers_with_an_exponent() -> None:
    """Below 1e-4 Python writes an exponent, and 3 such rates in 10 are read up to 2 units off."""
    rates = 10 ** np.random.default_rng(0).uniform(-12, 2, 300)
    read = np.array([_read("nag", rate) for rate in rates])
    np.testing.assert_array_equal(read, [parse_as_mxnet_float32(rate) for rate in rates])
    rounded = rates.astype(np.float32).astype(np.float64)
    off = np.abs(read / rounded - 1)
    assert 0.1 < np.mean(off[rates < 1e-4] > 0) < 0.5
    assert off.max() < 2.5 * 2.0**-24 * 2
    assert not off[(rates > 1e-4) & (rates < 1)].any()
    # the aggregated SGD takes its rates in a list, which another parser reads
    np.testing.assert_array_equal([_read("sgd", rate) for rate in rates], rounded)
    assert parse_as_mxnet_float32(-0.25) == -0.25
    assert parse_as_mxnet_float32(0) == 0


def test_the_mirror_reads_numbers_with_an_exponent_as_they_are() -> None:
    """So a rate that MXNet misreads parts the two, at once and by as much; the courses take
    neighbouring rates that it does not."""
    rate = next(r for r in (6e-5 + 1e-9 * k for k in range(100)) if _misread(r))
    rule = Rule("nag", momentum=0.5)
    pair = Beside(rule, torch_optimizer)
    pair.step(G, rate)
    ours, theirs = pair.slots("mom")
    near(
        ours / theirs - 1,
        np.full(4, parse_as_mxnet_float32(rate) / float(np.float32(rate)) - 1),
        1e-6,
    )
    near_by = parsable_rate(rate, rule, 1)
    assert not _misread(near_by)
    assert 0 < 1 - near_by / rate < 1e-5


def _misread(rate: float) -> bool:
    return parse_as_mxnet_float32(rate) != float(np.float32(rate))
