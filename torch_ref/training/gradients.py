"""Between backward and update: gradients added up over the parts of a batch, and clipped."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["accumulate", "clip_norm"]

Part = tuple[torch.Tensor, torch.Tensor]


def accumulate(objective: nn.Module, batches: Iterable[Part]) -> Iterator[Part]:
    """The parts of a batch; the processes of a job exchange gradients after the last one alone."""
    parts = list(batches)
    for number, part in enumerate(parts, 1):
        with contextlib.ExitStack() as stack:
            if isinstance(objective, DistributedDataParallel) and number < len(parts):
                stack.enter_context(objective.no_sync())
            yield part


def clip_norm(optimizer: torch.optim.Optimizer, limit: float) -> None:
    """Shrink the gradients until their common norm is `limit` at most (Pascanu et al. 2012).

    torch's own `clip_grad_norm_` adds 1e-6 to the norm that it divides by.
    """
    groups = optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, limit / norm.clamp(min=limit))
