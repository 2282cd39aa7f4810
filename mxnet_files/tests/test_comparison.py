"""What a comparison with MXNet calls equal, and what it says where it shows little."""

from __future__ import annotations

import json
from typing import Any

import mxnet as mx
import numpy as np
import pytest

from mxnet_files import import_symbol
from mxnet_files.checking.check import CheckReport, Subject, compare_with_mxnet
from mxnet_files.running import distance

S = mx.sym
D = S.var("data")


def compared(symbol: Any, data: np.ndarray) -> CheckReport:
    text = symbol.tojson()

    return compare_with_mxnet(
        Subject(import_symbol(json.loads(text), {}), text, {}, {"data": data})
    )


NETS = {
    "no box is kept": (
        S.contrib.box_nms(S.reshape(S.sigmoid(D), shape=(-1, 1, 6)), valid_thresh=2.0),
        "the same number everywhere (-1)",
    ),
    "one winner": (S.argmax(S.broadcast_add(D * 0, S.arange(6)), axis=1), "everywhere (5)"),
    "log of nothing": (S.log(S.relu(D)), "some outputs are infinite or NaN"),
    "nothing finite": (S.log(D * 0), "no output is finite"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETS)
def test_equal_outputs_are_equal_and_said_to_show_little(name: str) -> None:
    symbol, said = NETS[name]
    report = compared(symbol, np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32))
    assert report.failures == ()
    assert said in "".join(report.remarks)
    assert "--data" in "".join(report.remarks)
    assert report.as_dict()["remarks"] == list(report.remarks)


def test_distance_knows_dtypes_and_what_is_not_finite() -> None:
    whole = np.array([1, 2], np.int32)
    assert distance([whole], [whole]) == [0.0]
    assert distance([whole.astype(np.int64)], [whole]) == [np.inf]
    assert distance([whole.astype(np.float32)], [whole]) == [np.inf]
    reals = np.array([1.0, np.inf, -np.inf, np.nan])
    assert distance([reals.astype(np.float32)], [reals]) == [0.0]
    assert distance([-reals], [reals]) == [np.inf]
    assert distance([np.array([1.0, np.inf])], [np.array([1.0, 2.0])]) == [np.inf]
    assert distance([np.array([1.0, 2.0])], [np.array([1.0, np.nan])]) == [np.inf]
