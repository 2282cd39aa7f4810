"""PyTorch's adapter."""
