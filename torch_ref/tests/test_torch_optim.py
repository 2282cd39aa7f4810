"""The update rules against MXNet's own optimizers, step by step and bit by bit."""

from __future__ import annotations

import copy
import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from torch_ref.optim import SGD, Adam

STEPS = 50
SHAPES = ((7, 5, 3, 3), (131,), (1,))
SLOTS: dict[str, tuple[str, ...]] = {"sgd": ("mom",), "nag": ("mom",), "adam": ("mean", "var")}


@pytest.fixture(scope="module")
def mx() -> ModuleType:
    return pytest.importorskip("mxnet")


def make(rule: str, params: Any, **numbers: Any) -> torch.optim.Optimizer:
    """Our optimizer for one of MXNet's names."""
    if rule == "adam":
        return Adam(params, **numbers)
    return SGD(params, nesterov=rule == "nag", **numbers)


def schedule(step: int) -> float:
    return 0.1 * 0.9**step


def gradients(dtype: str) -> list[list[np.ndarray]]:
    """Per step and parameter; some of many sizes, some exactly 0."""
    rng = np.random.default_rng(5)
    steps = []
    for _ in range(STEPS):
        sizes = [rng.normal(size=s) * 10 ** rng.uniform(-6, 1, s) for s in SHAPES]
        steps.append([(g * (rng.random(g.shape) > 0.1)).astype(dtype) for g in sizes])
    return steps


def start(dtype: str) -> list[np.ndarray]:
    rng = np.random.default_rng(6)
    return [rng.normal(size=s).astype(dtype) for s in SHAPES]


def ours(rule: str, dtype: str, **numbers: Any) -> list[dict[str, list[np.ndarray]]]:
    """Weights and slots after every step."""
    params = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in start(dtype)]
    optimizer = make(rule, params, lr=1.0, **numbers)
    history = []
    for step, grads in enumerate(gradients(dtype)):
        optimizer.param_groups[0].update(lr=schedule(step), rescale_grad=1 / (step % 3 + 3))
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        names = [n for n in SLOTS[rule] if n in optimizer.state[params[0]]]
        history.append({"w": [p.detach().numpy().copy() for p in params]} | {
            n: [optimizer.state[p][n].numpy().copy() for p in params] for n in names
        })  # fmt: skip
    return history


def theirs(mx: ModuleType, rule: str, dtype: str, **numbers: Any) -> list[dict[str, list]]:
    """The same by Gluon's Trainer."""
    params = []
    for i, w in enumerate(start(dtype)):
        params.append(mx.gluon.Parameter(f"p{i}", shape=w.shape, dtype=dtype))
        params[-1].initialize()
        params[-1].set_data(mx.nd.array(w, dtype=dtype))
    trainer = mx.gluon.Trainer(params, rule, {"learning_rate": 1.0, **numbers})
    history = []
    for step, grads in enumerate(gradients(dtype)):
        trainer.set_learning_rate(schedule(step))
        with mx.autograd.record():
            losses = [
                (p.data() * mx.nd.array(g, dtype=dtype)).sum()
                for p, g in zip(params, grads, strict=True)
            ]
        mx.autograd.backward(losses)  # the gradient of Σ w·g is g, unrounded
        trainer.step(step % 3 + 3)
        states = trainer._updaters[0].states
        found: dict[str, list] = {"w": [p.data().asnumpy() for p in params]}
        for slot, name in enumerate(SLOTS[rule]):
            per_param = [s if isinstance(s, tuple) else (s,) for s in states.values()]
            if per_param[0][0] is not None:
                found[name] = [s[slot].asnumpy() for s in per_param]
        history.append(found)
    return history


