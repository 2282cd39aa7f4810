"""`python -m gluon_cnn.export`: symbol, parameter and ONNX files, proven before they are there.

The files are written into a temporary folder, opened in a fresh process, compared with the live
net on real images, and only then renamed into place: a failed check leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from cnn_data import DataError, pixels
from cnn_data.catalog import entry_for
from cnn_harness.cli import Parser, natural, positive, print_json, run
from cnn_harness.errors import CommandError, UsageError
from gluon_cnn.exporting.exported import describe, find_manifest, write_manifest
from gluon_cnn.exporting.onnx_file import OPSET, check_onnx, require_onnx, write_onnx
from gluon_cnn.exporting.proof import Check, Live, judge, observe
from gluon_cnn.exporting.real_images import DIGITS, real_images
from gluon_cnn.exporting.reload import BATCHES, reload
from gluon_cnn.models import MODELS, ModelError, get_model
from gluon_cnn.training.assembly import set_first_weights
from gluon_cnn.training.recipes import DEFAULTS
from gluon_cnn.training.saved import SavedRun, open_run
from gluon_cnn_parity.atomic import flush

__all__ = ["export_net", "fresh_net", "main"]


def export_net(
    saved: SavedRun,
    out: Path,
    *,
    onnx: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Export a net, on the CPU, into the folder `out`, which must be new or empty.

    Leaves NAME-symbol.json, NAME-0000.params, NAME.json and, with `onnx`, NAME.onnx; NAME is the
    model's name. Returns what was written and compared; `say` gets a line for each comparison.
    The net is hybridized by it. Raises: UsageError where `out` is taken; CommandError where a
    file cannot be written, or does not compute what the net computes; then nothing is left.
    """
    _require_free(out)
    if onnx:
        require_onnx()
    images, origin = real_images(saved, max(BATCHES))
    inputs = saved.pixels.apply(images.transpose(0, 3, 1, 2))
    live = observe(saved.net, inputs)
    place = out.resolve()
    anchor = next(parent for parent in place.parents if parent.exists())
    part = anchor / f".{place.name}.{os.getpid()}.part"
    part.mkdir()
    try:
        manifest = write_files(saved, part, onnx=onnx)
        checks = check_files(saved, part, live, inputs, onnx=onnx)
        for check in checks:
            say(str(check))
        flush(part)
        _rename(part, place)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return {
        "export": str(out),
        "name": manifest.stem,
        "files": sorted(path.name for path in out.iterdir()),
        "images": {"dataset": origin, "batches": BATCHES},
        "checks": [asdict(check) for check in checks],
    }


def write_files(saved: SavedRun, folder: Path, *, onnx: bool) -> Path:
    """Write the files of a net that was hybridized and has run; returns the path of NAME.json.

    The ONNX file is made from the two others, as written. Raises: CommandError.
    """
    name = saved.model
    files = write_symbol(saved.net, folder / name)
    symbol = mx.sym.load(str(files[0]))
    (output,) = symbol.list_outputs()
    versions = {
        "python": platform.python_version(),
        "mxnet": mx.__version__,
        "numpy": np.__version__,
    }
    if onnx:
        versions["onnx"] = version("onnx")
    values = describe(saved, name, output, versions)
    if onnx:
        files.append(folder / f"{name}.onnx")
        params = {key[4:]: array for key, array in mx.nd.load(str(files[1])).items()}  # arg:, aux:
        write_onnx(symbol, params, saved.input_shape, files[2])
        values["onnx"] = {"opset": OPSET, "output": output.removesuffix("_output")}
    for path in files:
        flush(path)
    manifest = folder / f"{name}.json"
    write_manifest(manifest, values, files)
    flush(manifest)
    return manifest


def write_symbol(net: Any, stem: Path) -> list[Path]:
    """NAME-symbol.json and NAME-0000.params of a net that was hybridized and has run."""
    try:
        net.export(str(stem), 0)
    except mx.MXNetError as error:  # no space, say
        reason = str(error).strip().splitlines()[-1]
        raise CommandError(f"MXNet cannot write {stem.name}'s files: {reason}") from error
    return [stem.with_name(stem.name + ending) for ending in ("-symbol.json", "-0000.params")]


