"""The command `python -m parity_tests.tests.pairing.real_faults`: the tables of planted faults."""

import sys

from parity_tests.tests.pairing.real_faults.table import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
