"""Nets by others in both frameworks: the list, and the table of what is said of them.

Each pair is checked in a process of its own.

`python -m parity_tests.tests.pairing.real_table` checks every pair at the smallest size that it
takes; names choose pairs. With `--results FILE` what is there is not measured again. What it costs
is a benchmark (`benchmarks.parity`).
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


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
    Pair("model_zoo", "vgg11_bn", "vgg11_bn", 224, 224),
]  # fmt: skip

# Pairs that really differ: where first, by what, and whether the parameters correspond one to one
DIFFERENT = [
    # pytorchcv momentum is 0.9 where gluoncv2 keeps 0.9 of the running value
    (
        Pair("cv2", "nasnet_4a1056", "nasnet_4a1056", 224, 224),
        "features.init_block.bn", {"kept"}, True,
    ),
    (
        Pair("cv2", "irevnet301", "irevnet301", 224, 224),
        "features.final_postactiv.bn", {"kept"}, True,
    ),
    # the last activation is Swish in gluoncv2
    (Pair("cv2", "mixnet_s", "mixnet_s", 224, 224), "features.final_block.activ", {"kind"}, True),
    # bilinear in gluoncv2, nearest in pytorchcv
    (
        Pair("cv2", "scnet50", "scnet50", 224, 224),
        "features.stage1.unit1.body.conv2b.up", {"mode", "align_corners"}, True,
    ),
    # Gluon strides in the first convolution, torchvision in the second; Gluon's have biases
    (
        Pair("model_zoo", "resnet50_v1", "resnet50", 224, 224),
        "layer1.0.conv1", {"bias", "stride", "output shape"}, False,
    ),
]  # fmt: skip

_SECONDS = 1800  # that a pair may take
_ENDED = "the process ended: "


def run(*arguments: str, timeout: float = _SECONDS) -> dict[str, Any]:
    """What `real_pairs` prints, or how its process ended."""
    command = [sys.executable, "-m", "parity_tests.tests.pairing.real_pairs", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"ok": False, "first": f"no end in {timeout:.0f} s"}
    if done.returncode:
        known = -done.returncode in {int(s) for s in signal.Signals}
        ended = signal.Signals(-done.returncode).name if known else done.stderr.strip()[-300:]
        return {"ok": False, "first": f"{_ENDED}{ended}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def check(pair: Pair, timeout: float = _SECONDS) -> dict[str, Any]:
    """What `check_parity` says of a pair; with `isolate`, where native code ended it."""
    names = pair.zoo, pair.gluon, pair.torch, str(pair.smallest), str(pair.batch)
    result = run(*names, timeout=timeout)
    ended = str(result["first"]).startswith(_ENDED)
    return run(*names, "isolate", timeout=timeout) if ended else result


def _checked(pair: Pair, results: Path | None) -> Mapping[str, Any]:
    key = f"{pair.zoo} {pair.gluon} {pair.smallest} {pair.batch}"
    for line in results.read_text().splitlines() if results and results.exists() else ():
        known: dict[str, Any] = json.loads(line)
        if known["key"] == key:
            return known
    result = {"key": key} | check(pair)
    if results is not None:
        with results.open("a") as file:
            print(json.dumps(result), file=file)
    return result


def table(pairs: Sequence[Pair], results: Path | None) -> Iterator[str]:
    """The lines of a Markdown table, as they are measured."""
    yield "| pair | input | operations | verdict | CPU s | wall s | peak GB |"
    yield "|---|---|---|---|---|---|---|"
    for pair in pairs:
        result = _checked(pair, results)
        name = pair.gluon if pair.zoo == "cv2" else f"{pair.gluon} (Gluon's zoo, torchvision)"
        shape = f"{pair.batch} × {pair.smallest}²"
        verdict = "in parity" if result["ok"] else str(result["first"]).split("; ")[0]
        cells = [name, shape, result.get("ops", "")]
        cells += [verdict.replace("|", "\\|"), result.get("cpu", ""), result.get("sec", "")]
        cells += [f"{result['mb'] / 1024:.1f}" if "mb" in result else ""]
        yield f"| {' | '.join(map(str, cells))} |"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog="real_table")
    parser.add_argument("names", nargs="*", help="Gluon's names of pairs; all unless given")
    parser.add_argument("--results", type=Path, metavar="FILE", help="JSON lines, read and written")
    options = parser.parse_args(argv)
    pairs = [*EQUAL, *(pair for pair, *_ in DIFFERENT)]
    chosen = [pair for pair in pairs if not options.names or pair.gluon in options.names]
    for line in table(chosen, options.results):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
