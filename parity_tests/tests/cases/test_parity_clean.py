"""What is right never alarms: random clean pairs."""

import pytest

from parity_tests import check_parity
from parity_tests.cases.random_pairs import random_case


@pytest.mark.parametrize("block", range(10))
def test_clean_random_pairs_never_alarm(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        case = random_case(seed)
        report = check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels)
        assert report.ok, f"{case.name}: {report}"
