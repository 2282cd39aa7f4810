"""`python -m mxnet_files.checking.third_party_export SOURCE NET SHAPE FOLDER`: MXNet's own files.

A process of its own, without torch: GluonCV refuses torch from 2 on.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["SOURCES", "main"]


def gluoncv2_net(name: str) -> Any:
    """A net of the package gluoncv2."""
    from gluoncv2.model_provider import get_model

    return get_model(name)


def gluoncv_net(name: str) -> Any:
    """A net of GluonCV, with no weights from the network."""
    from gluoncv.model_zoo import get_model

    try:
        return get_model(name, pretrained=False, pretrained_base=False)
    except TypeError:  # nets that have no base
        return get_model(name, pretrained=False)


def recurrent_net(name: str) -> Any:
    """A layer of Gluon's own `rnn`, such as `LSTM 2 bidirectional`."""
    from mxnet.gluon import nn, rnn

    kind, layers, *rest = name.split()
    layer = getattr(rnn, kind)(8, int(layers), bidirectional="bidirectional" in rest)
    net = nn.HybridSequential()
    net.add(layer, nn.Dense(5, flatten=False))
    return net


SOURCES: dict[str, Callable[[str], Any]] = {
    "gluoncv2": gluoncv2_net,
    "gluoncv": gluoncv_net,
    "gluon.rnn": recurrent_net,
}


def main(argv: Sequence[str]) -> int:
    """Write `net-symbol.json` and `net-0000.params` into FOLDER."""
    source, name, sizes, folder = argv
    sys.modules["torch"] = None  # type: ignore[assignment]
    warnings.simplefilter("ignore")
    import mxnet_compat

    mxnet_compat.install()
    import mxnet

    mxnet.random.seed(0)
    net = SOURCES[source](name)
    net.initialize(mxnet.init.Xavier())
    net.hybridize()
    net(mxnet.nd.random.normal(shape=tuple(map(int, sizes.split(",")))))
    net.export(str(Path(folder) / "net"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
