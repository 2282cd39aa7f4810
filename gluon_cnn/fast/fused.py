"""A net for inference on the CPU: oneDNN's fused convolutions, the same parameters.

MXNet's MKLDNN backend joins a convolution or a dense layer with the activation behind it, which
saves a pass over memory. What is computed of parameters alone, such as their padding, is computed
once: for one image of LeNet that is half of the operators. The graph is built beside the net, which
stays as it is and can still be trained or exported.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import mxnet as mx
from mxnet import gluon

from gluon_cnn.fast.padding import pad_channels
from gluon_cnn.models import ClassicCNN

BACKEND = "MKLDNN"
# Channels in a block for inference, whatever the processor: with AVX-512, whose vectors hold 16,
# LeNet's 6 channels as 8 take two thirds of the time of 16. Gradients are faster in whole vectors.
BLOCK = 8


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
    padded = pad_channels(net, BLOCK, gradients=False) if isinstance(net, ClassicCNN) else net
    symbol = padded(data)
    arrays = {name: p.data(devices[0]) for name, p in parameters.items()}
    symbol, folded = fold_parameters(symbol, arrays)
    arrays = {n: a for n, a in {**arrays, **folded}.items() if n in symbol.list_inputs()}
    auxiliary = {name: arrays.pop(name) for name in symbol.list_auxiliary_states()}
    arrays["data"] = mx.nd.zeros((1, *input_shape), ctx=devices[0])  # without it nothing is joined
    symbol = symbol.optimize_for(BACKEND, arrays, auxiliary, ctx=devices[0])
    with warnings.catch_warnings():
        # It infers types before it has looked at the parameters, and says that it cannot.
        warnings.filterwarnings("ignore", "Cannot decide type", UserWarning)
        block = gluon.SymbolBlock(symbol, data, params=parameters)
    for name, array in folded.items():
        parameter = block.collect_params()[name]
        parameter.shape = array.shape
        parameter.initialize(ctx=devices[0])
        parameter.set_data(array)
    block.hybridize(static_alloc=True, static_shape=True)
    return block


def fold_parameters(
    symbol: mx.sym.Symbol, arrays: Mapping[str, mx.nd.NDArray]
) -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
    """The graph with what it computes of `arrays` alone as variables, and their values by name.

    Operators without inputs, such as those that draw, stay, and so do those with several outputs.
    """
    document = json.loads(symbol.tojson())
    nodes: list[dict[str, Any]] = document["nodes"]
    known: list[bool] = []  # whether a node's value follows from the arrays
    for node in nodes:
        if node["op"] == "null":
            known.append(node["name"] in arrays)
        else:
            known.append(bool(node["inputs"]) and all(known[i] for i, *_ in node["inputs"]))
    read = {i for node, of_arrays in zip(nodes, known, strict=True) if not of_arrays
            for i, *_ in node["inputs"]}  # fmt: skip
    internals, folded = symbol.get_internals(), {}
    for place in sorted(read):
        node, name = nodes[place], f"{nodes[place]['name']}_output"
        if known[place] and node["op"] != "null" and internals.list_outputs().count(name) == 1:
            part = internals[name]
            value = mx.nd.CachedOp(part)(*(arrays[n] for n in part.list_inputs()))
            nodes[place] = {"op": "null", "name": f"{node['name']}_folded", "inputs": []}
            folded[nodes[place]["name"]] = value
    if not folded:
        return symbol, {}
    document["arg_nodes"] = [place for place, node in enumerate(nodes) if node["op"] == "null"]
    return mx.sym.load_json(json.dumps(document)), folded
