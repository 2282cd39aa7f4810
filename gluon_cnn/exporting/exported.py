"""An exported folder: what its NAME.json says, and the net opened from its symbol file.

NAME.json holds a sha256 of every other file and one of itself: MXNet loads altered parameters
without a word.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
from mxnet import gluon

from cnn_data import Pixels
from cnn_harness.cli import Parser
from cnn_harness.errors import CommandError
from cnn_harness.runfolder import require_utf8
from cnn_harness.sealed import read_json
from gluon_cnn.exporting.params_layout import read_layout
from gluon_cnn.training.saved import SavedRun, open_run
from gluon_cnn_parity.atomic import sha256

FORMAT = "gluon_cnn export 1"
OWN_FORMAT = "gluon_cnn export of a user's net 1"  # without classes and normalisation
INPUT = "data"  # what Gluon's export calls the one input of a net
SYMBOL = "-symbol.json"
OWN_SUM = "sha256"


def open_saved(path: str | Path, devices: list[mx.Context]) -> SavedRun:
    """The net in a folder of `gluon_cnn.train` or of `gluon_cnn.export`.

    Raises: CommandError naming the file that is missing or damaged; ModelError.
    """
    require_utf8(path, "the folder")
    manifest = find_manifest(Path(path))
    return open_run(path, devices) if manifest is None else open_exported(manifest, devices)


def saved_parser(prog: str, description: str) -> Parser:
    """The flags of every command that opens such a folder."""
    parser = Parser(prog=prog, description=description)
    parser.add_argument(
        "run", metavar="RUN", help="folder of gluon-cnn train or of gluon-cnn export"
    )
    parser.add_argument("--ctx", default="auto", metavar="CTX", help="auto, cpu, gpu, gpu:1, …")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def find_manifest(folder: Path) -> Path | None:
    """Where the NAME.json of an exported folder is, or ought to be; None for anything else.

    Raises: CommandError where the folder holds the files of several exports.
    """
    if (folder / "config.json").exists():
        return None  # a run
    names = {p.name.removesuffix(SYMBOL).removesuffix(".json") for p in folder.glob("*.json")}
    if len(names) > 1:  # another JSON file may lie beside the export's two, such as evaluate's
        ends = (SYMBOL, "-0000.params")
        names = {name for name in names if any((folder / f"{name}{end}").exists() for end in ends)}
    if len(names) > 1:
        raise CommandError(
            f"{folder} holds several exports ({', '.join(sorted(names))}): "
            "give each a folder of its own"
        )
    return folder / f"{names.pop()}.json" if names else None


def open_exported(manifest: Path, devices: list[mx.Context]) -> SavedRun:
    """The net of an export, from its symbol and parameter files, every file checked first.

    Raises: CommandError naming the file that is missing, damaged or not of this format.
    """
    values, folder = read_manifest(manifest), manifest.parent
    try:
        normalisation, data = values["normalisation"], values["data"]
        saved = SavedRun(
            path=folder,
            model=values["model"],
            net=import_symbol(folder, values["name"], devices),
            input_shape=tuple(values["input"]["shape"][1:]),
            class_names=tuple(values["class_names"]),
            normalise=normalisation["name"],
            mean=tuple(normalisation["mean"]),
            std=tuple(normalisation["std"]),
            pixels=Pixels(tuple(normalisation["scale"]), tuple(normalisation["shift"])),
            fit=values["fit"],
            dataset=data["dataset"],
            image_size=data["image_size"],
            data_dir=data["data_dir"],
            skip_damaged=data.get("skip_damaged", False),
            content=data.get("content_sha256"),
        )
        saved.net.model_name = values["model"]
        saved.net.smallest_wins = values["smallest_wins"]
    except (KeyError, TypeError) as error:
        raise CommandError(f"{manifest} lacks what an export says of itself: {error}") from error
    return saved


def import_symbol(folder: Path, name: str, devices: list[mx.Context]) -> gluon.SymbolBlock:
    """`SymbolBlock.imports` of an export's two files. Raises: CommandError naming them."""
    symbol, params = folder / f"{name}{SYMBOL}", folder / f"{name}-0000.params"
    try:
        read_layout(params)  # MXNet allocates whatever a header says
        with warnings.catch_warnings():
            # It infers types before it has read the parameters, and says that it cannot.
            warnings.filterwarnings("ignore", "Cannot decide type", UserWarning)
            return gluon.SymbolBlock.imports(str(symbol), [INPUT], str(params), ctx=devices)
    except (mx.MXNetError, AssertionError, ValueError, KeyError, RuntimeError) as error:
        # LayoutError is a ValueError
        reason = str(error).strip().splitlines()[0]
        raise CommandError(f"{symbol} with {params.name} cannot be loaded: {reason}") from error


