"""The engines that run an export's files on the CPU, each as a function of numpy arrays.

Every one computes with the threads of this process: `OMP_NUM_THREADS` as `gluon_cnn` settled it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from gluon_cnn_parity import did_you_mean, is_installed, missing
from cnn_harness.errors import MissingExtra, UsageError
from gluon_cnn.exporting.exported import INPUT, SYMBOL, open_exported
from gluon_cnn.fast.fused import fused
from gluon_cnn.models import ClassicCNN, get_model
from gluon_cnn.runtime import settings
from gluon_cnn.runtime.pages import huge_pages
from gluon_cnn.training.saved import SavedRun
from gluon_cnn.training.staging import Staging

AUTO = "auto"  # the fastest of those that are installed, in its fastest way

# Images, float32 (N, C, H, W), to outputs, float32 (N, classes)
Runner = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Engine:
    """One engine: what it needs, and how it opens the files of an export."""

    label: str  # in the lines of `export`
    package: str  # whose version its speed and its proof belong to
    onnx: bool  # whether it reads NAME.onnx
    open: Callable[[Path, str], Runner]  # folder, NAME
    # That many, of one thread each, which share the weights and may be called at once
    open_threads: Callable[[Path, str, int], list[Runner]] | None = None

    @property
    def version(self) -> str:
        # MXNet for GPUs is a distribution of another name
        return mx.__version__ if self.package == "mxnet" else metadata.version(self.package)


def mxnet_runner(net: mx.gluon.HybridBlock, input_shape: tuple[int, int, int]) -> Runner:
    """MXNet with oneDNN's fused operators; the net's weights must stay as they are."""
    run, staging = fused(net, input_shape), Staging([mx.cpu()])
    return lambda x: run(staging(x)[0]).asnumpy()


def rebuild(saved: SavedRun) -> ClassicCNN | None:
    """The net of an export as the model that it was exported from, with the same parameters.

    None where this version builds another graph of that name: its symbol is compared with the
    file's, node by node.
    """
    if isinstance(saved.net, ClassicCNN):
        return saved.net
    channels, side, _ = saved.input_shape
    net = get_model(saved.model, len(saved.class_names), channels, side)
    ours = net.collect_params()
    held = saved.net.collect_params()
    theirs = {name: p.list_data()[0] for name, p in held.items()}
    if {n: p.shape for n, p in ours.items()} != {n: a.shape for n, a in theirs.items()}:
        return None
    symbol = saved.path / f"{saved.model}{SYMBOL}"
    if _nodes(net(mx.sym.var(INPUT)).tojson()) != _nodes(symbol.read_text(encoding="utf-8")):
        return None
    net.initialize(ctx=next(iter(held.values())).list_ctx())
    for name, parameter in ours.items():
        parameter.set_data(theirs[name])
    return net


def _nodes(symbol: str) -> list[dict[str, Any]]:
    """What each node computes of which others; without what `export` notes beside it."""
    kept = ("op", "name", "inputs")
    nodes = json.loads(symbol)["nodes"]
    return [
        {
            **{key: node[key] for key in kept},
            "attrs": {k: v for k, v in node.get("attrs", {}).items() if not k.startswith("__")}
            if node["op"] != "null"
            else {},
        }
        for node in nodes
    ]


def _mxnet(folder: Path, name: str) -> Runner:
    saved = open_exported(folder / f"{name}.json", [mx.cpu()])
    return mxnet_runner(rebuild(saved) or saved.net, saved.input_shape)


def _onnxruntime(folder: Path, name: str) -> Runner:
    return _OnnxRuntime(_session(folder, name, settings.threads()))


def _onnxruntime_threads(folder: Path, name: str, count: int) -> list[Runner]:
    session = _session(folder, name, 1)  # computes in the thread that calls it
    return [_OnnxRuntime(session) for _ in range(count)]


def _session(folder: Path, name: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
    )


COPIED = 2**14  # bytes of images that are copied sooner than ONNX Runtime looks at their array


class _OnnxRuntime:
    """Runs small batches through arrays that stay: one image through LeNet in 0.95 of the time."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [output.name for output in session.get_outputs()]
        self._x = self._y = np.empty(0, np.float32)
        self._shape: tuple[int, ...] = ()  # of the images that are bound
        self._binding = session.io_binding()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape != self._shape:
            outputs: np.ndarray = self._session.run(self._names, {INPUT: x})[0]
            if x.nbytes <= COPIED:
                self._bind(x, outputs)
            return outputs
        self._x[...] = x
        self._session.run_with_iobinding(self._binding)
        return self._y.copy()

    def _bind(self, x: np.ndarray, outputs: np.ndarray) -> None:
        self._x, self._y, self._shape = _aligned(x.shape), _aligned(outputs.shape), x.shape
        self._binding = self._session.io_binding()
        for bind, name, array in (
            (self._binding.bind_input, INPUT, self._x),
            (self._binding.bind_output, self._names[0], self._y),
        ):
            bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An array, float32, that begins with a cache line; numpy's begin with 16 bytes of any."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(np.float32).reshape(shape)


