"""Freed memory is used again where that is asked for."""

import subprocess
import sys

from parity_tests.backends import heap

PROGRAM = """
import resource, runpy, sys
import numpy as np

if sys.argv[1] == "kept":
    assert runpy.run_path(sys.argv[2])["keep_freed_memory"]()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8_000_000)
before = faults()
for _ in range(10):
    np.ones(8_000_000)  # 64 MB: 16,000 pages
print(faults() - before)
"""


def _faults(how: str) -> int:
    command = [sys.executable, "-c", PROGRAM, how, heap.__file__]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_arrays_take_the_place_of_freed_ones() -> None:
    assert _faults("kept") < 100
    assert _faults("as it is") > 100
