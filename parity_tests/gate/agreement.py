"""Whether MXNet's and torch's net of one pair compute the same: the second verdict of a gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Accord(StrEnum):
    """What is said of two nets beside each other, whether or not one of them moved."""

    AGREED = "in agreement"
    APART = "not in agreement"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class PairAgreement:
    """Of one pair: the verdict, the first divergence or why nothing is judged, values compared."""

    verdict: Accord
    detail: str = ""
    compared: int = 0

    @property
    def sentence(self) -> str:
        return f"{self.verdict}: {self.detail}" if self.detail else self.verdict


def judge_pair(nets: Mapping[str, Any], inputs: Any, labels: Any, name: str) -> PairAgreement:
    """Compare two nets as `check_parity` does, with its pairing, at its default levels.

    Raises ParityError for what is no pair.
    """
    if len(nets) < 2:
        return PairAgreement(Accord.NOT_JUDGED, f"only {', '.join(nets)} is here")
    from parity_tests.api import check_parity  # needs both frameworks

    report = check_parity(nets["gluon"], nets["torch"], inputs, labels, name=name)
    compared = sum(row.compared for row in report.rows)
    if report.ok:
        return PairAgreement(Accord.AGREED, "", compared)
    detail = str(report.first_divergence)
    return PairAgreement(Accord.APART, detail.replace(*_REMEDY), compared)


# What check_parity offers for weights that were drawn apart, and what the plugin does
_REMEDY = ("transfer=True (--transfer)", "--parity-update --parity-transfer")
