"""The faults by kind; `parity_tests.faults` is the entrance."""
