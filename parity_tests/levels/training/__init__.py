"""Level training: N steps on real batches, resynchronised and free-running."""