def _openvino(folder: Path, name: str) -> Runner:
    options = {"INFERENCE_NUM_THREADS": settings.threads(), "PERFORMANCE_HINT": "LATENCY"}
    return _request(_compiled(folder, name, options))


def _openvino_threads(folder: Path, name: str, count: int) -> list[Runner]:
    compiled = _compiled(folder, name, {"INFERENCE_NUM_THREADS": count, "NUM_STREAMS": count})
    return [_request(compiled) for _ in range(count)]


def _compiled(folder: Path, name: str, options: dict[str, Any]) -> Any:
    import openvino

    # Left alone it may compute in bfloat16 where the processor has it
    options = {"INFERENCE_PRECISION_HINT": "f32", **options}
    return openvino.Core().compile_model(str(folder / f"{name}.onnx"), "CPU", options)


def _request(compiled: Any) -> Runner:
    request = compiled.create_infer_request()
    # The request owns its output: the next call writes over it. Lists of arrays take 15 µs more
    return lambda x: request.infer(x, share_inputs=True, share_outputs=True)[0].copy()


def _torch(folder: Path, name: str) -> Runner:
    from mxnet_files.optimisation import array_function

    values = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    stem = folder / name
    return array_function(
        f"{stem}{SYMBOL}", f"{stem}-0000.params", tuple(values["input"]["shape"][1:])
    )


ENGINES = {
    "mxnet": Engine("MXNet fused", "mxnet", False, _mxnet),
    "onnxruntime": Engine("ONNX Runtime", "onnxruntime", True, _onnxruntime, _onnxruntime_threads),
    "openvino": Engine("OpenVINO", "openvino", True, _openvino, _openvino_threads),
    "torch": Engine("PyTorch frozen", "torch", False, _torch),
}


ROWS = (16, 32, 128)  # images of a part
SMALL = 20e6  # bytes of parameters: a net whose ways may all be in memory at once
_WAY = re.compile(r"(?P<engine>\w+)(, parts of (?P<rows>\d+))?((,| on) (?P<threads>\d+) threads?)?")


@dataclass(frozen=True)
class Way:
    """How an engine runs a batch: whole or by parts, by its own threads or by so many of ours.

    Its text (`onnxruntime, parts of 32 on 2 threads`) is what results and records call it.
    """

    engine: str
    rows: int = 0  # images of a part; 0: the batch is not cut
    threads: int = 0  # that compute parts at once; 0: one part after another, by every thread

    @classmethod
    def parse(cls, text: str) -> Way:
        """Raises: ValueError for what is no way of an engine that is known."""
        found = _WAY.fullmatch(text)
        if found is None or found["engine"] not in ENGINES:
            raise ValueError(f"{text!r} is no way to run an engine")
        return cls(found["engine"], int(found["rows"] or 0), int(found["threads"] or 0))

    def __str__(self) -> str:
        return self._named(self.engine)

    @property
    def label(self) -> str:
        """The text with the engine's own name, as in the lines of `export`."""
        return self._named(ENGINES[self.engine].label)

    def _named(self, name: str) -> str:
        parts = f", parts of {self.rows}" if self.rows else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return name + parts + (f"{' on' if parts else ','} {threads}" if self.threads else "")


