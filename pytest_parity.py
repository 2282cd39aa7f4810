"""pytest plugin: `pytest --parity-baseline DIR` holds your own pairs against a recorded baseline.

The pairs are a `parity_pairs` fixture, {name: (gluon_net, torch_net, inputs[, labels])}, or lines
of the configuration entry `parity_pairs`, `name = pkg:gluon_net | pkg:torch_net | 1,3,32,32`.
A pair fails where one of its nets moved, and where the two disagree; `parity_apart` lines,
`name = reason`, say of which pairs that is expected.
Without --parity-baseline nothing happens, and neither framework is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gluon_cnn_parity import __version__ as __version__

if TYPE_CHECKING:
    from parity_tests.gate.session import Gate, PairOutcome

FIXTURE = "parity_pairs"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("parity", "upgrade gate of MXNet and torch pairs")
    group.addoption("--parity-baseline", metavar="DIR", help="snapshot to hold the pairs against")
    group.addoption(
        "--parity-update", action="store_true", help="record the baseline instead of comparing"
    )
    group.addoption(
        "--parity-transfer",
        action="store_true",
        help="with --parity-update: record each torch net with its Gluon net's weights",
    )
    group.addoption(
        "--parity-report",
        metavar="DIR",
        default="parity-report",
        help="where gate.html, gate.json and junit.xml go (default: parity-report)",
    )
    parser.addini(
        "parity_pairs", "name = pkg:gluon_net | pkg:torch_net | 1,3,32,32", type="linelist"
    )
    parser.addini(
        "parity_apart", "name = why the two nets of this pair may disagree", type="linelist"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("parity_baseline", None):
        return
    folder = Path(config.getoption("parity_report"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # said before hours of work
        raise pytest.UsageError(f"--parity-report {folder}: {error.strerror}") from error
    if not config.getoption("xmlpath", None):  # for pytest's own writer, which comes after this
        config.option.xmlpath = str(folder / "junit.xml")
    if hasattr(config, "workerinput") or config.getoption("numprocesses", None):
        raise pytest.UsageError("--parity-baseline compares in one process; add -n 0")
    baseline = Path(config.getoption("parity_baseline"))
    if not (config.getoption("parity_update") or baseline.exists()):
        raise pytest.UsageError(  # before the frameworks are imported
            f"--parity-baseline: {baseline} does not exist, expected the folder of a snapshot "
            "(record one with --parity-update)"
        )


def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    config = session.config
    baseline = config.getoption("parity_baseline", None)
    if not baseline:
        return
    from parity_tests.gate.session import Gate, GateError, entries, reasons

    try:
        gate = Gate(
            Path(baseline),
            config.getoption("parity_update"),
            apart=reasons(config.getini("parity_apart")),
            transfer=config.getoption("parity_transfer"),
            root=config.rootpath,
        )
        for name, make in entries(config.getini("parity_pairs"), config.rootpath).items():
            items.append(PairItem.from_parent(session, name=name, gate=gate, make=make))
    except GateError as error:
        raise pytest.UsageError(str(error)) from error
    found = _fixture_home(session, items)
    if found is not None:
        check = _check_fixture(gate)
        items.append(pytest.Function.from_parent(found, name=f"{FIXTURE}", callobj=check))
    if not items or (not gate.expected and found is None):
        raise pytest.UsageError(
            "--parity-baseline has no pairs: define a parity_pairs fixture, or the configuration "
            "entry parity_pairs"
        )
    config.stash[_GATE] = gate


_GATE: pytest.StashKey[Gate] = pytest.StashKey()
_WRITTEN: pytest.StashKey[str] = pytest.StashKey()


def _fixture_home(session: pytest.Session, items: list[pytest.Item]) -> Any:
    """The first collected module that can see the fixture; None where there is none."""
    for item in items:
        module = item.getparent(pytest.Module)
        if module is not None and session._fixturemanager.getfixturedefs(FIXTURE, module):
            return module
    return None


def _check_fixture(gate: Gate) -> Callable[..., None]:
    def check(parity_pairs: Any) -> None:
        if not isinstance(parity_pairs, dict) or not parity_pairs:
            pytest.fail("parity_pairs is not a dict of pairs, or is empty", pytrace=False)
        outcomes = [
            gate.check(name, partial(gate.of, name, pair)) for name, pair in parity_pairs.items()
        ]
        _end(outcomes)

    return check


def _end(outcomes: Sequence[PairOutcome]) -> None:
    """Fail, or be an expected failure, by what was found."""
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
    expected = [f"{outcome.name}: {outcome.expected}" for outcome in outcomes if outcome.expected]
    if expected:
        pytest.xfail("; ".join(expected))


class PairItem(pytest.Item):
    """One pair of the configuration; its failure is the verdict's sentence."""

    def __init__(self, *, gate: Gate, make: Callable[[], Any], **more: Any) -> None:
        super().__init__(**more)
        self._gate, self._make = gate, make
        gate.expected.append(self.name)

    def runtest(self) -> None:
        _end([self._gate.check(self.name, self._make)])

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"parity of {self.name}"


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    gate = session.config.stash.get(_GATE, None)
    broken_off = exitstatus in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
    if gate is not None and not session.config.getoption("collectonly"):
        if gate.update and broken_off:  # a part of the pairs is no baseline
            session.config.stash[_WRITTEN] = "none, since the session was broken off"
            return (yield)
        try:
            written = gate.finish(Path(session.config.getoption("parity_report")))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise pytest.UsageError(f"{where}{error.strerror or error}") from error
        if written is not None:
            session.config.stash[_WRITTEN] = str(written)
    return (yield)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Both verdicts of every pair, and where the report is."""
    gate, written = config.stash.get(_GATE, None), config.stash.get(_WRITTEN, None)
    if gate is None:
        return
    terminalreporter.section("parity")
    for outcome in gate.outcomes:
        color = {"red" if outcome.problem else "green" if outcome.green else "yellow": True}
        terminalreporter.write_line(outcome.sentence, **color)
    if written is not None:
        terminalreporter.write_line(f"{'baseline' if gate.update else 'report'}: {written}")
