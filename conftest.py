"""Loads MXNet the way the commands do, before any test module can import it differently."""

import gc
import os

# Test processes share the machine: each takes its part of the cores, and what it starts does too.
# With more threads than cores, those that wait keep the others from working.
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _PROCESSES > 1:
    _CORES = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _CORES // _PROCESSES)))

import gluon_cnn  # noqa: E402, F401


def pytest_collection_finish() -> None:
    """Take what stays until the end, two frameworks above all, out of the collector's way."""
    gc.collect()
    gc.freeze()
