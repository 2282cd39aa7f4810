"""Numbers and colours of a terminal, in every command."""

import io
import math
import os
import select

import pytest

from gluon_cnn.summary import align
from gluon_cnn_parity.cli import Parser
from gluon_cnn_parity.stderr import say_if_read
from gluon_cnn_parity.terminal import coloured, columns, short
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import Row
from parity_tests.reporting.table import table
from parity_tests.reporting.verdicts import Level, Status


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (673218606992.764, "6.7e11"), (-2e-9, "-2.0e-9"), (1.0, "1.000"), (9999.0, "9999.000"),
        (0.0, "0"), (math.inf, "inf"), (math.nan, "nan"),
    ],
)  # fmt: skip
def test_a_number_is_short(value: float, text: str) -> None:
    assert short(value) == text


def test_columns_hold_names_of_any_script() -> None:
    names = ["cat", "\u732b", "e\u0301", "\U0001f436 dog", "\u0633\u0645\u0643\u0629"]
    assert list(map(columns, names)) == [3, 2, 1, 6, 4]
    lines = align([(name, "1") for name in names], left=1)
    assert {columns(line) for line in lines} == {9}


def test_colour_is_for_terminals_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert coloured("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("TERM", "dumb")
    assert coloured("x", "red", Terminal()) == "x"
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("x", "red", Terminal()) == "x"


def test_verdicts_stand_in_their_column_and_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    reports = []
    for name, status, error in (("ok", Status.OK, 1e-20), ("b", Status.DIVERGED, 673218606992.764)):
        report = Report(name, (Level.FORWARD,))
        report.add(
            [
                Row(
                    level=Level.FORWARD, path="a.b", quantity="output", status=status, error=error,
                    bound=1.0, compared=7,
                )
            ]
        )  # fmt: skip
        reports.append(report)
    plain = table(reports, (Level.FORWARD,)).splitlines()
    assert "6.7e11" in plain[3]
    assert "673218606992" not in plain[3]
    assert plain[2].index("1.0e-20") + len("1.0e-20") == plain[3].index("6.7e11") + len("6.7e11")
    shown = table(reports, (Level.FORWARD,), Terminal()).splitlines()
    assert shown[2].startswith("ok ")  # the model's name has no colour
    assert "\x1b[32mok" in shown[2]
    assert "\x1b[31mdiverged" in shown[3]
    for line, same in zip(shown, plain, strict=True):
        stripped = line
        for code in ("\x1b[31m", "\x1b[32m", "\x1b[0m"):
            stripped = stripped.replace(code, "")
        assert stripped == same


def test_errors_are_red_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for stream, said in ((Terminal(), "\x1b[31merror:\x1b[0m"), (io.StringIO(), "t: error: ")):
        monkeypatch.setattr("sys.stderr", stream)
        with pytest.raises(SystemExit):
            Parser(prog="t").parse_args(["--nothing"])
        assert said in stream.getvalue()


def test_a_last_line_does_not_wait_for_a_pipe_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    stderr = os.dup(2)
    os.dup2(writer, 2)
    try:
        say_if_read("é\udcff")
        assert os.read(reader, 100) == "é\\udcff\n".encode()
        while select.select([], [2], [], 0)[1]:
            os.write(2, bytes(4096))
        say_if_read("nobody reads this")
        os.close(2)
        say_if_read("nor this")
    finally:
        os.dup2(stderr, 2)
        for descriptor in (stderr, reader, writer):
            os.close(descriptor)
