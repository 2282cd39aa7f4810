"""The scales against sums written out by hand, and what a wrong scale would hide or invent."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from parity_tests.backends.base import leaves_of
from parity_tests.backends.runs import LeafRun
from parity_tests.backends.torch.runs import run_leaf
from parity_tests.numerics.compare import UNIT
from parity_tests.numerics.operators.cases import Scales
from parity_tests.numerics.scales import scales_of

GENERATOR = np.random.default_rng(5)


def scales(
    module: nn.Module, x: np.ndarray, *, train: bool = False, upstream: np.ndarray | None = None
) -> tuple[Scales, LeafRun]:
    (leaf,) = leaves_of(module)
    back = None if upstream is None else (upstream,)
    run = run_leaf(leaf, (x,), "float64", train=train, upstream=back)
    return scales_of(leaf, (x,), run, train=train, upstream=back), run


def values(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape).astype(np.float32)


def weight_of(module: nn.Module, name: str = "weight") -> np.ndarray:
    return module.get_parameter(name).detach().numpy().astype(np.float64)


def test_dense_is_the_sum_of_absolute_products() -> None:
    module, x, g = nn.Linear(5, 3), values(2, 5), values(2, 3)
    found, _ = scales(module, x, upstream=g)
    weight, bias = np.abs(weight_of(module)), np.abs(weight_of(module, "bias"))
    np.testing.assert_allclose(found.sizes["output"], np.abs(x) @ weight.T + bias)
    np.testing.assert_allclose(found.sizes["input gradient"], np.abs(g) @ weight)
    np.testing.assert_allclose(found.sizes["weight gradient"], np.abs(g).T @ np.abs(x))
    np.testing.assert_allclose(found.sizes["bias gradient"], np.abs(g).sum(axis=0), rtol=1e-6)


def test_convolution_is_the_same_sum_over_its_window() -> None:
    module, x = nn.Conv2d(2, 3, 2, stride=2, padding=1), values(1, 2, 4, 4)
    found, _ = scales(module, x)
    padded = np.pad(np.abs(x), ((0, 0), (0, 0), (1, 1), (1, 1))).astype(np.float64)
    weight, bias = np.abs(weight_of(module)), np.abs(weight_of(module, "bias"))
    by_hand = np.empty((1, 3, 3, 3))
    for out, row, column in itertools.product(range(3), repeat=3):
        window = padded[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        by_hand[0, out, row, column] = (window * weight[out]).sum() + bias[out]
    np.testing.assert_allclose(found.sizes["output"], by_hand, rtol=1e-6)


def test_average_pooling_is_the_mean_of_absolute_values() -> None:
    x = values(1, 2, 4, 4)
    found, _ = scales(nn.AvgPool2d(2), x)
    by_hand = np.abs(x).reshape(1, 2, 2, 2, 2, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(found.sizes["output"], by_hand, rtol=1e-6)
    assert found.length == 4


def test_what_chooses_rounds_nothing() -> None:
    x, g = values(1, 2, 4, 4), values(1, 2, 2, 2)
    for module in (nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5)):
        found, _ = scales(module, x)
        assert not found.sizes["output"].any(), module
    apart, _ = scales(nn.MaxPool2d(2), x, upstream=g)
    assert not apart.sizes["input gradient"].any()


def test_overlapping_windows_add_what_they_send_to_one_place() -> None:
    x = np.zeros((1, 1, 1, 5), np.float32)
    x[..., 2] = 9.0  # the largest of both windows of 3, stride 2
    g = np.array([[[[3.0, -2.0]]]], np.float32)
    found, run = scales(nn.MaxPool2d((1, 3), (1, 2)), x, upstream=g)
    assert found.sizes["input gradient"][0, 0, 0, 2] == 5.0
    assert run["input gradient"][0, 0, 0, 2] == 1.0


def test_batch_norm_in_training_counts_the_sum_behind_its_mean() -> None:
    # The mean cancels to 0, but its sum is rounded as a sum of ones: |x| + |μ| would miss that
    x = np.tile(np.array([1.0, -1.0], np.float32), 8).reshape(4, 1, 2, 2)
    found, _ = scales(nn.BatchNorm2d(1), x, train=True)
    np.testing.assert_allclose(found.sizes["output"], 2.0, rtol=1e-4)
    assert found.length == 16


def test_batch_norm_in_inference_has_no_sum() -> None:
    module = nn.BatchNorm2d(2)
    module.running_mean = torch.tensor([3.0, 0.0])
    found, _ = scales(module, np.ones((2, 2, 2, 2), np.float32))
    assert found.length == 1
    np.testing.assert_allclose(found.sizes["output"][0, :, 0, 0], [4.0, 1.0], rtol=1e-4)
    assert not found.drift


def test_repeated_values_drift_more_than_a_random_walk() -> None:
    """0.1 added 4,096 times one by one in float32 is off by far more than √n·u."""
    x = np.full((4, 1, 32, 32), 0.1, np.float32)
    x[0, 0, 0, 0] = 0.2
    found, _ = scales(nn.BatchNorm2d(1), x, train=True)
    sum_error = abs(np.add.accumulate(x.reshape(-1))[-1] / x.size - x.astype(np.float64).mean())
    assert sum_error > 2 * np.sqrt(x.size) * UNIT["float32"] * 0.1
    deviation = np.sqrt(x.astype(np.float64).var() + 1e-5)
    assert found.drift["output"].min() >= sum_error / deviation * (1 - 1e-6)


class Unknown(nn.Module):
    """A class the suite has no formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * self.weight[0] + x[:, 1:] * self.weight[1]


