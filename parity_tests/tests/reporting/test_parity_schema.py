"""`report.json` keeps to its schema, and the schema refuses what does not."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from parity_tests import check_parity
from parity_tests.cases.pairs import project_case
from parity_tests.reporting.files import document, schema, write_report
from parity_tests.reporting.report import Report
from parity_tests.reporting.results import SCHEMA
from parity_tests.reporting.rows import Row
from parity_tests.reporting.verdicts import LEVELS, Level, Status

OF_NETS = ("structure", "weights", "forward", "backward", "artefacts")


@pytest.fixture(scope="module")
def diverged() -> Report:
    case = project_case("lenet")
    with torch.no_grad():
        case.torch_net.get_parameter("features.3.weight")[1, 2, 3, 4] += 0.001
    return check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, OF_NETS)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


def test_a_real_report_keeps_to_the_schema(
    diverged: Report, validator: Draft202012Validator, tmp_path: Path
) -> None:
    case = project_case("lenet")
    clean = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, OF_NETS)
    write_report(tmp_path / "r", [clean, diverged])
    read = json.loads((tmp_path / "r" / "report.json").read_text())
    validator.validate(read)
    assert (read["schema"], read["ok"], read["faults"]) == (SCHEMA, False, None)
    first = read["reports"][1]["first_divergence"]
    assert (first["path"], first["level"]) == ("features.3", "weights")
    assert first["around"]["position"] == [1, 2, 3, 4]
    ours, theirs = (side["values"] for side in first["around"]["values"])
    assert [side["side"] for side in first["around"]["values"]] == ["Gluon", "PyTorch"]
    assert theirs[1][4] - ours[1][4] == pytest.approx(0.001, abs=1e-7)
    assert [answer["normal"] for answer in read["reports"][0]["answers"]] == [True, True]
    assert not read["reports"][1]["answers"][0]["normal"]


def test_numbers_that_json_has_not_keep_to_the_schema(validator: Draft202012Validator) -> None:
    rows = [
        Row(
            level=Level.FORWARD,
            path="a",
            quantity="output",
            status=Status.DIVERGED,
            error=number,
            bound=0.0,
            compared=1,
        )
        for number in (math.inf, -math.inf, math.nan)
    ]
    validator.validate(document([Report("net", (Level.FORWARD,), rows), Report("nothing", ())]))


def _pop(*keys: Any) -> Callable[[dict], None]:
    def change(read: Any) -> None:
        for key in keys[:-1]:
            read = read[key]
        del read[keys[-1]]

    return change


def _put(*keys: Any, value: Any) -> Callable[[dict], None]:
    def change(read: Any) -> None:
        for key in keys[:-1]:
            read = read[key]
        read[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _put("schema", value=1),
        _pop("faults"),
        _put("more", value=0),
        _pop("reports", 0, "answers"),
        _put("reports", 0, "levels", 0, value="feelings"),
        _put("reports", 0, "rows", 0, "status", value="fine"),
        _pop("reports", 0, "rows", 0, "error"),
        _put("reports", 0, "inherited", 0, "moved", value="nobody"),
        _pop("reports", 0, "inherited", 0, "gluon", "distance"),
        _put("reports", 0, "first_divergence", "around", "values", value=[]),
        _put("reports", 0, "coverage", "leaves", "compared", value=-1),
    ],
)
def test_the_schema_refuses(
    change: Callable[[dict], None], diverged: Report, validator: Draft202012Validator
) -> None:
    few = replace(diverged, rows=[row for row in diverged.rows if row.path == "features.3"])
    read = copy.deepcopy(document([few]))
    assert validator.is_valid(read)
    change(read)
    assert not validator.is_valid(read)


def test_every_field_of_a_row_is_in_the_schema() -> None:
    """And none is there that a row has not: the schema cannot fall behind."""
    read = json.loads(
        Report(
            "net",
            (Level.FORWARD,),
            [Row(level=Level.FORWARD, path="a", quantity="output", status=Status.OK)],
        ).to_json()
    )
    definitions = schema()["$defs"]
    assert set(read["rows"][0]) == set(definitions["row"]["properties"])
    assert set(read) == set(definitions["report"]["properties"])
    assert tuple(definitions["level"]["enum"]) == LEVELS


def test_nothing_is_written_where_the_page_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> str:
        raise RuntimeError("no page")

    monkeypatch.setattr("parity_tests.reporting.files.page", fail)
    with pytest.raises(RuntimeError):
        write_report(tmp_path / "r", [Report("net", ())])
    assert not (tmp_path / "r").exists()
