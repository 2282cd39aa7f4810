"""Nets that were run elsewhere: the scripts that record them there, and the adapter of a record."""
