"""MXNet as a `Backend`: this folder's functions under the protocol's names."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np

from parity_tests.backends.base import Backend
from parity_tests.backends.files.gluon_script import named_parameters
from parity_tests.backends.gluon import clones, executed, numpy_mode, runs
from parity_tests.backends.gluon.exports import artefacts
from parity_tests.backends.gluon.leaves import leaves, values_of
from parity_tests.backends.gluon.losses import LOSSES, averaged
from parity_tests.backends.gluon.optimizer import GluonParameters, gluon_trainer, named_optimizer
from parity_tests.backends.gluon.tracing.dtypes import given_dtypes
from parity_tests.backends.gluon.tracing.trace import trace_gluon
from parity_tests.backends.gluon.tracing.vocabulary import read_gluon
from parity_tests.backends.gluon.trainee import GluonTrainee, OwnGluonTrainee
from parity_tests.backends.runs import Arrays, Loss
from parity_tests.backends.tracing import taken_for_single
from parity_tests.pairing.graph import OperationGraph, Replay
from parity_tests.pairing.normalise import normalise
from parity_tests.reporting.verdicts import Side


class GluonBackend:
    """Nothing but names: each is documented where it is defined, and in `Backend`."""

    side = Side.GLUON
    optimizers: Mapping[str, Callable[..., Any]] = {"": gluon_trainer}

    set_apart = staticmethod(numpy_mode.set_apart)
    leaves = staticmethod(leaves)
    clone = staticmethod(clones.clone)
    release = staticmethod(clones.release)
    with_values = staticmethod(clones.with_values)
    set_values = staticmethod(clones.set_values)
    leaf_with_values = staticmethod(clones.leaf_with_values)
    run_leaf = staticmethod(runs.run_leaf)
    run_net = staticmethod(runs.run_net)
    run_loss = staticmethod(runs.run_loss)
    cross_entropy = staticmethod(runs.cross_entropy)
    losses: Mapping[str, Loss] = LOSSES
    averaged = staticmethod(averaged)
    sample_dropout = staticmethod(runs.sample_dropout)
    optimized = GluonParameters
    trainee = GluonTrainee
    own_trainee = OwnGluonTrainee
    named_optimizer = staticmethod(named_optimizer)
    artefacts = staticmethod(artefacts)
    rebuild = staticmethod(executed.rebuild)

    def check_optimizer(self, optimizer: Any) -> str:
        right = isinstance(optimizer, mx.gluon.Trainer)
        return "" if right else f"{type(optimizer).__name__}, expected a gluon.Trainer"

    def fixed(self, net: Any) -> dict[str, Any]:
        return {
            name: parameter.data(parameter.list_ctx()[0])
            for name, parameter in net._collect_params_with_prefix().items()
            if parameter.grad_req == "null" and parameter._data is not None
        }

    def constants(self, net: Any) -> dict[str, Any]:
        named = net._collect_params_with_prefix()
        kept = {name for name, p in named.items() if isinstance(p, mx.gluon.Constant)}
        return {name: array for name, array in self.fixed(net).items() if name in kept}

    def held(self, net: Any) -> Iterator[tuple[str, np.ndarray, bool]]:
        for name, parameter in named_parameters(net).items():
            if parameter._data is not None:
                yield name, values_of(parameter), parameter.grad_req != "null"

    def full(self, like: Any, shape: tuple[int, ...], number: float) -> Any:
        made = mx.nd.full(shape, number, ctx=like.ctx, dtype=like.dtype)
        return numpy_mode.like(made, like)

    def array(self, values: np.ndarray, dtype: str, like: Any = None) -> Any:
        if like is None:
            return clones.as_is(values.astype(dtype))
        return numpy_mode.like(mx.nd.array(values, ctx=like.ctx, dtype=dtype), like)

    join: tuple[str, Replay] = "Concat", lambda arrays, dtype: [mx.nd.concat(*arrays, dim=0)]

    def trace(self, net: Any, inputs: Arrays, *, train: bool) -> OperationGraph:
        kinds = {np.dtype(p.dtype).name for p in net.collect_params().values()}
        single = taken_for_single(kinds)
        arrays = (clones.ndarray(x, "float32") for x in inputs)
        if not single:
            return trace_gluon(net, *arrays, train=train)
        copied = clones.clone(net, "float32", gradients=False)
        graph = trace_gluon(copied, *arrays, train=train, single=single)
        return replace(graph, given=given_dtypes(net, inputs, min(single)))

    def normalise(
        self, graph: OperationGraph, *, ordered: bool = False, apart: Container[int] = ()
    ) -> OperationGraph:
        return normalise(graph, read_gluon, ordered=ordered, apart=apart)


BACKEND: Backend = GluonBackend()
