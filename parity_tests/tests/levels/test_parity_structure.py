"""Leaves pair one to one in order, and every difference is named where it is."""

from typing import Any

import mxnet as mx
import pytest
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.base import leaves_of
from parity_tests.levels.structure import structure_rows
from parity_tests.pairing.align import Pairing, pair_leaves
from parity_tests.reporting.rows import Row
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised, random_image


def ours(*blocks: Any) -> gluon_nn.HybridSequential:
    net = gluon_nn.HybridSequential()
    net.add(*blocks)
    net.initialize()
    return net


def pairing(gluon_net: Any, torch_net: nn.Module) -> Pairing:
    return pair_leaves(leaves_of(gluon_net), leaves_of(torch_net))


def diverged(gluon_net: Any, torch_net: nn.Module) -> list[tuple[str, str]]:
    rows, _ = structure_rows(pairing(gluon_net, torch_net))
    return [(row.path, row.quantity) for row in rows if row.status == "diverged"]


def notes(gluon_net: Any, torch_net: nn.Module) -> list[Row]:
    rows, _ = structure_rows(pairing(gluon_net, torch_net))
    return [row for row in rows if row.status == "note"]


def conv(**options: Any) -> gluon_nn.Conv2D:
    return gluon_nn.Conv2D(4, 3, in_channels=2, **options)


def dense() -> gluon_nn.Dense:
    return gluon_nn.Dense(4, in_units=4)


def test_an_activation_inside_a_layer_is_a_leaf_of_its_own() -> None:
    gluon_net = ours(conv(activation="relu"), gluon_nn.Dense(3, in_units=8, activation="tanh"))
    torch_net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3), nn.Tanh()
    )
    assert not diverged(gluon_net, torch_net)
    assert [pair.path for pair in pairing(gluon_net, torch_net).pairs] == ["0", "1", "3", "4"]
    assert ["flatten" in row.detail for row in notes(gluon_net, torch_net)] == [True]


@pytest.mark.parametrize(
    ("gluon", "theirs", "quantity"),
    [
        (lambda: conv(strides=2), lambda: nn.Conv2d(2, 4, 3), "stride"),
        (lambda: conv(padding=1), lambda: nn.Conv2d(2, 4, 3), "pad"),
        (lambda: conv(dilation=2), lambda: nn.Conv2d(2, 4, 3), "dilation"),
        (lambda: conv(padding=1), lambda: nn.Conv2d(2, 4, 3, padding=(1, 0)), "pad"),
        (
            lambda: conv(padding=1),
            lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"),
            "pad",
        ),
        (lambda: conv(groups=2), lambda: nn.Conv2d(2, 4, 3), "groups"),
        (lambda: conv(use_bias=False), lambda: nn.Conv2d(2, 4, 3), "bias"),
        (lambda: gluon_nn.MaxPool2D(3, 2), lambda: nn.MaxPool2d(3), "stride"),
        (lambda: gluon_nn.MaxPool2D(2), lambda: nn.MaxPool2d(2, ceil_mode=True), "ceil"),
        (lambda: gluon_nn.MaxPool2D(2), lambda: nn.MaxPool2d(2, 2, dilation=2), "dilation"),
        (
            lambda: gluon_nn.AvgPool2D(2, padding=1),
            lambda: nn.AvgPool2d(2, padding=1, count_include_pad=False),
            "count_include_pad",
        ),
        (lambda: gluon_nn.AvgPool2D(2), lambda: nn.AvgPool2d(2, divisor_override=1), "divisor"),
        (lambda: gluon_nn.BatchNorm(in_channels=4), lambda: nn.BatchNorm2d(4, eps=1e-3), "eps"),
        # what torch calls momentum is the complement of what MXNet does
        (
            lambda: gluon_nn.BatchNorm(in_channels=4, momentum=0.1),
            lambda: nn.BatchNorm2d(4, momentum=0.1),
            "kept",
        ),
        (
            lambda: gluon_nn.BatchNorm(in_channels=4, scale=False),
            lambda: nn.BatchNorm2d(4),
            "scale",
        ),
        (
            lambda: gluon_nn.BatchNorm(in_channels=4, axis=3),
            lambda: nn.BatchNorm2d(4),
            "axis",
        ),
        (lambda: gluon_nn.Dropout(0.5), lambda: nn.Dropout(0.25), "p"),
        (lambda: gluon_nn.Dropout(0.5), lambda: nn.Dropout2d(0.5), "axes"),
        (lambda: gluon_nn.LeakyReLU(0.25), lambda: nn.LeakyReLU(), "slope"),
        (lambda: gluon_nn.HybridLambda("softmax"), lambda: nn.Softmax(dim=0), "axis"),
        (lambda: gluon_nn.Activation("relu"), lambda: nn.ReLU6(), "kind"),
        (lambda: gluon_nn.MaxPool2D(2), lambda: nn.AvgPool2d(2), "kind"),
        (lambda: dense(), lambda: nn.Linear(4, 5), "weight shape"),
        (lambda: dense(), lambda: nn.Linear(4, 4).double(), "weight dtype"),
        (lambda: dense(), lambda: nn.Linear(4, 4).requires_grad_(False), "weight trainable"),
    ],
)
def test_a_difference_in_one_leaf_is_named(gluon: Any, theirs: Any, quantity: str) -> None:
    found = diverged(ours(dense(), gluon(), dense()), nn.Sequential(
        nn.Linear(4, 4), theirs(), nn.Linear(4, 4)
    ))  # fmt: skip
    assert found
    assert {path for path, _ in found} == {"1"}
    assert quantity in {name for _, name in found}


