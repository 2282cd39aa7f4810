"""The losses against their equations in numpy float64, and their gradients by differences."""

from __future__ import annotations

from collections.abc import Callable

import mxnet as mx
import numpy as np
import pytest

from cnn_harness.errors import UsageError
from gluon_cnn.models import get_model
from gluon_cnn.training.losses import CrossEntropy, RBFLoss, cross_entropy, loss_for

LABELS = np.array([0, 2, 1, 2])


def distances(scale: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, scale, (4, 3))


def equation_9(y: np.ndarray, labels: np.ndarray, j: float) -> np.ndarray:
    return y[range(len(y)), labels] + np.log(np.exp(-j) + np.exp(-y).sum(1))


def negative_log_softmax(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.log(np.exp(y).sum(1)) - y[range(len(y)), labels]


def value_and_gradient(
    loss: Callable[..., mx.nd.NDArray], y: np.ndarray, dtype: str = "float64"
) -> tuple[np.ndarray, np.ndarray]:
    pred = mx.nd.array(y, dtype=dtype)
    pred.attach_grad()
    with mx.autograd.record():
        value = loss(pred, mx.nd.array(LABELS, dtype="int32"))
    value.backward()
    assert value.dtype == pred.grad.dtype == np.dtype(dtype)
    return value.asnumpy(), pred.grad.asnumpy()


def by_differences(function: Callable[[np.ndarray], np.ndarray], y: np.ndarray) -> np.ndarray:
    """d sum(function(y)) / dy by central differences."""
    step, slope = 1e-5, np.empty_like(y)
    for index in np.ndindex(*y.shape):
        up, down = y.copy(), y.copy()
        up[index] += step
        down[index] -= step
        slope[index] = (function(up) - function(down)).sum() / (2 * step)
    return slope


@pytest.mark.parametrize("j", [0.5, 3.0])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_rbf_loss_is_equation_9(j: float, scale: float) -> None:
    y = distances(scale)
    value, gradient = value_and_gradient(RBFLoss(j), y)
    assert value.shape == (4,)
    np.testing.assert_allclose(value, equation_9(y, LABELS, j), rtol=1e-12, atol=1e-13)
    slope = by_differences(lambda at: equation_9(at, LABELS, j), y)
    np.testing.assert_allclose(gradient, slope, atol=1e-8)
    assert np.abs(equation_9(y, LABELS, j + 1) - value).max() > 1e-6  # j does matter


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4])
def test_rbf_loss_is_stable_where_exponentials_vanish(scale: float, dtype: str) -> None:
    y = distances(scale) + scale  # exp(−y) is 0 in float32; only exp(−j) is left
    value, gradient = value_and_gradient(RBFLoss(10.0), y, dtype)
    np.testing.assert_allclose(value, y[range(4), LABELS] - 10, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.eye(3)[LABELS], atol=1e-6)

    value, _ = value_and_gradient(RBFLoss(2 * scale + 1e5), y, dtype)  # exp(−j) vanishes first
    least = y.min(1)
    total = np.exp(least[:, None] - y).sum(1)
    expected = y[range(4), LABELS] - least + np.log(total)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-3 * scale / 1e3)


def test_rbf_loss_pushes_wrong_classes_up_only_while_they_are_near() -> None:
    y = np.array([[5.0, 2.0, 60.0]] * 4)
    _, gradient = value_and_gradient(RBFLoss(10.0), y)
    assert gradient[0, 0] > 0.9  # down with the right one
    assert gradient[0, 1] < -0.9  # up with the one that wins in its place
    assert abs(gradient[0, 2]) < 1e-12  # far enough already


def test_hybridized_losses_are_the_same() -> None:
    y = distances(10.0)
    for loss in (RBFLoss(), loss_for(get_model("lenet"))):
        plain = value_and_gradient(loss, y)
        loss.hybridize()
        for ours, theirs in zip(value_and_gradient(loss, y), plain, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("j", [0.0, -1.0, float("nan"), float("inf")])
def test_j_is_positive(j: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        RBFLoss(j)


def test_cross_entropy_is_minus_log_softmax() -> None:
    y = distances(10.0)
    value, gradient = value_and_gradient(cross_entropy, y)
    np.testing.assert_allclose(value, negative_log_softmax(y, LABELS), rtol=1e-12)
    slope = by_differences(lambda at: negative_log_softmax(at, LABELS), y)
    np.testing.assert_allclose(gradient, slope, atol=1e-8)


def test_loss_for_follows_what_wins() -> None:
    assert isinstance(loss_for(get_model("lenet5")), RBFLoss)
    y = distances(10.0)
    for ours, theirs in zip(
        value_and_gradient(loss_for(get_model("lenet")), y),
        value_and_gradient(cross_entropy, y),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_and_mixed_labels_are_the_closed_form(smoothing: float, soft: bool) -> None:
    y = distances(10.0)
    shares = np.eye(3)[LABELS]
    if soft:
        shares = 0.7 * shares + 0.3 * np.roll(shares, 1, axis=0)
    log = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    target = (1 - smoothing) * shares + smoothing / 3
    loss = CrossEntropy(smoothing, soft)
    label = mx.nd.array(shares if soft else LABELS, dtype="float64")
    np.testing.assert_allclose(
        loss(mx.nd.array(y, dtype="float64"), label).asnumpy(), -(target * log).sum(1), rtol=1e-12
    )


def test_lenet5_learns_from_labels_alone() -> None:
    for options in ({"smoothing": 0.1}, {"soft": True}):
        with pytest.raises(UsageError, match="leave out --label-smoothing and --mixup"):
            loss_for(get_model("lenet5"), **options)
