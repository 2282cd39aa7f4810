"""What explains a divergence: named hypotheses, each tried on the values."""
