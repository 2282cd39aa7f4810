"""Nets of third parties: what they execute aligns, and weights move along the alignment.

Needs `pip install --no-deps gluoncv2 pytorchcv torchvision==0.28.0`; `-s` prints the table's rows.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from parity_tests.tests.pairing.real_table import DIFFERENT, EQUAL, Pair, check, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(n) is None for n in ("gluoncv2", "pytorchcv", "torchvision")),
        reason="gluoncv2, pytorchcv and torchvision are not installed",
    ),
]

# What MXNet 1.9.1 does not survive: training this net alone ends its process
KILLS_MXNET = ("shakeshakeresnet20_2x16d_cifar10",)
# What differs, which inference shows nothing of
DIFFERENT_IN_TRAINING = {
    "fractalnet_cifar10": "(axes",  # elements are dropped in gluoncv2, channels in pytorchcv
    "inceptionresnetv1": "dropout in output.dropout",  # none is dropped in gluoncv2
}


def _name(value: object) -> str | None:
    return value.gluon if isinstance(value, Pair) else None


def _measure(pair: Pair) -> dict[str, Any]:
    result = run(pair.zoo, pair.gluon, pair.torch, str(pair.size), timeout=280)
    print(f"| {pair.gluon} | {result['aligned']} | {len(result['alone'])} | {result['seconds']} |")
    return result


def _check(pair: Pair) -> dict[str, Any]:
    return check(pair, timeout=600)


@pytest.mark.parametrize("pair", EQUAL, ids=_name)
def test_an_equal_pair_aligns_completely_and_agrees(pair: Pair) -> None:
    result = _measure(pair)
    assert result["aligned"]
    assert not result["alone"]
    assert result["equal"], result["differences"]
    assert result["error"] < 1e-4


@pytest.mark.timeout(1300)
@pytest.mark.parametrize("pair", EQUAL, ids=_name)
def test_an_equal_pair_is_in_parity(pair: Pair) -> None:
    result = _check(pair)
    if pair.gluon in KILLS_MXNET:
        assert "Gluon crashed" in result["first"]
        assert "SIGFPE" in result["first"]
    elif pair.gluon in DIFFERENT_IN_TRAINING:
        assert DIFFERENT_IN_TRAINING[pair.gluon] in result["first"]
    else:
        assert result["ok"], result["first"]


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(("pair", "path"), [d[:2] for d in DIFFERENT], ids=_name)
def test_a_real_difference_is_the_first_divergence(pair: Pair, path: str) -> None:
    result = _check(pair)
    assert not result["ok"]
    assert result["first"].startswith(f"{path} structure: ")


@pytest.mark.parametrize(("pair", "what", "total"), [(d[0], *d[2:]) for d in DIFFERENT], ids=_name)
def test_a_real_difference_is_named(pair: Pair, what: set[str], total: bool) -> None:
    result = _measure(pair)
    assert not result["alone"]
    assert set(result["differences"]) == what
    assert result["total"] == total