def test_an_unknown_operation_is_measured_near_what_it_adds_up() -> None:
    x = values(50, 2)
    found, _ = scales(Unknown(), x, upstream=values(50, 1))
    assert found.family == "custom"
    sums = np.abs(x[:, :1] * 2) + np.abs(x[:, 1:] * 3)
    ratio = found.sizes["output"] / sums
    assert ratio.min() > 0.5
    assert ratio.max() < 16
    assert set(found.sizes) == {"output", "input gradient", "weight gradient"}


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(512, 4), values(4, 512)),
        (nn.Conv2d(16, 4, 3), values(2, 16, 6, 6)),
        (nn.Sigmoid(), 8 * values(20, 20)),
        (nn.Tanh(), 8 * values(20, 20)),
        (nn.Softmax(dim=1), 20 * values(20, 10)),
        (nn.LogSoftmax(dim=1), 20 * values(20, 10)),
        (nn.BatchNorm2d(4), values(8, 4, 5, 5) + 3),
        (nn.AvgPool2d(3, 1), values(2, 4, 8, 8)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_float32_is_within_a_few_units_and_not_far_below(module: nn.Module, x: np.ndarray) -> None:
    """A scale that is much too large would pass wrong values, one that is too small right ones."""
    (leaf,) = leaves_of(module)
    found, exact = scales(module, x, train=True)
    single = run_leaf(leaf, (x,), "float32", train=True)
    error = np.abs(single["output"] - exact["output"]) / (UNIT["float32"] * found.sizes["output"])
    assert 0.05 < error.max() < 16


class HardSwish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * nn.functional.relu6(x + 3) / 6


class HardSigmoid(nn.Module):
    alpha, beta = 0.3, 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.alpha * x + self.beta).clamp(0, 1)


@pytest.mark.parametrize(("module", "bound"), [(HardSwish(), 3.0), (HardSigmoid(), 5 / 3)])
def test_a_rounding_across_a_bound_is_a_jump_that_the_scale_knows(
    module: nn.Module, bound: float
) -> None:
    """float32 clips what float64 does not, and the whole slope is there or is not."""
    x = np.float32(bound) * (1 + np.arange(-8, 8) * UNIT["float32"]).astype(np.float32)
    upstream = np.ones((64, 16))
    found, exact = scales(module, np.tile(x, (64, 1)), upstream=upstream)
    (leaf,) = leaves_of(module)
    single = run_leaf(leaf, (np.tile(x, (64, 1)),), "float32", train=False, upstream=(upstream,))
    error = np.abs(single["input gradient"] - exact["input gradient"])
    assert error.max() > 0.25
    factor = 64 if found.family == "custom" else 16
    assert (error <= factor * UNIT["float32"] * found.sizes["input gradient"]).all()


def test_a_bias_gradient_that_repeats_drifts() -> None:
    module, x = nn.Conv2d(1, 2, 1), values(1, 1, 64, 64)
    upstream = np.stack([np.full((64, 64), 1 / 169), GENERATOR.standard_normal((64, 64))])[None]
    upstream = upstream.astype(np.float32).astype(np.float64)
    found, _ = scales(module, x, upstream=upstream)
    drift = found.drift["bias gradient"] / (UNIT["float32"] * found.sizes["bias gradient"])
    assert drift[0] > 30 * drift[1]
    assert drift[0] > 16  # a bound that does not know of it alarms


@pytest.mark.parametrize("kind", ["dense", "conv2d"])
def test_a_sum_of_products_of_one_sign_may_be_off_by_its_root(kind: str) -> None:
    """4,608 positive products, added one by one: the worst that an inner loop can do."""
    x, w = (GENERATOR.random((n, 4608)).astype(np.float32) for n in (4, 64))
    module: nn.Linear | nn.Conv2d
    if kind == "dense":
        module, inputs, shape = nn.Linear(4608, 64), x, w.shape
    else:
        module, inputs, shape = nn.Conv2d(512, 64, 3), x.reshape(4, 512, 3, 3), (64, 512, 3, 3)
    module.bias.data.zero_()  # type: ignore[union-attr]
    module.weight.data = torch.from_numpy(w.reshape(shape))
    found, _ = scales(module, inputs)
    sums = np.add.accumulate(x[:, None] * w, axis=-1)[..., -1]
    error = np.abs(sums - x.astype(np.float64) @ w.T)
    size, drift = (of["output"].reshape(4, 64) for of in (found.sizes, found.drift))
    assert error.max() > 16 * UNIT["float32"] * size.max()  # a bound that does not know alarms
    assert (error <= 16 * UNIT["float32"] * size + 2 * drift).all()


def test_a_sum_of_products_of_both_signs_is_bounded_as_closely_as_ever() -> None:
    module = nn.Linear(4608, 64)
    module.weight.data = torch.from_numpy(values(64, 4608))
    found, _ = scales(module, values(4, 4608))
    drift = found.drift["output"] / (UNIT["float32"] * found.sizes["output"])
    assert np.median(drift) < 4
