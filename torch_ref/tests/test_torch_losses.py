"""The losses against their formulas in plain numpy, and at the edges of floating point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cnn_harness.errors import UsageError
from torch_ref.models import get_model
from torch_ref.training.losses import RBFLoss, cross_entropy, loss_for

RNG = np.random.default_rng(0)
OUTPUTS = RNG.uniform(0, 30, (6, 10))
LABELS = RNG.integers(0, 10, 6).astype(np.int32)


def test_cross_entropy_is_minus_the_log_of_the_softmax() -> None:
    p = np.exp(OUTPUTS) / np.exp(OUTPUTS).sum(1, keepdims=True)
    got = cross_entropy(torch.from_numpy(OUTPUTS), torch.from_numpy(LABELS))
    assert got.shape == (6,)
    np.testing.assert_allclose(got.numpy(), -np.log(p[np.arange(6), LABELS]), rtol=1e-13)


@pytest.mark.parametrize("j", [0.1, 10.0, 200.0])
def test_rbf_loss_is_equation_9(j: float) -> None:
    right = OUTPUTS[np.arange(6), LABELS]
    expected = right + np.log(np.exp(-j) + np.exp(-OUTPUTS).sum(1))
    got = RBFLoss(j)(torch.from_numpy(OUTPUTS), torch.from_numpy(LABELS))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_rbf_gradients_are_those_of_equation_9() -> None:
    y = torch.from_numpy(OUTPUTS).requires_grad_()
    RBFLoss(10.0)(y, torch.from_numpy(LABELS)).sum().backward()
    weights = np.exp(-OUTPUTS) / (np.exp(-10.0) + np.exp(-OUTPUTS).sum(1, keepdims=True))
    assert y.grad is not None
    expected = np.eye(10)[LABELS] - weights
    np.testing.assert_allclose(y.grad.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_far_outputs_neither_overflow_nor_vanish() -> None:
    """exp(−y) of a distance beyond 104 is 0 in float32: the bound j alone is left."""
    y = torch.full((2, 10), 3000.0, requires_grad=True)
    loss = RBFLoss(10.0)(y, torch.tensor([0, 9]))
    assert loss.tolist() == [2990.0, 2990.0]
    loss.sum().backward()
    assert y.grad is not None
    assert y.grad.sum(1).tolist() == [1.0, 1.0]
    assert RBFLoss(10.0)(torch.zeros(1, 10), torch.tensor([0])).item() == pytest.approx(
        math.log(10 + math.exp(-10))
    )
    assert cross_entropy(torch.tensor([[3000.0, -3000.0]]), torch.tensor([1])).item() == 6000


@pytest.mark.parametrize("j", [0.0, -1.0, math.inf, math.nan])
def test_j_must_be_positive(j: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        RBFLoss(j)


def test_each_net_gets_its_loss() -> None:
    assert loss_for(get_model("lenet")) is cross_entropy
    loss = loss_for(get_model("lenet5"))
    assert isinstance(loss, RBFLoss)
    assert loss.j == 10.0


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_and_mixed_labels_are_the_closed_form(smoothing: float, soft: bool) -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2])
    shares = torch.eye(3, dtype=torch.float64)[labels]
    if soft:
        shares = 0.7 * shares + 0.3 * shares.roll(1, 0)
    target = (1 - smoothing) * shares + smoothing / 3
    expected = -(target * logits.log_softmax(1)).sum(1)
    loss = loss_for(get_model("lenet"), smoothing, soft)
    torch.testing.assert_close(loss(logits, shares if soft else labels), expected)


def test_lenet5_learns_from_labels_alone() -> None:
    for options in ({"smoothing": 0.1}, {"soft": True}):
        with pytest.raises(UsageError, match="leave out --label-smoothing and --mixup"):
            loss_for(get_model("lenet5"), **options)
