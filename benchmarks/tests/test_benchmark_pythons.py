"""The benchmark of Pythons: turns, ratios against the first, and failures in one line."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks.cases import Turn
from benchmarks.pythons import WORK, main, measure, rows
from cnn_harness.errors import CommandError


def test_interpreters_take_turns_and_the_order_turns_too() -> None:
    order: list[str] = []

    @contextlib.contextmanager
    def begin(python: str, work: str, steps: int) -> Iterator[Turn]:
        def turn(number: int) -> Mapping[str, Any]:
            order.append(f"{work} {python} {number}")
            return {"cpu": float(steps)}

        order.append(f"{python} is ready")
        yield turn

    runs = measure(["a", "b"], 2, 7, begin)
    ready = ["a is ready", "b is ready"]
    assert order == [
        *ready, "train a 0", "train b 0", "train b 1", "train a 1",
        *ready, "parity a 0", "parity b 0", "parity b 1", "parity a 1",
    ]  # fmt: skip
    assert runs["train"]["a"] == [{"cpu": 7.0}, {"cpu": 7.0}]


def test_the_table_has_medians_and_ratios_turn_by_turn() -> None:
    def turns(seen: str, *cpu: float) -> list[dict[str, Any]]:
        return [{"seen": seen, "cpu": value, "wall": 2 * value} for value in cpu]

    one = {"a": turns("3.11", 1.0, 2.0, 4.0), "b": turns("3.13", 1.5, 2.0, 2.0)}
    lines = rows(dict.fromkeys(WORK, one))
    assert lines[2] == "| 3.11 | 2 (1–4) | 4 (2–8) | 2 (1–4) | 4 (2–8) |"
    assert lines[3].startswith(
        "| 3.13 | 2 (1.5–2), 1.00 (0.50–1.50) | 4 (3–4), 1.00 (0.50–1.50) | 2 (1.5–2), "
    )


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_an_environment_that_fails_is_named(python: str) -> None:
    with pytest.raises(CommandError, match=f"^{python}, train: "):
        measure([python], 1, 1)


@pytest.mark.slow
def test_a_real_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([sys.executable, "--repeats", "1", "--steps", "5"]) == 0
    assert capsys.readouterr().out.count(f"| {sys.version.split()[0]}, ") == 1
