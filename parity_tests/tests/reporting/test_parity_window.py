"""The values around a divergence, and what a report says it ran on."""

import math
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.cases.pairs import project_case
from parity_tests.numerics.compare import bits_equal, compare
from parity_tests.reporting import environment as environment_module
from parity_tests.reporting.environment import environment
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Check, Level, Side
from parity_tests.reporting.window import window_at


def test_a_window_lies_around_its_position() -> None:
    array = np.arange(2 * 3 * 8 * 9, dtype=np.float32).reshape(2, 3, 8, 9)
    window = window_at((1, 2, 4, 4), {"ours": array, "theirs": array + 1})
    assert window is not None
    assert window.place == "[1, 2, 3:6, 2:7]"
    assert window.names == ("ours", "theirs")
    assert np.array_equal(window.grids[0], array[1, 2, 3:6, 2:7])
    row, column = window.center
    assert window.grids[0][row][column] == array[1, 2, 4, 4]
    assert {value for line in window.difference for value in line} == {-1.0}


@pytest.mark.parametrize(
    ("shape", "position", "place"),
    [
        ((8, 9), (0, 0), "[0:3, 0:5]"),
        ((8, 9), (7, 8), "[5:8, 4:9]"),
        ((2, 2), (1, 0), "[0:2, 0:2]"),
        ((9,), (4,), "[2:7]"),
        ((1,), (0,), "[0:1]"),
        ((), (), "[]"),
        ((6, 5, 1, 1), (3, 2, 0, 0), "[2:5, 0:5, 0, 0]"),  # a 1×1 kernel: over its channels
        ((1, 7, 1, 1), (0, 3, 0, 0), "[0, 1:6, 0, 0]"),
        ((1, 1), (0, 0), "[0, 0:1]"),
    ],
)
def test_a_window_stays_inside_the_array(
    shape: tuple[int, ...], position: tuple[int, ...], place: str
) -> None:
    array = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    window = window_at(position, {"a": array, "b": array})
    assert window is not None
    assert window.place == place
    row, column = window.center
    assert window.grids[0][row][column] == array[position]


def test_arrays_of_two_shapes_have_no_window() -> None:
    assert window_at((0, 0), {"a": np.zeros((2, 3)), "b": np.zeros((3, 2))}) is None


def test_only_what_fails_is_pictured() -> None:
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 3.0])
    assert compare(ours, ours + 0.0).window is None
    for verdict in (compare(ours, theirs), bits_equal(ours, theirs)):
        assert verdict.window is not None
        assert verdict.window.grids == (((1.0, 2.0, 3.0),), ((1.0, 2.5, 3.0),))
    signs = bits_equal(np.array([0.0, 1.0]), np.array([-0.0, 1.0]))
    assert signs.window is not None
    broken = compare(np.array([1.0, math.nan]), np.array([1.0, 2.0]))
    assert broken.window is not None
    assert math.isnan(broken.window.difference[0][1])


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({}, ("Gluon", "PyTorch")),
        ({"check": Check.TRANSFER}, ("arrived", "sent")),
        ({"check": Check.LOCAL, "side": Side.GLUON, "dtype": "float64"}, ("Gluon", "PyTorch")),
        (
            {"check": Check.LOCAL, "side": Side.TORCH, "dtype": "float32"},
            ("PyTorch float32", "float64"),
        ),
        (
            {"check": Check.INHERITED, "side": Side.GLUON, "dtype": "float64"},
            ("Gluon float64", "PyTorch float64"),
        ),
    ],
)
def test_a_window_says_whose_values_it_holds(more: dict, names: tuple[str, str]) -> None:
    verdict = compare(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    row = Row.judged(verdict, level=Level.FORWARD, path="a", quantity="output", **more)
    window = row.named_window
    assert window is not None
    assert window.names == names


class _CoarseSigmoid(nn.Sigmoid):
    """A fast exponential in float32 alone: 64 u."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        return y * (1 + 2.0**-18) if y.dtype == torch.float32 else y


def test_a_local_divergence_shows_both_sides_and_the_referee() -> None:
    case = project_case("lenet_sigmoid")
    case.torch_net.get_submodule("features.4").__class__ = _CoarseSigmoid
    report = check_parity(case.gluon_net, case.torch_net, case.inputs, levels=("forward",))
    row = report.failures[0]
    assert (row.path, row.check, row.side) == ("features.4", Check.LOCAL, Side.TORCH)
    assert row.named_window is not None
    assert row.named_window.names == ("PyTorch float32", "float64", "Gluon float32")
    at, column = row.named_window.center
    judged, exact, other = (grid[at][column] for grid in row.named_window.grids)
    assert row.values == (judged, exact)
    assert abs(judged - exact) > 16 * 2.0**-24 * exact > abs(other - exact)
    assert report.first_divergence is not None
    assert report.first_divergence.window == row.named_window


class _Between(nn.Module):
    """A dense net in which something is done between its leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(y * 1.001)


def test_an_inherited_divergence_shows_both_sides_and_the_referee() -> None:
    ours = gluon_nn.HybridSequential()
    ours.add(gluon_nn.Dense(8, in_units=6), gluon_nn.Dense(4, in_units=8))
    mx.random.seed(1)
    ours.initialize(mx.init.Xavier())
    x = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    report = check_parity(ours, _Between(), x, levels=("forward", "backward"), transfer=True)
    inherited = [r for r in report.failures if r.check == Check.INHERITED]
    row = next(r for r in inherited if r.dtype == "float32")
    assert row.named_window is not None
    assert row.named_window.names == ("Gluon float32", "float64", "PyTorch float32")
    at, column = row.named_window.center
    judged, exact, other = (grid[at][column] for grid in row.named_window.grids)
    assert abs(judged - exact) > 100 * abs(other - exact)
    gradients = [r for r in report.failures if r.level == Level.BACKWARD and r.dtype == "float32"]
    assert all(r.named_window is not None and len(r.named_window.names) == 3 for r in gradients)


def test_the_environment_names_what_decides_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MXNET_EXEC_BULK_EXEC_TRAIN", "0")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    monkeypatch.setenv("MXNET_SECRET_TOKEN", "hidden")
    monkeypatch.setenv("HOME_ADDRESS", "hidden")
    facts = environment()
    for name in ("mxnet", "torch", "numpy", "python", "CPU", "torch threads", "OMP_NUM_THREADS"):
        assert facts[name]
    assert facts["NVIDIA_TF32_OVERRIDE"] == facts["MXNET_EXEC_BULK_EXEC_TRAIN"] == "0"
    assert "hidden" not in facts.values()


def test_a_machine_without_cpuinfo_has_a_processor_all_the_same(tmp_path: Path) -> None:
    assert "(" in environment_module._processor(tmp_path / "none")
