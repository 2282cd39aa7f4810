"""When a report is ok, what comes first in it, and what it looks like as JSON."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from parity_tests.numerics.compare import compare
from parity_tests.reporting import results
from parity_tests.reporting.causes import consequences
from parity_tests.reporting.html import page
from parity_tests.reporting.report import Report
from parity_tests.reporting.results import SCHEMA
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.table import table
from parity_tests.reporting.verdicts import LEVELS, Check, Level, Status

OK = Row(
    level=Level.FORWARD,
    path="features.0",
    quantity="output",
    status=Status.OK,
    error=1.0,
    bound=16.0,
    compared=10,
)
BAD = Row(
    level=Level.FORWARD,
    path="features.3",
    quantity="output",
    status=Status.DIVERGED,
    check=Check.LOCAL,
    error=41.0,
    bound=16.0,
    compared=10,
    detail="41 u at (0,5,1,1), bound 16 u",
)
EMPTY = Row(
    level=Level.FORWARD,
    path="features.5",
    quantity="output",
    status=Status.NOT_COMPARED,
    detail="never ran",
)
NOTE = Row(
    level=Level.FORWARD,
    path="features.6",
    quantity="running_var",
    status=Status.NOTE,
    error=99.0,
    bound=16.0,
    compared=4,
)


def report(*rows: Row, levels: Sequence[Level] = (Level.FORWARD,)) -> Report:
    made = Report("net", tuple(levels))
    made.add(rows)
    return made


def test_a_report_is_ok_only_if_something_was_compared() -> None:
    assert report(OK).ok
    assert report(OK, NOTE).ok
    assert not report().ok
    assert not report(OK, EMPTY).ok
    assert not report(OK, BAD).ok
    assert not report(OK, levels=()).ok


def test_every_level_that_was_asked_for_must_have_compared() -> None:
    made = report(OK, levels=(Level.WEIGHTS, Level.FORWARD))
    assert not made.ok
    assert made.first_divergence is not None
    assert made.first_divergence.level == Level.WEIGHTS
    assert "nothing was compared" in str(made)


def test_what_is_missing_from_the_coverage_is_no_pass() -> None:
    made = report(OK)
    coverage = Coverage()
    coverage.expect("gradients", "features.0 weight gradient")
    coverage.expect("parameters", "features.0.weight", 30)
    coverage.expect("parameters", "features.1.weight", 10)
    coverage.done("parameters", "features.0.weight")
    made.add([], coverage)
    assert not made.ok
    assert made.coverage.percent() == {"gradients": 0.0, "parameters": 75.0}
    assert made.first_divergence is not None
    assert "features.0 weight gradient" in made.first_divergence.message


def test_coverage_cannot_be_had_by_comparing_what_nobody_expects() -> None:
    coverage = Coverage()
    coverage.expect("leaves", "a")
    coverage.done("leaves", "b")
    assert coverage.percent() == {"leaves": 0.0}


def test_none_exactly_when_ok() -> None:
    for made in (report(OK), report(), report(BAD), report(EMPTY), report(OK, NOTE)):
        assert (made.first_divergence is None) == made.ok


def test_causes_come_before_effects() -> None:
    """Levels in causal order; within one the order of computation; what is missing comes last."""
    late = Row(
        level=Level.BACKWARD,
        path="features.0",
        quantity="weight gradient",
        status=Status.DIVERGED,
        compared=1,
    )
    early = Row(
        level=Level.WEIGHTS,
        path="classifier.5",
        quantity="weight",
        status=Status.DIVERGED,
        compared=1,
    )
    made = report(late, EMPTY, BAD, early, levels=(Level.WEIGHTS, Level.FORWARD, Level.BACKWARD))
    order = [(row.level, row.path) for row in made.failures]
    assert order == [
        ("weights", "classifier.5"),
        ("forward", "features.3"),
        ("forward", "features.5"),
        ("backward", "features.0"),
    ]


def own_stream(level: Level, path: str, quantity: str = "output") -> Row:
    return replace(BAD, level=level, path=path, quantity=quantity, check=Check.INHERITED)


def gradient(path: str, status: Status = Status.DIVERGED) -> Row:
    return replace(
        BAD, level=Level.BACKWARD, path=path, quantity="input gradient", status=status
    )  # fmt: skip


def test_what_only_follows_from_a_divergence_comes_after_every_cause() -> None:
    places = [replace(OK, path=path, check=Check.LOCAL) for path in ("a", "b")]
    fault = replace(BAD, path="c")
    streams = [own_stream(Level.FORWARD, path) for path in ("b", "c", "d", "(net)")]
    statistics = own_stream(Level.BACKWARD, "b", "running_mean")
    gradients = [own_stream(Level.BACKWARD, path, "weight gradient") for path in ("a", "d")]
    after = replace(OK, path="d", check=Check.LOCAL)
    made = report(*places, fault, after, *streams, statistics, *gradients)
    assert made.failures[:3] == [fault, streams[0], statistics]  # b is computed before c
    follows = [*streams[1:], *gradients]
    assert [made.consequences[id(row)] for row in follows] == [fault] * 5
    assert made.failures[3:] == [*streams[1:], *gradients[::-1]]
    rows = json.loads(made.to_json())["rows"]
    assert [row["follows"] for row in rows[4:]] == [None, "c", "c", "c", None, "c", "c"]


def test_what_follows_is_worked_out_once_for_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(rows: Sequence[Row]) -> dict[int, Row]:
        asked.append(len(rows))
        return consequences(rows)

    monkeypatch.setattr(results, "consequences", spy)
    made = report(OK, BAD)
    for _ in range(3):
        assert made.failures == [BAD]
        assert not made.consequences
        made.to_json()
    made.failures.clear()
    assert made.outcome == "diverged"
    assert asked == [2]
    made.add([EMPTY])
    assert made.failures == [BAD, EMPTY]
    made.rows[1] = replace(BAD, path="features.0")
    assert made.failures[0].path == "features.0"
    assert asked == [2, 3, 3]


def test_gradients_differ_first_where_they_are_computed_first() -> None:
    locals_ = [gradient("a"), gradient("b", Status.OK), gradient("c"), gradient("d", Status.OK)]
    streams = [own_stream(Level.BACKWARD, path, "weight gradient") for path in "abcd"]
    made = report(*locals_, *streams, levels=(Level.BACKWARD,))
    assert made.first_divergence is not None
    assert made.first_divergence.path == "c"
    assert made.failures == [locals_[2], locals_[0], streams[3], *streams[2::-1]]
    assert {made.consequences[id(row)].path for row in streams[:3]} == {"c", "a"}
    assert id(streams[3]) not in made.consequences


def test_the_page_and_the_terminal_say_the_same_of_every_level() -> None:
    rows = [
        replace(OK, level=Level.STRUCTURE),
        replace(EMPTY, level=Level.WEIGHTS),
        BAD,
        replace(EMPTY, path="features.7"),
    ]
    levels = (Level.STRUCTURE, Level.WEIGHTS, Level.FORWARD, Level.BACKWARD)
    made = report(*rows, levels=levels)
    said = re.findall(r"^net +(\w+) +(\w+(?: \w+)?)  ", table([made], levels), re.MULTILINE)
    shown = re.findall('data-label="verdict" class="[a-z]+">([^<]*)<', page([made]))
    assert shown == ["parity", "not compared", "diverged", "nothing compared"]
    assert [made.finding(level) for level in levels] == ["", *shown[1:]]
    assert said == [*zip(levels, ["ok", *shown[1:]], strict=True)]
    made.rows[0] = replace(BAD, level=Level.STRUCTURE)
    assert made.finding(Level.STRUCTURE) == "differs"


def test_the_message_has_the_form_of_the_design() -> None:
    first = report(BAD).first_divergence
    assert first is not None
    assert first.message.startswith("features.3 forward local: 41 u at (0,5,1,1), bound 16 u")
    assert (first.level, first.path, first.quantity) == (Level.FORWARD, "features.3", "output")
    assert (first.error, first.bound) == (41.0, 16.0)


def test_a_note_is_never_the_worst_of_what_passed() -> None:
    worst = report(OK, NOTE).worst("forward")
    assert worst is not None
    assert worst.path == "features.0"


def test_a_row_takes_over_all_of_a_verdict() -> None:
    verdict = compare(np.array([1.0, 2.5]), np.array([1.0, 2.0]), scale=1.0, unit="float64")
    row = Row.judged(verdict, level=Level.FORWARD, path="a", quantity="output")
    assert row.status == Status.DIVERGED
    assert row.position == (1,)
    assert row.values == (2.5, 2.0)
    assert row.compared == 2
    assert row.fraction == pytest.approx(0.5 * 2**53 / 16)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_json_has_no_number_that_json_has_not(number: float) -> None:
    row = Row(
        level=Level.FORWARD,
        path="a",
        quantity="output",
        status=Status.DIVERGED,
        error=number,
        bound=0.0,
        compared=1,
    )
    text = report(row).to_json()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["rows"][0]["error"] == str(number)


def test_json_says_what_the_object_says() -> None:
    made = report(OK, BAD, NOTE)
    read = json.loads(made.to_json())
    assert read["schema"] == SCHEMA
    assert read["ok"] is False
    assert read["first_divergence"]["path"] == "features.3"
    assert [row["status"] for row in read["rows"]] == ["ok", "diverged", "note"]
    assert read["rows"][0]["fraction"] == 1 / 16


def test_the_levels_are_those_of_the_design() -> None:
    wanted = ("structure", "weights", "forward", "backward", "artefacts", "data")
    assert [level for level in LEVELS if level in wanted] == list(wanted)
