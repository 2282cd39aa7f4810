"""`check_parity` on nets that are not ours: what it changes (nothing), refuses, and cannot pass."""

from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.backends.leaves import ParityError

X = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def ours() -> gluon_nn.HybridSequential:
    net = gluon_nn.HybridSequential()
    net.add(
        gluon_nn.Conv2D(4, 3, in_channels=3, activation="relu"),
        gluon_nn.BatchNorm(in_channels=4),
        gluon_nn.MaxPool2D(2),
        gluon_nn.Dense(6, in_units=4 * 3 * 3),
        gluon_nn.Dense(4, in_units=6),
    )
    mx.random.seed(0)
    net.initialize(mx.init.Xavier())
    return net


def theirs() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 6), nn.Linear(6, 4),
    )  # fmt: skip


def _state(gluon_net: Any, torch_net: nn.Module) -> list[bytes]:
    values = [p.data().asnumpy().tobytes() for p in gluon_net.collect_params().values()]
    values += [t.numpy().tobytes() for t in torch_net.state_dict().values()]
    grads = [p.grad().asnumpy().tobytes() for p in gluon_net.collect_params().values()
             if p.grad_req != "null"]  # fmt: skip
    flags = [str((type(m).__name__, m.training)).encode() for m in torch_net.modules()]
    hooks = [str(len(m._forward_hooks)).encode() for m in torch_net.modules()]
    more = [str(p.grad is None).encode() for p in torch_net.parameters()]
    names = [name.encode() for name in gluon_net.collect_params()]
    return values + grads + flags + hooks + more + names


def test_a_foreign_pair_agrees_after_transfer_and_neither_net_changes() -> None:
    gluon_net, torch_net = ours(), theirs()
    gluon_net.hybridize()
    torch_net[0].train()
    before = _state(gluon_net, torch_net)
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    assert report.ok, str(report)
    assert _state(gluon_net, torch_net) == before
    assert gluon_net._active
    assert set(report.coverage.percent().values()) == {100.0}


def test_without_transfer_the_weights_differ_first() -> None:
    report = check_parity(ours(), theirs(), X)
    assert not report.ok
    assert report.first_divergence is not None
    assert (report.first_divergence.level, report.first_divergence.path) == ("weights", "0")


def test_a_scale_that_mxnet_fixes_keeps_its_value() -> None:
    net = gluon_nn.BatchNorm(scale=False, in_channels=3)
    net.initialize()
    net.gamma.set_data(mx.nd.full(3, 2))
    report = check_parity(net, nn.BatchNorm2d(3), X, levels=("structure",))
    assert report.rows
    assert (net.gamma.data().asnumpy() == 2).all()


def test_neither_net_changes_when_a_layer_fails() -> None:
    class Broken(nn.ReLU):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such kernel")

    gluon_net, torch_net = ours(), theirs()
    torch_net[1] = Broken()
    before = _state(gluon_net, torch_net)
    report = check_parity(gluon_net, torch_net, X, transfer=True)
    assert not report.ok
    assert "no such kernel" in "".join(row.detail for row in report.rows)
    assert _state(gluon_net, torch_net) == before


@pytest.mark.parametrize("levels", [("structure",), ("forward",), ("backward",)])
def test_a_truncated_pair_never_passes(levels: tuple[str, ...]) -> None:
    report = check_parity(ours(), theirs()[:-1], X, levels=levels)
    assert not report.ok


def test_an_input_of_zeros_proves_nothing() -> None:
    report = check_parity(ours(), theirs(), np.zeros_like(X), transfer=True)
    assert not report.ok


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_input_that_is_not_finite_is_refused(bad: float) -> None:
    x = X.copy()
    x[0, 0, 0, :2] = bad
    said = f"is NaN or infinite in 2 of {x.size} values: .*; give finite values"
    with pytest.raises(ParityError, match=f"input 1 {said}"):
        check_parity(ours(), theirs(), x, transfer=True)
    with pytest.raises(ParityError, match=f"input 1 of batch 2 {said}"):
        check_parity(ours(), theirs(), X, transfer=True, batches=[(x, None)])


