"""PyTorch as a `Backend`, and as the referee: this folder's functions under the protocol's names.

What trains stands on the mirror's optimizers, `torch_ref.optim`, and is imported when it is first
asked for: the levels of a user's own pair need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from parity_tests.backends.base import Referee
from parity_tests.backends.optimizers import OptimizedParameters
from parity_tests.backends.runs import Arrays, Loss, rounded
from parity_tests.backends.torch import clones, executed, referee, runs
from parity_tests.backends.torch.exports import artefacts
from parity_tests.backends.torch.leaves import leaves
from parity_tests.backends.torch.losses import LOSSES, averaged
from parity_tests.backends.torch.tracing.dtypes import given_dtypes
from parity_tests.backends.torch.tracing.trace import trace_torch
from parity_tests.backends.torch.tracing.vocabulary import read_torch
from parity_tests.backends.tracing import taken_for_single
from parity_tests.backends.training import Trainee
from parity_tests.pairing.graph import OperationGraph, Replay
from parity_tests.pairing.normalise import normalise
from parity_tests.reporting.verdicts import Side


class TorchBackend:
    """Nothing but names: each is documented where it is defined, and in `Backend`."""

    side = Side.TORCH

    leaves = staticmethod(leaves)
    clone = staticmethod(clones.clone)
    twin = staticmethod(clones.twin)
    release = staticmethod(clones.release)
    with_values = staticmethod(clones.with_values)
    set_values = staticmethod(clones.set_values)
    leaf_with_values = staticmethod(clones.leaf_with_values)
    run_leaf = staticmethod(runs.run_leaf)
    run_net = staticmethod(runs.run_net)
    run_clone = staticmethod(referee.run_clone)
    gradient_noise = staticmethod(referee.gradient_noise)
    shake = staticmethod(referee.shake)
    run_loss = staticmethod(runs.run_loss)
    cross_entropy = staticmethod(runs.cross_entropy)
    losses: Mapping[str, Loss] = LOSSES
    averaged = staticmethod(averaged)
    sample_dropout = staticmethod(runs.sample_dropout)
    artefacts = staticmethod(artefacts)
    rebuild = staticmethod(executed.rebuild)

    def fixed(self, net: Any) -> dict[str, Any]:
        named = (*net.named_buffers(), *net.named_parameters())
        return {name: tensor for name, tensor in named if not tensor.requires_grad}

    def constants(self, net: Any) -> dict[str, Any]:
        return dict(net.named_buffers())

    def held(self, net: Any) -> Iterator[tuple[str, np.ndarray, bool]]:
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            yield name, tensor.detach().cpu().numpy(), tensor.requires_grad

    def full(self, like: Any, shape: tuple[int, ...], number: float) -> Any:
        return like.new_full(shape, number)

    def array(self, values: np.ndarray, dtype: str, like: Any = None) -> Any:
        made = torch.from_numpy(np.array(values)).to(getattr(torch, dtype))
        return made if like is None else made.to(like.device)

    join: tuple[str, Replay] = "cat", lambda arrays, dtype: [torch.cat(list(arrays))]

    def trace(self, net: Any, inputs: Arrays, *, train: bool) -> OperationGraph:
        single = taken_for_single({str(x.dtype).removeprefix("torch.") for x in net.parameters()})
        tensors = (torch.from_numpy(rounded(x, "float32").copy()) for x in inputs)
        if not single:
            return trace_torch(net, *tensors, train=train)
        copied = clones.clone(net, "float32")
        graph = trace_torch(copied, *tensors, train=train, single=single)
        return replace(graph, given=given_dtypes(clones.clone(net, None), inputs, min(single)))

    def normalise(
        self, graph: OperationGraph, *, ordered: bool = False, apart: Container[int] = ()
    ) -> OperationGraph:
        return normalise(graph, read_torch, ordered=ordered, apart=apart)

    @property
    def optimizers(self) -> Mapping[str, Callable[..., Any]]:
        from parity_tests.backends.torch.optimizer import torch_optimizer, torchs_own

        return {"": torch_optimizer, "torch.optim ": torchs_own}

    @property
    def optimized(self) -> Callable[..., OptimizedParameters]:
        from parity_tests.backends.torch.optimizer import TorchParameters

        return TorchParameters

    @property
    def trainee(self) -> Callable[..., Trainee]:
        from parity_tests.backends.torch.trainee import TorchTrainee

        return TorchTrainee

    def named_optimizer(self, net: Any, name: str, numbers: Mapping[str, float]) -> Any:
        from parity_tests.backends.torch.optimizer import named_optimizer

        return named_optimizer(net, name, numbers)

    def set_apart(self, net: Any) -> AbstractContextManager[None]:
        return torch.enable_grad()

    def check_optimizer(self, optimizer: Any) -> str:
        right = isinstance(optimizer, torch.optim.Optimizer)
        return "" if right else f"{type(optimizer).__name__}, expected a torch.optim.Optimizer"

    @property
    def own_trainee(self) -> Callable[..., Trainee]:
        from parity_tests.backends.torch.trainee import OwnTorchTrainee

        return OwnTorchTrainee


BACKEND: Referee = TorchBackend()
