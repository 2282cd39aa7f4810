"""The kill matrix as a table, in the page and in `report.json`."""

from typing import Any

from jsonschema import Draft202012Validator

from parity_tests.reporting.files import document, schema
from parity_tests.reporting.html import page
from parity_tests.reporting.kill_matrix import Outcome, kill_matrix, score
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level


def outcome(fault: str, *places: str, named: str = "", name: str = "", **more: Any) -> Outcome:
    """What became of a fault: `places` are the level and path expected, then those found."""
    level, path, caught_level, caught_path = places
    texts = {
        "group": "weights", "where": "lenet features.3", "imitates": "half precision",
        "source": "an issue", "message": "features.3 weights value: 41 u at (0,5,1,1)",
    }  # fmt: skip
    return Outcome(
        fault=fault, level=Level(level), path=path, caught_level=Level(caught_level),
        caught_path=caught_path,
        diagnosis=named, expected_diagnosis=name, seconds=1.0, **{**texts, **more},
    )  # fmt: skip


OUTCOMES = (
    outcome("float16", "weights", "features.3", "weights", "features.3", named="half", name="half"),
    outcome("swapped", "weights", "features.3", "weights", "features.0", name="swapped weight"),
    outcome("coarse tanh", "forward", "features.1", "weights", "features.1", named="BGR"),
    outcome("means", "self-test", "compare", "self-test", "compare", group="checker"),
    outcome("escaped", "forward", "features.2", "", ""),
)


def test_the_score_counts_what_was_caught_and_where() -> None:
    assert score(OUTCOMES) == {
        "total": 5, "caught": 4, "right_level": 3, "right_path": 2, "diagnosed": 1,
        "misdiagnosed": 1,
    }  # fmt: skip


def test_each_fault_has_its_sign_at_its_level() -> None:
    table = kill_matrix(OUTCOMES)
    assert table is not None
    assert table.levels == ("weights", "forward", "self-test")
    assert [[cell.sign for cell in cells] for _, cells, _ in table.rows] == [
        ["●", "", ""],
        ["◐", "", ""],
        ["✕", "○", ""],
        ["", "", "●"],
        ["", "○", ""],
    ]
    assert [named for _, _, named in table.rows] == [
        "half", "none (it is swapped weight)", "BGR (wrong: no name fits)", "—", "—",
    ]  # fmt: skip
    assert [g["total"] for g in table.groups.values()] == [4, 1]


def test_no_faults_no_matrix() -> None:
    assert kill_matrix(()) is None
    assert "Kill matrix" not in page([Report("net", (Level.FORWARD,))])


def test_the_environment_is_there_with_or_without_nets() -> None:
    assert document([], OUTCOMES)["environment"]["mxnet"]
    assert "OMP_NUM_THREADS" in page([], OUTCOMES).replace("<wbr>", "")


def test_the_file_holds_the_matrix_and_is_not_ok_with_a_fault_that_escaped() -> None:
    validator = Draft202012Validator(schema())
    read = document([], OUTCOMES)
    validator.validate(read)
    assert (read["ok"], read["faults"]["caught"]) == (False, 4)
    assert [o["right_path"] for o in read["faults"]["outcomes"]] == [
        True,
        *[False] * 2,
        True,
        False,
    ]
    assert document([], OUTCOMES[:2])["ok"]
    assert not document([Report("net", (Level.FORWARD,))], OUTCOMES[:2])["ok"]
