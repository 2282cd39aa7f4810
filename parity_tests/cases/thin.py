"""Makes a model narrow: the same leaves with a fraction of the channels, so that checks are quick.

VGG16 takes half a gigabyte and a minute to be examined in float64; with a sixteenth of its channels
every window, stride, padding and order is as before, and it takes a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def gluon_model(name: str, size: int | None, divisor: int, **options: Any) -> Any:
    """A Gluon model of this project, not initialised, its widths divided."""
    from gluon_cnn.models import get_model  # each side on its own: the other may not be installed

    net = get_model(name, input_size=size, **options)
    if divisor > 1:
        thin_gluon(net, divisor)
    return net


def torch_model(name: str, size: int | None, divisor: int, **options: Any) -> Any:
    """The same of the mirror, in inference mode."""
    import torch

    from torch_ref.models import get_model

    with torch.device("cpu" if divisor == 1 else "meta"):  # what is thinned out needs no values
        net = get_model(name, input_size=size, **options)
    if divisor > 1:
        thin_torch(net, divisor)
    return net.eval()


def thin_gluon(net: Any, divisor: int) -> None:
    """Replace the layers with weights in `net.features` and `net.classifier`, uninitialised.

    Every width is divided but those of the input and of the last layer.
    """
    leaves = [(part, key) for part in (net.features, net.classifier) for key in part._children]
    weighted = [(p, k) for p, k in leaves if p._children[k]._reg_params]
    for (part, key), into, out in _divisors(weighted, divisor):
        part._children[key] = _gluon(part._children[key], into, out)


def _divisors(layers: list[Any], divisor: int) -> Iterator[tuple[Any, int, int]]:
    """Each layer with what its inputs and its outputs are divided by."""
    for layer in layers:
        yield layer, 1 if layer is layers[0] else divisor, 1 if layer is layers[-1] else divisor


def _gluon(old: Any, into: int, out: int) -> Any:
    from mxnet.gluon import nn as gluon_nn

    prefix = old.prefix
    if isinstance(old, gluon_nn.Dense):
        return gluon_nn.Dense(old._units // out, in_units=old._in_units // into, prefix=prefix)
    if isinstance(old, gluon_nn.BatchNorm):
        options = old._kwargs
        return gluon_nn.BatchNorm(
            momentum=options["momentum"], epsilon=options["eps"],
            in_channels=old.in_channels // out, prefix=prefix,
        )  # fmt: skip
    windows = (old._kwargs[name] for name in ("kernel", "stride", "pad", "dilate", "num_group"))
    into_channels = old._in_channels // into
    return type(old)(old._channels // out, *windows, in_channels=into_channels, prefix=prefix)


def thin_torch(net: Any, divisor: int) -> None:
    """As `thin_gluon`; what has no weights moves along from the meta device."""
    weighted = [
        (part, key)
        for part in (net.features, net.classifier)
        for key, leaf in part.named_children()
        if len(list(leaf.parameters()))
    ]
    for (part, key), into, out in _divisors(weighted, divisor):
        part.register_module(key, _torch(part.get_submodule(key), into, out))


def _torch(old: Any, into: int, out: int) -> nn.Module:
    from torch import nn

    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features // into, old.out_features // out)
    if isinstance(old, nn.BatchNorm2d):
        momentum: Any = old.mx_momentum  # torch_ref's class; 1 − momentum in torch's
        return type(old)(old.num_features // out, eps=old.eps, momentum=momentum)
    return type(old)(
        old.in_channels // into, old.out_channels // out,
        old.kernel_size, old.stride, old.padding, old.dilation, old.groups,
    )  # fmt: skip
