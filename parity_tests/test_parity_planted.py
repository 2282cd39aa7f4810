"""The suite catches what it says it catches, at the right level and layer; and nothing else."""

import pytest

from parity_tests import check_parity
from parity_tests.cases import project_case
from parity_tests.planted import PLANTED, Fault
from parity_tests.random_pairs import random_case
from parity_tests.report import Report

LEVELS = ("structure", "weights", "forward", "backward", "artefacts")


def _report(fault: Fault) -> Report:
    case = project_case(fault.model)
    fault.plant(case)
    return check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, LEVELS)


@pytest.mark.parametrize("fault", PLANTED, ids=lambda f: f.name.replace(" ", "-"))
def test_a_planted_fault_is_caught_where_it_is(fault: Fault) -> None:
    report = _report(fault)
    assert not report.ok
    first = report.first_divergence
    assert first is not None
    assert (first.level, first.path) == (fault.level, fault.path), first.message


def test_every_level_has_three_planted_faults() -> None:
    for level in LEVELS:
        assert sum(fault.level == level for fault in PLANTED) >= 3
    assert len({fault.name for fault in PLANTED}) == len(PLANTED)


@pytest.mark.parametrize("block", range(10))
def test_clean_random_pairs_never_alarm(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        case = random_case(seed)
        report = check_parity(
            case.gluon_net, case.torch_net, case.inputs, case.labels,
        )  # fmt: skip
        assert report.ok, f"{case.name}: {report}"
