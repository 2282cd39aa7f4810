"""The suite catches what it says it catches, at the right level and layer."""

import pytest

from parity_tests.faults import FAULTS, GROUPS, MATRIX_LEVELS, Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.group}:{f.name.replace(' ', '-')}")
def test_a_fault_is_caught_where_it_is(fault: Fault) -> None:
    outcome = fault.outcome()
    assert outcome.caught, "it escaped"
    assert (outcome.caught_level, outcome.caught_path) == (fault.level, fault.path), outcome.message


def test_the_catalogue_is_whole() -> None:
    assert len(FAULTS) >= 70
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.group for fault in FAULTS} <= set(GROUPS)
    for fault in FAULTS:
        assert fault.level in MATRIX_LEVELS
        assert all((fault.where, fault.imitates, fault.source, fault.path)), fault.name
