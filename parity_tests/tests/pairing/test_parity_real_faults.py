"""Faults planted into nets of third parties are caught, at their operation, and named rightly.

Needs `pip install --no-deps gluoncv2 pytorchcv torchvision==0.28.0`.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest

from parity_tests.reporting.kill_matrix import Outcome, score
from parity_tests.tests.pairing.real_faults.nets import NETS
from parity_tests.tests.pairing.real_faults.table import planted
from parity_tests.tests.pairing.real_table import Pair

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3700),
    pytest.mark.skipif(
        any(importlib.util.find_spec(n) is None for n in ("gluoncv2", "pytorchcv", "torchvision")),
        reason="gluoncv2, pytorchcv and torchvision are not installed",
    ),
]

_planted = cache(planted)


def _name(value: object) -> str | None:
    return value.gluon if isinstance(value, Pair) else None


def _told(outcomes: list[Outcome]) -> list[str]:
    return [f"{o.fault} in {o.where}: {o.message or 'escaped'}" for o in outcomes]


@pytest.mark.parametrize(("pair", "count"), NETS, ids=_name)
def test_every_fault_in_a_net_is_caught_and_none_is_misnamed(pair: Pair, count: int) -> None:
    outcomes = _planted(pair, count)
    assert len(outcomes) == count
    assert not _told([o for o in outcomes if not o.caught])
    assert not _told([o for o in outcomes if o.misdiagnosed])


def test_faults_are_seen_at_their_operation() -> None:
    outcomes = [o for pair, count in NETS for o in _planted(pair, count)]
    assert len({o.group for o in outcomes}) >= 8
    assert score(outcomes)["total"] >= 80
    elsewhere = [o for o in outcomes if not o.right_path]
    assert len(elsewhere) <= 0.05 * len(outcomes), _told(elsewhere)
