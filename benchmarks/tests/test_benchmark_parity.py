"""The table of what a check costs, from made-up measurements; the real ones are for the command."""

from importlib.util import find_spec

import pytest

from benchmarks import parity
from benchmarks.parity import COSTS, Cost


def test_a_row_has_its_figures_beside_what_they_may_be() -> None:
    def measure(cost: Cost) -> dict:
        if cost.gluon == "densenet121":
            return {"ok": False, "first": "the process ended: SIGFPE"}
        return {"ok": True, "ops": 50, "sec": 4.5, "cpu": 6.0, "mb": 1536}

    lines = list(parity.rows(COSTS, measure))
    assert lines[2] == "| resnet18_v1 | 2 × 64² | 50 | 4.5 (6) | 6.0 | 120 | 1.5 (1.5) |"
    assert lines[3] == "| resnet18_v1 | 2 × 128² | 50 | 4.5 | 6.0 | 120 | 1.5 |"
    assert lines[-2].startswith("| resnet50b, `--quick` | 2 × 224² | 50 | 4.5 (10) |")
    assert lines[-1] == "| densenet121 | the process ended: SIGFPE |"


def test_another_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main(["resnet"]) == 2
    assert "resnet is no pair here: expected densenet121" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")
def test_a_real_measurement() -> None:
    (cost,) = (cost for cost in COSTS if cost.gluon == "resnet34_v1")
    row = list(parity.rows([cost._replace(quick=True)]))[-1]
    assert row.startswith("| resnet34_v1, `--quick` | 2 × 64² | 124 |")
