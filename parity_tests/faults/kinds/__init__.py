"""The faults by kind; `parity_tests.faults.catalogue` is the entrance."""
