"""How often a clean net alarms: the derivation against drawn errors, its premises against nets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from types import FunctionType
from typing import Any

import numpy as np
import pytest
from torch.nn.functional import local_response_norm

from parity_tests import check_parity
from parity_tests.backends.base import SIDES, backend, leaves_of
from parity_tests.cases.pairs import project_case
from parity_tests.levels import local
from parity_tests.levels.envelope import sigma
from parity_tests.levels.inherited import until_certain
from parity_tests.levels.local import truth_of
from parity_tests.numerics.chance import (
    FEWEST_LOCAL_DRAWS,
    FIRST_LOCAL_DRAWS,
    LOCAL_CERTAIN,
    MOST_DRAWS,
    MOST_LOCAL_DRAWS,
    PER_VALUE,
    alarm_probability,
    beyond_chance,
    local_alarm_probability,
)
from parity_tests.numerics.compare import ENVELOPE_FACTOR, UNIT, compare
from parity_tests.numerics.operators.formulas import measured
from parity_tests.numerics.operators.table import CUSTOM, OPERATORS, tolerance
from parity_tests.numerics.scales import scales_of
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import Level, Status
from parity_tests.tests.numerics.test_parity_functions import MAPS, nets_of
from parity_tests.tests.pairing.nets import GluonNet, TorchNet, initialised


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


def _measures(scale: Callable[..., Any], seen: frozenset[Callable[..., Any]] = frozenset()) -> bool:
    """Whether a scale is `measured`, or calls it."""
    function = scale.func if isinstance(scale, partial) else scale
    if function is measured:
        return True
    if function in seen:
        return False
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    ours = (f for f in called if isinstance(f, FunctionType) and "operators" in f.__module__)
    return any(_measures(f, seen | {function}) for f in ours)


MEASURED_KINDS = [kind for kind, o in {**OPERATORS, "custom": CUSTOM}.items() if _measures(o.scale)]


def test_a_kind_that_is_measured_alarms_in_less_than_one_of_a_million_nets() -> None:
    assert {"exp", "lstm", "layer_norm", "instance_norm", "silu", "custom"} < set(MEASURED_KINDS)
    values = 5e8
    for kind in MEASURED_KINDS:
        for mode, side, dtype in product(("train", "inference", "statistics"), SIDES, UNIT):
            factor = tolerance(kind, mode, side, dtype).factor(1)
            likely = local_alarm_probability(factor, MOST_LOCAL_DRAWS)
            at_once = local_alarm_probability(factor, FIRST_LOCAL_DRAWS, LOCAL_CERTAIN)
            assert values * max(likely, at_once) <= 1e-6, (kind, mode, side, dtype, factor)


@pytest.mark.parametrize("terms", [1, 12])
def test_no_more_alarms_of_a_measured_scale_than_derived(terms: int) -> None:
    """Moves are drawn as `measured` draws its first pair: with opposite signs."""
    generator, count, factor = np.random.default_rng(terms), 100_000, 16.0
    parts = np.abs(generator.standard_normal((terms, count)))
    signs = np.where(generator.random((terms, count)) < 0.5, 1.0, -1.0)
    noise = np.abs(generator.standard_normal((2, terms, count)))
    moves = np.abs((noise * parts * signs).sum(axis=1)).max(axis=0)
    errors = 3 * np.sqrt((parts**2).sum(axis=0)) * np.abs(generator.standard_normal(count))
    alarms = int((errors > factor * 2 * moves).sum())
    one_of_a_pair = local_alarm_probability(factor, FIRST_LOCAL_DRAWS // 2 + 1)
    assert 10 < alarms < count * one_of_a_pair


@pytest.mark.parametrize("kind", ["log", "mish", "group_norm", "lstm"])
def test_frameworks_round_as_a_measured_scale_supposes(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def spy(actual: np.ndarray, expected: np.ndarray, **how: Any) -> Any:
        if how["dtype"] == "float32" and (how["scale"] > 0).all():
            errors = (actual - expected) / (UNIT["float32"] * how["scale"])
            found.append(float(np.sqrt(np.mean(errors**2))))
        return compare(actual, expected, **how)

    monkeypatch.setattr(local, "compare", spy)
    gluon_net, torch_net, inputs = nets_of(kind)
    assert check_parity(gluon_net, torch_net, inputs, levels=("forward", "backward")).ok
    assert found
    assert max(found) <= 1.0


@pytest.mark.parametrize(("k", "draws"), [(2.0, set()), (2.001, {32}), (4.0, set())])
def test_a_measured_scale_gets_more_draws_where_they_might_matter(
    k: float, draws: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[int] = set()

    def spy(*args: Any, **how: Any) -> Any:
        asked.add(how.get("draws", FIRST_LOCAL_DRAWS))
        return scales_of(*args, **how)

    monkeypatch.setattr(local, "scales_of", spy)
    x = MAPS
    net = initialised(
        GluonNet(lambda s, F, x: F.LRN(x, nsize=3, alpha=0.1, beta=0.75, knorm=2.0)), x
    )
    torch_net = TorchNet(lambda s, x: local_response_norm(x, 3, 0.1, 0.75, k))
    assert check_parity(net, torch_net, x, levels=("forward",)).ok == (k == 2)
    assert asked - {FIRST_LOCAL_DRAWS} == draws


@pytest.mark.parametrize("k", [1.0, 1.5, 2.0])
def test_what_is_far_apart_gets_few_draws(k: float, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[int] = set()

    def spy(*args: Any, **how: Any) -> Any:
        asked.add(how.get("draws", FIRST_LOCAL_DRAWS))
        return scales_of(*args, **how)

    monkeypatch.setattr(local, "scales_of", spy)
    net = initialised(GluonNet(lambda s, F, x: F.sigmoid(x) * x), MAPS)
    torch_net = TorchNet(lambda s, x: x.sigmoid().mul(k).exp().log() * x)
    report = check_parity(net, torch_net, MAPS, levels=("structure", "forward"))
    assert report.ok == (k == 1)
    assert asked == ({FIRST_LOCAL_DRAWS} if k == 1 else {FEWEST_LOCAL_DRAWS})
