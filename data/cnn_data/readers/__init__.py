"""Original files to arrays, each format by its own reader."""