@pytest.mark.parametrize(
    ("gluon", "theirs"),
    [
        (lambda: conv(padding=1), lambda: nn.Conv2d(2, 4, 3, padding="same")),
        (lambda: conv(), lambda: nn.Conv2d(2, 4, 3, padding="valid")),
        (lambda: gluon_nn.BatchNorm(in_channels=4), lambda: nn.BatchNorm2d(4)),
        (
            lambda: gluon_nn.BatchNorm(in_channels=4, scale=False, center=False),
            lambda: nn.BatchNorm2d(4, affine=False),
        ),
        (lambda: gluon_nn.GlobalAvgPool2D(), lambda: nn.AdaptiveAvgPool2d(1)),
        (lambda: gluon_nn.GlobalMaxPool2D(), lambda: nn.AdaptiveMaxPool2d((1, 1))),
        (lambda: gluon_nn.LeakyReLU(0.01), lambda: nn.LeakyReLU()),
        (lambda: gluon_nn.Activation("softrelu"), lambda: nn.Softplus()),
        (lambda: gluon_nn.HybridLambda("tanh"), lambda: nn.Tanh()),
        (lambda: gluon_nn.Dropout(0.5, axes=(2, 3)), lambda: nn.Dropout2d(0.5)),
    ],
)
def test_two_ways_of_writing_the_same_are_the_same(gluon: Any, theirs: Any) -> None:
    assert not diverged(ours(gluon()), nn.Sequential(theirs()))


@pytest.mark.parametrize("missing", range(5))
def test_one_missing_leaf_is_reported_as_that_leaf_alone(missing: int) -> None:
    """A pairing by position would report every leaf after it as well."""

    def torches() -> list[nn.Module]:
        return [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)]

    def gluons() -> list[Any]:
        return [dense(), gluon_nn.Activation("relu"), dense(), gluon_nn.Activation("tanh"), dense()]

    theirs, less = torches(), gluons()
    del less[missing]
    found = diverged(ours(*less), nn.Sequential(*theirs))
    assert len(found) == 1
    # which of two equal dense layers is missing cannot be told; an activation can
    assert missing % 2 == 0 or found == [(str(missing), "leaf")]
    fewer = torches()
    del fewer[missing]
    assert len(diverged(ours(*gluons()), nn.Sequential(*fewer))) == 1


def test_leaves_in_another_order_do_not_pair() -> None:
    gluon_net = ours(dense(), gluon_nn.Activation("relu"), gluon_nn.Activation("tanh"))
    torch_net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.ReLU())
    assert diverged(gluon_net, torch_net)


def test_a_function_that_cannot_be_read_is_taken_and_said() -> None:
    gluon_net = ours(dense(), gluon_nn.HybridLambda(lambda F, x: F.relu(x)))
    torch_net = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    assert not diverged(gluon_net, torch_net)
    assert ["taken for" in row.detail for row in notes(gluon_net, torch_net)] == [True]


def test_a_users_function_named_like_an_operator_is_not_trusted() -> None:
    def relu(F: Any, x: Any) -> Any:
        return F.tanh(x)

    (leaf,) = leaves_of(ours(gluon_nn.HybridLambda(relu)))
    assert leaf.opaque
    assert leaf.kind.startswith("custom:")


def test_nothing_on_both_sides_compares_nothing() -> None:
    rows, coverage = structure_rows(pairing(gluon_nn.HybridSequential(), nn.Sequential()))
    assert rows == []
    assert coverage.counts() == {}


def test_two_hundred_leaves_pair_in_a_second_or_so() -> None:
    depth = 100
    gluon_net = ours(*(b for _ in range(depth) for b in (dense(), gluon_nn.Activation("relu"))))
    torch_net = nn.Sequential(
        *(m for i in range(depth) for m in (nn.Linear(4, 4), nn.Tanh() if i == 60 else nn.ReLU()))
    )
    assert diverged(gluon_net, torch_net) == [("121", "kind")]


def test_a_parameter_without_values_is_refused_by_name() -> None:
    from parity_tests.backends.leaves import ParityError

    net = gluon_nn.HybridSequential()
    net.add(gluon_nn.Dense(4))
    net.initialize(mx.init.Xavier())
    with pytest.raises(ParityError, match=r"0\.weight .*run the net once"):
        leaves_of(net)


@pytest.mark.parametrize("quick", [False, True])
def test_outputs_in_another_order_are_named(quick: bool) -> None:
    x = random_image(2, 4)
    gluon_net = initialised(GluonNet(lambda s, F, x: (F.tanh(s.d(x)), s.d(x)), d=dense()), x)
    alike, other = (
        TorchNet(function, d=nn.Linear(4, 4))
        for function in (
            lambda s, x: (s.d(x).tanh(), s.d(x)),
            lambda s, x: (s.d(x), s.d(x).tanh()),
        )
    )
    assert check_parity(gluon_net, alike, x, transfer=True, quick=quick).ok
    first = check_parity(gluon_net, other, x, transfer=True, quick=quick).first_divergence
    assert first is not None
    assert "Gluon gives that of tanh, torch that of d" in first.message
