"""Levels optimizer and training of a user's own pair: the user's loss, optimizers and batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from parity_tests import check_parity
from parity_tests.__main__ import main
from parity_tests.tests.test_parity_own_pair import X, nets, own

__all__ = ["nets"]

LABELS = np.array([0, 3, 1, 4])


def checked(nets: Any, *levels: str, gluon: Any, theirs: Any, **options: Any) -> Any:
    pair = nets.ours(), nets.Theirs()
    optimizer = (gluon, theirs)
    return check_parity(
        *pair, X, LABELS, levels, optimizer=optimizer, transfer=True, steps=3, **options
    )


def test_the_command_trains_by_name(nets: Any, capsys: pytest.CaptureFixture) -> None:
    argv = own("ours", "Theirs", "--input", "4,3,6,6", "--labels", "4:int64<5", "--batches", "2")
    argv += ["--transfer", "--steps", "3", "--level", "optimizer,training", "--report", "r"]
    assert main([*argv, "--optimizer", "sgd(lr=0.1, momentum=0.9, wd=0.01)"]) == 0
    out = capsys.readouterr().out
    assert "100 % of training slots" in out
    report = json.loads(Path("r/report.json").read_text())["reports"][0]
    checks = {row["check"] for row in report["rows"] if row["level"] == "training"}
    assert checks == {"resynchronised", "free-running"}


@pytest.mark.parametrize("optimizer", ["adam(lr=0.01, wd=0.01)", "nag(lr=0.1, momentum=0.9)"])
def test_each_frameworks_own_rules_agree(nets: Any, optimizer: str) -> None:
    levels = ("optimizer", "training") if optimizer.startswith("adam") else ("optimizer",)
    report = checked(nets, *levels, gluon=optimizer, theirs=optimizer)
    assert report.ok, str(report)


def test_functions_make_optimizers_too(nets: Any) -> None:
    assert checked(nets, "optimizer", gluon=nets.sgd, theirs=nets.their_sgd).ok
    without = nets.sgd_without_decay_of_biases, nets.their_sgd_without_decay_of_biases
    assert checked(nets, "optimizer", gluon=without[0], theirs=without[1]).ok


@pytest.mark.parametrize(
    ("gluon", "theirs", "quantity", "detail"),
    [
        ("sgd", "slower", "weight momentum", "Gluon has 0.9, torch has 0.5"),
        ("sgd", "their_sgd_without_decay_of_biases", "bias weight decay", "torch has 0.0"),
        ("sgd_without_decay_of_biases", "their_sgd", "bias weight decay", "Gluon has 0.0"),
        ("sgd", "adam(lr=0.1)", "weight rule", "Gluon has sgd, torch has adam"),
    ],
)
def test_other_numbers_are_named(
    nets: Any, gluon: str, theirs: str, quantity: str, detail: str
) -> None:
    made = [name if "(" in name else getattr(nets, name) for name in (gluon, theirs)]
    report = checked(nets, "optimizer", gluon=made[0], theirs=made[1])
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.quantity) == ("optimizer", quantity)
    assert detail in first.message


def test_what_an_optimizer_does_counts_and_not_its_name(nets: Any) -> None:
    report = checked(nets, "optimizer", gluon=nets.sgd, theirs=nets.shrinking)
    failed = [row for row in report.failures if row.check == "local"]
    assert failed
    assert {row.side for row in failed} == {"torch"}
    assert any(row.status == "note" and "shrinking" in row.detail for row in report.rows)
    theirs = lambda net: torch.optim.RMSprop(net.parameters(), 0.02, alpha=0.9)  # noqa: E731
    report = checked(nets, "optimizer", gluon=nets.rmsprop, theirs=theirs)
    assert "optimizer in float64 did not run" in str(report.first_divergence)  # MXNet's cannot


def test_a_training_fault_is_caught(nets: Any, capsys: pytest.CaptureFixture) -> None:
    module = "own_nets_of_a_user"
    argv = own("ours", "Theirs", "--input", "4,3,6,6", "--labels", "4:int64<5", "--transfer")
    argv += ["--steps", "2", "--level", "training", "--gluon-optimizer", f"{module}:sgd"]
    losses = ["--gluon-loss", "softmax_ce", "--torch-loss", f"{module}:half_ce"]
    assert main([*argv, "--torch-optimizer", f"{module}:their_sgd", *losses]) == 1
    assert "step 1 loss" in capsys.readouterr().err
    assert main([*argv, "--torch-optimizer", f"{module}:slower"]) == 1
    assert "step 2 " in capsys.readouterr().err


@pytest.mark.parametrize("form", [lambda y: {"logits": {"y": y}}, lambda y: (None, y)])
def test_nets_train_that_give_their_output_in_a_dict_or_beside_none(form: Any) -> None:
    class Nested(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return form(super().forward(x))

    ours = mx.gluon.nn.Dense(5, in_units=3)
    ours.initialize()
    x = X[:, :, 0, 0]
    how: dict[str, Any] = {"optimizer": "sgd(lr=0.1)", "transfer": True, "steps": 2}
    report = check_parity(ours, Nested(3, 5), x, LABELS, ("training",), **how)
    assert report.ok, str(report)


def test_frozen_parameters_are_compared_as_such(nets: Any) -> None:
    theirs = nets.Theirs()
    theirs.conv.weight.requires_grad = False
    optimizer = "sgd(lr=0.1)"
    levels = ("optimizer", "training")
    pair = nets.ours(), theirs
    report = check_parity(*pair, X, LABELS, levels, optimizer=optimizer, transfer=True, steps=3)
    first = report.first_divergence
    assert first is not None
    assert "Gluon trains it, torch does not" in first.message


@pytest.mark.parametrize("read", [lambda w: w, lambda w: w.detach()], ids=["read", "stopped"])
def test_a_weight_that_two_operations_read_is_trained_once(read: Callable[..., Any]) -> None:
    """As the table of a language model, by which it also predicts words."""

    class Tied(mx.gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.w = self.params.get("w", shape=(7, 3))

        def hybrid_forward(self, F: Any, ids: Any, w: Any) -> Any:
            rows = F.Embedding(ids, w, input_dim=7, output_dim=3)
            return F.FullyConnected(rows, w, no_bias=True, num_hidden=7, flatten=False)

    class TheirTied(torch.nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) @ read(self.weight).t()

    net = Tied()
    net.initialize(mx.init.Normal(1))
    ids, labels = np.array([[1, 2], [3, 1]]), np.random.default_rng(0).normal(size=(2, 2, 7))
    report = check_parity(
        net, TheirTied(7, 3), ids, labels, ("optimizer", "training"), transfer=True, steps=2,
        optimizer="sgd(lr=0.1, momentum=0.9)", loss="l2",
    )  # fmt: skip
    assert report.ok == read(torch.ones(1, requires_grad=True)).requires_grad, str(report)


def test_what_no_step_changes_needs_no_comparison_in_training() -> None:
    """Layers that both nets freeze, and buffers."""
    held = np.array([[0.1, 0.2, 0.3]], np.float32)

    class Ours(mx.gluon.nn.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.body = mx.gluon.nn.Dense(3, in_units=4)
                self.head = mx.gluon.nn.Dense(5, in_units=3)
                self.held = self.params.get_constant("held", held)
            self.body.collect_params().setattr("grad_req", "null")

        def hybrid_forward(self, F: Any, x: Any, held: Any) -> Any:
            return self.head(F.broadcast_mul(self.body(x), held))

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(4, 3).requires_grad_(False)
            self.head = torch.nn.Linear(3, 5)
            self.register_buffer("held", torch.from_numpy(held))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x) * self.held)

    ours = Ours()
    ours.initialize()
    how: dict[str, Any] = {"optimizer": "sgd(lr=0.1)", "transfer": True, "steps": 2}
    x = np.eye(4, dtype=np.float32)
    report = check_parity(ours, Theirs(), x, LABELS, ("optimizer", "training"), **how)
    assert report.ok, str(report)


_FULL = torch.full((4, 3), 0.1)
# A number, and arrays of it that nets fill, compute, hold or have as a buffer
FILLED: dict[str, tuple[Callable, Callable]] = {
    "full": (lambda x: x * 0.1, lambda x, held: x * torch.full((4, 3), 0.1)),
    "full_like": (lambda x: x / 3, lambda x, held: x / torch.full_like(x, 3)),
    "third": (lambda x: x / 3, lambda x, held: x * torch.full((3,), 1 / 3)),
    "tensor": (lambda x: 0.1 - x, lambda x, held: torch.tensor(0.1) - x),
    "held": (lambda x: x + 0.1, lambda x, held: x + _FULL),
    "buffer": (lambda x: 0.1 / x, lambda x, held: held / x),
    "maximum": (lambda x: mx.nd.maximum(x, 0.1), lambda x, held: torch.maximum(x, held)),
    "two": (lambda x: x + mx.nd.full((4, 3), 0.1), lambda x, held: x + torch.ones_like(x) * 0.1),
    "computed": (lambda x: x + mx.nd.ones_like(x) * 0.1, lambda x, held: x + _FULL),
    "both": (lambda x: x**0.1, lambda x, held: x ** torch.full((1,), 0.1)),
}


QUICK = ("full_like", "buffer", "maximum", "two")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FILLED],
)
def test_an_array_of_a_number_is_that_number(name: str) -> None:
    ours, theirs = FILLED[name]
    levels = ("structure", "forward", "backward", "training")

    class Ours(mx.gluon.nn.Block):
        def __init__(self) -> None:
            super().__init__()
            with self.name_scope():
                self.body = mx.gluon.nn.Dense(3, in_units=4, activation="sigmoid")
                self.head = mx.gluon.nn.Dense(5, in_units=3)

        def forward(self, x: Any) -> Any:
            return self.head(ours(self.body(x)))

    class Theirs(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.body, self.head = torch.nn.Linear(4, 3), torch.nn.Linear(3, 5)
            self.register_buffer("held", _FULL.clone())
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(theirs(torch.sigmoid(self.body(x)), self.held) * self.factor)

    net = Ours()
    net.initialize()
    how: dict[str, Any] = {"optimizer": "sgd(lr=0.1)", "transfer": True, "steps": 2}
    x = np.eye(4, dtype=np.float32)
    report = check_parity(net, Theirs(1), x, LABELS, levels, **how)
    assert report.ok, str(report)
    report = check_parity(net, Theirs(1 + 1e-4), x, LABELS, levels[:2], **how)
    assert not report.ok


BAD = [
    (["--optimizer", "sgdd(lr=0.1)"], ["unknown optimizer 'sgdd'", "did you mean sgd?"]),
    (["--optimizer", "sgd(lr=0.1, mometum=0.9)"], ["did you mean momentum?"]),
    (["--optimizer", "sgd"], ["a rate: sgd(lr=0.1)"]),
    (["--optimizer", "sgd(lr=x)"], ["expected literals"]),
    (["--gluon-optimizer", "sgd(lr=0.1)"], ["--torch-optimizer"]),
    (["--optimizer", "own_nets_of_a_user:no_optimizer"], ["expected a gluon.Trainer"]),
    (["--optimizer", "own_nets_of_a_user:raises"], ["the gluon optimizer: TypeError"]),
    (["--level", "training"], ["needs an optimizer"]),
]


@pytest.mark.parametrize(("more", "words"), BAD)
def test_bad_input_is_one_line_and_2(
    more: list[str], words: list[str], nets: Any, refused: Any
) -> None:
    argv = own("ours", "Theirs", "--input", "4,3,6,6", "--labels", "4:int64<5", *more)
    refused(main, argv, 2, *words)


@pytest.mark.parametrize("loss", ["softmax_ce", "own", "another"])
def test_labels_of_classes_may_be_floats(loss: str) -> None:
    """As Gluon's loss takes them, and torch's does not."""
    gluon_net = mx.gluon.nn.Dense(5, in_units=6)
    gluon_net.initialize()
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1 * (loss == "another"))
    own = mx.gluon.loss.SoftmaxCrossEntropyLoss(), theirs
    report = check_parity(
        gluon_net, torch.nn.Linear(6, 5), np.eye(4, 6, dtype=np.float32),
        LABELS.astype(np.float32), ["forward", "backward", "training"], transfer=True,
        loss="softmax_ce" if loss == "softmax_ce" else own, optimizer="sgd(lr=0.1)", steps=1,
    )  # fmt: skip
    assert report.ok == (loss != "another"), str(report)
    assert any(row.quantity == "loss" for row in report.rows)


def _gelu(rate: float = 0.0) -> tuple[mx.gluon.Block, Callable[[float], torch.nn.Module]]:
    ours = mx.gluon.nn.HybridSequential()
    layers = [mx.gluon.nn.GELU()] + [mx.gluon.nn.Dropout(rate)] * (rate > 0)
    ours.add(mx.gluon.nn.Dense(3, in_units=4), *layers, mx.gluon.nn.Dense(5, in_units=3))
    ours.initialize()

    class Theirs(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.body, self.head = torch.nn.Linear(4, 3), torch.nn.Linear(3, 5)
            self.factor = factor

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.nn.functional.gelu(self.body(x)) * self.factor
            return self.head(torch.nn.functional.dropout(y, rate, self.training))

    return ours, Theirs


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_what_mxnet_computes_in_float32_stays_together_as_far_as_it_can(rate: float) -> None:
    """GELU, whose numbers MXNet holds in float32; with dropout that is no module's."""
    ours, theirs = _gelu(rate)
    how: dict[str, Any] = {"optimizer": "sgd(lr=0.1)", "transfer": True, "steps": 2}
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    report = check_parity(ours, theirs(1), x, LABELS, ("training",), **how)
    assert report.ok, str(report)
    assert not check_parity(ours, theirs(1 + 1e-4), x, LABELS, ("training",), **how).ok