RULES = [
    ("sgd", {}),
    ("sgd", {"wd": 0.013}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "wd": 0.013}),
    ("nag", {"wd": 0.013}),
    ("nag", {"momentum": 0.9}),
    ("nag", {"momentum": 0.3, "wd": 0.013}),
    ("adam", {}),
    ("adam", {"wd": 0.013, "epsilon": 1e-3}),
    ("adam", {"beta1": 0.3, "beta2": 0.9}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip", [{}, {"clip_gradient": 0.2}], ids=["free", "clipped"])
@pytest.mark.parametrize(("rule", "numbers"), RULES, ids=lambda v: str(v))
def test_fifty_steps_are_bit_equal_to_mxnets(
    mx: ModuleType, rule: str, numbers: dict[str, float], clip: dict[str, float], dtype: str
) -> None:
    expected = theirs(mx, rule, dtype, **numbers, **clip)
    got = ours(rule, dtype, **numbers, **clip)
    assert len(got) == len(expected) == STEPS
    for a, b in zip(got, expected, strict=True):
        assert set(a) == set(b)
        for name, arrays in a.items():
            for mine, other in zip(arrays, b[name], strict=True):
                assert mine.dtype == other.dtype == dtype
                np.testing.assert_array_equal(mine, other, err_msg=name)
    assert len({w.tobytes() for step in got for w in step["w"][:1]}) == STEPS


def test_the_comparison_sees_numbers_that_were_not_rounded(
    mx: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32(0.9) is 0.89999998: without MXNet's rounding the float64 weights part at once."""
    monkeypatch.setattr("torch_ref.optim._rounding", lambda w, g: np.float64)
    got = ours("sgd", "float64", momentum=0.9)[-1]["w"][0]
    expected = theirs(mx, "sgd", "float64", momentum=0.9)[-1]["w"][0]
    assert np.abs(got - expected).max() > 1e-10


@pytest.mark.parametrize("rule", ["sgd", "nag", "adam"])
def test_torchs_own_rules_end_elsewhere(rule: str) -> None:
    """With a changing rate torch's SGD and Adam are other rules, so MXNet's are needed."""
    mine, torchs = (
        torch.nn.Parameter(torch.linspace(-1, 1, 9, dtype=torch.float64)) for _ in range(2)
    )
    adam = rule == "adam"
    numbers = {"epsilon": 1e-3} if adam else {"momentum": 0.9}
    pairs: list[tuple[torch.nn.Parameter, torch.optim.Optimizer]] = [
        (mine, make(rule, [mine], lr=0.1, **numbers)),
        (
            torchs,
            torch.optim.Adam([torchs], lr=0.1, eps=1e-3)
            if adam
            else torch.optim.SGD([torchs], 0.1, 0.9, nesterov=rule == "nag"),
        ),
    ]
    for p, optimizer in pairs:
        for step in range(5):
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            p.grad = p.detach() * 1e-2
            optimizer.step()
    assert not torch.allclose(mine, torchs, rtol=1e-6, atol=0)


def test_adam_adds_epsilon_before_the_bias_correction() -> None:
    """lr 0.1, epsilon 1e-3 and g = 1e-3 move a weight by 0.0031; torch's Adam moves it by 0.05."""
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    p.grad = torch.full_like(p, 1e-3)
    Adam([p], lr=0.1, epsilon=1e-3).step()
    assert p.item() == pytest.approx(-0.0031, abs=5e-5)


@pytest.mark.parametrize("rule", ["sgd", "nag", "adam"])
def test_a_state_dict_resumes_bit_equal(rule: str) -> None:
    numbers = {"lr": 0.1, "wd": 0.01} | ({} if rule == "adam" else {"momentum": 0.9})
    grads = [g[0] for g in gradients("float32")[:6]]

    def run(p: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: list) -> None:
        for g in steps:
            p.grad = torch.from_numpy(g.copy())
            optimizer.step()

    straight = torch.nn.Parameter(torch.from_numpy(start("float32")[0].copy()))
    run(straight, make(rule, [straight], **numbers), grads)
    first = torch.nn.Parameter(torch.from_numpy(start("float32")[0].copy()))
    before = make(rule, [first], **numbers)
    run(first, before, grads[:3])
    second = torch.nn.Parameter(first.detach().clone())
    after = make(rule, [second], lr=9.0)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    run(second, after, grads[3:])
    assert torch.equal(second, straight)
    assert set(after.state[second]) == set(SLOTS[rule]) | ({"step"} if rule == "adam" else set())


def test_parameters_without_gradient_and_groups_of_their_own() -> None:
    w, b, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    groups: list[dict[str, Any]] = [{"params": [w, idle]}, {"params": [b], "wd": 0.0}]
    optimizer = SGD(groups, lr=0.5, wd=0.5)
    w.grad, b.grad = torch.zeros(2), torch.zeros(2)
    optimizer.step()
    assert w.tolist() == [0.75, 0.75]
    assert b.tolist() == idle.tolist() == [1, 1]


def test_scalar_parameters() -> None:
    for rule in SLOTS:
        p = torch.nn.Parameter(torch.tensor(1.0))
        p.grad = torch.tensor(0.5)
        make(rule, [p], lr=0.1).step()
        assert p.shape == ()
        assert p.item() < 1


def test_a_closure_is_called_with_gradients_on() -> None:
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = SGD([p], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (p * 2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert p.item() == pytest.approx(0.8)


def test_gradients_are_left_alone() -> None:
    for rule in SLOTS:
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = torch.tensor([1.0, -2, 3])
        make(rule, [p], lr=0.1, wd=0.1, rescale_grad=0.5, clip_gradient=0.1).step()
        assert p.grad.tolist() == [1, -2, 3]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"lr": -0.1}, "lr is -0.1, expected a finite number at least 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr": 0.1, "momentum": 1.0}, "momentum is 1.0, expected .* below 1"),
        ({"lr": 0.1, "wd": -1}, "wd is -1"),
        ({"lr": 0.1, "clip_gradient": 0.0}, "clip_gradient is 0.0, expected .* or None"),
        ({"lr": 0.1, "rescale_grad": 0.0}, "rescale_grad is 0.0"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGD([torch.nn.Parameter(torch.ones(1))], **numbers)


def test_numbers_set_later_are_checked_too() -> None:
    p = torch.nn.Parameter(torch.ones(1))
    p.grad = torch.ones(1)
    optimizer = Adam([p])
    optimizer.param_groups[0]["lr"] = math.inf
    with pytest.raises(ValueError, match="lr is inf"):
        optimizer.step()
    with pytest.raises(ValueError, match="beta2 is 1"):
        Adam([p], beta2=1)


def test_only_dense_float32_and_float64() -> None:
    half = torch.nn.Parameter(torch.ones(2, dtype=torch.float16))
    half.grad = torch.ones_like(half)
    with pytest.raises(ValueError, match="float16"):
        SGD([half], lr=0.1).step()
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2).to_sparse()
    with pytest.raises(ValueError, match="sparse"):
        SGD([p], lr=0.1).step()
