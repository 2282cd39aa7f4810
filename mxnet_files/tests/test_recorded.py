"""MXNet's recorded results: whole, of every operator, and noticing what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch

from mxnet_files.checking.recorded import RecordedCase, pack, read, replay, unpack
from mxnet_files.checking.supported import is_drawn
from mxnet_files.errors import SymbolError
from mxnet_files.reading.reader import read_graph
from mxnet_files.registry import OPERATORS
from mxnet_files.tests.test_quantised_operators import spoiled

S = mx.sym
VERSION, CASES = read()
CASES = list(CASES)  # type: ignore[assignment]


def graph_of(symbol: Any) -> Any:
    return read_graph(json.loads(symbol.tojson()))


def test_every_drawn_operator_is_recorded() -> None:
    assert mx.__version__ == VERSION
    names = {operator.name for operator in OPERATORS.values() if is_drawn(operator.name)}
    assert names == {case.operator for case in CASES}


def test_one_case_of_each_operator_is_computed_as_recorded() -> None:
    first = {case.operator: case for case in reversed(list(CASES))}
    assert {name: told for name, case in first.items() if (told := case.difference())} == {}


@pytest.mark.slow
def test_all_cases_are_computed_as_recorded() -> None:
    assert [f"{case.operator}: {told}" for case in CASES if (told := case.difference())] == []


def test_a_graph_of_recorded_operators() -> None:
    x = S.Convolution(S.var("data"), kernel=(3, 3), num_filter=4)
    x = S.Pooling(S.Activation(x, act_type="tanh"), pool_type="avg", global_pool=True)
    found = replay(graph_of(x))
    assert found.operators == 3
    assert found.cases >= 12
    assert found.missing == ()
    assert "3 operators" in found.sentence


@pytest.mark.parametrize(
    ("document", "missing"),
    [
        (
            spoiled(attrs={"quantized": "false"}, inputs=[[0, 0, 0], [1, 0, 0]]),
            ("_sg_mkldnn_conv",),
        ),
        (
            json.loads(
                S.Convolution(S.var("x"), kernel=(3, 3), num_filter=4, layout="NHWC").tojson()
            ),
            ("Convolution with layout=NHWC",),
        ),
    ],
)
def test_what_is_not_recorded_is_named(document: Any, missing: tuple[str, ...]) -> None:
    assert replay(read_graph(document)).missing == missing


def test_an_operator_that_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    right = OPERATORS["square"]
    wrong = replace(right, build=lambda w, a, x: w.call(torch.mul, x, 2))
    monkeypatch.setitem(OPERATORS, "square", wrong)
    with pytest.raises(SymbolError, match=r"square does not compute here .* MXNet 1\.9\.1"):
        replay(graph_of(S.square(S.var("data"))))


@pytest.mark.parametrize("fault", ["value", "dtype", "shape", "outputs"])
def test_a_wrong_record_is_noticed(fault: str) -> None:
    case = next(case for case in CASES if case.operator == "square" and case.outputs[0].size > 1)
    assert case.difference() == ""
    (y, *rest) = case.outputs
    wrong = {
        "value": [np.where(np.isfinite(y), y + 1, y).astype(y.dtype), *rest],
        "dtype": [y.astype("int16"), *rest],
        "shape": [y[None], *rest],
        "outputs": [y, *rest, y],
    }
    assert replace(case, outputs=wrong[fault]).difference() != ""


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int64", "bool"])
def test_arrays_survive(dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    back = unpack(json.loads(json.dumps(pack(array))))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_bits_of_bfloat16_survive() -> None:
    (case,) = [
        case
        for case in CASES
        if case.operator == "Cast" and case.step().attributes.dtype == "bfloat16"
    ][:1]
    assert isinstance(case, RecordedCase)
    assert case.outputs[0].dtype == np.dtype("<u2")
    assert case.difference() == ""
