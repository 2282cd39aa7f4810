"""Values at places: indices, masks, steps and slices, by MXNet's many words and torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import Block
from mxnet.gluon import nn as gnn
from torch import nn
from torch.nn import functional as F

import gluon_cnn  # noqa: F401  (settles MXNet's threads)
from parity_tests import check_parity
from parity_tests.numerics.perturb import holds_integers
from parity_tests.tests.pairing.nets import ImperativeNet, TorchNet, random_image

X = random_image(4, 5, 6)
LABELS = np.array([0, 3, 3, 1])

nd, mnp, tensor = mx.nd, mx.np, torch.tensor


def gluon(function: Callable[..., Any], **shapes: Any) -> Block:
    """A dense layer and own parameters, and what is made of them."""
    made = ImperativeNet(function, d=gnn.Dense(6, flatten=False, in_units=6))
    for name, shape in shapes.items():
        setattr(made, name, made.params.get(name, shape=shape))
    made.initialize(mx.init.Normal(0.3))
    return made


def twin(function: Callable[..., Any], **shapes: Any) -> nn.Module:
    made = TorchNet(function, d=nn.Linear(6, 6))
    for name, shape in shapes.items():
        made.register_parameter(name, nn.Parameter(torch.randn(shape)))
    return made


def whole(*numbers: Any) -> Any:
    return nd.array(numbers, dtype="int32")


def one_of_each(s: Any, x: Any) -> Any:
    return s.d(x)[:, 0][torch.arange(4), tensor(LABELS)]


P: dict[str, Any] = {"p": (1, 8, 6), "q": (3, 5, 6), "r": (4, 6, 5), "w": (7, 6)}

# All of one value: rows that come twice send back two gradients
EQUAL: dict[str, tuple[Callable[[], Block], Callable[[], nn.Module]]] = {
    "rows": (
        lambda: gluon(
            lambda s, x: (
                s.d(x)[whole(0, 3, 3)] + s.d(x)[[3, 1, 1]] + nd.take(s.d(x), nd.array([0, 2, 2]))
                + nd.gather_nd(s.d(x), whole([2, 0, 2]))
            )
        ),
        lambda: twin(
            lambda s, x: (
                s.d(x)[tensor([0, 3, 3])] + s.d(x)[[3, 1, 1]]
                + s.d(x).index_select(0, tensor([0, 2, 2])) + s.d(x)[tensor([2, 0, 2])]
            )
        ),
    ),
    "along another axis": (
        lambda: gluon(
            lambda s, x: (
                s.d(x)[:, [2, 0, 2]] + nd.take(s.d(x), whole(0, -7, 9), axis=1)
                + nd.take(s.d(x), whole(1, 4, 1), axis=1)
            )
        ),
        lambda: twin(
            lambda s, x: (
                s.d(x)[:, tensor([2, 0, 2])] + s.d(x)[:, [0, 0, 4]]
                + torch.take_along_dim(s.d(x), tensor([1, 4, 1]).view(1, 3, 1), 1)
            )
        ),
    ),
    "rows of mx.np": (
        lambda: gluon(
            lambda s, x: (
                s.d(x)[mnp.array([0, 3, 3], dtype="int32"), :, [1, 1, 2]]
                + mnp.take(s.d(x), mnp.array([2, 0, 2], dtype="int32"), axis=1)[:3, 0, :5]
                + s.d(x)[mnp.array([True, False, True, True], dtype="bool")][:, :, 2]
            )
        ),
        lambda: twin(
            lambda s, x: (
                s.d(x)[tensor([0, 3, 3]), :, tensor([1, 1, 2])]
                + s.d(x)[:, tensor([2, 0, 2])][:3, 0, :5]
                + s.d(x)[tensor([True, False, True, True])][..., 2]
            )
        ),
    ),
    "a mask of mx.np that the input decides": (
        lambda: gluon(lambda s, x: s.d(x)[x > 0]),
        lambda: twin(lambda s, x: s.d(x).masked_select(x > 0)),
    ),
    "one of each row": (
        lambda: gluon(lambda s, x: nd.pick(s.d(x)[:, 0], nd.array(LABELS))),
        lambda: twin(one_of_each),
    ),
    "one of each row, by ones": (
        lambda: gluon(
            lambda s, x: (s.d(x)[:, 0] * nd.one_hot(nd.array(LABELS), 6)).sum(axis=1)
        ),
        lambda: twin(one_of_each),
    ),
    "backwards": (
        lambda: gluon(lambda s, x: s.d(x)[:, ::-1] * nd.flip(s.d(x), axis=2) + s.d(x)[::-1]),
        lambda: twin(lambda s, x: s.d(x).flip(1) * s.d(x).flip(-1) + s.d(x).flip((0, 1)).flip(1)),
    ),
    "every second of mx.np": (
        lambda: gluon(lambda s, x: s.d(x)[:, ::2] + mnp.fliplr(s.d(x))[:, 1:4]),
        lambda: twin(lambda s, x: s.d(x)[:, 0::2] + torch.fliplr(s.d(x))[:, 1:4]),
    ),
    "padded by mx.np": (
        lambda: gluon(lambda s, x: mnp.pad(s.d(x), ((0, 0), (2, 1), (0, 3))) * 2),
        lambda: twin(lambda s, x: F.pad(s.d(x), (0, 3, 2, 1)) * 2),
    ),
    "parts of parameters": (
        lambda: gluon(
            lambda s, x: nd.dot(
                nd.broadcast_add(s.d(x), s.p.data()[:, :5]) * s.q.data()[0] + s.q.data()[-1],
                s.r.data().reshape((20, 6)).T,
            ),
            **P,
        ),
        lambda: twin(
            lambda s, x: ((s.d(x) + s.p[:, :5]) * s.q[0] + s.q[-1]) @ s.r.reshape(20, 6).t(), **P
        ),
    ),
    "rows of a parameter": (
        lambda: gluon(
            lambda s, x: nd.broadcast_add(s.d(x), nd.take(s.w.data(), nd.arange(5)).expand_dims(0)),
            **P,
        ),
        lambda: twin(lambda s, x: s.d(x) + F.embedding(torch.arange(5), s.w), **P),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EQUAL)
def test_equal_places_are_in_parity(name: str) -> None:
    of_numpy = "mx.np" in name
    with mx.util.np_shape(of_numpy), mx.util.np_array(of_numpy):
        ours, theirs = (make() for make in EQUAL[name])
        report = check_parity(ours, theirs, X, transfer=True)
    assert report.ok, str(report)


def test_a_hybrid_parameter_and_indices_of_the_input_are_in_parity() -> None:
    class Net(gnn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.w = self.params.get("w", shape=(7, 6))

        def hybrid_forward(self, F: Any, x: Any, i: Any, w: Any) -> Any:
            y = F.broadcast_add(F.take(x, i, axis=1), F.slice_axis(w, axis=0, begin=2, end=5))
            return y + F.Embedding(i, w, input_dim=7, output_dim=6)

    net = Net()
    net.initialize(mx.init.Normal(1))
    net.hybridize()
    other = twin(lambda s, x, i: x[:, i] + s.w[2:5] + F.embedding(i, s.w), w=(7, 6))
    del other.d
    report = check_parity(net, other, (X, np.array([4, 0, 4])), transfer=True)
    assert report.ok, str(report)


def test_lengths_that_floats_hold_are_sent_no_gradient_and_no_noise() -> None:
    """MXNet leaves the memory of their gradient as it finds it."""

    def masked(s: Any, x: Any, lengths: Any) -> Any:
        return nd.SequenceMask(s.d(x), lengths, use_sequence_length=True, axis=1)

    def torch_masked(compare: Callable[..., torch.Tensor]) -> nn.Module:
        return twin(
            lambda s, x, lengths: s.d(x) * compare(torch.arange(5), lengths[:, None])[..., None]
        )

    inputs = X, np.array([1, 5, 3, 2], np.float32)
    report = check_parity(gluon(masked), torch_masked(torch.lt), inputs, transfer=True)
    assert report.ok, str(report)
    assert not check_parity(gluon(masked), torch_masked(torch.le), inputs, transfer=True).ok


UNEQUAL: dict[str, tuple[Callable[[], Block], Callable[[], nn.Module], str]] = {
    "another row": (
        lambda: gluon(lambda s, x: s.d(x)[[0, 3, 3]] * 2),
        lambda: twin(lambda s, x: s.d(x)[tensor([0, 3, 2])] * 2),
        "getitem structure: Gluon has (0, 3, 3), torch has (0, 3, 2) (index)",
    ),
    "an index beyond the end, which MXNet clips": (
        lambda: gluon(lambda s, x: nd.take(s.d(x), whole(0, 2, -1), axis=1) * 2),
        lambda: twin(lambda s, x: s.d(x)[:, [0, 2, -1]] * 2),
        "getitem structure: Gluon has (0, 2, 0), torch has (0, 2, 4) (index)",
    ),
    "another of one row": (
        lambda: gluon(lambda s, x: nd.gather_nd(s.d(x), whole([0, 3, 3], [1, 4, 4]))),
        lambda: twin(lambda s, x: s.d(x)[tensor([0, 3, 3]), tensor([1, 4, 3])]),
        "getitem structure: Gluon has (1, 4, 4), torch has (1, 4, 3) (index of axis 1)",
    ),
    "other ones": (
        lambda: gluon(
            lambda s, x: (s.d(x)[:, 0] * nd.one_hot(nd.array([0, 3, 3, 2]), 6)).sum(axis=1)
        ),
        lambda: twin(one_of_each),
        "getitem (2) structure",
    ),
    "another axis backwards": (
        lambda: gluon(lambda s, x: s.d(x)[:, ::-1]),
        lambda: twin(lambda s, x: s.d(x).flip(2)),
        "flip structure: Gluon has (1,), torch has (2,) (axes)",
    ),
    "not backwards": (
        lambda: gluon(lambda s, x: s.d(x)[:, ::-1] * 2),
        lambda: twin(lambda s, x: s.d(x) * 2),
        "flip",
    ),
    "another part of a parameter": (
        lambda: gluon(lambda s, x: s.d(x) * s.q.data()[0] + s.q.data()[2], **P),
        lambda: twin(lambda s, x: s.d(x) * s.q[0] + s.q[1], **P),
        "getitem (2) structure: Gluon has 2, torch has 1 (begin)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNEQUAL)
def test_other_places_are_named(name: str) -> None:
    make, make_twin, told = UNEQUAL[name]
    levels = ["structure", "forward"]
    report = check_parity(make(), make_twin(), X, transfer=True, levels=levels)
    assert told in str(report.first_divergence), str(report)


def test_other_rows_that_floats_count_are_a_divergence() -> None:
    """Noise in an index would measure how far the rows are apart, and allow as much."""
    net = ImperativeNet(lambda s, x: s.e(x), e=gnn.Embedding(9, 4))
    net.initialize(mx.init.Normal(1))
    other = TorchNet(lambda s, x: s.e((x + 1).long().clamp(max=8)), e=nn.Embedding(9, 4))
    ids = np.array([[1, 2], [2, 8]], np.float32)
    report = check_parity(net, other, ids, transfer=True)
    assert str(report.first_divergence).startswith("e "), str(report)


# By what is looked up: the place of the largest values on a map that is 3 wide
Places = Callable[[Any], Any]
FLOORS: list[Places] = [
    lambda i: i // 3,
    lambda i: torch.div(i, 3, rounding_mode="floor"),
    lambda i: torch.div(i, 3, rounding_mode="trunc"),
    lambda i: (i / 3).floor().long(),
    lambda i: (i / 3).int(),
    lambda i: (i - i % 3) // 3,
]
RESTS: list[Places] = [lambda i: i % 3, lambda i: i.remainder(3), lambda i: i - i // 3 * 3]
LOOKED_UP: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "embedding": (lambda s, y, i: s.e(i), lambda s, y, i: s.e(i.long())),
    "take": (
        lambda s, y, i: nd.take(s.e(nd.arange(9)), i),
        lambda s, y, i: s.e(torch.arange(9))[i.long()],
    ),
    "pick": (
        lambda s, y, i: nd.pick(y, i[:, 0]),
        lambda s, y, i: y.gather(-1, i[:, :1].long())[:, 0],
    ),
    "one_hot": (
        lambda s, y, i: nd.one_hot(i, 9) * y.expand_dims(1),
        lambda s, y, i: F.one_hot(i.long(), 9) * y[:, None],
    ),
}


def looking_up(lookup: str, ours: Places, theirs: Places) -> tuple[Block, nn.Module]:
    """What is found at the places that `ours` and `theirs` make of a layer's output."""
    find, torch_find = LOOKED_UP[lookup]

    def gluon_forward(s: Any, x: Any) -> Any:
        y = s.d(x)
        return find(s, y, ours(y))

    def torch_forward(s: Any, x: Any) -> Any:
        y = s.d(x)
        return torch_find(s, y, theirs(y))

    mx.random.seed(0)
    net = ImperativeNet(gluon_forward, d=gnn.Dense(9, in_units=6), e=gnn.Embedding(9, 4))
    net.initialize(mx.init.Normal(1))
    return net, TorchNet(torch_forward, d=nn.Linear(6, 9), e=nn.Embedding(9, 4))


