"""Faults of what is saved and traced: hybridized graphs, exported files, stale parameters.

Framework specific (mxnet, torch): each fault is in a Gluon block, its files or its twin.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import torch
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.api import check_parity
from parity_tests.backends.runs import NET
from parity_tests.cases.pairs import Case, project_case
from parity_tests.faults.base import Detection, Fault, first_detection
from parity_tests.faults.kinds.pairs import Plant, edited, in_model, in_pair
from parity_tests.reporting.verdicts import Level


class _OtherGraph(gluon_nn.Activation):
    """Imperative it is a ReLU, hybridized something else: a graph that went stale."""

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        y = F.relu(x)
        return y if F.__name__.endswith("ndarray") else self.graph(F, x, y)

    def graph(self, F: Any, x: Any, y: Any) -> Any:
        raise NotImplementedError


class _NoActivation(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return F.identity(x)


class _HalfPrecision(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return F.cast(F.cast(y, dtype="float16"), dtype="float32")


class _NoGradient(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return F.BlockGrad(y)


class _Doubled(_OtherGraph):
    def graph(self, F: Any, x: Any, y: Any) -> Any:
        return y * 2


def _graph(part: str, index: int, cls: type[_OtherGraph]) -> Plant:
    def plant(case: Case) -> None:
        getattr(case.gluon_net, part)[index].__class__ = cls

    return plant


def _stored(model: str, change: Callable[[dict[str, Any]], None]) -> Callable[[], Detection]:
    """A Gluon net that is saved to a file, whose file is changed, and that is loaded from it."""

    def plant(case: Case) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "net.params")
            case.gluon_net.save_parameters(file)
            arrays = mx.nd.load(file)
            change(arrays)
            mx.nd.save(file, arrays)
            case.gluon_net.load_parameters(file)

    return in_pair(lambda: project_case(model), plant)


def _lost_aux(arrays: dict[str, Any]) -> None:
    """As a file without `aux:` entries leaves a fresh net: means 0, variances 1."""
    for name, array in arrays.items():
        if name.endswith(("running_mean", "running_var")):
            array[:] = float(name.endswith("var"))


def _stale(arrays: dict[str, Any]) -> None:
    """All parameters of one step before: each moved a little, in a direction of its own."""
    generator = np.random.default_rng(8)
    for array in arrays.values():
        step = generator.standard_normal(array.shape).astype(np.float32)
        array[:] = array.asnumpy() + 1e-3 * step


def _half_file(arrays: dict[str, Any]) -> None:
    for array in arrays.values():
        array[:] = array.astype("float16").astype("float32")


class _Swapped(mx.gluon.HybridBlock):
    """Two inputs; hybridized they come in the other order, as in a symbol that lists them so."""

    def __init__(self) -> None:
        super().__init__(prefix="swapped_")
        self.left = gluon_nn.Dense(8, in_units=6)
        self.right = gluon_nn.Dense(8, in_units=6)

    def hybrid_forward(self, F: Any, x: Any, y: Any) -> Any:
        if self.faulty and not F.__name__.endswith("ndarray"):
            x, y = y, x
        return self.left(x) * 2 + self.right(y)

    faulty = False


def _two_inputs() -> Detection:
    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(6, 8), nn.Linear(6, 8)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.left(x) * 2 + self.right(y)

    mx.random.seed(5)
    net = _Swapped()
    net.initialize(mx.init.Xavier())
    net.faulty = True
    generator = np.random.default_rng(5)
    inputs = tuple(generator.standard_normal((4, 6)).astype(np.float32) for _ in range(2))
    levels = ("structure", "weights", "forward", "backward", "artefacts")
    return first_detection(check_parity(net, Twin(), inputs, None, levels, transfer=True))


_fault = partial(Fault, group="artefacts")

ARTEFACTS: tuple[Fault, ...] = (
    _fault("graph without an activation", "Gluon lenet, features.4, hybridized",
           in_model("lenet", _graph("features", 4, _NoActivation)), Level.ARTEFACTS, "features.4",
           "missing activation", "a stale hybridized graph",
           "HybridBlock caches its graph: what is changed after the first call is not in it"),
    _fault("graph in half precision", "Gluon lenet, classifier.2, hybridized",
           in_model("lenet", _graph("classifier", 2, _HalfPrecision)), Level.ARTEFACTS,
           "classifier.2", "float16 or TF32 rounding", "an AMP pass left on",
           "apache/mxnet's export(remove_amp_cast=…)"),
    _fault("graph that stops gradients", "Gluon lenet, features.1, hybridized",
           in_model("lenet", _graph("features", 1, _NoGradient)), Level.ARTEFACTS, "features.1",
           "stopped gradient", "BlockGrad left in a graph", "MXNet's BlockGrad operator"),
    _fault("graph with a scale left in", "Gluon lenet, features.1, hybridized",
           in_model("lenet", _graph("features", 1, _Doubled)), Level.ARTEFACTS, "features.1",
           "constant factor", "loss scaling or dropout's scale traced into a graph",
           "MXNet's amp.scale_loss"),
    _fault("graph with its inputs exchanged", "a Gluon net of two inputs, hybridized",
           _two_inputs, Level.ARTEFACTS, NET, "swapped inputs",
           "a symbol that lists its inputs in another order",
           "SymbolBlock.imports takes input names in the caller's order"),
    _fault("auxiliary states lost", "Gluon mnist_bn_cnn, its parameter file",
           _stored("mnist_bn_cnn", _lost_aux), Level.WEIGHTS, "features.1", "fresh statistics",
           "a file without aux: entries, loaded over a fresh net",
           "apache/mxnet issue 15482: moving_mean and moving_var are not in the params"),
    _fault("stale parameter file", "Gluon lenet, its parameter file", _stored("lenet", _stale),
           Level.WEIGHTS, "features.0", "", "the file of an epoch before",
           "export(epoch=0) overwrites nothing of another epoch"),
    _fault("parameter file in half precision", "Gluon lenet, its parameter file",
           _stored("lenet", _half_file), Level.WEIGHTS, "features.0", "float16 or TF32 rounding",
           "net.cast('float16') before saving", "MXNet's float16 guide; amp.convert_hybrid_block"),
    _fault("one tensor of another epoch", "torch lenet, classifier.1.bias",
           in_model("lenet", edited("classifier.1.bias", lambda a: a + np.float32(0.125) * np.sin(
               np.arange(a.size, dtype=np.float32)))), Level.WEIGHTS, "classifier.1", "",
           "a partial checkpoint loaded over another", "torch's load_state_dict(strict=False)"),
)  # fmt: skip
