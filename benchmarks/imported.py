"""`python -m benchmarks.imported`: inference through MXNet beside `mxnet_files`'s import.

Both sides open the same exported files of MXNet's own zoo and answer the same random images. Each
side is a process of its own that stays, and they take turns; what is compared is the median of
them. The sides are MXNet tuned and hybridized with static memory, the same fused by oneDNN
(`optimize_for(backend="MKLDNN")`), and the import after `mxnet_files.optimise` and after
`mxnet_files.freeze`. The outputs of all sides must agree, or nothing is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.cases import Turn, step_times
from benchmarks.child import Child, serve
from cnn_harness.cli import Parser, as_command, positive, print_json
from cnn_harness.errors import CommandError, UsageError

MODELS = ("resnet50_v1", "vgg16", "mobilenet1.0")
SIDES = ("mxnet", "mxnet fused", "optimise", "freeze")
EXPORT = "export"  # which writes the files that all sides open
PIXELS = {"inceptionv3": 299}  # side of an image; all others 224
AGREE = 1e-3  # of the largest output: the sides compute the same function

Begin = Callable[[str, Path, str, int, float], contextlib.AbstractContextManager[Turn]]


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 where a side fails or its outputs differ."""
    parser = Parser(prog="python -m benchmarks.imported", description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {', '.join(MODELS)}")
    parser.add_argument("--batch", type=positive, default=8, help="images at a time")
    parser.add_argument("--repeats", type=positive, default=5, help="turns of each side")
    parser.add_argument(
        "--seconds", type=positive, default=4, help="least time that a turn measures"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        serve(lambda: _get_ready(**json.loads(options.child)))
        return 0
    from mxnet_files.checking.zoo import MODELS as KNOWN

    unknown = [name for name in options.models if name not in KNOWN]
    if unknown:
        raise UsageError(f"unknown model {unknown[0]!r}, expected one of {', '.join(KNOWN)}")
    results = {}
    for name in options.models or MODELS:
        results[name] = measure(
            name, options.batch, options.repeats, options.seconds, quiet=options.json
        )
    if options.json:
        print_json({"batch": options.batch, "images_per_second": results})
    else:
        print("\n".join(rows(results)))
    return 0


def measure(
    name: str,
    batch: int,
    repeats: int,
    seconds: float,
    *,
    quiet: bool = False,
    begin: Begin | None = None,
) -> dict[str, list[float]]:
    """Images per second of each side, one number for each turn.

    `begin(side, folder, name, batch, seconds)` is a measurement that is ready: called, it takes a
    turn.

    Raises: CommandError where a process fails, or the sides' outputs are not the same.
    """
    begin = begin or _start
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        with begin(EXPORT, Path(folder), name, batch, 0.0):
            pass  # it is ready once the files are written
        ready = {
            side: stack.enter_context(begin(side, Path(folder), name, batch, seconds))
            for side in SIDES
        }
        for turn in range(repeats):
            outputs = {}
            for side in SIDES:
                found = ready[side](turn)
                speeds[side].append(float(found["images_per_second"]))
                outputs[side] = np.asarray(found["output"])
            _agree(name, outputs)
            if not quiet:
                line = ", ".join(f"{side} {speeds[side][-1]:.1f}" for side in SIDES)
                print(f"{name}, turn {turn + 1}: {line} images/s", file=sys.stderr, flush=True)
    return speeds


def _agree(name: str, outputs: Mapping[str, np.ndarray]) -> None:
    expected = outputs[SIDES[0]]
    size = float(np.abs(expected).max())
    for side, found in outputs.items():
        if found.shape != expected.shape:
            raise CommandError(f"{name}: {side} gives {found.shape}, MXNet {expected.shape}")
        off = float(np.abs(found - expected).max()) / size
        if not off <= AGREE:
            raise CommandError(
                f"{name}: {side} is {off:.1e} of the largest output from MXNet, at most {AGREE}"
            )


def rows(results: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """The table, in Markdown: medians, and the faster import as a part of MXNet."""
    lines = [
        "| model | MXNet hybridized | MXNet fused by oneDNN | `optimise` | `freeze` "
        "| import / hybridized | import / fused |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, speeds in results.items():
        plain, fused, *ours = (median(speeds[side]) for side in SIDES)
        cells = " | ".join(f"{speed:.1f}" for speed in (plain, fused, *ours))
        best = max(ours)
        lines.append(f"| {name} | {cells} | {best / plain:.2f} | {best / fused:.2f} |")
    return lines


def _start(side: str, folder: Path, name: str, batch: int, seconds: float) -> Child:
    """The process of a side, ready and warm. Raises: Failure."""
    told = {
        "side": side, "folder": str(folder), "name": name, "batch": batch, "seconds": seconds,
    }  # fmt: skip
    command = [sys.executable, "-m", "benchmarks.imported", "--child", json.dumps(told)]
    return Child(f"{name}, {side}", command)


def _get_ready(side: str, folder: str, name: str, batch: int, seconds: float) -> Turn:
    pixels = PIXELS.get(name, 224)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch, 3, pixels, pixels)).astype(np.float32)
    place = Path(folder)
    if side == EXPORT:
        from mxnet_files.checking.zoo import export_model  # torch must not be in MXNet's processes

        files = [str(path) for path in export_model(name, place)]
        return lambda _: {"files": files}
    symbol, params = place / f"{name}-symbol.json", place / f"{name}-0000.params"
    opened = _mxnet if side.startswith("mxnet") else _torch
    answer = opened(symbol, params, images, side)
    output = answer().tolist()
    answer()

    def turn(_: int) -> dict[str, Any]:
        times = step_times(answer, seconds)
        return {"images_per_second": batch / median(times), "output": output}

    return turn


def _mxnet(symbol: Path, params: Path, images: np.ndarray, side: str) -> Callable[[], Any]:
    import gluon_cnn  # noqa: F401  (settles MXNet's threads and engine before it loads)

    mx = importlib.import_module("mxnet")
    net = mx.gluon.SymbolBlock.imports(str(symbol), ["data"], str(params), ctx=mx.cpu())
    x = mx.nd.array(images)
    if side == "mxnet fused":
        net.optimize_for(x, backend="MKLDNN", static_alloc=True, static_shape=True)
    else:
        net.hybridize(static_alloc=True, static_shape=True)
    return lambda: net(x).asnumpy()


def _torch(symbol: Path, params: Path, images: np.ndarray, side: str) -> Callable[[], Any]:
    # What gluon_cnn.runtime gives MXNet's threads: a core for each, and a short spin before they
    # sleep. Left alone, they move between cores, and those that wait take the cores from those that
    # work wherever anything else runs.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("OMP_PROC_BIND", "true")
    import torch

    from mxnet_files import freeze, load_symbol, optimise

    x = torch.from_numpy(images)
    loaded = load_symbol(symbol, params)
    module = optimise(loaded) if side == "optimise" else freeze(loaded, x)

    def answer() -> np.ndarray:
        with torch.inference_mode():
            return module(x).numpy()

    return answer


if __name__ == "__main__":
    sys.exit(main())
