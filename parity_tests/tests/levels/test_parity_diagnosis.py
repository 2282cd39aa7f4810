"""A name is given where it fits, and none where nothing does, or more than one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.base import leaves_of
from parity_tests.faults.kinds.pairs import plain_case
from parity_tests.levels.diagnosis.hypotheses import explained
from parity_tests.levels.diagnosis.updates import explain_update
from parity_tests.numerics.operators.table import OPERATORS
from parity_tests.numerics.reference import reference_value
from parity_tests.numerics.rounding import mantissa
from parity_tests.numerics.update_rules import Rule, Update, apply_update

GENERATOR = np.random.default_rng(3)
W = GENERATOR.standard_normal((6, 6)).astype(np.float32)
KERNEL = GENERATOR.standard_normal((4, 3, 3, 3)).astype(np.float32)


@pytest.mark.parametrize("seed", range(20))
def test_what_nobody_has_thought_of_has_no_name(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for x in (W, KERNEL, generator.standard_normal((8, 12)).astype(np.float32)):
        noisy = x + generator.normal(0, 1e-3, x.shape).astype(np.float32)
        other = generator.standard_normal(x.shape).astype(np.float32)
        mixed = generator.permutation(x.ravel()).reshape(x.shape)
        for changed in (noisy, other, mixed):
            for role in ("weight", "image", "output", "gradient"):
                assert explained(x, changed, role=role, batch=4) == ""


def test_two_names_that_fit_are_none() -> None:
    symmetric = np.arange(9, dtype=np.float32).reshape(3, 3) - 4
    # turned by 180 degrees it is also its own negative, and a list of rows in another order
    assert explained(symmetric, -symmetric) == "negated: each is the other's negative"
    zeros = np.zeros_like(W)
    assert explained(W, zeros).startswith("zeroed tensor: torch's")
    assert explained(zeros, W).startswith("zeroed tensor: Gluon's")


def test_ten_bits_are_told_from_a_float16_where_they_can_be() -> None:
    plain = np.array([1.0003, -2.7183, 3.1416, 0.5773], np.float32)
    assert explained(plain, mantissa(plain, 10)).startswith("float16 or TF32 rounding: ")
    tiny = np.append(plain, np.float32(3.3333e-6))  # below float16's normal numbers
    assert explained(tiny, mantissa(tiny, 10)).startswith("TF32 rounding: ")
    half = tiny.astype(np.float16).astype(np.float32)
    assert explained(tiny, half).startswith("float16 rounding: ")


def test_a_name_does_not_depend_on_the_side() -> None:
    for changed, name in ((W.T.copy(), "transposed weight"), (W / 3, "constant factor")):
        assert explained(W, changed).startswith(f"{name}: ")
        assert explained(changed, W).startswith(f"{name}: ")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_infinities_of_a_mask_are_left_out(dtype: type[np.floating[Any]]) -> None:
    """Of the places where both have the same; with others nothing has a name."""
    ours = np.random.default_rng(0).standard_normal((6, 7)).astype(dtype)
    ours[:, :2] = -np.inf
    ours[0, 3] = 0
    assert "constant factor" in explained(ours, (ours * 3).astype(dtype), role="output")
    other = ours.copy()
    other[0, 3] = np.inf
    other[1] *= 3
    assert explained(ours, other, role="output") == ""
    if dtype is np.float32:
        half = ours.astype(np.float16).astype(np.float32)
        assert "float16" in explained(ours, half, role="output")


def _leaves() -> dict[str, tuple[Any, nn.Module, tuple[int, ...]]]:
    return {
        "conv2d": (gluon_nn.Conv2D(4, 3, 2, 1, in_channels=3), nn.Conv2d(3, 4, 3, 2, 1),
                   (2, 3, 9, 8)),
        "dense": (gluon_nn.Dense(5, in_units=7), nn.Linear(7, 5), (3, 7)),
        "max_pool2d": (gluon_nn.MaxPool2D(3, 2, 1), nn.MaxPool2d(3, 2, 1), (2, 3, 9, 8)),
        "avg_pool2d": (gluon_nn.AvgPool2D(3, 2, 1), nn.AvgPool2d(3, 2, 1), (2, 3, 9, 8)),
        "batchnorm": (gluon_nn.BatchNorm(epsilon=1e-3, in_channels=3), nn.BatchNorm2d(3, eps=1e-3),
                      (3, 3, 5, 4)),
        "softmax": (gluon_nn.HybridLambda("softmax"), nn.Softmax(dim=1), (4, 6)),
        "sigmoid": (gluon_nn.Activation("sigmoid"), nn.Sigmoid(), (4, 6)),
        "relu": (gluon_nn.Activation("relu"), nn.ReLU(), (4, 6)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", list(_leaves()))
def test_the_reference_is_a_third_witness_and_its_faults_differ(kind: str) -> None:
    """Right it gives what torch gives; with a fault it gives something else."""
    ours, theirs, shape = _leaves()[kind]
    case = plain_case([ours], [theirs], shape)
    leaf = leaves_of(case.torch_net)[0]
    assert leaf.kind == kind
    upstream = None
    right = reference_value(leaf, (case.inputs,), train=True)
    assert right is not None
    with torch.no_grad():
        made = case.torch_net.double().train()(torch.from_numpy(case.inputs.astype(np.float64)))
    np.testing.assert_allclose(right["output"], made.numpy(), rtol=1e-10, atol=1e-12)
    assert OPERATORS[kind].faults
    upstream = (np.random.default_rng(1).standard_normal(right["output"].shape),)
    for train in (True, False):
        clean = reference_value(leaf, (case.inputs,), train=train, upstream=upstream)
        for variant, _ in OPERATORS[kind].faults:
            wrong = reference_value(
                leaf, (case.inputs,), train=train, upstream=upstream, fault=variant
            )
            assert clean is not None
            assert wrong is not None
            same = all(np.array_equal(clean[n], wrong[n]) for n in clean if n in wrong)
            if not same:
                break
        else:
            raise AssertionError(f"no fault of {kind} changes anything")


def test_a_listing_that_does_not_fit_an_input_has_no_reference_value() -> None:
    case = plain_case([gluon_nn.Conv2D(4, 3, in_channels=3)], [nn.Conv2d(3, 4, 3)], (2, 3, 9, 8))
    (leaf,) = leaves_of(case.torch_net)
    assert reference_value(leaf, (case.inputs,), train=True) is not None
    assert reference_value(leaf, (case.inputs[:, :, :2, :2],), train=True) is None


def test_your_own_pair_is_diagnosed_too() -> None:
    net = gluon_nn.HybridSequential()
    net.add(
        gluon_nn.Dense(8, in_units=8), gluon_nn.Activation("tanh"), gluon_nn.Dense(3, in_units=8)
    )
    net.initialize()
    twin = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    with torch.no_grad():
        for theirs, ours in zip(twin.parameters(), net.collect_params().values(), strict=True):
            theirs.copy_(torch.from_numpy(ours.data().asnumpy()))
        weight = twin.get_parameter("0.weight")
        weight.copy_(weight.T.clone())
    report = check_parity(net, twin, np.random.default_rng(0).standard_normal((4, 8)))
    first = report.first_divergence
    assert first is not None
    assert first.diagnosis.startswith("transposed weight: ")
    assert first.message.endswith(first.diagnosis)


@pytest.mark.parametrize("rule", [Rule("sgd", momentum=0.9, wd=0.01), Rule("adam", wd=0.01)])
def test_an_update_at_random_has_no_name(rule: Rule) -> None:
    generator = np.random.default_rng(9)
    before = {"weight": W, **{slot: np.abs(W) * 0.01 for slot in rule.slots}}
    gradient = generator.standard_normal(W.shape).astype(np.float32)
    update = Update(0.1, 4, 3, 0.2)
    right, _ = apply_update(rule, update, W, gradient, before)
    after = {
        name: (value * (1 + 1e-3 * generator.standard_normal(W.shape))).astype(np.float32)
        for name, value in right.items()
    }
    for stage in (*rule.slots, "weight"):
        assert explain_update(rule, update, before, gradient, after, stage) == ""
