"""One measurement: `python -m benchmarks.child JSON` prints one JSON object.

The side decides what is imported, and in which order: MXNet before `gluon_cnn` stays untuned.
"""

from __future__ import annotations

import json
import resource
import sys
import warnings
from typing import Any

from benchmarks.cases import Case

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """The process; returns 0."""
    (text,) = sys.argv[1:] if argv is None else argv
    case = Case(**json.loads(text))
    result = _measure(case)
    result["peak_mb"] = result.get("peak_mb") or round(
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1
    )
    print(json.dumps(result, allow_nan=False))
    return 0


def _measure(case: Case) -> dict[str, Any]:
    if case.side == "numpy":
        from benchmarks import numpy_side

        return numpy_side.measure(case)
    if case.side in ("untuned", "source"):
        warnings.simplefilter("ignore")  # gluon_cnn says that MXNet came first: it is meant to
        import mxnet  # noqa: F401
    if case.side == "source":
        from benchmarks import source_script

        return source_script.measure(case)
    if case.side in ("onnxruntime", "openvino"):
        from benchmarks import numpy_side

        return numpy_side.measure_engine(case)
    if case.side in ("untuned", "own_loop", "ours", "auto"):
        from benchmarks import gluon_side

        return gluon_side.measure(case)
    from benchmarks import torch_side

    return torch_side.measure(case)


if __name__ == "__main__":
    sys.exit(main())
