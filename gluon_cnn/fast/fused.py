"""A net for inference on the CPU: oneDNN's fused convolutions, the same parameters.

MXNet's MKLDNN backend joins a convolution or a dense layer with the activation behind it, which
saves a pass over memory. The graph is built beside the net, which stays as it is and can still be
trained or exported.
"""

from __future__ import annotations

import warnings

import mxnet as mx
from mxnet import gluon

from gluon_cnn.fast.padding import pad_channels
from gluon_cnn.models import ClassicCNN

__all__ = ["fused"]

BACKEND = "MKLDNN"


def fused(net: gluon.HybridBlock, input_shape: tuple[int, int, int]) -> gluon.HybridBlock:
    """What computes `net`'s outputs for inference, from its own parameters, hybridized.

    `net` is initialised, float32, and takes one array (N, *input_shape) for any N. Where it is not
    on one CPU it is only hybridized. A convolution with the ReLU behind it stays within 16 u·s of
    float64 like the two apart.

    It is for weights that stay: oneDNN's operators keep them in their own layout, and what has run
    once does not see new ones. Make it anew then.
    """
    parameters = net.collect_params()
    devices = next(iter(parameters.values())).list_ctx()
    if len(devices) > 1 or devices[0].device_type != "cpu":
        net.hybridize(static_alloc=True, static_shape=True)
        return net
    data = mx.sym.var("data")
    symbol = (pad_channels(net, gradients=False) if isinstance(net, ClassicCNN) else net)(data)
    arrays = {name: p.data(devices[0]) for name, p in parameters.items()}
    auxiliary = {name: arrays.pop(name) for name in symbol.list_auxiliary_states()}
    arrays["data"] = mx.nd.zeros((1, *input_shape), ctx=devices[0])  # without it nothing is joined
    symbol = symbol.optimize_for(BACKEND, arrays, auxiliary, ctx=devices[0])
    with warnings.catch_warnings():
        # It infers types before it has looked at the parameters, and says that it cannot.
        warnings.filterwarnings("ignore", "Cannot decide type", UserWarning)
        block = gluon.SymbolBlock(symbol, data, params=parameters)
    block.hybridize(static_alloc=True, static_shape=True)
    return block
