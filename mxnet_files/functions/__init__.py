"""MXNet's operators where torch's namesake differs, in code that TorchScript reads."""
