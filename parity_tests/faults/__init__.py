"""The fault catalogue, and the kill matrix that it makes."""