def check_files(
    saved: SavedRun, folder: Path, live: Live, inputs: np.ndarray, *, onnx: bool
) -> list[Check]:
    """Compare the files in a folder with the live net; raises CommandError where one differs."""
    if onnx:
        params = {
            name: parameter.data().asnumpy()
            for name, parameter in saved.net.collect_params().items()
        }
        check_onnx(folder / f"{saved.model}.onnx", params, saved.input_shape)
    (reloaded,) = reload({folder: inputs})
    return judge(saved.model, live, reloaded, onnx=onnx)


def _require_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, expected a folder or a new name")
    if out.exists() and any(out.iterdir()):
        holds = "an export" if find_manifest(out) else "files"
        raise UsageError(f"--out {out} already holds {holds}: name another folder, or remove it")


def _rename(part: Path, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(part, out)  # over an empty folder too
    except OSError as error:
        raise CommandError(
            f"--out {out} was taken while the export was made ({error.strerror}): name another"
        ) from error
    flush(out.parent)


def fresh_net(
    name: str,
    classes: int = 10,
    in_channels: int | None = None,
    input_size: int | None = None,
    seed: int = 0,
) -> SavedRun:
    """An untrained net, its weights drawn as training would from the seed.

    It has seen no data: its pixels are prepared as its own recipe prepares those of mnist5k, and
    its classes are numbers. Raises: ModelError.
    """
    net = get_model(name, classes, in_channels, input_size)
    recipe = DEFAULTS[name]
    net.initialize(ctx=mx.cpu())
    set_first_weights(net, recipe.initialiser, seed)
    digits = entry_for(DIGITS)
    mean, std = (values * net.input_shape[0] for values in (digits.mean, digits.std))
    return SavedRun(
        path=Path(name),
        model=name,
        net=net,
        input_shape=net.input_shape,
        class_names=tuple(map(str, range(classes))),
        normalise=recipe.normalise,
        mean=mean,
        std=std,
        pixels=pixels(recipe.normalise, mean, std),
        fit=recipe.fit,
        dataset=None,
        image_size=None,
        data_dir=None,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(lambda: _command(_parser().parse_args(argv)), errors=(DataError, ModelError))


def _parser() -> Parser:
    own = argparse.SUPPRESS  # what is not given is not in the namespace: the model decides
    parser = Parser(
        prog="python -m gluon_cnn.export",
        description="Write a net as symbol, parameter and ONNX files; they are there only once "
        "they have been reloaded in a fresh process and compute what the net computes.",
        epilog="Models: " + ", ".join(MODELS) + ". NAME in the files' names is the model's.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("run", metavar="RUN", nargs="?", help="folder of a run of gluon_cnn.train")
    what.add_argument(
        "--model", metavar="NAME", choices=tuple(MODELS), help="an untrained net instead of a run"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to make")
    parser.add_argument(
        "--onnx", action="store_true", help="also write NAME.onnx (needs onnx and onnxruntime)"
    )
    for flag, kind, text in (
        ("--classes", positive, "outputs of --model (default: 10)"),
        ("--in-channels", positive, "channels of --model's input (default: its document's)"),
        ("--input-size", positive, "height and width of it, pixels (default: its document's)"),
        ("--seed", natural, "seed of --model's weights (default: 0)"),
    ):
        parser.add_argument(flag, metavar="N", type=kind, default=own, help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _command(args: argparse.Namespace) -> int:
    sizes = dict(vars(args))
    path, model, out, onnx, as_json = (
        sizes.pop(name) for name in ("run", "model", "out", "onnx", "json")
    )
    if path is not None and sizes:
        flags = ", ".join("--" + name.replace("_", "-") for name in sizes)
        raise UsageError(f"{flags} is for --model; the run {path} has its own")
    _require_free(Path(out))
    if onnx:
        require_onnx()  # before any work
    saved = fresh_net(model, **sizes) if path is None else open_run(path, [mx.cpu()])
    result = export_net(saved, Path(out), onnx=onnx, say=(lambda _: None) if as_json else print)
    if as_json:
        print_json(result)
    else:
        print(f"{', '.join(result['files'])} are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
