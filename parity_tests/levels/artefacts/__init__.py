"""Level artefacts: every way in which an exported net can be opened computes the same."""
