"""A saved net as a function of numpy arrays, run by the engine that is asked for, or the fastest.

An engine other than MXNet computes from files, written for it where the folder is a run's, and is
used only once its outputs on real images were held against the live net: within the bound of
`gluon_cnn.export`, of the net's float64 copy. An export that was proven with this engine, in this
release and on this machine, is not proven again.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from cnn_harness.cli import Parser
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.sealed import read_json
from gluon_cnn.export import write_files
from gluon_cnn.exporting.exported import SYMBOL, find_manifest, open_saved
from gluon_cnn.exporting.onnx_file import require_onnx
from gluon_cnn.exporting.proof import Live, judge_one, observe
from gluon_cnn.exporting.real_images import real_images
from gluon_cnn.exporting.reload import BATCHES, Reloaded, shown
from gluon_cnn.exporting.runners import (
    AUTO,
    ENGINES,
    Opener,
    Runner,
    Way,
    installed,
    mxnet_runner,
    rebuild,
    require,
)
from gluon_cnn.exporting.speeds import (
    LEFT_OUT,
    Record,
    fastest,
    fits,
    images_per_second,
    make_record,
    proven,
    recall,
    remember,
    settle,
)
from gluon_cnn.training.saved import SavedRun
from gluon_cnn_parity.cli import one_line

FLOAT32 = np.dtype(np.float32)  # numpy's one object of it

__all__ = ["Loaded", "add_flag", "for_command", "load", "load_saved"]


class Loaded:
    """Outputs, float32 (N, classes), of prepared images, float32 (N, C, H, W); `name` is the
    engine's, `way` says how it is run, as results do. Threads that call it take turns: engines keep
    arrays from one call to the next."""

    def __init__(self, way: str, run: Runner, input_shape: tuple[int, int, int]) -> None:
        self.name = Way.parse(way).engine
        self.way = way
        self.input_shape = input_shape
        self._run = run
        self._turn = threading.Lock()
        self._shape: tuple[int, ...] = ()  # of the last images

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Raises: ValueError for another shape or dtype."""
        if type(x) is not np.ndarray or x.dtype is not FLOAT32 or x.shape != self._shape:
            self._check(x)
        with self._turn:
            return self._run(np.ascontiguousarray(x))

    def _check(self, x: object) -> None:
        if (
            not isinstance(x, np.ndarray)
            or x.dtype != np.float32
            or x.shape[1:] != self.input_shape
        ):
            found = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
            wanted = ", ".join(map(str, self.input_shape))
            raise ValueError(f"got {found}, expected a float32 array (N, {wanted})")
        if not len(x):
            raise ValueError(f"got no images, expected at least one in {x.shape}")
        self._shape = x.shape


def load(path: str | Path, engine: str = AUTO, *, batch: int = 64) -> Loaded:
    """The net in a folder of `gluon_cnn.train` or `gluon_cnn.export`, on the CPU.

    Args:
        path: the folder. Files that an engine needs and that are not there are written into a
            temporary folder.
        engine: `mxnet`, `onnxruntime`, `openvino` or `torch`, each from the extra of its name; or
            `auto`, the fastest of those that are installed, in its fastest way, by what `export`
            measured on this machine, else measured now and remembered.
        batch: how many images the function will mostly get, which `auto` decides by.

    Returns:
        A function of images, float32 (N, C, H, W), prepared as the net was trained, to its
        outputs, float32 (N, classes); `.name` says which engine it is, `.way` also how it is run:
        `onnxruntime, parts of 32 on 2 threads`.

    Raises:
        UsageError: an unknown engine.
        MissingExtra: naming the extra that brings it.
        CommandError: a file that is missing or damaged, or an engine that does not compute what
            the net computes.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from gluon_cnn import engine, export
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = export.export_net(export.fresh_net("lenet"), Path(folder))
        ...     net = engine.load(folder, engine="mxnet")
        >>> net.name, net(np.zeros((2, 1, 28, 28), np.float32)).shape
        ('mxnet', (2, 10))
    """
    if engine != AUTO:
        require(engine)
    return load_saved(open_saved(path, [mx.cpu()]), engine, batch=batch)


def load_saved(saved: SavedRun, engine: str, *, batch: int = 64) -> Loaded:
    """`load` of a net on the CPU that is open already; it may end hybridized."""
    own, observed, way = _of_export(saved), None, engine
    if engine == AUTO:
        way, observed = _choose(saved, own, batch)
    engine = Way.parse(way).engine if engine == AUTO else engine
    if require(engine) is ENGINES["mxnet"]:
        run = mxnet_runner(rebuild(saved) or saved.net, saved.input_shape)
    else:
        if observed is None and not proven(own, way):
            observed = _observe(saved)
        with _files(saved, observed, onnx=ENGINES[engine].onnx) as folder:
            run = _open(way, Opener(folder, saved.model), observed)
    return Loaded(way, run, saved.input_shape)


