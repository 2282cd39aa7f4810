"""Several devices in one process: what Gluon's Trainer leaves to its caller.

A batch is split over the devices, each computes the gradient of its own part's summed loss, and the
kvstore adds them; every device then makes the same update. Two things would go wrong in silence:
a device that got no images still holds the last step's gradient, which would be added again, and
BatchNorm's running statistics are each device's own, so that what is saved depends on who is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mxnet as mx
from mxnet import gluon

from gluon_cnn.fast.optimizers import QuickAdam


def combining_trainer(
    parameters: Any,
    optimizer: str,
    options: Mapping[str, Any],
    devices: list[mx.Context],
    store: Any = None,
) -> gluon.Trainer:
    """A Trainer that adds the gradients of its devices, and updates each device's own copy.

    `store` is the kvstore of several workers, whose gradients are added too. The devices update,
    not the kvstore: the learning rate is then the caller's at every step, and the optimizer's slots
    are at hand for the checkpoint.
    """
    rule = (
        QuickAdam(**options) if optimizer == "adam" else mx.optimizer.create(optimizer, **options)
    )
    if len(devices) == 1 and store is None:
        return gluon.Trainer(parameters, rule, kvstore=None)
    trainer = gluon.Trainer(parameters, rule, kvstore=store or "device", update_on_kvstore=False)
    # Give every device and worker the first one's parameters, running statistics too. Left to the
    # first step(), it comes after the first backward, whose statistics are then lost.
    trainer._init_kvstore()
    trainer._init_params()
    # A parameter and its gradient share a key at the server, but MXNet's engine orders a pull by
    # the array it fills: one still on its way when gradients are exchanged would fetch their sum.
    mx.nd.waitall()
    return trainer


def idle(trainer: gluon.Trainer, used: int) -> None:
    """Let the devices after the first `used` ones, which got no images, add nothing to this step.

    Their gradients are those of the step before. They take part in the update all the same: a
    device that skips it computes with old weights from then on.
    """
    if used == len(trainer._contexts):
        return
    for parameter in trainer._params:
        if parameter.grad_req == "null":
            continue
        unused = zip(parameter.list_data()[used:], parameter.list_grad()[used:], strict=True)
        for value, gradient in unused:
            gradient[:] = 0
            value._fresh_grad = True


def statistics(net: gluon.Block) -> Iterator[tuple[str, gluon.Parameter]]:
    """BatchNorm's running means and variances, by structural name."""
    for name, parameter in net._collect_params_with_prefix().items():
        if name.rpartition(".")[2] in ("running_mean", "running_var"):
            yield name, parameter


def agree_on_statistics(net: gluon.Block) -> None:
    """Give every device the mean of all devices' running statistics, as MXNet saves them.

    Each device normalises by the statistics of its own part of a batch and keeps them for itself.
    Their update is linear, so that taking the mean now or at any other step comes to the same.
    """
    for _, parameter in statistics(net):
        values = parameter.list_data()
        if len(values) > 1:
            parts = [value.as_in_context(mx.cpu()) for value in values]
            parameter.set_data(mx.nd.add_n(*parts) / len(parts))


def one_copy(net: gluon.Block) -> dict[str, mx.nd.NDArray]:
    """The first device's parameters by structural name, on the CPU.

    `save_parameters` writes the mean over devices instead, and the mean of three equal numbers is
    another number for one float32 in six.
    """
    return {
        name: parameter.data(parameter.list_ctx()[0]).as_in_context(mx.cpu())
        for name, parameter in net._collect_params_with_prefix().items()
    }
