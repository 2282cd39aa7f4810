"""The fault catalogue, and what the checker makes of it: the kill matrix.

from parity_tests.faults.catalogue import outcomes
for outcome in outcomes():
    print(outcome.fault, outcome.caught_level)

A checker is worth what it catches. Every entry of FAULTS is planted into something that is right,
and must be seen first at the level and path that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parity_tests.faults.base import Fault
from parity_tests.faults.kinds.arithmetic import ARITHMETIC
from parity_tests.faults.kinds.artefacts import ARTEFACTS
from parity_tests.faults.kinds.batchnorm import BATCHNORM
from parity_tests.faults.kinds.checker import CHECKER
from parity_tests.faults.kinds.optimizers import OPTIMIZERS
from parity_tests.faults.kinds.streams import DATA
from parity_tests.faults.kinds.structure import STRUCTURE
from parity_tests.faults.kinds.training import LOSS
from parity_tests.faults.kinds.weights import WEIGHTS
from parity_tests.reporting.kill_matrix import Outcome

FAULTS: tuple[Fault, ...] = (
    *WEIGHTS,
    *STRUCTURE,
    *ARITHMETIC,
    *BATCHNORM,
    *LOSS,
    *OPTIMIZERS,
    *DATA,
    *ARTEFACTS,
    *CHECKER,
)


def outcomes(faults: Iterable[Fault] = FAULTS) -> Iterator[Outcome]:
    """Plant one fault after the other; each outcome as it comes."""
    for fault in faults:
        yield fault.outcome()