def of_largest(change: Places) -> tuple[Places, Places]:
    """What is made of the places of the two largest of each row, in MXNet and in torch."""
    return lambda y: change(nd.topk(y, k=2)), lambda y: change(y.topk(2).indices)


ROWS = np.random.default_rng(2).standard_normal((9, 6)).astype(np.float32)


@pytest.mark.parametrize("place", range(len(FLOORS)))
def test_a_quotient_may_be_rounded_down_in_many_words(place: int) -> None:
    lookup = list(LOOKED_UP)[place % len(LOOKED_UP)]
    pairs = [
        (lambda i: nd.floor(i / 3), FLOORS[place]),
        (lambda i: (i / 3).astype("int32"), FLOORS[place]),
        (lambda i: i % 3, RESTS[place % len(RESTS)]),
    ]
    for ours, theirs in pairs:
        nets = looking_up(lookup, of_largest(ours)[0], of_largest(theirs)[1])
        report = check_parity(*nets, ROWS, transfer=True, quick=True)
        assert report.ok, str(report)


# What the first net does, what the second, and where and how that is named
MISLED: dict[str, tuple[Places, Places, str]] = {
    "not rounded": (
        of_largest(lambda i: nd.floor(i / 3) * 2)[0],
        of_largest(lambda i: i / 3 * 2)[1],
        "div structure: floor (",
    ),
    "rounded": (
        of_largest(lambda i: i / 3 * 2)[0],
        of_largest(lambda i: i // 3 * 2)[1],
        "floor_divide structure: floor (",
    ),
    "to the nearest": (
        of_largest(lambda i: nd.floor(i / 3))[0],
        of_largest(lambda i: (i / 3).round())[1],
        "div structure: ",
    ),
    "towards zero": (
        of_largest(lambda i: nd.floor((i - 4) / 3) + 2)[0],
        of_largest(lambda i: torch.div(i - 4, 3, rounding_mode="trunc") + 2)[1],
        "div structure: Gluon has floor (",
    ),
    "another width": (
        of_largest(lambda i: nd.floor(i / 3))[0],
        of_largest(lambda i: i // 4)[1],
        "floor_divide ",
    ),
    "another width of the rest": (
        of_largest(lambda i: i % 3)[0],
        of_largest(lambda i: i % 4)[1],
        "remainder structure: Gluon has 3.0, torch has 4.0 (scalar)",
    ),
    "one too far": (
        of_largest(lambda i: nd.floor(i / 3))[0],
        of_largest(lambda i: i // 3 + 1)[1],
        "floor_divide structure: add (",
    ),
    "the smallest": (
        lambda y: nd.topk(y, k=2),
        lambda y: y.topk(2, largest=False).indices,
        "topk structure: Gluon has True, torch has False (descending)",
    ),
    "of other axes": (
        lambda y: nd.topk(y, k=9),
        lambda y: y.topk(9, dim=0).indices,
        "topk structure: Gluon has 1, torch has 0 (axis)",
    ),
    "in another order": (
        nd.argsort,
        lambda y: y.argsort(descending=True),
        "argsort structure: Gluon has False, torch has True (descending)",
    ),
}


@pytest.mark.parametrize("name", MISLED)
def test_other_places_are_named_where_they_are_made(name: str) -> None:
    ours, theirs, told = MISLED[name]
    for lookup in ("embedding", "take", "one_hot"):
        nets = looking_up(lookup, ours, theirs)
        report = check_parity(*nets, ROWS, transfer=True, quick=True)
        assert str(report.first_divergence).startswith(told), f"{lookup}: {report}"


def test_whole_numbers_are_exact() -> None:
    assert holds_integers(np.array([0.0, -3.0, np.inf]))
    assert not holds_integers(np.array([0.0, 0.5]))
