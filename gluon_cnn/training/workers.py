"""This process as one of several workers over MXNet's parameter server (`gluon_cnn.launch`).

The servers add the workers' gradients and hand the sum back (`update_on_kvstore=False`); every
worker then makes the same update. So the learning rate is the schedule's at every step, slots are
at hand for the checkpoint, and a last batch may be smaller: none of which holds where the servers
update, which is MXNet's default.
"""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from cnn_harness.errors import CommandError
from cnn_harness.jobs.peers import Peers, share_state
from gluon_cnn.runtime import settings as runtime
from gluon_cnn.training import checkpoint, parallel

__all__ = ["ALONE", "Alone", "Workers", "join", "leave"]

_FIRST_KEY = 1 << 20  # below are the Trainer's, which counts parameters from 0


class Alone(Peers):
    """One worker that is the whole job: nothing has to be exchanged but between its devices."""

    store: Any = None  # the kvstore by which a Trainer adds the gradients of all workers

    def share_training(self, net: gluon.HybridBlock, trainer: gluon.Trainer) -> None:
        """Give every worker the leader's parameters, slots and counts.

        Only the leader has read the checkpoint: the others may not even see its folder.
        """

    def agree_on_statistics(self, net: gluon.HybridBlock) -> None:
        """Give every device of every worker the mean of all running statistics."""
        parallel.agree_on_statistics(net)


class Workers(Alone):
    """The workers of a job; every method must be called by all of them, in the same order."""

    def __init__(self, several_devices: bool = False) -> None:
        self.store = mx.kv.create("dist_device_sync" if several_devices else "dist_sync")
        self._next = _FIRST_KEY
        self._sums: dict[tuple[Any, ...], int] = {}  # the key for sums of a shape and dtype
        runtime.report_rank(self.rank)
        self._require_float64()

    @property
    def rank(self) -> int:
        return int(self.store.rank)

    @property
    def count(self) -> int:
        return int(self.store.num_workers)

    def _key(self) -> int:
        self._next += 1
        return self._next

    def _require_float64(self) -> None:
        """Raise CommandError where a server rounds float64, as MXNet's do by chance.

        See `gluon_cnn.launch.ZEROED`. Consecutive keys are on different servers.
        """
        parts = [1 / 3 + rank for rank in range(self.count)]
        for _ in range(runtime.servers()):
            value = mx.nd.array([parts[self.rank], 2.0**-40], dtype="float64")
            key = self._key()
            self.store.broadcast(key, value.zeros_like(), out=value.zeros_like())
            self.store.pushpull(key, value)
            total, small = value.asnumpy()
            if abs(total - math.fsum(parts)) > 1e-13 * total or small != self.count * 2.0**-40:
                raise CommandError(
                    "a parameter server rounds float64, which MXNet's do by chance: start the job "
                    "with python -m gluon_cnn.launch, or servers as it does"
                )

    def spread(self, array: np.ndarray) -> np.ndarray:
        value = mx.nd.array(array, dtype=array.dtype)
        self.store.broadcast(self._key(), value, out=value)
        return value.asnumpy()

    def sum(self, array: np.ndarray) -> np.ndarray:
        value = mx.nd.array(array, dtype=array.dtype)
        kind = (array.shape, array.dtype.str)
        if kind not in self._sums:
            self._sums[kind] = self._key()
            self.store.broadcast(self._sums[kind], value.zeros_like(), out=value.zeros_like())
        self.store.pushpull(self._sums[kind], value)
        return value.asnumpy()

    def share_training(self, net: gluon.HybridBlock, trainer: gluon.Trainer) -> None:
        for parameter in net._collect_params_with_prefix().values():
            value = parameter.data(parameter.list_ctx()[0]).asnumpy()
            parameter.set_data(mx.nd.array(self.spread(value), dtype=value.dtype))
        slots, counts = share_state(self, *checkpoint.optimizer_state(net, trainer))
        checkpoint.set_optimizer_state(net, trainer, slots, counts, "what worker 0 sent")

    def agree_on_statistics(self, net: gluon.HybridBlock) -> None:
        super().agree_on_statistics(net)
        for _, parameter in parallel.statistics(net):
            value = parameter.data(parameter.list_ctx()[0]).asnumpy()
            mean = self.sum(value) / value.dtype.type(self.count)
            parameter.set_data(mx.nd.array(mean, dtype=value.dtype))


ALONE = Alone()


def join(several_devices: bool = False) -> Alone:
    """The job's workers where this process is one, else this process alone."""
    return Workers(several_devices) if runtime.is_worker() else ALONE


def leave(code: int) -> int:
    """End a worker that failed, without what MXNet does at exit: it waits for the other workers,
    who wait for this one's gradients. Returns the code in every other case."""
    if code and runtime.is_worker():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
