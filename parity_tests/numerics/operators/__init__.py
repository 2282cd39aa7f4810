"""One record per operator kind, a module per family; every list of kinds is derived from them."""
