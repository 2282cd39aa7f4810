"""`model.py` of nets that are drawn at random: residuals, branches, gates, what repeats almost."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import mxnet as mx
import pytest
import torch

from mxnet_files.tests.test_written_model import opened, random_state, written

S = mx.sym
CHANNELS = 4
ACTS = ("relu", "tanh", "sigmoid", "softrelu")
Plan = dict[str, Any]  # of an item, which a net may run several times


class Drawn:
    """A net whose stages run a plan again, or one that differs a little."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.numbers = count()
        self.shared = [(S.var(f"shared{i}_weight"), S.var(f"shared{i}_bias")) for i in range(2)]

    def net(self) -> Any:
        x = self.convolution(S.var("data"), "stem")
        for stage in range(self.random.randint(1, 2)):
            plan = self.chain(2, 1, 3)
            for unit in range(self.random.randint(1, 4)):
                x = self.run(self.varied(plan) if unit else plan, x, f"stage{stage}_unit{unit}_")
        return S.FullyConnected(S.flatten(x), num_hidden=3, name="dense")

    # plans

    def chain(self, depth: int, least: int, most: int) -> list[Plan]:
        return [self.item(depth) for _ in range(self.random.randint(least, most))]

    def item(self, depth: int) -> Plan:
        kinds = [*SIMPLE, "convolution", "act", "shared", *["residual", "branches"] * (4 * depth)]
        plan: Plan = {"kind": self.random.choice(kinds), "number": self.random.choice((0.5, 2, 6))}
        plan |= {"groups": self.random.choice((1, 1, 2)), "bias": self.random.random() < 0.5}
        plan |= {"act": self.random.choice(ACTS), "which": self.random.randrange(2)}
        if plan["kind"] == "residual":
            plan["chains"] = [self.chain(depth - 1, 1, 4), self.chain(depth - 1, 0, 2)]
            self.random.shuffle(plan["chains"])
            plan["join"] = self.random.choice(("add", "add", "add", *JOINS))
            plan["after"] = self.random.random() < 0.5
        if plan["kind"] == "branches":
            plan["chains"] = [self.chain(depth - 1, 0, 2) for _ in range(3)]
        return plan

    def varied(self, chain: list[Plan]) -> list[Plan]:
        out = []
        for plan in chain:
            other = self.item(0)
            changed = {
                key: other[key]
                for key in ("number", "bias", "act", "groups")
                if self.random.random() < 0.1
            }
            if "chains" in plan:
                changed["chains"] = [self.varied(inner) for inner in plan["chains"]]
            if self.random.random() > 0.06:
                out.append(plan | changed)
        return out

    # symbols

    def run(self, chain: list[Plan], x: Any, prefix: str) -> Any:
        for plan in chain:
            x = self.of_plan(plan, x, prefix)
        return x

    def of_plan(self, plan: Plan, x: Any, prefix: str) -> Any:
        kind, name = plan["kind"], f"{prefix}{plan['kind']}{next(self.numbers)}"
        if kind == "convolution":
            return self.convolution(x, name, num_group=plan["groups"], no_bias=not plan["bias"])
        if kind == "act":
            return S.Activation(x, act_type=plan["act"], name=name)
        if kind == "shared":
            return S.Convolution(
                x, *self.shared[plan["which"]], num_filter=CHANNELS, kernel=(1, 1), name=name
            )
        if kind not in ("residual", "branches"):
            return SIMPLE[kind](x, name, plan["number"])
        ends = [self.run(chain, x, prefix) for chain in plan["chains"]]
        if kind == "branches":
            return self.convolution(S.concat(*ends, dim=1), name)
        y = ends[0] + ends[1] if plan["join"] == "add" else JOINS[plan["join"]](*ends)
        return S.Activation(y, act_type=plan["act"], name=name) if plan["after"] else y

    @staticmethod
    def convolution(x: Any, name: str, **options: Any) -> Any:
        return S.Convolution(
            x, num_filter=CHANNELS, kernel=(3, 3), pad=(1, 1), name=name, **options
        )


def gate(x: Any, name: str, _: float) -> Any:
    y = S.Pooling(x, global_pool=True, pool_type="avg", kernel=(1, 1))
    y = S.relu(S.Convolution(y, num_filter=2, kernel=(1, 1), name=f"{name}_a"))
    return S.broadcast_mul(
        x, S.sigmoid(S.Convolution(y, num_filter=CHANNELS, kernel=(1, 1), name=f"{name}_b"))
    )


