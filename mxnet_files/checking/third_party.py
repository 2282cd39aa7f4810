"""Nets by others: exported by MXNet, opened, and compared with it (`mxnet-files zoo --others`).

Needs MXNet and `pip install --no-deps gluoncv gluoncv2 gluonnlp yacs portalocker autocfg` (and
OpenCV).
Every step is a process of its own, as a user would start it: what it takes and how it ends is its
own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from mxnet_files.checking.oracle import SUBGRAPH_BACKEND
from mxnet_files.errors import SymbolError

LONGEST = 160  # characters of a reason in the table
BACKEND_IS_WRONG = "MXNet's own default backend (oneDNN)"


class Verdict(StrEnum):
    """How far a net came."""

    AGREES = "agrees"
    DIFFERS = "differs"  # opened, and `check` alarms
    REFUSED = "refused"  # not opened, or not run
    NOT_EXPORTED = "not exported"  # MXNet cannot write it, so there is no file to open


@dataclass(frozen=True)
class Net:
    """A net by name, the package it comes from, and the size of its input."""

    source: str
    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Outcome:
    """One row: `detail` is the reason, `worst` the node nearest to its bound, in u·s."""

    source: str
    name: str
    shape: str
    verdict: Verdict
    nodes: int = 0
    dtype: str = ""
    worst: float = 0.0
    detail: str = ""
    seconds: float = 0.0


# gluoncv2 by the shape of the input; one of each family, some of two
GLUONCV2 = {
    (1, 3, 224, 224): """airnet50_1x64d_r2 airnext50_32x4d_r2 alexnet bagnet9 bam_resnet18 bn_vgg11
        bninception cbam_resnet18 channelnet condensenet74_c4_g4 darknet53 densenet121 dicenet_wd5
        diracnet18v2 dla34 dpn68 drnc26 efficientnet_b0 espnetv2_wd2 fbnet_cb fishnet99 ghostnet
        hardnet39ds hrnet_w18_small_v1 ibn_densenet121 ibn_resnet50 igcv3_w1 menet108_8x1_g3
        mobilenet_wd4 mobilenetb_wd4 mobilenetv2_wd4 mobilenetv3_large_w1 octresnet10_ad2 peleenet
        preresnet18 proxylessnas_cpu regnetx002 resattnet56 resnesta18 resnet18 resneta10 resnetd50b
        resnext50_32x4d scnet50 selecsls42 senet16 seresnet18 seresnet50 seresnext50_32x4d
        shufflenet_g1_wd4 shufflenetv2_wd2 shufflenetv2b_wd2 sknet50 sparsenet121 spnasnet
        sqnxt23_w1 squeezenet_v1_0 vovnet27s zfnet efficientnet_edge_small_b mixnet_s irevnet301""",
    (1, 1, 224, 224): "superpointnet",
    (1, 3, 299, 299): "inceptionresnetv1 inceptionv3 inceptionv4",
    (1, 3, 331, 331): "polynet",
    (1, 3, 32, 32): """diapreresnet20_cifar10 diaresnet20_cifar10 fractalnet_cifar10 nin_cifar10
        preresnet20_cifar10 pyramidnet110_a48_cifar10 resnet20_cifar10 rir_cifar10
        shakeshakeresnet20_2x16d_cifar10 wrn16_10_cifar10 xdensenet40_2_k24_bc_cifar10""",
}
GLUONCV = {
    (1, 3, 224, 224): """resnet18_v1b resnet50_v1d resnext50_32x4d se_resnext50_32x4d googlenet
        mobilenetv3_small mobilenetv3_large resnest14 hrnet_w18_small_v1_c darknet53""",
    (1, 3, 299, 299): "xception",
    (1, 3, 300, 300): "ssd_300_vgg16_atrous_voc",
    (1, 3, 128, 128): """yolo3_mobilenet1.0_voc yolo3_darknet53_voc center_net_resnet18_v1b_voc
        center_net_resnet18_v1b_dcnv2_voc""",
    (1, 3, 256, 256): "faster_rcnn_resnet50_v1b_voc mask_rcnn_resnet18_v1b_coco",
    (1, 3, 256, 192): """simple_pose_resnet18_v1b mobile_pose_mobilenet1.0
        alpha_pose_resnet101_v1b_coco""",
    (1, 3, 480, 480): "fcn_resnet50_ade psp_resnet50_ade deeplab_resnet50_ade danet_resnet50_citys",
    (1, 3, 64, 64): "hrnet_w18_small_v1_s",
    (1, 3, 32, 32): "cifar_resnet20_v1 cifar_resnet20_v2 cifar_wideresnet16_10",
}
# MXNet's own zoo by quantize_net_v2, whose oneDNN layers are fused
INT8 = {
    (1, 3, 64, 64): """resnet18_v1 resnet50_v1 resnet18_v2 mobilenet1.0 mobilenet0.25
        mobilenetv2_1.0 mobilenetv2_0.25""",
    (1, 3, 224, 224): "squeezenet1.0",  # its last pooling has no smaller input
}
TRANSFORMERS = {
    (2, 6, 32): "BERTEncoder TransformerEncoder",
    (6, 2, 32): "ConvolutionalEncoder",
}
RECURRENT = ("LSTM 1", "LSTM 2 bidirectional", "GRU 1", "GRU 2 bidirectional", "RNN 2")
NETS: tuple[Net, ...] = (
    *(Net("gluon.rnn", name, (7, 2, 6)) for name in RECURRENT),
    *(
        Net(source, name, shape)
        for source, by_shape in (
            ("gluoncv2", GLUONCV2),
            ("gluoncv", GLUONCV),
            ("gluonnlp", TRANSFORMERS),
            ("int8", INT8),
        )
        for shape, names in by_shape.items()
        for name in names.split()
    ),
)


def run_net(net: Net, timeout: float) -> Outcome:
    """Export, open and check one net, each step within `timeout` seconds."""
    start = time.monotonic()
    sizes = ",".join(map(str, net.shape))

    def outcome(verdict: Verdict, detail: str = "", **more: object) -> Outcome:
        seconds = round(time.monotonic() - start, 1)
        shown = "×".join(map(str, net.shape))
        return Outcome(net.source, net.name, shown, verdict, detail=detail[:LONGEST],
                       seconds=seconds, **more)  # type: ignore[arg-type]  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        export = "mxnet_files.checking.third_party_export"
        _, error = python(["-m", export, net.source, net.name, sizes, folder], timeout)
        files = [f"{folder}/net-symbol.json", f"{folder}/net-0000.params"]
        if error or not all(Path(path).exists() for path in files):
            return outcome(Verdict.NOT_EXPORTED, error)
        check = ["-m", "mxnet_files", "check", *files, "--input-shape", sizes, "--json"]
        check += ["--budget", "bytes=8G,values=2G"]
        said, error = python(check, timeout)
        fault = ""
        if BACKEND_IS_WRONG in error:  # MXNet's own; the import equals its plain graph
            fault = error.partition(BACKEND_IS_WRONG)[2].partition(":")[0]
            fault = f"MXNet's default backend{fault}"
            said, error = python(check, timeout, {SUBGRAPH_BACKEND: "NONE"})
    if error:
        alarm = "differs from MXNet" in error
        return outcome(Verdict.DIFFERS if alarm else Verdict.REFUSED, error)
    found = json.loads(said.splitlines()[-1])["check"]
    agree = found["ok"] and found["compared"] == found["nodes"] > 0
    return outcome(
        Verdict.AGREES if agree else Verdict.DIFFERS,
        fault,
        nodes=found["nodes"],
        dtype=found["dtype"],
        worst=found["worst_local_units"],
    )


def python(
    arguments: Sequence[str], timeout: float, variables: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """What a process printed, and the last line of its error where it failed."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **(variables or {})}
    try:
        done = subprocess.run(
            [sys.executable, *arguments], check=False, capture_output=True, text=True,
            timeout=timeout, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "", f"no end within {timeout:g} s"
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return "", lines[-1] if lines else f"exit status {done.returncode}"
    return done.stdout, ""


def run_all(
    nets: Iterable[Net], timeout: float, results: Path | None, say: Callable[[str], object]
) -> list[Outcome]:
    """Run nets one after the other; `results` keeps the rows, and a run that broke off goes on."""
    rows: list[Outcome] = []
    if results is not None and results.exists():
        try:
            kept = json.loads(results.read_text("utf-8"))
            rows = [Outcome(**{**row, "verdict": Verdict(row["verdict"])}) for row in kept]
        except (ValueError, TypeError, KeyError) as error:
            raise SymbolError(f"{results}: not the results of this command ({error})") from None
    done = {(row.source, row.name) for row in rows}
    for net in nets:
        if (net.source, net.name) in done:
            continue
        rows.append(run_net(net, timeout))
        say(line(rows[-1]))
        if results is not None:
            results.write_text(json.dumps([asdict(row) for row in rows], indent=0), "utf-8")
    return rows


HEADING = (
    "| source | net | input | verdict | nodes | worst node, u·s | remark |",
    "|---|---|---|---|---|---|---|",
)


def line(row: Outcome) -> str:
    """One row in Markdown."""
    worst = f"{row.worst:.1f} ({row.dtype})" if row.nodes else ""
    why = row.detail.replace("|", "/")
    cells = (row.source, row.name, row.shape, row.verdict, row.nodes or "", worst, why)
    return "| " + " | ".join(map(str, cells)) + " |"


def summary(rows: Sequence[Outcome]) -> str:
    """How many of those that MXNet can export open and agree."""
    counts = Counter(row.verdict for row in rows)
    exported = len(rows) - counts[Verdict.NOT_EXPORTED]
    return (
        f"{counts[Verdict.AGREES]} of {exported} nets that MXNet can export open and agree, "
        f"{counts[Verdict.DIFFERS]} differ, {counts[Verdict.REFUSED]} are refused; "
        f"{counts[Verdict.NOT_EXPORTED]} more MXNet itself cannot export"
    )


def table(rows: Sequence[Outcome]) -> str:
    """All rows and the summary, in Markdown."""
    return "\n".join([*HEADING, *map(line, rows), "", summary(rows) + "."])


def report(rows: Sequence[Outcome]) -> int:
    """0 where every net that MXNet exports opens and agrees."""
    return int(any(row.verdict in (Verdict.DIFFERS, Verdict.REFUSED) for row in rows))
