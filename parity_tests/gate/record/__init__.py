"""Takes a snapshot's quantities: operations alone, the net as a whole, update rules."""