def write_manifest(path: Path, values: Mapping[str, Any], files: list[Path]) -> None:
    """Write NAME.json: `values`, a sha256 for each of the files beside it, and one of itself."""
    sums = {file.name: sha256(file) for file in files}
    _write_sealed(path, {"format": FORMAT, **values, "files": sums})


def add_to_manifest(path: Path, **more: Any) -> None:
    """Write NAME.json anew with further values; the files beside it stay as they are."""
    whole = json.loads(path.read_text(encoding="utf-8"))
    del whole[OWN_SUM]
    _write_sealed(path, {**whole, **more})


def _write_sealed(path: Path, whole: Mapping[str, Any]) -> None:
    text = json.dumps({**whole, OWN_SUM: _own_sum(whole)}, indent=2, allow_nan=False)
    path.write_text(text + "\n")


def read_manifest(path: Path, formats: Sequence[str] = (FORMAT,)) -> dict[str, Any]:
    """NAME.json, once it and every file that it names are found to be what was written.

    Raises: CommandError naming the file that is missing, damaged of none of the formats.
    """
    if not path.exists():
        raise CommandError(f"{path} is missing: the export in {path.parent} is not whole")
    values = read_json(path)
    kind = values.get("format") if isinstance(values, dict) else None
    if kind == OWN_FORMAT and OWN_FORMAT not in formats:
        raise CommandError(
            f"{path} describes a net of a user's own, which says nothing of classes and "
            "normalisation: open it with mxnet.gluon.SymbolBlock.imports"
        )
    if kind not in formats:
        raise CommandError(f"{path} does not describe an export of this project ({FORMAT})")
    if values.pop(OWN_SUM, None) != _own_sum(values):
        raise CommandError(f"{path} was altered: it no longer has its own sha256; export again")
    sums = values.get("files")
    if not isinstance(sums, dict) or not sums:
        raise CommandError(f"{path} names no files")
    for name, expected in sums.items():
        if Path(name).name != name:
            raise CommandError(f"{path} names a file outside its folder: {name!r}")
        _check_sum(path.parent / name, expected)
    return values


def _check_sum(path: Path, expected: str) -> None:
    try:
        actual = sha256(path)
    except FileNotFoundError:
        raise CommandError(f"{path} is missing: the export in {path.parent} is not whole") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    if actual != expected:
        raise CommandError(
            f"{path} is damaged: sha256 {actual[:12]}…, expected {expected[:12]}…; export again"
        )


def _own_sum(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def describe(saved: SavedRun, name: str, output: str, versions: Mapping[str, str]) -> dict:
    """What NAME.json says of a net; `output` is the name of its output in the symbol file."""
    return {
        "name": name,
        "model": saved.model,
        "input": {
            "name": INPUT,
            "shape": ["batch", *saved.input_shape],
            "layout": "NCHW",
            "dtype": "float32",
        },
        "output": {
            "name": output,
            "shape": ["batch", len(saved.class_names)],
            "dtype": "float32",
            "meaning": "penalties" if saved.net.smallest_wins else "logits",
        },
        "smallest_wins": saved.net.smallest_wins,
        # y = pixel · scale + shift for each channel, of pixels from 0 to 255
        "normalisation": {
            "name": saved.normalise,
            "mean": list(saved.mean),
            "std": list(saved.std),
            "scale": list(saved.pixels.scale),
            "shift": list(saved.pixels.shift),
        },
        "fit": saved.fit,
        "class_names": list(saved.class_names),
        "data": {
            "dataset": saved.dataset,
            "image_size": saved.image_size,
            "data_dir": saved.data_dir,
            "skip_damaged": saved.skip_damaged,
            "content_sha256": saved.content,
        },
        "versions": dict(versions),
    }
