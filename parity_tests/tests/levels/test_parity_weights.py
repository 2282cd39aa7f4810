"""A transfer map that is wrong in any way is seen, even where the values themselves agree."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.base import leaves_of
from parity_tests.cases.pairs import Case, project_case
from parity_tests.levels.weights import (
    TransferMap,
    copy_paired,
    fingerprint,
    pairing_map,
    project_map,
    weights_rows,
)
from parity_tests.pairing.align import Pairing, pair_leaves
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Level, Status

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def case() -> Case:
    """Two pairs of layers of one shape each, and BatchNorm."""
    return project_case("vgg11_bn")


def pairing_of(case: Case) -> Pairing:
    return pair_leaves(leaves_of(case.gluon_net), leaves_of(case.torch_net))


def failures(case: Case, way: TransferMap) -> list[Row]:
    rows, _ = weights_rows(case.gluon_net, case.torch_net, pairing_of(case), way)
    return [row for row in rows if row.status != "ok"]


def test_the_projects_map_and_the_pairings_agree(case: Case) -> None:
    ours = project_map(case.gluon_net, case.torch_net)
    assert ours is not None
    assert ours.name == "torch_ref.transfer"
    for way in (ours, pairing_map(pairing_of(case))):
        rows, coverage = weights_rows(case.gluon_net, case.torch_net, pairing_of(case), way)
        assert {row.status for row in rows} == {"ok"}
        assert {row.check for row in rows} == {"value", "transfer", "round trip"}
        assert coverage.percent() == {"parameters": 100.0, "buffers": 100.0}
        compared = sum(row.compared for row in rows if row.check == "value")
        assert compared == sum(done for done, _ in coverage.counts().values())


def swapped(first: str, second: str) -> Callable[[Mapping[str, np.ndarray]], Arrays]:
    def swap(arrays: Mapping[str, np.ndarray]) -> Arrays:
        moved = dict(arrays)
        moved[first], moved[second] = moved[second], moved[first]
        return moved

    return swap


def broken(way: TransferMap, there: Callable, back: Callable | None = None) -> TransferMap:
    """`way` with `there` applied to what it makes for torch, and `back` to what comes back."""
    undo = back or (lambda arrays: arrays)
    return TransferMap("broken", lambda a: there(way.to_torch(a)), lambda a: way.to_gluon(undo(a)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("features.18.weight", "features.22.weight"),  # two convolutions of one shape
        ("features.1.weight", "features.1.bias"),  # gamma and beta
        ("features.1.running_mean", "features.1.running_var"),
        ("features.1.bias", "features.1.running_mean"),
        ("features.0.bias", "features.1.bias"),  # two layers' biases
    ],
)
@pytest.mark.parametrize("both_ways", [False, True], ids=["there", "there and back"])
def test_a_swap_of_one_shape_is_seen(case: Case, first: str, second: str, both_ways: bool) -> None:
    """Swapped there and back again, every value arrives where it left: only the middle tells."""
    way = pairing_map(pairing_of(case))
    swap = swapped(first, second)
    found = failures(case, broken(way, swap, swap if both_ways else None))
    where = {f"{row.path}.{row.quantity}" for row in found if row.check == "transfer"}
    assert where == {first, second}
    named = {row.diagnosis for row in found if row.check == "transfer"}
    assert all(
        diagnosis.startswith("swapped tensors: it holds what was sent as ") for diagnosis in named
    )
    if both_ways:
        assert not [row for row in found if row.check == "round trip"]


def test_a_transposed_square_is_seen(case: Case) -> None:
    def transpose(arrays: Mapping[str, np.ndarray]) -> Arrays:
        name = "classifier.4.weight"
        assert arrays[name].shape[0] == arrays[name].shape[1]
        return {**arrays, name: np.ascontiguousarray(arrays[name].T)}

    found = failures(case, broken(pairing_map(pairing_of(case)), transpose, transpose))
    assert {(row.path, row.quantity, row.check) for row in found} == {
        ("classifier.4", "weight", "transfer")
    }


def test_a_dropped_name_is_seen(case: Case) -> None:
    def drop(arrays: Mapping[str, np.ndarray]) -> Arrays:
        return {name: a for name, a in arrays.items() if name != "features.1.running_var"}

    found = failures(case, broken(pairing_map(pairing_of(case)), drop))
    assert ("features.1", "running_var", "transfer") in {
        (row.path, row.quantity, row.check) for row in found
    }


@pytest.mark.parametrize("error", [KeyError("features.9.bias"), ValueError("wrong shape")])
def test_a_map_that_refuses_is_reported_and_not_raised(case: Case, error: Exception) -> None:
    def refuse(arrays: Mapping[str, np.ndarray]) -> Arrays:
        raise error

    way = replace(pairing_map(pairing_of(case)), to_torch=refuse)
    (row,) = failures(case, way)
    assert row.quantity == "names"
    assert str(error).strip("'") in row.detail


def test_the_sign_of_zero_counts_in_a_weight(case: Case) -> None:
    pairing = pairing_of(case)
    bias = case.torch_net.get_parameter("features.0.bias")
    kept = bias.detach().clone()
    gluon_bias = case.gluon_net._collect_params_with_prefix()["features.0.bias"]
    before = gluon_bias.data().copy()
    try:
        gluon_bias.set_data(before * 0)
        with torch.no_grad():
            bias.copy_(torch.full_like(bias, -0.0))
        (row,) = failures(case, pairing_map(pairing))
        assert (row.path, row.quantity, row.check) == ("features.0", "bias", "value")
    finally:
        gluon_bias.set_data(before)
        with torch.no_grad():
            bias.copy_(kept)


def test_no_two_tensors_have_one_fingerprint(case: Case) -> None:
    tensors = [t for leaf in leaves_of(case.gluon_net) for t in leaf.tensors.values()]
    prints = {fingerprint(tensor).tobytes() for tensor in tensors}
    assert len(prints) == len(tensors)


def test_a_tensor_without_partner_is_missing_from_the_coverage() -> None:
    gluon_net = gluon_nn.HybridSequential()
    gluon_net.add(gluon_nn.Dense(3, in_units=2, use_bias=False))
    gluon_net.initialize()
    torch_net = nn.Sequential(nn.Linear(2, 3))
    pairing = pair_leaves(leaves_of(gluon_net), leaves_of(torch_net))
    rows, coverage = weights_rows(gluon_net, torch_net, pairing)
    assert coverage.missing() == ["parameters 0.bias"]
    assert [row.detail for row in rows if row.status == "not compared"] == ["only torch has it"]


def test_nets_without_parameters_say_so() -> None:
    gluon_net, torch_net = gluon_nn.MaxPool2D(2), nn.MaxPool2d(2)
    pairing = pair_leaves(leaves_of(gluon_net), leaves_of(torch_net))
    (row,) = weights_rows(gluon_net, torch_net, pairing)[0]
    assert "neither net has parameters" in row.detail


def in_groups() -> tuple[gluon_nn.HybridSequential, nn.Sequential, np.ndarray]:
    """MXNet's GroupNorm has a scale for each group; torch's has one for each channel."""
    x = np.random.default_rng(0).standard_normal((2, 4, 2, 2)).astype(np.float32)
    net = gluon_nn.HybridSequential()
    net.add(gluon_nn.GroupNorm(2, gamma_initializer=mx.init.Uniform(1.0)), gluon_nn.Dense(3))
    net.initialize()
    net(mx.nd.array(x))
    return net, nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 3)), x


@pytest.mark.slow
def test_one_value_a_group_and_one_a_channel_train_otherwise() -> None:
    report = check_parity(
        *in_groups(), transfer=True, levels=("weights", "forward", "backward", "training"),
        labels=np.array([0, 1]), optimizer="sgd(lr=0.1)", steps=1,
    )  # fmt: skip
    assert not [row for row in report.rows if row.status == Status.DIVERGED], str(report)
    left = {row.level: row.detail for row in report.rows if row.status == Status.NOT_COMPARED}
    assert set(left) == {Level.WEIGHTS, Level.BACKWARD, Level.TRAINING}
    assert all("one value a group" in why for why in left.values())


@pytest.mark.parametrize(("more", "right"), [(0.0, True), (0.1, False)])
def test_one_value_a_group_equals_the_same_in_each_of_its_channels(
    more: float, right: bool
) -> None:
    net, torch_net, _ = in_groups()
    pairing = pair_leaves(leaves_of(net), leaves_of(torch_net))
    copy_paired(pairing)
    with torch.no_grad():
        dict(torch_net.named_parameters())["0.weight"][3] += more
    rows, _ = weights_rows(net, torch_net, pairing)
    wrong = [(row.path, row.quantity) for row in rows if row.status == Status.DIVERGED]
    assert wrong == ([] if right else [("0", "weight")])
