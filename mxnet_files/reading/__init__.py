"""Files on disk to checked numpy arrays and graphs; no framework."""
