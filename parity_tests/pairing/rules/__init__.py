"""The rules by which equal computations get one form."""
