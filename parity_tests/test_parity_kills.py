"""The kill matrix as a table, in the page and in `report.json`."""

from dataclasses import dataclass

from jsonschema import Draft202012Validator

from parity_tests.html import page
from parity_tests.kill_table import kill_table, score
from parity_tests.report import Report
from parity_tests.report_files import document, schema


@dataclass(frozen=True)
class Outcome:
    """What became of one fault, as the catalogue says it."""

    fault: str
    level: str
    path: str
    caught_level: str
    caught_path: str
    diagnosis: str = ""
    expected_diagnosis: str = ""
    group: str = "weights"
    where: str = "lenet features.3"
    imitates: str = "a checkpoint stored in half precision"
    source: str = "an issue"
    message: str = "features.3 weights value: 41 u at (0,5,1,1), bound 16 u"
    seconds: float = 1.0

    @property
    def caught(self) -> bool:
        return bool(self.caught_level)

    @property
    def right_level(self) -> bool:
        return self.caught and self.caught_level == self.level

    @property
    def right_path(self) -> bool:
        return self.right_level and self.caught_path == self.path

    @property
    def diagnosed(self) -> bool:
        return bool(self.diagnosis) and self.diagnosis == self.expected_diagnosis

    @property
    def misdiagnosed(self) -> bool:
        return bool(self.diagnosis) and not self.diagnosed


OUTCOMES = (
    Outcome("float16", "weights", "features.3", "weights", "features.3", "float16", "float16"),
    Outcome("swapped", "weights", "features.3", "weights", "features.0", "", "swapped"),
    Outcome("coarse tanh", "forward", "features.1", "weights", "features.1", "bgr", ""),
    Outcome("means", "self-test", "compare", "self-test", "compare", group="checker"),
    Outcome("escaped", "forward", "features.2", "", ""),
)


def test_the_score_counts_what_was_caught_and_where() -> None:
    assert score(OUTCOMES) == {
        "total": 5, "caught": 4, "right_level": 3, "right_path": 2, "diagnosed": 1,
        "misdiagnosed": 1,
    }  # fmt: skip


def test_each_fault_has_its_sign_at_its_level() -> None:
    table = kill_table(OUTCOMES)
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
        "float16", "none (it is swapped)", "bgr (wrong: no name fits)", "—", "—",
    ]  # fmt: skip
    assert [g["total"] for g in table.groups.values()] == [4, 1]


def test_no_faults_no_matrix() -> None:
    assert kill_table(()) is None
    assert "Kill matrix" not in page([Report("net", ("forward",))])


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
    assert not document([Report("net", ("forward",))], OUTCOMES[:2])["ok"]
