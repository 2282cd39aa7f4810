"""Faults in fake new versions: the gate must say which framework moved, and at which leaf."""

import pytest

from parity_tests.gate.change import Change
from parity_tests.gate.snapshot import RULES_NAME, take_snapshot
from parity_tests.gate.store import Snapshot
from parity_tests.gate.verdict import Comparison, compared
from parity_tests.tests.gate.plain import plain_subject
from parity_tests.tests.gate.shims import SHIMS, Shim, planted


@pytest.fixture(scope="module")
def baseline() -> Snapshot:
    return take_snapshot([plain_subject()])


def moved_under(shim: Shim, baseline: Snapshot) -> Comparison:
    """The plain pair, or the update rules, with the changed version beside the old snapshot."""
    with planted(shim):
        new = take_snapshot([] if shim.rules else [plain_subject()], rules=shim.rules)
    names = [RULES_NAME] if shim.rules else ["plain"]
    old = Snapshot(
        baseline.fingerprint, baseline.settings, subjects={n: baseline.subjects[n] for n in names}
    )
    return compared(old, new)


# A fifth of them by default: they take a second each
CASES = [
    pytest.param(
        shim, id=f"{shim.side}: {shim.name}", marks=[] if i % 5 == 0 else [pytest.mark.slow]
    )
    for i, shim in enumerate(SHIMS)
]


@pytest.mark.parametrize("shim", CASES)
def test_a_changed_operator_is_laid_to_its_framework_and_leaf(
    shim: Shim, baseline: Snapshot
) -> None:
    found = moved_under(shim, baseline)
    side, other = found.sides[shim.side], found.sides["torch" if shim.side == "gluon" else "gluon"]
    assert other.verdict == Change.UNCHANGED
    assert side.verdict == shim.verdict, side.sentence
    assert side.first is not None
    assert (side.first.level, side.first.path) == (shim.level, shim.path), side.sentence
    assert "the library changed (version" in side.sentence
    assert found.ok == (shim.verdict != Change.SEMANTICS)


def test_an_unchanged_version_is_bit_equal(baseline: Snapshot) -> None:
    again = take_snapshot([plain_subject()])
    found = compared(baseline, again)
    assert found.verdict == Change.UNCHANGED
    assert {side.compared > 100 for side in found.sides.values()} == {True}
    assert not found.changed
    assert all(not each.apart and each.compared > 100 for each in found.agreements)


def test_there_are_enough_of_them_on_both_sides() -> None:
    semantic = [shim for shim in SHIMS if shim.verdict == Change.SEMANTICS]
    assert len(semantic) >= 20
    assert {side: sum(s.side == side for s in semantic) >= 10 for side in ("gluon", "torch")} == {
        "gluon": True,
        "torch": True,
    }