def halves(x: Any, name: str, _: float) -> Any:
    first, second = S.split(x, num_outputs=2, axis=1, name=name)
    return S.concat(second, first, dim=1)


def shuffled(x: Any) -> Any:
    """Channels of two groups in turns, as ShuffleNet does."""
    y = S.swapaxes(S.reshape(x, shape=(0, -4, 2, -1, -2)), dim1=1, dim2=2)
    return S.reshape(y, shape=(0, -3, -2))


def cut_unit(x: Any, name: str, number: float) -> Any:
    """ShuffleNet V2's: one half passes; the channels are shuffled by two of three numbers."""
    first, second = S.split(x, num_outputs=2, axis=1, name=name)
    second = S.Convolution(second, num_filter=CHANNELS // 2, kernel=(1, 1), name=f"{name}_c")
    y = S.concat(first, S.relu(second), dim=1)
    return shuffled(y) if number > 1 else y


def halves_joined(x: Any, name: str, number: float) -> Any:
    """a + tanh(b), or a gate of one half by the other."""
    first, second = S.split(x, num_outputs=2, axis=1, name=name)
    y = first + S.tanh(second) if number > 1 else first * S.sigmoid(second)
    return S.Convolution(y, num_filter=CHANNELS, kernel=(1, 1), name=f"{name}_c")


def glu(x: Any, name: str, number: float) -> Any:
    """One half by the sigmoid of the other, whichever."""
    halves = list(S.split(x, num_outputs=2, axis=1, name=name))
    first, second = halves if number > 1 else halves[::-1]
    y = first * S.sigmoid(second)
    return S.Convolution(y, num_filter=CHANNELS, kernel=(1, 1), name=f"{name}_c")


def attention(x: Any, name: str, _: float) -> Any:
    """Of places, by queries, keys and values from one layer."""
    y = S.Convolution(x, num_filter=3 * CHANNELS, kernel=(1, 1), name=f"{name}_qkv")
    y = S.reshape(y, shape=(0, -4, 3, -1, -3))
    query, key, value = S.split(y, num_outputs=3, axis=1, squeeze_axis=True)
    y = S.batch_dot(value, S.softmax(S.batch_dot(query, key, transpose_a=True)), transpose_b=True)
    return S.reshape_like(y, x)


SIMPLE: dict[str, Callable[[Any, str, float], Any]] = {
    "norm": lambda x, name, _: S.BatchNorm(x, fix_gamma=False, name=name),
    "swish": lambda x, name, _: x * S.sigmoid(x),
    "hard_swish": lambda x, name, _: x * S.clip(x + 3, 0, 6) / 6,
    "scale": lambda x, name, number: x * number,
    "shift": lambda x, name, number: x + number,
    "clip": lambda x, name, number: S.clip(x, -number, number),
    "square": lambda x, name, _: S.tanh(x) * S.tanh(x),
    "pool": lambda x, name, _: S.Pooling(x, kernel=(3, 3), pad=(1, 1), pool_type="avg", name=name),
    "dropout": lambda x, name, _: S.Dropout(x, p=0.3, name=name),
    "turned": lambda x, name, _: S.reverse(x, axis=1),
    "prelu": lambda x, name, _: S.LeakyReLU(x, act_type="prelu", name=name),
    "own": lambda x, name, _: S.broadcast_mul(x, S.var(f"{name}_g", shape=(1, CHANNELS, 1, 1))),
    "unit": lambda x, name, _: S.L2Normalization(x, mode="channel", name=name),
    "gate": gate,
    "halves": halves,
    "cut_unit": cut_unit,
    "halves_joined": halves_joined,
    "glu": glu,
    "attention": attention,
}
JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "mul": lambda a, b: a * b,
    "sub": lambda a, b: a - b,
    "maximum": S.broadcast_maximum,
}


