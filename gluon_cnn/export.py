"""`python -m gluon_cnn.export`: symbol, parameter and ONNX files, proven before they are there.

The files are written into a temporary folder, opened in a fresh process, compared with the live
net on real images, and only then renamed into place: a failed check leaves nothing behind.
"""

from __future__ import annotations

import argparse
import glob
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from cnn_data import DataError, pixels
from cnn_data.catalog import entry_for
from cnn_harness.cli import Parser, as_command, natural, positive, print_json
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.runfolder import require_utf8
from gluon_cnn.exporting.exported import (
    add_to_manifest,
    describe,
    find_manifest,
    write_manifest,
)
from gluon_cnn.exporting.onnx_file import OPSET, check_onnx, require_onnx, write_onnx
from gluon_cnn.exporting.own_net import OwnNet, engines_for, open_own_net
from gluon_cnn.exporting.proof import Check, Live, judge, judge_one, observe
from gluon_cnn.exporting.real_images import DIGITS, real_images
from gluon_cnn.exporting.reload import BATCHES, LOADERS, reload
from gluon_cnn.exporting.runners import AUTO, ENGINES, Way, installed, require
from gluon_cnn.exporting.speeds import LEFT_OUT, make_record
from gluon_cnn.models import MODELS, ModelError, get_model
from gluon_cnn.training.assembly import set_first_weights
from gluon_cnn.training.recipes import DEFAULTS
from gluon_cnn.training.saved import SavedRun, open_run
from gluon_cnn_parity.atomic import flush, name_place, unfit, writing


