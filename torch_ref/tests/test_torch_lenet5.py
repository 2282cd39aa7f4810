"""LeNet-5 of 1998, against the paper's figures and sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from torch_ref.models import ModelError, get_model
from torch_ref.models.digits import BITMAPS
from torch_ref.models.lenet5 import (
    C3_TABLE,
    RBFOutput,
    ScaledTanh,
    TableConv2D,
    TrainableSubsampling,
)

# Table I as it is printed: a row for each map of S2, a column for each map of C3
TABLE_I = """
    X...XXX..XXXX.XX
    XX...XXX..XXXX.X
    XXX...XXX..X.XXX
    .XXX..XXXX..X.XX
    ..XXX..XXXX.XX.X
    ...XXX..XXXX.XXX
"""


def test_parameters_layer_by_layer() -> None:
    """doc-0's table."""
    net = get_model("lenet5")
    layers = {"C1": 156, "S2": 12, "C3": 1516, "S4": 32, "C5": 48_120, "F6": 10_164}
    paths = ["features.0", "features.2", "features.4", "features.6", "features.8", "classifier.1"]
    for (layer, count), path in zip(layers.items(), paths, strict=True):
        parameters = net.get_submodule(path).parameters()
        assert sum(p.numel() for p in parameters) == count, layer
    assert sum(p.numel() for p in net.parameters()) == 60_000
    assert [b.numel() for n, b in net.named_buffers() if n in net.state_dict()] == [840]


def test_the_connection_table_is_the_papers() -> None:
    printed = TABLE_I.split()
    for out, maps in enumerate(C3_TABLE):
        assert maps == tuple(row for row in range(6) if printed[row][out] == "X")
    assert sum(map(len, C3_TABLE)) == 60
    assert len(set(C3_TABLE)) == 16


def test_scaled_tanh_maps_one_to_one() -> None:
    a = torch.tensor([-1.0, 0, 1, 1e9], dtype=torch.float64)
    expected = [-1.0, 0, 1, 1.7159]
    assert ScaledTanh()(a).tolist() == pytest.approx(expected, abs=1e-5)
    assert ScaledTanh()(torch.tensor(0.3)).item() == pytest.approx(1.7159 * math.tanh(0.2))


def test_subsampling_by_hand() -> None:
    layer = TrainableSubsampling(2)
    layer.weight.data = torch.tensor([2.0, -1])
    layer.bias.data = torch.tensor([10.0, 0.5])
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    out = layer(x)
    assert out[0, 0].tolist() == [[2 * 10 + 10, 2 * 18 + 10], [2 * 42 + 10, 2 * 50 + 10]]
    assert out[0, 1, 0, 0] == -(16 + 17 + 20 + 21) + 0.5


def test_table_convolution_is_a_sum_over_the_connected_maps() -> None:
    torch.manual_seed(0)
    layer = TableConv2D(6, C3_TABLE, 5).double()
    torch.nn.init.normal_(layer.bias)
    assert layer.weight.shape == (60, 5, 5)
    x = torch.randn(2, 6, 14, 14, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (2, 16, 10, 10)
    plane = 0
    for m, maps in enumerate(C3_TABLE):
        expected = layer.bias[m].expand(2, 10, 10).clone()
        for i in maps:  # one plane a connection, in rising order of input maps
            kernel = layer.weight[plane][None, None]
            expected = expected + F.conv2d(x[:, i : i + 1], kernel)[:, 0]
            plane += 1
        assert torch.allclose(out[:, m], expected, rtol=0, atol=1e-13)
    assert plane == 60


def test_every_plane_gets_its_own_gradient() -> None:
    layer = TableConv2D(6, C3_TABLE, 5)
    layer(torch.randn(1, 6, 14, 14)).square().sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad != 0).all()
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_a_wrong_table_is_seen() -> None:
    x = torch.randn(1, 6, 14, 14)
    good, bad = (TableConv2D(6, t, 5) for t in (C3_TABLE, (*C3_TABLE[1:], C3_TABLE[0])))
    bad.load_state_dict(good.state_dict())
    assert not torch.allclose(good(x), bad(x))


def test_the_output_is_the_squared_distance_to_each_digit() -> None:
    layer = RBFOutput()
    x = np.random.default_rng(0).normal(size=(3, 84)).astype(np.float32)
    expected = ((x[:, None].astype(float) - BITMAPS.numpy()) ** 2).sum(2)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), expected, rtol=1e-5)
    assert layer(BITMAPS).argmin(1).tolist() == list(range(10))
    assert not any(True for _ in layer.parameters())
    assert list(layer.state_dict()) == ["bitmaps"]


def test_the_bitmaps_are_ten_different_digits() -> None:
    assert BITMAPS.shape == (10, 84)
    assert BITMAPS.dtype == torch.float32
    assert BITMAPS.unique().tolist() == [-1, 1]
    apart = (BITMAPS[:, None] != BITMAPS).sum(2) + 84 * torch.eye(10, dtype=torch.long)
    assert apart.min() >= 8
    one = BITMAPS[1].reshape(12, 7)
    assert ["".join(".#"[int(v > 0)] for v in row) for row in one][1:4] == [
        "...##..",
        "..###..",
        ".####..",
    ]
    # Row sums of the picture: a transposed or shifted reading would change them.
    black = (BITMAPS[7].reshape(12, 7) > 0).sum(1).tolist()
    assert black == [0, 7, 4, 2, 2, 2, 2, 2, 2, 2, 2, 0]


def test_nets_do_not_share_their_bitmaps() -> None:
    a, b = get_model("lenet5"), get_model("lenet5")
    a.get_buffer("classifier.3.bitmaps").zero_()
    assert b.get_buffer("classifier.3.bitmaps").abs().min() == 1
    assert BITMAPS.abs().min() == 1


def test_only_ten_classes() -> None:
    with pytest.raises(ModelError, match=r"lenet5 has 10 classes, not 26: .* take lenet"):
        get_model("lenet5", classes=26)


def test_it_trains_towards_the_right_digit() -> None:
    """A few steps of plain gradient descent on one picture bring its own unit's distance down."""
    torch.manual_seed(0)
    net = get_model("lenet5")
    x = torch.rand(1, 1, 32, 32) * 1.275 - 0.1
    before = net(x)[0, 3].item()
    for _ in range(5):
        net.zero_grad()
        distance = net(x)[0, 3]
        distance.backward()
        with torch.no_grad():
            for p in net.parameters():
                assert p.grad is not None
                p.sub_(0.001 * p.grad)
    assert net(x)[0, 3].item() < before