def ways(engine: str, size: int) -> list[Way]:
    """The ways to run a small net on `size` images that may be faster than the engine's own."""
    if ENGINES[engine].open_threads is None:
        return []
    threads = settings.threads()
    if size == 1:
        return [Way(engine, threads=1)] if threads > 1 else []
    rows = [count for count in ROWS if count < size]
    at_once = [Way(engine, count, threads) for count in rows] if threads > 1 else []
    return [*(Way(engine, count) for count in rows), *at_once]


class Opener:
    """Opens ways on the files of an export; where the net is small, ways share their engine."""

    def __init__(self, folder: Path, name: str) -> None:
        self.files = folder, name
        params = folder / f"{name}-0000.params"
        self.small = params.exists() and params.stat().st_size < SMALL
        self._held: dict[tuple[str, int], list[Runner]] = {}

    def __call__(self, way: str) -> Runner:
        """Raises: whatever the engine's own libraries raise."""
        how = Way.parse(way)
        runs = self._held.get((how.engine, how.threads))
        if runs is None and self.small:
            runs = self._held[how.engine, how.threads] = self._open(how)
        elif runs is None:
            with huge_pages():
                runs = [InHugePages(run) for run in self._open(how)]
        return InParts(runs, how.rows) if how.rows else runs[0]

    def _open(self, how: Way) -> list[Runner]:
        engine = ENGINES[how.engine]
        if not how.threads:
            return [engine.open(*self.files)]
        if engine.open_threads is None:
            raise ValueError(f"{how}: the threads of this engine are the process's")
        return engine.open_threads(*self.files, how.threads)


class InHugePages:
    """Runs a large net; what it allocates for a larger batch than before is in pages of 2 MiB."""

    def __init__(self, run: Runner) -> None:
        self._run, self._largest = run, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if len(x) <= self._largest:
            return self._run(x)
        self._largest = len(x)
        with huge_pages():
            return self._run(x)


class InParts:
    """Runs a batch by parts of at most `rows` images, as many at once as there are `runs`."""

    def __init__(self, runs: Sequence[Runner], rows: int) -> None:
        self._runs, self._rows = runs, rows
        self._pool = ThreadPoolExecutor(max(1, len(runs) - 1))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        rows = min(self._rows, -(-len(x) // len(self._runs)))
        if len(x) <= rows:
            return self._runs[0](x)
        starts = range(0, len(x), rows)
        outputs = [np.empty(0)] * len(starts)
        left = iter(enumerate(starts))

        def work(run: Runner) -> None:
            for place, start in left:
                outputs[place] = run(x[start : start + rows])

        others = [self._pool.submit(work, run) for run in self._runs[1:]]
        try:
            work(self._runs[0])
        finally:
            wait(others)
        for other in others:
            other.result()  # raises what it raised
        return np.concatenate(outputs)


def installed() -> list[str]:
    """The engines whose packages are here, without importing them."""
    return [name for name, engine in ENGINES.items() if is_installed(engine.package)]


def require(name: str) -> Engine:
    """The engine of that name. Raises: UsageError for another; MissingExtra naming its extra."""
    if name not in ENGINES:
        known = (AUTO, *ENGINES)
        raise UsageError(
            f"engine {name!r}, expected one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    if not is_installed(ENGINES[name].package):
        raise MissingExtra(f"engine {name}: {missing(ENGINES[name].package)}")
    return ENGINES[name]
