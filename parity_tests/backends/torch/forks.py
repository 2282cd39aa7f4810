"""Keeps torch's autograd usable in a forked process, where torch can.

Autograd makes a thread for each device at its first backward pass, and refuses from then on to work
in a forked process. A CUDA build counts a device even where there is none once `torch.export` or
`torch.compile` has run: begun before them, autograd makes no thread.
"""

from __future__ import annotations

import torch

from parity_tests.backends.leaves import ParityError


def begin_autograd() -> None:
    """One backward pass, unless there are GPUs: their threads would forbid forks from then on."""
    if not torch.cuda.device_count():
        _backward()


def refuse_dead_autograd() -> None:
    """Raises ParityError in a forked process in which autograd does not work."""
    try:
        _backward()
    except RuntimeError as error:
        raise ParityError(
            "torch's autograd does not work in a child process once it has run beside a GPU, or "
            "after torch.export in a CUDA build: check before that, or without isolate=True"
        ) from error


def _backward() -> None:
    with torch.enable_grad():
        torch.ones(1, requires_grad=True).sum().backward()
