"""The inference benchmark's judgement: medians, ratios, and that all sides computed the same."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import imported
from benchmarks.cases import Turn
from benchmarks.imported import SIDES, main, measure, rows
from cnn_harness.errors import CommandError


def sides_that_give(outputs: Mapping[str, list[float]], order: list[str]) -> imported.Begin:
    @contextlib.contextmanager
    def begin(side: str, folder: Path, name: str, batch: int, seconds: float) -> Iterator[Turn]:
        def turn(_: int) -> Mapping[str, Any]:
            order.append(side)
            return {"images_per_second": len(order), "output": outputs[side]}

        yield turn

    return begin


def test_sides_take_turns() -> None:
    order: list[str] = []
    outputs = {side: [1.0, 2.0] for side in SIDES}
    speeds = measure("m", 1, 2, 0.0, begin=sides_that_give(outputs, order), quiet=True)
    assert order == [*SIDES, *SIDES]
    assert speeds == {s: [n, n + 4] for n, s in enumerate(SIDES, 1)}


@pytest.mark.parametrize("wrong", [[1.0, 2.01], [1.0], [1.0, float("nan")]])
def test_speed_of_another_function_is_refused(wrong: list[float]) -> None:
    outputs = {**{side: [1.0, 2.0] for side in SIDES}, "freeze": wrong}
    with pytest.raises(CommandError, match="freeze"):
        measure("m", 1, 2, 0.0, begin=sides_that_give(outputs, []), quiet=True)


def test_the_table_has_medians_and_ratios() -> None:
    speeds = {
        "mxnet": [10.0, 1.0, 99.0], "mxnet fused": [20.0],
        "optimise": [9.0, 8.0, 7.0], "freeze": [6.0],
    }  # fmt: skip
    assert rows({"vgg16": speeds})[2] == "| vgg16 | 10.0 | 20.0 | 8.0 | 6.0 | 0.80 | 0.40 |"


@pytest.mark.slow
def test_a_real_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["mobilenet0.25", "--batch", "1", "--repeats", "1", "--seconds", "1"]
    assert main(argv) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[2].startswith("| mobilenet0.25 |")


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resnet5"]) == 2
    assert "resnet5" in capsys.readouterr().err
