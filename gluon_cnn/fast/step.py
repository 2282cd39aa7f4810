"""A training step of your own net, loss and Trainer, as fast as the command's."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from gluon_cnn.fast.optimizers import QuickAdam
from gluon_cnn.fast.padding import pad_channels
from gluon_cnn.training.staging import Staging

__all__ = ["Step", "TrainingStep", "training_step"]

Array: TypeAlias = np.ndarray | mx.nd.NDArray


class Step(NamedTuple):
    """What a step computed, not yet read: one loss a sample, and what the net answered."""

    loss: mx.nd.NDArray
    outputs: mx.nd.NDArray


def training_step(
    net: gluon.HybridBlock, trainer: gluon.Trainer, loss: gluon.HybridBlock
) -> TrainingStep:
    """Forward, backward and update of a net as one call, which computes what a plain loop does.

    In place of `with autograd.record(): …`, `backward()` and `trainer.step(len(x))`. Net and loss
    become one graph, whose memory is planned once, images are copied into an array that stays,
    narrow convolutions are padded (`pad_channels`: the same sums in another order), and MXNet's
    Adam is called without the Python around it. Net, Trainer and loss stay the caller's own: save,
    load, evaluate, freeze, and change learning rates as before. Where nothing is padded the bits
    are those of the plain loop.

    Args:
        net: any initialised HybridBlock of one input and one output, hybridized or not. Where it
            is a `get_model` net, or calls its layers in turn, convolutions may be padded.
        trainer: any Trainer over its parameters.
        loss: a block of (outputs, labels), such as `gluon.loss.SoftmaxCrossEntropyLoss()`.

    Returns:
        `step`: `step(x, y)` updates by a batch and returns its `Step`. `step.backward(x, y)` only
        computes gradients, to be clipped or, with `grad_req="add"`, added; `trainer.step(n)` is
        then yours. x and y are numpy's or MXNet's arrays. The graph is built at the first call: a
        net that is given other layers later needs another step.

    Raises:
        TypeError: for a net or loss that is not a HybridBlock.

    Examples:
        >>> import gluon_cnn
        >>> import mxnet as mx
        >>> import numpy as np
        >>> from gluon_cnn.fast.step import training_step
        >>> from gluon_cnn.models import get_model
        >>> net = get_model("lenet")
        >>> net.initialize(mx.init.Xavier())
        >>> trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.003})
        >>> step = training_step(net, trainer, mx.gluon.loss.SoftmaxCrossEntropyLoss())
        >>> losses, outputs = step(np.zeros((64, 1, 28, 28), np.float32), np.zeros(64))
        >>> losses.shape, outputs.shape
        ((64,), (64, 10))
    """
    return TrainingStep(net, trainer, loss)


class TrainingStep:
    """See `training_step`."""

    def __init__(
        self, net: gluon.HybridBlock, trainer: gluon.Trainer, loss: gluon.HybridBlock
    ) -> None:
        for name, block in (("net", net), ("loss", loss)):
            if not isinstance(block, gluon.HybridBlock):
                raise TypeError(f"{name} is a {type(block).__name__}, expected a HybridBlock")
        if len(trainer._contexts) > 1:
            raise ValueError(f"the trainer has {len(trainer._contexts)} devices, expected one")
        self.net, self.trainer, self.loss = net, trainer, loss
        self._graph: _Graph | None = None
        self._staging: dict[tuple[mx.Context, str], Staging] = {}

    def __call__(self, x: Array, y: Array, batch_size: int | None = None) -> Step:
        """Update by a batch; gradients are divided by `batch_size`, unset: by its length."""
        step = self.backward(x, y)
        self.trainer.step(len(x) if batch_size is None else batch_size)
        return step

    def backward(self, x: Array, y: Array) -> Step:
        """The gradients of a batch, as `loss.backward()` leaves them; nothing is updated."""
        QuickAdam.take_over(self.trainer)  # each time: `load_states` brings another optimizer
        if self._graph is None:
            self._graph = _Graph(self.net, self.loss, x)
        device, dtype = self._graph.place
        images, labels = (self._on(device, dtype, array) for array in (x, y))
        with autograd.record():
            loss, outputs = self._graph(images, labels)
        loss.backward()
        return Step(loss, outputs)

    def _on(self, device: mx.Context, dtype: str, array: Array) -> mx.nd.NDArray:
        if isinstance(array, mx.nd.NDArray):
            return array.as_in_context(device)
        staging = self._staging.get((device, dtype))
        if staging is None:
            staging = self._staging[device, dtype] = Staging([device], dtype)
        return staging(array)[0]


class _Graph:
    """Net and loss as one operator: (images, labels) -> loss, outputs."""

    def __init__(self, net: gluon.HybridBlock, loss: gluon.HybridBlock, x: Array) -> None:
        parameters = {**net.collect_params(), **loss.collect_params()}
        self._first = next(iter(parameters.values()))
        if any(p._deferred_init for p in parameters.values()):
            net(mx.nd.array(x[:1], dtype=self._first.dtype))  # settles shapes
        inputs = mx.sym.var("data"), mx.sym.var("label")
        outputs = pad_channels(net)(inputs[0])
        if not isinstance(outputs, mx.sym.Symbol):
            raise TypeError(f"{net.name} returns a {type(outputs).__name__}, expected one array")
        symbol = mx.sym.Group([loss(outputs, inputs[1]), mx.sym.BlockGrad(outputs)])
        places = {variable.name: place for place, variable in enumerate(inputs)}
        # Where an argument of the operator comes from: a place among the inputs, or a parameter
        self._sources: list[Any] = [
            places.get(name, parameters.get(name)) for name in symbol.list_inputs()
        ]
        of_data = [isinstance(source, int) for source in self._sources]
        indices = range(len(of_data))
        self._run = mx.nd.CachedOp(symbol, [
            ("data_indices", [i for i in indices if of_data[i]]),
            ("param_indices", [i for i in indices if not of_data[i]]),
            ("static_alloc", True),
            ("static_shape", True),
        ])  # fmt: skip

    @property
    def place(self) -> tuple[mx.Context, str]:
        """The device and dtype of the parameters, which may move."""
        return self._first.list_ctx()[0], np.dtype(self._first.dtype).name

    def __call__(self, *inputs: mx.nd.NDArray) -> list[mx.nd.NDArray]:
        return self._run(
            *(inputs[s] if isinstance(s, int) else s.data(inputs[0].context)
              for s in self._sources)
        )  # fmt: skip