@pytest.mark.parametrize("smoothing", [0.1, 0.2])
def test_a_loss_may_make_one_hot_labels(smoothing: float) -> None:
    """Which are of float32 in MXNet, beside outputs of float64."""
    cross_entropy = mx.gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=smoothing)

    def ours(y: mx.nd.NDArray, labels: mx.nd.NDArray) -> mx.nd.NDArray:
        smooth = mx.nd.one_hot(labels, 5, on_value=0.9 + 0.1 / 5, off_value=0.1 / 5)
        return cross_entropy(y, smooth)

    net = mx.gluon.nn.Dense(5, in_units=6)
    net.initialize()
    report = check_parity(
        net, torch.nn.Linear(6, 5), X.reshape(4, -1)[:, :6], LABELS, ("backward", "training"),
        loss=(ours, lambda y, labels: theirs(y, labels.long())), optimizer="sgd(lr=0.1)",
        steps=2, transfer=True,
    )  # fmt: skip
    assert report.ok == (smoothing == 0.1), str(report)
    first = report.first_divergence
    assert first is None or first.quantity == "loss"


def test_another_loss_of_maps_is_named() -> None:
    """Labels that are no classes are not taken for such to find out what is wrong."""
    net = mx.gluon.nn.Conv2D(2, 1, in_channels=3)
    net.initialize()
    report = check_parity(
        net, torch.nn.Conv2d(3, 2, 1), X, X[:, :2] * 0.5, ("training",),
        loss=("l2", lambda y, wanted: ((y - wanted) ** 2).flatten(1).mean(1)),
        optimizer="sgd(lr=0.1)", steps=2, transfer=True,
    )  # fmt: skip
    first = report.first_divergence
    assert first is not None
    assert first.quantity == "step 1 loss"
    assert "factor" in first.diagnosis