def add_flag(parser: Parser) -> None:
    """`--engine`, as every command takes it that runs a saved net."""
    parser.add_argument(
        "--engine", choices=(AUTO, *ENGINES), default="mxnet",
        help="what computes the outputs on the CPU, once it was held against the net (auto: the "
        "fastest that is installed)",
    )  # fmt: skip


def for_command(saved: SavedRun, engine: str, devices: Sequence[Any], batch: int) -> Loaded | None:
    """What a command's `--engine` asks for; None is MXNet on the command's own devices.

    Raises: UsageError where another engine would have to compute on a GPU.
    """
    on_cpu = all(device.device_type == "cpu" for device in devices)
    if engine == "mxnet" or (engine == AUTO and not on_cpu):
        return None
    if not on_cpu:
        raise UsageError(f"--engine {engine} computes on the CPU: pass --ctx cpu with it")
    return load_saved(saved, engine, batch=max(1, batch))


@dataclass(frozen=True)
class _Observed:
    """The live net, what it computes, and the images, float32 (n, C, H, W)."""

    saved: SavedRun
    live: Live
    inputs: np.ndarray


def _observe(saved: SavedRun) -> _Observed:
    """Raises: CommandError where there is no live net, or it computes nothing to compare."""
    net = rebuild(saved)
    if net is None:
        raise CommandError(
            f"{saved.path} holds another graph than this version's {saved.model}: no engine but "
            "mxnet can be held against it; export the run again"
        )
    images, _ = real_images(saved, max(BATCHES))
    inputs = saved.pixels.apply(images.transpose(0, 3, 1, 2))
    return _Observed(replace(saved, net=net), observe(net, inputs), inputs)


def _of_export(saved: SavedRun) -> Record | None:
    """What NAME.json says of engines; None for a run, or for an export of an older version."""
    manifest = find_manifest(saved.path) if saved.path.is_dir() else None
    return None if manifest is None else read_json(manifest).get("engines")


def _choose(saved: SavedRun, own: Record | None, batch: int) -> tuple[str, _Observed | None]:
    """The fastest engine, how to run it, and what was observed if it had to be measured."""
    names = [name for name in installed() if not ENGINES[name].onnx or _has_onnx(saved)]
    for record in (own, recall(saved)):
        if fits(record, names):
            return fastest(record, names, batch), None
    observed = _observe(saved)
    speeds: dict[str, dict[str, float]] = {}
    with _files(saved, observed, onnx=any(ENGINES[name].onnx for name in names)) as folder:
        opener = Opener(folder, saved.model)
        for name in names:
            try:
                run = _open(name, Opener(folder, saved.model), observed)
            except CommandError as error:
                print(f"engine {name} is left out: {error}", file=sys.stderr)
                speeds[name] = dict(LEFT_OUT)
            else:
                speeds[name] = images_per_second(run, observed.inputs)
                del run  # one engine at a time is in memory
        settle(speeds, observed.inputs, opener, in_ways=opener.small)
        for way in [way for way in speeds if way not in names]:
            try:
                _open(way, opener, observed)
            except CommandError as error:
                print(f"{way} is left out: {error}", file=sys.stderr)
                del speeds[way]
    record = make_record(speeds)
    remember(saved, record)
    return fastest(record, names, batch), observed


def _has_onnx(saved: SavedRun) -> bool:
    """Whether there is an ONNX file of the net, or one can be written."""
    try:
        require_onnx()
    except CommandError:
        return (saved.path / f"{saved.model}.onnx").exists()
    return True


@contextmanager
def _files(saved: SavedRun, observed: _Observed | None, *, onnx: bool) -> Iterator[Path]:
    """An export of the net: the folder itself, or else a temporary one."""
    whole = not onnx or (saved.path / f"{saved.model}.onnx").exists()
    if whole and (saved.path / f"{saved.model}{SYMBOL}").exists():
        yield saved.path
        return
    if onnx:
        require_onnx()
    observed = observed or _observe(saved)
    with tempfile.TemporaryDirectory(prefix="gluon-cnn-engine-") as folder:
        write_files(observed.saved, Path(folder), onnx=onnx)
        yield Path(folder)


def _open(way: str, opener: Opener, observed: _Observed | None) -> Runner:
    """An engine on an export's files, run in this way, held against what was observed.

    Raises: CommandError where it cannot open or run them, or computes something else.
    """
    folder, model = opener.files
    label = Way.parse(way).label
    try:
        run = opener(way)
        outputs = {} if observed is None else shown(run, observed.inputs, way)
    except CommandError:
        raise
    except Exception as error:  # whatever the engine's own libraries raise
        reason = f"{type(error).__name__}: {one_line(error)[:500]}"
        raise CommandError(f"{folder}/{model} by {label}: {reason}") from error
    if observed is not None:
        judge_one(model, observed.live, label, Reloaded(outputs))
    return run
