"""Is this difference normal: the distances, their ratio, who moved, and the words for it."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests import check_parity
from parity_tests.cases.pairs import Case, project_case
from parity_tests.reporting.drift import answers, drifts
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.table import table
from parity_tests.reporting.verdicts import Check, Level, Mode, Side, Status


def row(side: Side, error: float, *, dtype: str = "float32", path: str = "a", **more: Any) -> Row:
    """An inherited row whose bound is 4 envelopes, 4e-6 of the largest value."""
    status = Status.OK if error <= 4 else Status.DIVERGED
    given = {"level": Level.FORWARD, "quantity": "output", "mode": Mode.INFERENCE, **more}
    return Row(
        path=path, status=status, check=Check.INHERITED, side=side, dtype=dtype, error=error,
        bound=4.0, unit="envelopes", compared=10, distance=error * 1e-6, allowed=4e-6, **given,
    )  # fmt: skip


def both(gluon: float, theirs: float, witness: float = 0.0, **more: Any) -> list[Row]:
    return [
        row(Side.GLUON, witness, dtype="float64", **more),
        row(Side.GLUON, gluon, **more),
        row(Side.TORCH, theirs, **more),
    ]


def test_distances_their_ratio_and_their_part_of_the_bound() -> None:
    (drift,) = drifts(both(2.0, 0.5))
    assert drift.gluon.relative == pytest.approx(2e-6)
    assert drift.torch.relative == pytest.approx(5e-7)
    assert drift.ratio == pytest.approx(4)
    assert drift.bound == pytest.approx(4e-6)
    assert (drift.gluon.share, drift.torch.share, drift.share) == (0.5, 0.125, 0.5)
    assert drift.normal


@pytest.mark.parametrize(
    ("rows", "moved"),
    [
        (both(4.0, 4.0), ""),
        (both(4.1, 0.1), "gluon"),
        (both(0.1, 4.1), "torch"),
        (both(5.0, 5.0), "both"),
        (both(5.0, 0.1, witness=5.0), "function"),
        (both(math.inf, 0.1), "gluon"),
    ],
)
def test_who_moved(rows: list[Row], moved: str) -> None:
    (drift,) = drifts(rows)
    assert drift.outside == moved
    assert drift.normal == (not moved)
    assert drift.sentence.endswith("not normal" if moved else "the envelope: normal")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (both(3.6, 0.3), "Gluon is 12 times farther from float64 than PyTorch at a ("),
        (both(0.5, 1.5), "PyTorch is 3.0 times farther from float64 than Gluon at a ("),
        (both(1.0, 1.0), "Gluon and PyTorch are equally far from float64 at a ("),
        (both(0.0, 0.0), "Gluon and PyTorch equal float64 at a;"),
        (both(1.0, 0.0), "PyTorch equals float64 at a, Gluon is off by 1.0e-06;"),
        (both(0.0, 1.0), "Gluon equals float64 at a, PyTorch is off by 1.0e-06;"),
        (both(40.0, 0.4), "Gluon moved at a: 10 times its bound from float64, PyTorch is at 0.1"),
        (both(0.0, 8.0), "PyTorch moved at a: 2.0 times its bound from float64, Gluon equals it"),
        (both(8.0, 8.0, quantity="bias gradient"), "Gluon and PyTorch both moved at a bias grad"),
        (both(9.0, 0.1, witness=9.0), "Gluon and PyTorch differ at a in float64 already"),
    ],
)
def test_the_sentence(rows: list[Row], words: str) -> None:
    (drift,) = drifts(rows)
    assert drift.sentence.startswith(words)


def test_a_value_without_a_number_is_not_normal() -> None:
    rows = both(1.0, 1.0)
    rows[1] = Row(
        level=Level.FORWARD,
        path="a",
        quantity="output",
        status=Status.DIVERGED,
        check=Check.INHERITED,
        side=Side.GLUON,
        dtype="float32",
        mode=Mode.INFERENCE,
        compared=10,
        detail="not finite: nan at (0,1), 1 in all",
    )
    (drift,) = drifts(rows)
    assert (drift.outside, drift.ratio, drift.share) == ("gluon", None, math.inf)
    assert "its values cannot be measured" in drift.sentence


def test_of_several_calls_the_worst_counts() -> None:
    (drift,) = drifts([*both(1.0, 1.0), *both(9.0, 1.0), *both(2.0, 1.0)])
    assert drift.outside == "gluon"
    assert drift.gluon.relative == pytest.approx(9e-6)


def test_one_side_alone_says_nothing() -> None:
    assert not drifts([row(Side.GLUON, 1.0)])
    assert not answers([])


def test_a_level_is_as_normal_as_its_values() -> None:
    """The place named is the first outside, in the order of computation, or else the nearest."""
    inside = [*both(1.0, 0.5, path="a"), *both(3.0, 0.5, path="b"), *both(2.0, 0.5, path="c")]
    (answer,) = answers(drifts(inside))
    assert (answer.normal, answer.at.path, answer.compared) == (True, "b", 3)
    assert "0.75 of the bound, the most of 3 values" in answer.sentence
    outside = [*inside, *both(5.0, 1.0, path="d"), *both(50.0, 1.0, path="e")]
    (answer,) = answers(drifts(outside))
    assert (answer.normal, answer.at.path) == (False, "d")
    (answer,) = answers(drifts([Row(**{**vars(r), "level": Level.BACKWARD}) for r in outside]))
    assert (answer.normal, answer.at.path) == (False, "e")  # gradients come from the end


def test_the_table_says_what_is_normal_and_names_what_is_not() -> None:
    normal, odd = Report("one", (Level.FORWARD,)), Report("two", (Level.FORWARD,))
    normal.add(both(3.6, 0.3))
    odd.add(both(40.0, 0.4))
    assert "inherited error, one forward: Gluon is 12 times" in table([normal], (Level.FORWARD,))
    assert "normal in all 2 nets" in table([normal, Report("3", (), both(1, 1))], (Level.FORWARD,))
    text = table([normal, odd], (Level.FORWARD,))
    assert "inherited error, two forward: Gluon moved at a" in text
    assert "inherited error, one" not in text


class _HalfTorch(nn.ReLU):
    """float16 inside a float32 run, and float64 as it is: arithmetic, not another function."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        return y.half().to(y.dtype) if y.dtype == torch.float32 else y


