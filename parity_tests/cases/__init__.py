"""Pairs of nets that compute the same: twins, random ones, the user's own."""
