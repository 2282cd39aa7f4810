"""Says, layer by layer, whether two nets of two frameworks compute the same thing.

from parity_tests import check_parity
report = check_parity(gluon_net, torch_net, inputs)
assert report.ok, report.first_divergence
"""

import sys

if "mxnet" not in sys.modules:
    import gluon_cnn  # noqa: F401  (settles threads and engine before MXNet loads)
import mxnet  # noqa: F401  (before torch)

from parity_tests.api import DEFAULT_LEVELS, check_parity
from parity_tests.compare import Mismatch, Verdict, compare
from parity_tests.leaves import ParityError
from parity_tests.report import LEVELS, Coverage, Divergence, Report, Row

__all__ = [
    "DEFAULT_LEVELS",
    "LEVELS",
    "Coverage",
    "Divergence",
    "Mismatch",
    "ParityError",
    "Report",
    "Row",
    "Verdict",
    "check_parity",
    "compare",
]
