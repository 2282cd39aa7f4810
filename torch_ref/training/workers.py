"""This process as one of several that torchrun has started.

Gradients are summed, not averaged: parts of a batch may differ in size, and the optimizer divides
the sum by the images of the whole batch, as Gluon's Trainer does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cnn_harness.errors import CommandError
from cnn_harness.jobs.peers import Peers, share_state
from cnn_harness.jobs.supervise import Limits
from cnn_harness.jobs.vitals import STALL
from cnn_harness.jobs.watchdog import Watchdog
from torch_ref.training import checkpoint

__all__ = ["ALONE", "Alone", "Workers", "join"]


class Alone(Peers):
    """One process that is the whole job: nothing has to be exchanged."""

    def together(self, objective: nn.Module) -> nn.Module:
        """The objective, with gradients summed over all processes after each backward."""
        return objective

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Around what needs the other processes. Raises: CommandError where one of them is gone."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1:
                raise
            reason = str(error).strip().splitlines()[0]
            raise CommandError(f"process {self.rank} has lost another process: {reason}") from error

    def share_training(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give every process the leader's state dict, slots and counts.

        Only the leader has read the checkpoint.
        """

    def agree_on_statistics(self, net: nn.Module) -> None:
        """Give every process the mean of all processes' running statistics."""


class Workers(Alone):
    """The processes of a torchrun; every method must be called by all, in the same order."""

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def count(self) -> int:
        return dist.get_world_size()

    def spread(self, array: np.ndarray) -> np.ndarray:
        value = torch.from_numpy(np.array(array))
        dist.broadcast(value, 0)
        return value.numpy()

    def sum(self, array: np.ndarray) -> np.ndarray:
        value = torch.from_numpy(np.array(array))
        dist.all_reduce(value)
        return value.numpy()

    def together(self, objective: nn.Module) -> nn.Module:
        # Each process keeps BatchNorm's statistics of its own parts, as MXNet's workers do.
        parallel = DistributedDataParallel(objective, forward_sync_buffers=False)
        parallel.register_comm_hook(None, _sum)
        return parallel

    def share_training(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        for value in net.state_dict().values():
            value.copy_(torch.from_numpy(self.spread(value.cpu().numpy())))
        slots, counts = share_state(self, *checkpoint.optimizer_state(net, optimizer))
        checkpoint.set_optimizer_state(net, optimizer, slots, counts, "what process 0 sent")

    def agree_on_statistics(self, net: nn.Module) -> None:
        for name, value in net.named_buffers():
            if name.rpartition(".")[2] in ("running_mean", "running_var"):
                dist.all_reduce(value)
                value /= self.count


ALONE = Alone()


def join(stall: float = STALL) -> Alone:
    """The processes that torchrun has started, if it has started this one; else this alone.

    One that hangs for `stall` seconds ends the job; 0 is never.
    """
    if not dist.is_torchelastic_launched():
        return ALONE
    if os.getenv("LOCAL_WORLD_SIZE") == os.getenv("WORLD_SIZE"):  # all of them are here
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store, rank, count = next(rendezvous("env://"))
    if stall and count > 1:
        # A connection of its own: the first waits for the other processes below
        Watchdog(store.clone(), rank, count, Limits(stall=stall)).start()
    # One process evaluates while the others wait; that one has died is noticed without a clock.
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=count, timeout=timedelta(hours=12)
    )
    return Workers()


def _sum(state, bucket):
    """DDP's communication hook, without annotations: DDP reads them, and not as text."""
    return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda d: d.value()[0])
