"""Faults planted into nets that others wrote, and what the checker makes of each."""
