"""Rows, verdicts, pages, tables and charts."""
