"""Says, layer by layer, whether two nets of two frameworks compute the same thing.

from parity_tests import check_parity
report = check_parity(gluon_net, torch_net, inputs)
assert report.ok, report.first_divergence
"""

import importlib
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gluon_cnn_parity import __version__, lists_commands, needs

# Where only torch is installed, what needs no MXNet works all the same (`parity_tests.gate`).
if not lists_commands(__name__) and find_spec("mxnet") is not None:
    if "mxnet" not in sys.modules:
        import gluon_cnn  # noqa: F401  (settles threads and engine before MXNet loads)
    import mxnet  # noqa: F401  (before torch)

from parity_tests.backends.leaves import ParityError
from parity_tests.numerics.compare import Mismatch, Verdict, compare
from parity_tests.reporting.report import Report
from parity_tests.reporting.results import Divergence
from parity_tests.reporting.rows import Coverage, Row
from parity_tests.reporting.verdicts import LEVELS

if TYPE_CHECKING:
    from parity_tests.api import DEFAULT_LEVELS, check_parity

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
    "__version__",
    "check_parity",
    "compare",
]


def __getattr__(name: str) -> Any:
    """What needs both frameworks is imported when it is asked for."""
    if name in ("DEFAULT_LEVELS", "check_parity"):
        with needs("cpu,parity"):
            return getattr(importlib.import_module("parity_tests.api"), name)
    raise AttributeError(f"module 'parity_tests' has no attribute {name!r}")
