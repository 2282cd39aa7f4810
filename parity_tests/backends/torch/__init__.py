"""PyTorch's adapter."""

from parity_tests.backends.torch.forks import begin_autograd

begin_autograd()  # before anything of torch can forbid forks
