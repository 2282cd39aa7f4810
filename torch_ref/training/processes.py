"""This process as one of several that torchrun has started; the twin of
`gluon_cnn.training.workers`.

Gradients are summed, not averaged: parts of a batch may differ in size, and the optimizer divides
the sum by the images of the whole batch, as Gluon's Trainer does.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cnn_harness.errors import CommandError
from cnn_harness.jobs.peers import ALONE, Peers, share_state
from torch_ref.training import checkpoint

__all__ = ["Processes", "agree_on_statistics", "join", "joined", "share_training", "together"]


class Processes:
    """The processes of a torchrun; every method must be called by all, in the same order."""

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def count(self) -> int:
        return dist.get_world_size()

    def spread(self, array: np.ndarray) -> np.ndarray:
        """Process 0's array, of a shape and dtype that all know."""
        value = torch.from_numpy(np.array(array))
        dist.broadcast(value, 0)
        return value.numpy()

    def share(self, value: Any) -> Any:
        """Process 0's JSON value; torch's own way to send objects is a pickle."""
        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = int(self.spread(np.array([len(text)], np.int64))[0])
        letters = np.zeros(size, np.uint8)
        if self.rank == 0:
            letters[:] = np.frombuffer(text, np.uint8)
        return json.loads(self.spread(letters).tobytes())

    def total(self, numbers: list[float]) -> list[float]:
        value = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(value)
        return value.tolist()


def join() -> Peers:
    """The processes that torchrun has started, if it has started this one; else this alone."""
    if not dist.is_torchelastic_launched():
        return ALONE
    # One process evaluates while the others wait; that one has died is noticed without a clock.
    dist.init_process_group("gloo", timeout=timedelta(hours=12))
    return Processes()


def together(peers: Peers, objective: nn.Module) -> nn.Module:
    """The objective, with gradients summed over all processes after each backward."""
    if not isinstance(peers, Processes):
        return objective
    # Each process keeps BatchNorm's statistics of its own parts, as MXNet's workers do.
    parallel = DistributedDataParallel(objective, forward_sync_buffers=False)
    parallel.register_comm_hook(None, _sum)
    return parallel


def _sum(state, bucket):
    """DDP's communication hook, without annotations: DDP reads them, and not as text."""
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda d: d.value()[0])


@contextlib.contextmanager
def joined(peers: Peers) -> Iterator[None]:
    """Around what needs the other processes. Raises: CommandError where one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        if peers.count == 1:
            raise
        reason = str(error).strip().splitlines()[0]
        raise CommandError(f"process {peers.rank} has lost another process: {reason}") from error


def share_training(peers: Peers, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give every process the leader's state dict, slots and counts: only it read the checkpoint."""
    if not isinstance(peers, Processes):
        return
    for value in net.state_dict().values():
        value.copy_(torch.from_numpy(peers.spread(value.cpu().numpy())))
    slots, counts = share_state(peers, *checkpoint.optimizer_state(net, optimizer))
    checkpoint.set_optimizer_state(net, optimizer, slots, counts, "what process 0 sent")


def agree_on_statistics(peers: Peers, net: nn.Module) -> None:
    """Give every process the mean of all processes' running statistics."""
    if isinstance(peers, Processes):
        for name, value in net.named_buffers():
            if name.rpartition(".")[2] in ("running_mean", "running_var"):
                dist.all_reduce(value)
                value /= peers.count
