"""What the files of an export compute, in a process that has seen nothing but the files.

`python -m gluon_cnn.exporting.reload WORK FOLDER…` opens each exported folder every way that its
files are meant for, runs the inputs in WORK/0.npy, WORK/1.npy, … in the batches of `BATCHES`, and
writes what it found to WORK/0, WORK/1, …; `gluon_cnn.export` starts it and judges. A file that
cannot be loaded is a finding, not a failure of this process.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from cnn_harness.cli import Parser, as_command
from cnn_harness.errors import CommandError
from gluon_cnn.exporting.exported import (
    FORMAT,
    INPUT,
    OWN_FORMAT,
    find_manifest,
    import_symbol,
    read_manifest,
)
from gluon_cnn.exporting.runners import ENGINES, Opener, Runner, Way
from gluon_cnn.exporting.speeds import images_per_second, settle
from gluon_cnn_parity.cli import one_line

BATCHES = (1, 8)  # images at a time; a file that baked its batch in fails one of them

SYMBOL_BLOCK, MODULE = "SymbolBlock.imports", "mx.mod.Module"
ONNX_RUNTIME = ENGINES["onnxruntime"].label


@dataclass(frozen=True)
class Reloaded:
    """What one way of loading found: outputs (n, classes) by batch size, or an error."""

    outputs: dict[int, np.ndarray] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)  # name -> sha256 of its values
    error: str | None = None
    speeds: dict[str, float] = field(default_factory=dict)  # of an engine, by batch size
    way: str | None = None  # in which an engine was run that is not its own


def shown(run: Runner, inputs: np.ndarray, way: str) -> dict[int, np.ndarray]:
    """Outputs by batch size that show what a way of running an engine computes: of the inputs in
    `BATCHES`, and of as many of them, repeated, as fill a part for each thread and begin another.
    """
    how = Way.parse(way)
    more = how.rows * max(1, how.threads) + max(BATCHES)
    sizes = (*BATCHES, more) if how.rows else BATCHES
    return {n: run(np.resize(inputs, (n, *inputs.shape[1:]))) for n in sizes}


def reload(
    exports: Mapping[Path, np.ndarray], engines: Sequence[str] = ()
) -> list[dict[str, Reloaded]]:
    """Open exported folders in a fresh process; for each, what each way of loading found.

    `exports` gives each folder its inputs, float32 (max(BATCHES), C, H, W). The `engines` run them
    too, and are timed. Raises: CommandError where the process itself fails.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for number, inputs in enumerate(exports.values()):
            np.save(work / f"{number}.npy", inputs)
        folders = [str(path.absolute()) for path in exports]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "gluon_cnn.exporting.reload"),
                *(f"--engine={engine}" for engine in engines),
                *(name, *folders),
            ],
            cwd=Path(__file__).parents[2],  # so that it imports this gluon_cnn, not another
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:  # it was killed, perhaps for want of memory
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise CommandError(
                f"the process that reloads the files failed ({done.returncode}): {last}"
            )
        return [_read(work / str(number)) for number in range(len(exports))]


def _read(folder: Path) -> dict[str, Reloaded]:
    by_loader = {}
    for label, result in json.loads((folder / "results.json").read_text()).items():
        outputs = {n: np.load(folder / f"{label}-{n}.npy") for n in result["batches"]}
        by_loader[label] = Reloaded(
            outputs, result["parameters"], result["error"], result["speeds"], result["way"]
        )
    return by_loader


def _symbol_block(folder: Path, name: str) -> tuple[Runner, dict[str, str]]:
    read_manifest(folder / f"{name}.json", (FORMAT, OWN_FORMAT))
    net = import_symbol(folder, name, [mx.cpu()])
    return lambda x: net(mx.nd.array(x)).asnumpy(), parameter_sums(net)


