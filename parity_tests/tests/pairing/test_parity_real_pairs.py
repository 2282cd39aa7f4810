"""Nets of third parties: what they execute aligns, and weights move along the alignment.

Needs `pip install --no-deps gluoncv2 pytorchcv torchvision==0.28.0`; `-s` prints the table's rows.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(n) is None for n in ("gluoncv2", "pytorchcv", "torchvision")),
        reason="gluoncv2, pytorchcv and torchvision are not installed",
    ),
]

# gluoncv2's and pytorchcv's name, and the size of the square input
EQUAL = {
    "airnet50_1x64d_r2": 224, "airnext50_32x4d_r2": 224, "alexnet": 224, "bagnet9": 224,
    "bam_resnet18": 224, "bn_vgg11": 224, "bninception": 224, "cbam_resnet18": 224,
    "channelnet": 224, "condensenet74_c4_g4": 224, "darknet53": 224, "densenet121": 224,
    "diaresnet20_cifar10": 32, "dicenet_wd5": 224, "diracnet18v2": 224, "dla34": 224,
    "dpn68": 224, "drnc26": 224, "efficientnet_b0": 224, "efficientnet_edge_small_b": 224,
    "espnetv2_wd2": 224, "fbnet_cb": 224, "fishnet99": 224, "fractalnet_cifar10": 32,
    "ghostnet": 224, "hardnet39ds": 224, "hrnet_w18_small_v1": 224, "ibn_densenet121": 224,
    "ibn_resnet50": 224, "igcv3_w1": 224, "inceptionresnetv1": 299, "inceptionv3": 299,
    "inceptionv4": 299, "menet108_8x1_g3": 224, "mnasnet_b1": 224, "mobilenet_wd4": 224,
    "mobilenetb_wd4": 224, "mobilenetv2_wd4": 224, "mobilenetv3_large_w1": 224,
    "nin_cifar10": 32, "octresnet10_ad2": 224, "peleenet": 224, "polynet": 331,
    "preresnet18": 224, "proxylessnas_cpu": 224, "pyramidnet110_a48_cifar10": 32,
    "regnetx002": 224, "resattnet56": 224, "resnesta18": 224, "resneta10": 224,
    "resnet18": 224, "resnetd50b": 224, "resnext50_32x4d": 224, "rir_cifar10": 32,
    "selecsls42": 224, "senet16": 224, "seresnet18": 224, "seresnet50": 224,
    "seresnext50_32x4d": 224, "shakeshakeresnet20_2x16d_cifar10": 32, "shufflenet_g1_wd4": 224,
    "shufflenetv2_wd2": 224, "shufflenetv2b_wd2": 224, "sknet50": 224, "sparsenet121": 224,
    "spnasnet": 224, "sqnxt23_w1": 224, "squeezenet_v1_0": 224, "vovnet27s": 224,
    "wrn16_10_cifar10": 32, "xdensenet40_2_k24_bc_cifar10": 32, "zfnet": 224,
}  # fmt: skip

# Gluon's name, torchvision's name, the size
ZOO = [
    ("alexnet", "alexnet", 224),
    ("densenet121", "densenet121", 224),
    ("inception_v3", "inception_v3", 299),
    ("resnet18_v1", "resnet18", 224),
    ("resnet34_v1", "resnet34", 224),
    ("squeezenet1_0", "squeezenet1_0", 224),
    ("vgg11_bn", "vgg11_bn", 224),
]

# Pairs that really differ: by what, and whether the parameters correspond one to one all the same
DIFFERENT = [
    # pytorchcv momentum is 0.9 where gluoncv2 keeps 0.9 of the running value
    ("cv2", "nasnet_4a1056", "nasnet_4a1056", 224, {"kept"}, True),
    ("cv2", "irevnet301", "irevnet301", 224, {"kept"}, True),
    # the last activation is Swish in gluoncv2
    ("cv2", "mixnet_s", "mixnet_s", 224, {"kind"}, True),
    # bilinear in gluoncv2, nearest in pytorchcv
    ("cv2", "scnet50", "scnet50", 224, {"mode", "align_corners"}, True),
    # Gluon strides in the first convolution, torchvision in the second; Gluon's have biases
    ("model_zoo", "resnet50_v1", "resnet50", 224, {"bias", "stride", "output shape"}, False),
]


def _run(*arguments: str, timeout: float) -> dict[str, Any]:
    script = Path(__file__).with_name("real_pairs.py")
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(zoo: str, gluon_name: str, torch_name: str, size: int) -> dict[str, Any]:
    result = _run(zoo, gluon_name, torch_name, str(size), timeout=280)
    print(f"| {gluon_name} | {result['aligned']} | {len(result['alone'])} | {result['seconds']} |")
    return result


@pytest.mark.parametrize("name", EQUAL)
def test_an_equal_pair_aligns_completely_and_agrees(name: str) -> None:
    _check_equal(_measure("cv2", name, name, EQUAL[name]))


@pytest.mark.parametrize(("gluon_name", "torch_name", "size"), ZOO)
def test_gluons_zoo_aligns_with_torchvision(gluon_name: str, torch_name: str, size: int) -> None:
    _check_equal(_measure("model_zoo", gluon_name, torch_name, size))


PAIRS = [*(("cv2", name, name, size) for name, size in EQUAL.items()),
         *(("model_zoo", *pair) for pair in ZOO)]  # fmt: skip


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(("zoo", "gluon_name", "torch_name", "size"), PAIRS)
def test_an_equal_pair_is_in_parity(zoo: str, gluon_name: str, torch_name: str, size: int) -> None:
    result = _run(zoo, gluon_name, torch_name, str(size), "check", timeout=1200)
    cells = (gluon_name, torch_name, *(result[k] for k in ("operations", "seconds", "peak_mb")))
    print(f"| {' | '.join(map(str, cells))} |")
    assert result["ok"], result["first"]


@pytest.mark.timeout(1300)
@pytest.mark.parametrize(("zoo", "gluon_name", "torch_name", "size", "what", "total"), DIFFERENT)
def test_a_real_difference_is_the_first_divergence(
    zoo: str, gluon_name: str, torch_name: str, size: int, what: set[str], total: bool
) -> None:
    result = _run(zoo, gluon_name, torch_name, str(size), "check", timeout=1200)
    assert not result["ok"]
    assert "structure" in result["first"]


def _check_equal(result: dict[str, Any]) -> None:
    assert result["aligned"]
    assert not result["alone"]
    assert result["equal"], result["differences"]
    assert result["error"] < 1e-4


@pytest.mark.parametrize(("zoo", "gluon_name", "torch_name", "size", "what", "total"), DIFFERENT)
def test_a_real_difference_is_named(
    zoo: str, gluon_name: str, torch_name: str, size: int, what: set[str], total: bool
) -> None:
    result = _measure(zoo, gluon_name, torch_name, size)
    assert not result["alone"]
    assert set(result["differences"]) == what
    assert result["total"] == total
