"""The same bits or the same function, faster."""