@pytest.mark.parametrize(
    ("values", "side", "words"),
    [
        ([np.nan, 0.0, np.nan, 0.0], "gluon", "Gluon's 0.bias is NaN or infinite in 2 of 4 values"),
        ([0.0, 0.0, -np.inf, 0.0], "gluon", "Gluon's 0.bias is NaN or infinite in 1 of 4 values"),
        ([0.0, np.nan, 0.0, 0.0], "torch", "torch's 0.bias is NaN or infinite in 1 of 4 values"),
        ([np.inf, 0.0, 0.0, 0.0], "torch", "torch's 0.bias is NaN or infinite in 1 of 4 values"),
    ],
)
def test_weights_that_are_not_finite_are_refused_unless_they_are_replaced(
    values: list[float], side: str, words: str
) -> None:
    gluon_net = ours()
    torch_net: Any = theirs()
    if side == "gluon":
        gluon_net[0].bias.set_data(mx.nd.array(values))
    else:
        torch_net[0].bias.data = torch.tensor(values)
        assert check_parity(gluon_net, torch_net, X, levels=("weights",), transfer=True).ok
    for transfer in (False,) if side == "torch" else (False, True):
        with pytest.raises(ParityError, match=words):
            check_parity(gluon_net, torch_net, X, transfer=transfer)


def test_all_tensors_that_hold_nan_are_counted() -> None:
    torch_net: Any = theirs()
    for value in (torch_net[0].weight, torch_net[0].bias, torch_net[2].running_var):
        value.data[:] = np.nan
    with pytest.raises(ParityError, match=r"0\.weight .* 108 of 108 values, and 2 more"):
        check_parity(ours(), torch_net, X)


def test_a_fixed_mask_may_be_infinite_and_no_nan() -> None:
    class Masked(gluon_nn.HybridBlock):
        def __init__(self, mask: list[float]) -> None:
            super().__init__()
            self.d = gluon_nn.Dense(3, in_units=3)
            self.mask = self.params.get_constant("mask", mx.nd.array(mask))

        def hybrid_forward(self, F: Any, x: Any, mask: Any) -> Any:
            return F.softmax(F.broadcast_add(self.d(x), mask))

    class TorchMasked(nn.Module):
        def __init__(self, mask: list[float]) -> None:
            super().__init__()
            self.d = nn.Linear(3, 3)
            self.register_buffer("mask", torch.tensor(mask))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.d(x) + self.get_buffer("mask")).softmax(-1)

    x, mask = X[0, :, 0, :3].copy(), [0.0, -np.inf, 0.0]
    net = Masked(mask)
    net.initialize()
    report = check_parity(net, TorchMasked(mask), x, transfer=True)
    assert report.ok, str(report)
    other = TorchMasked([-np.inf, 0.0, 0.0])
    assert not check_parity(net, other, x, levels=("weights",), transfer=True).ok
    assert not check_parity(net, other, x, levels=("forward",), transfer=True).ok
    with pytest.raises(ParityError, match="torch's mask is NaN or infinite in 1 of 3 values"):
        check_parity(net, TorchMasked([0.0, np.nan, 0.0]), x)


def test_dead_activations_are_said_and_prove_nothing() -> None:
    gluon_net = ours()
    conv = gluon_net[0]
    conv.bias.set_data(mx.nd.ones(4) * -1000)
    report = check_parity(gluon_net, theirs(), X, transfer=True)
    assert report.ok, str(report)  # both sides agree that every unit is off
    dead = [row for row in report.notes if "dead" in row.detail]
    assert {(row.level, row.compared) for row in dead} >= {("forward", 0)}
    assert all(row.left_out for row in dead)


def test_no_level_is_no_pass() -> None:
    assert not check_parity(ours(), theirs(), X, levels=(), transfer=True).ok


@pytest.mark.parametrize(
    "arguments", [(None, None), ("swapped",), (ours, theirs)], ids=["none", "swapped", "functions"]
)
def test_what_is_no_pair_is_refused(arguments: tuple) -> None:
    pair = (theirs(), ours()) if arguments == ("swapped",) else arguments
    with pytest.raises(ParityError):
        check_parity(pair[0], pair[1], X)


def test_unknown_levels_are_refused() -> None:
    with pytest.raises(ParityError, match="structure"):
        check_parity(ours(), theirs(), X, levels=("feelings",))


def test_labels_start_the_backward_pass_from_the_loss() -> None:
    report = check_parity(ours(), theirs(), X, labels=np.array([1, 3]), transfer=True)
    assert report.ok, str(report)
    assert any("loss" in row.quantity for row in report.rows)