@pytest.mark.parametrize(
    "seeds", [range(4), pytest.param(range(4, 300), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_net_of_any_structure_is_written_and_computes_the_same(
    seeds: range, tmp_path: Path
) -> None:
    for seed in seeds:
        same_of(Drawn(seed).net(), tmp_path)


def test_a_rate_is_as_short_as_float32_takes_it(tmp_path: Path) -> None:
    x = S.Dropout(S.Convolution(S.var("data"), num_filter=2, kernel=(1, 1)), p=0.3)
    assert "nn.Dropout(0.3)" in same_of(x, tmp_path)


@pytest.mark.parametrize("turned", [False, True])
def test_a_gated_linear_unit_is_torchs(turned: bool, tmp_path: Path) -> None:
    """The second half gates; the first one, that torch has none for."""
    x = S.Convolution(S.var("data"), num_filter=CHANNELS, kernel=(1, 1), name="stem")
    for unit in range(2):
        first, second = S.split(x, num_outputs=2, axis=1)
        y = S.sigmoid(first) * second if turned else S.sigmoid(second) * first
        x = S.Convolution(y, num_filter=CHANNELS, kernel=(1, 1), name=f"unit{unit}")
    text = same_of(x, tmp_path)
    assert (".chunk(" in text, "F.glu(x, 1)" in text) == (turned, not turned)


def test_an_array_of_another_size_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Weights without their mean are no mean."""
    weight = S.var("last_weight", shape=(2, 3, 1, 1))
    mean = S.mean(weight, axis=1, keepdims=True, name="centre")
    weight = S.tanh(S.broadcast_sub(weight, mean))
    last = S.Convolution(
        S.var("data"), weight, num_filter=2, kernel=(1, 1), no_bias=True, name="last"
    )
    text = same_of(last, tmp_path)
    assert text.count(" centre = ") == 1


def test_a_block_is_of_no_class_that_it_holds(tmp_path: Path) -> None:
    """The levels of a U-Net, each within the one before, stand in a row."""
    ends = [S.var("data")]
    for level in range(4):
        name = f"down{level}"
        x = S.Convolution(ends[-1], num_filter=CHANNELS, kernel=(3, 3), pad=(1, 1), name=name)
        ends.append(S.relu(x))
    x = ends.pop()
    for level, end in enumerate(reversed(ends[1:])):
        x = S.concat(S.Convolution(x, num_filter=2, kernel=(1, 1), name=f"up{level}"), end, dim=1)
    text = same_of(x, tmp_path)
    assert "nn.Identity" not in text
    assert text.count("torch.cat(") == 3


SIDES: dict[str, Callable[[Any], Any]] = {
    "activation": S.tanh,
    "function": lambda x: x * S.sigmoid(x),
    "number": lambda x: x * 0.5,
    "order": lambda x: S.reverse(x, axis=1),
}


@pytest.mark.parametrize("side", SIDES)
def test_a_shortcut_may_be_no_layer(side: str, tmp_path: Path) -> None:
    """Two blocks alike, whose shortcut is a function of what they are given."""
    x = S.Convolution(S.var("data"), num_filter=CHANNELS, kernel=(1, 1), name="stem")
    for block in range(2):
        y = S.Convolution(x, num_filter=CHANNELS, kernel=(1, 1), name=f"block{block}_a")
        y = S.Convolution(S.relu(y), num_filter=CHANNELS, kernel=(1, 1), name=f"block{block}_b")
        x = y + SIDES[side](x)
    assert same_of(x, tmp_path).count("class ") == 2


def test_units_that_cut_and_shuffle_are_a_loop(tmp_path: Path) -> None:
    x = S.Convolution(S.var("data"), num_filter=CHANNELS, kernel=(1, 1), name="stem")
    for unit in range(4):
        x = cut_unit(x, f"stage_unit{unit}", 2)
    text = same_of(S.Convolution(x, num_filter=2, kernel=(1, 1), name="last"), tmp_path)
    assert "for _ in range(4)" in text
    assert text.count(".chunk(2, 1)") == text.count(".unflatten(1, (2, -1))") == 1


def same_of(symbol: Any, folder: Path) -> str:
    """The text of a net's model.py, which computes what the import does."""
    shape = (2, 3, 5, 5)
    data = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made, module = written(symbol, random_state(symbol, shape), data)
    with torch.no_grad():
        wanted, found = module(data), opened(made, folder).double()(data)
    # eps and momentum are written with fewer digits than MXNet holds
    atol = 1e-6 * float(wanted.abs().max())
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=atol, equal_nan=True)
    return made.text