class _HalfGluon(gluon_nn.Activation):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = F.relu(x)
        return y.astype("float16").astype("float32") if x.dtype == np.float32 else y


def checked(case: Case) -> Report:
    return check_parity(case.gluon_net, case.torch_net, case.inputs, levels=("forward",))


def test_a_clean_pair_is_normal_at_every_value() -> None:
    report = checked(project_case("lenet"))
    assert all(drift.normal for drift in report.drifts)
    paths = {pair.path for pair in report.drifts}
    assert len(paths) == 13  # twelve leaves and the net
    (answer,) = report.answers
    assert answer.normal
    assert 0 < answer.at.share < 1


def test_the_side_that_rounds_through_float16_is_named() -> None:
    case = project_case("lenet")
    case.torch_net.get_submodule("features.4").__class__ = _HalfTorch
    (answer,) = checked(case).answers
    assert (answer.at.outside, answer.at.path) == ("torch", "features.4")
    case = project_case("lenet")
    case.gluon_net.features[4].__class__ = _HalfGluon
    (answer,) = checked(case).answers
    assert (answer.at.outside, answer.at.path) == ("gluon", "features.4")


def test_other_weights_are_another_function_and_nobody_is_blamed() -> None:
    case = project_case("lenet")
    with torch.no_grad():
        case.torch_net.get_parameter("features.3.weight")[0, 0, 0, 0] += 0.001
    (answer,) = checked(case).answers
    assert (answer.at.outside, answer.at.path) == ("function", "features.3")
    assert "moved" not in answer.sentence
