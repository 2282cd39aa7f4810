"""Scales, tolerances and reference values: what is compared, and how closely."""
