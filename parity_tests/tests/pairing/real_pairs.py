"""Nets by others in both frameworks: the list, and one of them in a process of its own.

`python -m parity_tests.tests.pairing.real_pairs ZOO GLUON TORCH SIZE [BATCH]` prints, as JSON, what
the alignment says of a pair on two images, or with a batch what `check_parity` says. MXNet can end
its process by a signal; the table of all pairs (`real_table`) must not go with it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
import torch

from parity_tests import check_parity
from parity_tests.backends.leaves import ParityError
from parity_tests.pairing.parameters import align_nets, transfer_parameters
from parity_tests.tests.pairing.nets import initialised

__all__ = ["DIFFERENT", "EQUAL", "Pair", "check", "measure"]


class Pair(NamedTuple):
    """A net of two zoos; the size of the square images that it is made for, and the smallest that
    both take in training, with the smallest batch."""

    zoo: str
    gluon: str
    torch: str
    size: int
    smallest: int
    batch: int = 1


def _cv2(size: int, smallest: int, names: str, batch: int = 1) -> list[Pair]:
    return [Pair("cv2", name, name, size, smallest, batch) for name in names.split()]


# gluoncv2 beside pytorchcv, and Gluon's own zoo beside torchvision. gluoncv2 pools over 7 × 7 maps
# in most of its nets, which needs 193 pixels.
EQUAL = [
    *_cv2(
        224, 224,
        "airnet50_1x64d_r2 airnext50_32x4d_r2 alexnet bagnet9 bn_vgg11 bninception"
        " condensenet74_c4_g4 densenet121 dicenet_wd5 diracnet18v2 dla34 drnc26 fishnet99"
        " hrnet_w18_small_v1 ibn_densenet121 octresnet10_ad2 peleenet resattnet56 shufflenetv2_wd2"
        " sparsenet121 sqnxt23_w1 squeezenet_v1_0 vovnet27s zfnet",
    ),
    *_cv2(
        224, 193,
        "cbam_resnet18 channelnet darknet53 dpn68 espnetv2_wd2 fbnet_cb hardnet39ds ibn_resnet50"
        " igcv3_w1 menet108_8x1_g3 mnasnet_b1 mobilenet_wd4 mobilenetb_wd4 mobilenetv2_wd4"
        " mobilenetv3_large_w1 preresnet18 proxylessnas_cpu resnet18 resnext50_32x4d selecsls42"
        " senet16 seresnet18 seresnet50 seresnext50_32x4d shufflenet_g1_wd4 shufflenetv2b_wd2"
        " spnasnet",
    ),
    *_cv2(224, 193, "bam_resnet18 ghostnet sknet50", 2),
    *_cv2(224, 64, "efficientnet_b0 efficientnet_edge_small_b regnetx002 resneta10 resnetd50b"),
    *_cv2(224, 64, "resnesta18", 2),
    *_cv2(299, 299, "inceptionv3 inceptionv4"),
    *_cv2(299, 299, "inceptionresnetv1", 2),
    *_cv2(331, 331, "polynet"),
    *_cv2(
        32, 32,
        "diaresnet20_cifar10 fractalnet_cifar10 nin_cifar10 pyramidnet110_a48_cifar10 rir_cifar10"
        " shakeshakeresnet20_2x16d_cifar10 wrn16_10_cifar10 xdensenet40_2_k24_bc_cifar10",
    ),
    Pair("model_zoo", "alexnet", "alexnet", 224, 224),
    Pair("model_zoo", "densenet121", "densenet121", 224, 224),
    Pair("model_zoo", "inception_v3", "inception_v3", 299, 299, 2),
    Pair("model_zoo", "resnet18_v1", "resnet18", 224, 64),
    Pair("model_zoo", "resnet34_v1", "resnet34", 224, 64),
    Pair("model_zoo", "squeezenet1_0", "squeezenet1_0", 224, 224),
    Pair("model_zoo", "vgg11_bn", "vgg11_bn", 224, 64),
]  # fmt: skip

# Pairs that really differ: by what, and whether the parameters correspond one to one all the same
DIFFERENT = [
    # pytorchcv momentum is 0.9 where gluoncv2 keeps 0.9 of the running value
    (Pair("cv2", "nasnet_4a1056", "nasnet_4a1056", 224, 224), {"kept"}, True),
    (Pair("cv2", "irevnet301", "irevnet301", 224, 224), {"kept"}, True),
    # the last activation is Swish in gluoncv2
    (Pair("cv2", "mixnet_s", "mixnet_s", 224, 224), {"kind"}, True),
    # bilinear in gluoncv2, nearest in pytorchcv
    (Pair("cv2", "scnet50", "scnet50", 224, 224), {"mode", "align_corners"}, True),
    # Gluon strides in the first convolution, torchvision in the second; Gluon's have biases
    (
        Pair("model_zoo", "resnet50_v1", "resnet50", 224, 224),
        {"bias", "stride", "output shape"},
        False,
    ),
]


def _register_nothing(*args: object, **kwargs: object) -> Callable[[Any], Any]:
    return lambda function: function


def _build(zoo: str, gluon_name: str, torch_name: str) -> tuple[Any, Any]:
    # torchvision's wheel registers shapes of C++ operators that a CPU build of torch lacks
    torch.library.register_fake = _register_nothing
    if zoo == "model_zoo":
        from mxnet.gluon.model_zoo import vision
        from torchvision import models

        options = {"init_weights": False} if torch_name == "inception_v3" else {}
        return getattr(vision, gluon_name)(), getattr(models, torch_name)(**options)
    from gluoncv2.model_provider import get_model as gluon_model
    from pytorchcv.model_provider import get_model as torch_model

    return gluon_model(gluon_name), torch_model(torch_name)


def _images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)


def _flat(outputs: Any) -> Iterator[Any]:
    if isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from _flat(output)
    elif outputs is not None:
        yield outputs


def measure(zoo: str, gluon_name: str, torch_name: str, size: int) -> dict[str, Any]:
    """Align two nets on two images of size × size, transfer the weights, compare the outputs."""
    gluon_net, torch_net = _build(zoo, gluon_name, torch_name)
    x = _images(2, size)
    initialised(gluon_net, x)
    start = time.perf_counter()
    alignment = align_nets(gluon_net, torch_net, [x])
    result: dict[str, Any] = {
        "seconds": round(time.perf_counter() - start, 1),
        "aligned": len(alignment.pairs),
        "alone": [str(op) for side in alignment.alone for op in side],
        "differences": sorted({d.what for p in alignment.differing for d in p.differences}),
        "total": alignment.total,
        "equal": alignment.equal,
    }
    try:
        transfer_parameters(gluon_net, torch_net, [x])
    except ParityError as error:
        return result | {"error": None, "reason": str(error)}
    with torch.no_grad():
        theirs = torch_net.eval()(torch.from_numpy(x))
    errors = [
        np.abs(ours.asnumpy() - other.numpy()).max() / np.abs(other.numpy()).max()
        for ours, other in zip(_flat(gluon_net(mx.nd.array(x))), _flat(theirs), strict=True)
    ]
    return result | {"error": float(max(errors))}


def check(zoo: str, gluon_name: str, torch_name: str, size: int, batch: int) -> dict[str, Any]:
    """`check_parity` at four levels after transfer, with CPU time, wall time and peak memory."""
    gluon_net, torch_net = _build(zoo, gluon_name, torch_name)
    x = _images(batch, size)
    initialised(gluon_net, x)
    start, cpu = time.perf_counter(), time.process_time()
    report = check_parity(gluon_net, torch_net, x, transfer=True)
    counts = report.coverage.counts()
    return {
        "cpu": round(time.process_time() - cpu, 1),
        "sec": round(time.perf_counter() - start, 1),
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "ok": report.ok,
        "first": str(report.first_divergence or ""),
        "ops": counts.get("operations", counts.get("leaves", (0, 0)))[0],
        "rows": len(report.rows),
        "notes": len(report.notes),
    }


if __name__ == "__main__":
    _, zoo, gluon_name, torch_name, *numbers = sys.argv
    do = measure if len(numbers) == 1 else check
    print(json.dumps(do(zoo, gluon_name, torch_name, *map(int, numbers))))
