"""The command `python -m parity_tests.tests.pairing.real_faults`: the tables of planted faults."""

import sys

from parity_tests.tests.pairing.real_faults.table import main

sys.exit(main())
