"""Maps the parameters of a Gluon net to those of a torch net by what both execute."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np
import torch
from mxnet.gluon import Block
from torch import nn

from parity_tests.backends.gluon.numpy_mode import set_apart
from parity_tests.backends.gluon.tracing.trace import trace_gluon
from parity_tests.backends.gluon.tracing.vocabulary import read_gluon
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.tracing.trace import trace_torch
from parity_tests.backends.torch.tracing.vocabulary import read_torch
from parity_tests.pairing.dataflow import NO_STACKS, Alignment, Stacks, align
from parity_tests.pairing.normalise import normalise


def align_nets(
    gluon_net: Block,
    torch_net: nn.Module,
    inputs: Sequence[np.ndarray],
    *,
    train: bool = False,
    values: bool = False,
) -> Alignment:
    """Align what both nets execute on the same inputs; Gluon is the left side.

    Args:
        inputs: the arrays that both nets are called with.
        train: compare what runs in training, dropout among it, instead of inference.
        values: the nets hold equal weights, whose results decide between operations alike.
    """
    given = [x.asnumpy() if isinstance(x, mx.nd.NDArray) else np.array(x) for x in inputs]
    tensors = [torch.from_numpy(x) for x in given]
    with set_apart(gluon_net):
        arrays = [mx.nd.array(x, dtype=x.dtype) for x in given]
        left = trace_gluon(gluon_net, *arrays, train=train, values=values)
    right = trace_torch(torch_net, *tensors, train=train, values=values)

    def formed(stacks: Stacks = NO_STACKS) -> Alignment:
        ours = normalise(left, read_gluon, apart=stacks[0])
        return align(ours, normalise(right, read_torch, apart=stacks[1]), values=values)

    whole = formed()
    if not any(whole.stacks):
        return whole
    return min(whole, formed(whole.stacks), key=lambda alignment: alignment.unlike)


def map_parameters(
    gluon_net: Block, torch_net: nn.Module, inputs: Sequence[np.ndarray]
) -> dict[str, str]:
    """The Gluon name of every torch parameter and buffer that an executed operation reads.

    Raises ParityError if one has no partner, or would need two.
    """
    alignment = align_nets(gluon_net, torch_net, inputs)
    if not alignment.total:
        raise ParityError(_explain(alignment))
    return alignment.parameters


def _explain(alignment: Alignment) -> str:
    parts = [
        f"{side} alone has {', '.join(names[:5])}{' …' * (len(names) > 5)}"
        for side, names in zip(("Gluon", "torch"), alignment.unmapped, strict=True)
        if names
    ]
    parts += [f"{a} and {b} have other partners too" for a, b in alignment.conflicts[:5]]
    return "the parameters cannot be mapped one to one: " + "; ".join(parts)


def transfer_parameters(
    gluon_net: Block, torch_net: nn.Module, inputs: Sequence[np.ndarray]
) -> dict[str, str]:
    """Copy the Gluon net's values into the torch net along `map_parameters`, and return the map.

    A tied parameter is written once; what no operation reads stays as it is.
    """
    names = map_parameters(gluon_net, torch_net, inputs)
    sources = dict(gluon_net._collect_params_with_prefix())
    sources |= {name: p for name, p in gluon_net.collect_params().items() if name not in sources}
    targets = dict(torch_net.named_parameters()) | dict(torch_net.named_buffers())
    with torch.no_grad():
        for name, source in names.items():
            parameter = sources[source]
            value = parameter.data(parameter.list_ctx()[0]).asnumpy()
            target = targets[name]
            target.copy_(torch.from_numpy(value.reshape(target.shape)))
    return names
