"""MXNet as a `Backend`: this folder's functions under the protocol's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mxnet as mx

from parity_tests.backends.base import Backend
from parity_tests.backends.gluon import clones, runs
from parity_tests.backends.gluon.exports import artefacts
from parity_tests.backends.gluon.leaves import leaves
from parity_tests.backends.gluon.optimizer import GluonParameters, gluon_trainer
from parity_tests.backends.gluon.trainee import GluonTrainee
from parity_tests.reporting.verdicts import Side

__all__ = ["BACKEND", "GluonBackend"]


class GluonBackend:
    """Nothing but names: each is documented where it is defined, and in `Backend`."""

    side = Side.GLUON
    array_type: type[Any] = mx.nd.NDArray
    optimizers: Mapping[str, Callable[..., Any]] = {"": gluon_trainer}

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
    sample_dropout = staticmethod(runs.sample_dropout)
    optimized = GluonParameters
    trainee = GluonTrainee
    artefacts = staticmethod(artefacts)


BACKEND: Backend = GluonBackend()
