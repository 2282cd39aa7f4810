"""Which operation of one net belongs to which of the other."""