def _module(folder: Path, name: str) -> tuple[Runner, dict[str, str]]:
    symbol, arg_params, aux_params = mx.model.load_checkpoint(str(folder / name), 0)

    def forward(x: np.ndarray) -> np.ndarray:
        module = mx.mod.Module(symbol, data_names=[INPUT], label_names=None, context=mx.cpu())
        module.bind([(INPUT, x.shape)], for_training=False)
        module.set_params(arg_params, aux_params)
        module.forward(mx.io.DataBatch([mx.nd.array(x)]), is_train=False)
        return module.get_outputs()[0].asnumpy()

    return forward, {}


def _onnx_runtime(folder: Path, name: str) -> tuple[Runner, dict[str, str]]:
    return ENGINES["onnxruntime"].open(folder, name), {}


LOADERS = {SYMBOL_BLOCK: _symbol_block, MODULE: _module, ONNX_RUNTIME: _onnx_runtime}


def parameter_sums(net: mx.gluon.Block) -> dict[str, str]:
    """A sha256 of each parameter's dtype, shape and values, by its full name."""
    sums = {}
    for name, parameter in net.collect_params().items():
        array = parameter.data(parameter.list_ctx()[0]).asnumpy()
        head = f"{array.dtype} {array.shape} ".encode()
        sums[name] = hashlib.sha256(head + array.tobytes()).hexdigest()
    return sums


@as_command()
def main(argv: Sequence[str] | None = None) -> int:
    """The process; returns 0 once every folder has its findings."""
    parser = Parser(
        prog="python -m gluon_cnn.exporting.reload",
        description="The second half of gluon_cnn.export: run exported files on given inputs.",
    )
    parser.add_argument("--engine", action="append", default=[], choices=tuple(ENGINES))
    parser.add_argument("work", metavar="WORK", type=Path, help="holds 0.npy, 1.npy, …")
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+", help="of an export")
    args = parser.parse_args(argv)
    for number, folder in enumerate(args.folders):
        into = args.work / str(number)
        into.mkdir()
        _examine(folder, np.load(args.work / f"{number}.npy"), into, args.engine)
    return 0


def _examine(folder: Path, images: np.ndarray, into: Path, engines: Sequence[str]) -> None:
    manifest = find_manifest(folder)
    if manifest is None:
        raise CommandError(f"{folder} holds no export")
    name = manifest.stem
    has_onnx = (folder / f"{name}.onnx").exists()
    opener = Opener(folder, name)
    timed = {ENGINES[engine].label: engine for engine in engines}
    by_loader: dict[str, dict[str, Any]] = {}
    for label in dict.fromkeys((*LOADERS, *timed)):
        if label == ONNX_RUNTIME and not has_onnx:
            continue
        with _finding(by_loader, label) as found:
            if label in timed:
                forward = ENGINES[timed[label]].open(folder, name)
            else:
                forward, found["parameters"] = LOADERS[label](folder, name)
            for size in BATCHES:
                _keep(into, label, size, forward(images[:size]), found)
            if label in timed:
                found["speeds"] = images_per_second(forward, images)
            del forward  # one engine at a time is in memory
    speeds = {e: each for label, e in timed.items() if (each := by_loader[label]["speeds"])}
    settle(speeds, images, opener, in_ways=opener.small)
    for way in [way for way in speeds if way not in engines]:
        label = Way.parse(way).label
        with _finding(by_loader, label, way=way, speeds=speeds[way]) as found:
            for size, outputs in shown(opener(way), images, way).items():
                _keep(into, label, size, outputs, found)
    (into / "results.json").write_text(json.dumps(by_loader))


@contextmanager
def _finding(
    by_loader: dict[str, dict[str, Any]], label: str, **known: Any
) -> Iterator[dict[str, Any]]:
    found = {"batches": [], "parameters": {}, "error": None, "speeds": {}, "way": None, **known}
    by_loader[label] = found
    try:
        yield found
    except Exception as caught:  # whatever a file provokes is what was to be found
        found["error"] = f"{type(caught).__name__}: {one_line(caught)[:500]}"


def _keep(into: Path, label: str, size: int, outputs: np.ndarray, found: Mapping[str, Any]) -> None:
    np.save(into / f"{label}-{size}.npy", outputs)
    found["batches"].append(size)


if __name__ == "__main__":
    sys.exit(main())