def export_net(
    saved: SavedRun | OwnNet,
    out: Path,
    *,
    onnx: bool = False,
    engine: str = "mxnet",
    say: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Export a net, on the CPU, into the folder `out`, which must be new or empty.

    Leaves NAME-symbol.json, NAME-0000.params, NAME.json and, with `onnx`, NAME.onnx; NAME is the
    model's name. `engine` is held against the net, too, and timed beside MXNet; `auto` is all that
    are installed and can read what is written, those left out that differ. Returns what was written
    and compared; `say` gets a line for each comparison. The net is hybridized by it. Raises:
    UsageError where `out` is taken, or for an unknown engine; CommandError where a file cannot be
    written, or does not compute what the net computes; then nothing is left.
    """
    _require_free(out)
    if engine != AUTO:
        onnx = require(engine).onnx or onnx
    engines = installed() if engine == AUTO else list(dict.fromkeys(("mxnet", engine)))
    engines = [name for name in engines if onnx or not ENGINES[name].onnx]
    if onnx:
        require_onnx()
    if isinstance(saved, OwnNet):
        inputs, origin = saved.inputs, "random"
        engines = engines_for(engines)
    else:
        images, origin = real_images(saved, max(BATCHES))
        inputs = saved.pixels.apply(images.transpose(0, 3, 1, 2))
    live = observe(saved.net, inputs)
    place = out.resolve()
    anchor = next(parent for parent in place.parents if parent.exists())
    _remove_parts(anchor, place.name)
    part = anchor / f".{place.name}.{os.getpid()}.part"
    try:
        part.mkdir()
    except OSError as error:
        raise CommandError(f"--out {out} cannot be made: {error.strerror}") from None
    try:
        manifest = write_files(saved, part, onnx=onnx)
        checks, speeds = check_files(
            saved, part, live, inputs, engines, onnx=onnx, tolerant=engine == AUTO, say=say
        )
        record = make_record(speeds)
        add_to_manifest(manifest, engines=record)
        flush(manifest)
        flush(part)
        _rename(part, place)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if getattr(error, "filename", None):  # and not what is printed meanwhile
            name_place(error, out, part)
        raise
    return {
        "export": str(out),
        "name": manifest.stem,
        "files": sorted(path.name for path in out.iterdir()),
        "images": {"dataset": origin, "batches": BATCHES},
        "checks": [asdict(check) for check in checks],
        "engines": record,
    }


def _remove_parts(folder: Path, name: str) -> None:
    """Delete what exports to this name left that were killed."""
    for path in folder.glob(f".{glob.escape(name)}.*.part"):
        process = path.name.split(".")[-2]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, OverflowError, PermissionError):  # another's
            pass


def write_files(saved: SavedRun | OwnNet, folder: Path, *, onnx: bool) -> Path:
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
    if isinstance(saved, OwnNet):
        values = saved.describe(output, versions)
    else:
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
        with writing(stem):
            net.export(str(stem), 0)
    except mx.MXNetError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CommandError(f"MXNet cannot write {stem.name}'s files: {reason}") from error
    return [stem.with_name(stem.name + ending) for ending in ("-symbol.json", "-0000.params")]


def check_files(
    saved: SavedRun | OwnNet,
    folder: Path,
    live: Live,
    inputs: np.ndarray,
    engines: Sequence[str] = (),
    *,
    onnx: bool,
    tolerant: bool = False,
    say: Callable[[str], object] = lambda _: None,
) -> tuple[list[Check], dict[str, dict[str, float]]]:
    """Compare the files in a folder with the live net, and time the engines on them.

    Returns the checks that held, and images a second of each engine by batch size, and of other
    ways to run one where they are faster. An engine that differs is said and left out where
    `tolerant`, such a way always. Raises: CommandError where something differs.
    """
    if onnx:
        params = {
            name: parameter.data().asnumpy()
            for name, parameter in saved.net.collect_params().items()
        }
        check_onnx(folder / f"{saved.model}.onnx", params, saved.input_shape)
    (reloaded,) = reload({folder: inputs}, engines)
    checks = judge(saved.model, live, reloaded, onnx=onnx)
    for check in checks:
        say(str(check))
    speeds = {}
    for name in engines:
        label = ENGINES[name].label
        try:
            own = judge_one(saved.model, live, label, reloaded[label])
        except CommandError as error:
            if not tolerant:
                raise
            say(f"{label} is left out: {error}")
            speeds[name] = LEFT_OUT
            continue
        for check in own:
            if label not in LOADERS:
                checks.append(check)
                say(str(check))
        speeds[name] = reloaded[label].speeds
        say(_speeds_line(label, speeds[name]))
    for label, found in reloaded.items():
        if found.way is None or not any(speeds[Way.parse(found.way).engine].values()):
            continue
        try:
            checks += (own := judge_one(saved.model, live, label, found))
        except CommandError as error:
            say(f"{label} is left out: {error}")
            continue
        for check in own:
            say(str(check))
        speeds[found.way] = found.speeds
        say(_speeds_line(label, found.speeds))
    return checks, speeds


def _speeds_line(label: str, speeds: Mapping[str, float]) -> str:
    told = ", ".join(f"{n:,.0f} at batch {size}" for size, n in speeds.items())
    return f"{label}, images/s: {told}"


def _require_free(out: Path) -> None:
    require_utf8(out.resolve(), "--out")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, expected a folder or a new name")
    if out.exists() and any(out.iterdir()):
        holds = "an export" if find_manifest(out) else "files"
        raise UsageError(f"--out {out} already holds {holds}: name another folder, or remove it")
    if why := unfit(out):
        raise CommandError(f"--out {out} {why}")


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
    what.add_argument(
        "--gluon", metavar="MODULE:FACTORY", help="a net of your own, which the factory returns"
    )
    parser.add_argument(
        "--params", metavar="FILE", type=Path, default=own, help="parameters of the --gluon net"
    )
    parser.add_argument(
        "--input", metavar="N,C,H,W", type=shape, default=own, help="shape that it takes, N free"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to make")
    parser.add_argument(
        "--onnx", action="store_true", help="also write NAME.onnx (needs onnx and onnxruntime)"
    )
    parser.add_argument(
        "--engine", choices=(AUTO, *ENGINES), default=AUTO,
        help="also prove and time this one on the files, as NAME.json then says (auto: all that "
        "are installed and can read them; onnxruntime and openvino read NAME.onnx)",
    )  # fmt: skip
    for flag, kind, text in (
        ("--classes", positive, "outputs of --model (default: 10)"),
        ("--in-channels", positive, "channels of --model's input (default: its document's)"),
        ("--input-size", positive, "height and width of it, pixels (default: its document's)"),
        ("--seed", natural, "seed of --model's weights (default: 0)"),
    ):
        parser.add_argument(flag, metavar="N", type=kind, default=own, help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def shape(text: str) -> tuple[int, ...]:
    """`1,3,224,224`."""
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and 0 < int(size) < 2**31 for size in sizes):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected sizes as 1,3,224,224")
    return tuple(map(int, sizes))


@as_command(DataError, ModelError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    sizes = dict(vars(_parser().parse_args(argv)))
    path, model, gluon, out, onnx, engine, as_json = (
        sizes.pop(name) for name in ("run", "model", "gluon", "out", "onnx", "engine", "json")
    )
    own = {name: sizes.pop(name) for name in ("params", "input") if name in sizes}
    if engine != AUTO:
        onnx = require(engine).onnx or onnx
    if gluon is None and own:
        raise UsageError(f"--{', --'.join(own)} is for --gluon, a net of your own")
    if gluon is not None and "input" not in own:
        raise UsageError("--gluon needs the shape of its input: --input 1,3,224,224")
    if gluon is not None and (sizes or engine == "mxnet"):
        flags = ", ".join("--" + name.replace("_", "-") for name in sizes) or "--engine mxnet"
        raise UsageError(f"{flags} is for the nets of this project, and --gluon is your own")
    if path is not None and sizes:
        flags = ", ".join("--" + name.replace("_", "-") for name in sizes)
        raise UsageError(f"{flags} is for --model; the run {path} has its own")
    _require_free(Path(out))
    if onnx:
        require_onnx()  # before any work
    saved: SavedRun | OwnNet
    if gluon is not None:
        saved = open_own_net(gluon, own.get("params"), own["input"])
    else:
        saved = fresh_net(model, **sizes) if path is None else open_run(path, [mx.cpu()])
    say = (lambda _: None) if as_json else print
    result = export_net(saved, Path(out), onnx=onnx, engine=engine, say=say)
    if as_json:
        print_json(result)
    else:
        print(f"{', '.join(result['files'])} are in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
