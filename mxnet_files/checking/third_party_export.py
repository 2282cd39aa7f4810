"""`python -m mxnet_files.checking.third_party_export SOURCE NET SHAPE FOLDER`: MXNet's own files.

A process of its own, without torch: GluonCV refuses torch from 2 on.
"""

from __future__ import annotations

import importlib.abc
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def gluoncv2_net(name: str) -> Any:
    """A net of the package gluoncv2."""
    from gluoncv2.model_provider import get_model

    return get_model(name)


REGIONS = 50  # of an R-CNN, each of which runs through half a net; 300 and 1,000 without


def gluoncv_net(name: str) -> Any:
    """A net of GluonCV, with no weights from the network."""
    from gluoncv.model_zoo import get_model

    try:
        net = get_model(name, pretrained=False, pretrained_base=False)
    except (TypeError, Warning):  # nets that have no base; DarkNet raises a warning
        net = get_model(name, pretrained=False)
    limit_regions(net)
    return net


def limit_regions(net: Any) -> None:
    """Let an R-CNN of GluonCV have REGIONS of them; other nets have none."""
    if hasattr(net, "rpn"):
        net.rpn._test_post_nms = net._rpn_test_post_nms = net._rcnn_max_dets = REGIONS


def recurrent_net(name: str) -> Any:
    """A layer of Gluon's own `rnn`, such as `LSTM 2 bidirectional`."""
    from mxnet.gluon import nn, rnn

    kind, layers, *rest = name.split()
    layer = getattr(rnn, kind)(8, int(layers), bidirectional="bidirectional" in rest)
    net = nn.HybridSequential()
    net.add(layer, nn.Dense(5, flatten=False))
    return net


def transformer_net(name: str) -> Any:
    """An encoder of GluonNLP, whose tokenizer, which is compiled, is not needed."""
    absent = types.ModuleType("fast_bert_tokenizer")
    names = "BasicTokenizer WordpieceTokenizer is_control is_punctuation is_whitespace"
    vars(absent).update(dict.fromkeys(names.split()))
    sys.modules["gluonnlp.data.fast_bert_tokenizer"] = absent
    from gluonnlp import model

    if name == "ConvolutionalEncoder":
        return model.ConvolutionalEncoder(
            embed_size=32, num_filters=(8, 8), ngram_filter_sizes=(1, 2), output_size=12
        )
    options = {"units": 32, "hidden_size": 64, "num_layers": 2, "num_heads": 4, "max_length": 6}
    return getattr(model, name)(**options)


def int8_net(name: str) -> Any:
    """A net of MXNet's own zoo, which `quantised` makes one of 8 bits."""
    from mxnet.gluon.model_zoo.vision import get_model

    return get_model(name)


def quantised(net: Any, x: Any) -> Any:
    """The net in 8 bits, calibrated on a batch."""
    import mxnet
    from mxnet.contrib.quantization import quantize_net_v2

    data = mxnet.gluon.data.ArrayDataset(x, mxnet.nd.zeros(len(x)))
    return quantize_net_v2(
        net,
        quantized_dtype="auto",
        quantize_granularity="channel-wise",
        calib_mode="naive",
        calib_data=mxnet.gluon.data.DataLoader(data, len(x)),
        num_calib_examples=len(x),
        ctx=mxnet.cpu(),
        logger=None,
    )


SOURCES: dict[str, Callable[[str], Any]] = {
    "gluoncv2": gluoncv2_net,
    "gluoncv": gluoncv_net,
    "gluon.rnn": recurrent_net,
    "gluonnlp": transformer_net,
    "int8": int8_net,
}


class WithoutTorch(importlib.abc.MetaPathFinder):
    """Finds no torch; SciPy takes a None in `sys.modules`, which hides it too, for the package."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("torch stays out of this process", name=name)


def give_numpy_its_old_names() -> None:
    """Those of Python's types, which numpy had until 1.24 and nets by others ask it for."""
    import numpy

    for kind in (int, float, bool, object):
        vars(numpy).setdefault(kind.__name__, kind)


def main(argv: Sequence[str]) -> int:
    """Write `net-symbol.json` and `net-0000.params` into FOLDER."""
    source, name, sizes, folder = argv
    sys.meta_path.insert(0, WithoutTorch())
    warnings.simplefilter("ignore")
    import mxnet_compat

    mxnet_compat.install()
    import mxnet

    give_numpy_its_old_names()
    mxnet.random.seed(0)
    net = SOURCES[source](name)
    # in 8 bits a signal that shrinks from layer to layer is 0 at the end, which proves nothing
    net.initialize(
        mxnet.init.MSRAPrelu(factor_type="in") if source == "int8" else mxnet.init.Xavier()
    )
    net.hybridize()
    x = mxnet.nd.random.normal(shape=tuple(map(int, sizes.split(","))))
    net(x)
    if source == "int8":
        net = quantised(net, x)
        net(x)
    net.export(str(Path(folder) / "net"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
