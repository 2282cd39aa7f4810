"""Exported files: written, opened again, proven."""
