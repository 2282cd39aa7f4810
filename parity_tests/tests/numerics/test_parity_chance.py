"""How often a clean net alarms: the derivation against drawn errors, its premises against nets."""

from __future__ import annotations

import numpy as np
import pytest

from parity_tests.backends.base import SIDES, backend, leaves_of
from parity_tests.cases.pairs import project_case
from parity_tests.levels.envelope import sigma
from parity_tests.levels.inherited import until_certain
from parity_tests.levels.local import truth_of
from parity_tests.numerics.chance import (
    MOST_DRAWS,
    PER_VALUE,
    alarm_probability,
    beyond_chance,
)
from parity_tests.numerics.compare import ENVELOPE_FACTOR
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Level, Status


@pytest.mark.parametrize(("draws", "times"), [(2, 1.0), (2, 4.0), (4, 0.5), (4, 0.25)])
def test_no_more_alarms_than_derived(draws: int, times: float) -> None:
    generator = np.random.default_rng(draws)
    count = 2_000_000
    moves = np.abs(generator.standard_normal((draws, count))).max(axis=0)
    errors = np.abs(generator.standard_normal(count)) / 2
    alarms = int((errors > ENVELOPE_FACTOR * times * moves).sum())
    expected = count * alarm_probability(draws, times)
    assert expected / 3 < alarms < expected + 6 * np.sqrt(expected)


def test_a_million_nets_have_less_than_one_alarm() -> None:
    values = 5e8  # a ResNet-50 on two images: outputs in two modes, gradients, three comparisons
    stages = [2**k for k in range(1, 7)]
    each = [alarm_probability(max(1, n // 2), beyond_chance(n)) for n in stages]
    assert stages[-1] == MOST_DRAWS
    assert all(p <= PER_VALUE * 1.001 for p in each)
    assert values * alarm_probability(MOST_DRAWS // 2) < 1e-6


@pytest.mark.parametrize("name", ["lenet", "mnist_bn_cnn"])
def test_frameworks_round_half_as_much_as_the_noise(name: str) -> None:
    case = project_case(name)
    pairs = pair_leaves(leaves_of(case.gluon_net), leaves_of(case.torch_net)).pairs
    x: tuple[np.ndarray, ...] = (case.inputs,)
    rounding = 0
    for pair in pairs:
        truth, scales = truth_of(pair.torch, x, train=False)
        size = sigma(scales, "output", train=False)
        for side in SIDES if size.all() else ():
            leaf = pair.gluon if side == pair.gluon.side else pair.torch
            run = backend(side).run_leaf(leaf, x, "float32", train=False)
            relative = (run["output"] - truth["output"]) / size
            assert np.sqrt(np.mean(relative**2)) <= 0.5, (side, pair)
            rounding += 1
        x = (truth["output"],)
    assert rounding >= 6


def test_a_doubtful_error_is_judged_by_more_draws() -> None:
    asked: list[int] = []

    def row(error: float) -> Row:
        return Row(
            level=Level.FORWARD, path="a", quantity="output", error=error, bound=4.0,
            status=Status.DIVERGED if error > 4 else Status.OK,
        )  # fmt: skip

    def measure(draws: int) -> int:
        asked.append(draws)
        return draws

    def judged(error: float, grows: float, *, clean: bool = True) -> tuple[bool, list[int]]:
        asked.clear()
        judge = until_certain(measure, clean)  # type: ignore[arg-type]
        rows = judge(lambda envelope: [row(error / (1 + grows * (envelope > 2)))])
        return rows[0].status == Status.OK, list(asked)

    assert judged(3.9, 0.0) == (True, [2])
    assert judged(4.1, 0.1) == (True, [2, 4])
    assert judged(4.1, 0.0) == (False, [2, 4, 8, 16, 32, 64])
    assert judged(4.1, 0.0, clean=False) == (False, [2])
    assert judged(400.0, 0.0) == (False, [2, 4, 8, 16])
