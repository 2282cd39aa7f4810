"""MXNet 1.9.1 on Python 3.12 to 3.14 and on numpy 1.24 to 2.x: `import mxnet_compat` first.

    import mxnet_compat
    import mxnet as mx

MXNet 1.9.1 reads names that numpy and Python have removed since its last release. This module gives
them to MXNet alone: the modules of `mxnet` import a view of numpy that has the old names, and
everybody else sees numpy as it is, with no attribute and no warning more. The same is done for
onnx, whose `onnx.mapping` MXNet's converter reads and onnx 1.18 removed. It needs nothing but
numpy, is a single file, and does nothing at all where MXNet works by itself (numpy before 1.24 on
Python before 3.12, without onnx or with one before 1.18).

Raises ImportError, in one line, at `import mxnet` for a combination that has not been tried.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy

__all__ = ["REMOVED", "helps", "install", "needed", "numpy_view"]

# What has been tried: with anything else a silent difference is possible, so it is refused.
PYTHONS = ((3, 8), (3, 14))
NUMPYS = ((1, 17), (2, 5))
MXNETS = ("1.9.1", "2.0.0beta1")
NO_FORK = sys.version_info >= (3, 14)  # multiprocessing starts a server by default, and forks that


def __getattr__(name: str) -> str:
    """`__version__`, which nobody waits for at `import mxnet_compat`."""
    if name != "__version__":
        raise AttributeError(f"module 'mxnet_compat' has no attribute {name!r}")
    try:
        return metadata.version("gluon-cnn-parity")
    except metadata.PackageNotFoundError:  # the file alone, which may be copied anywhere
        return "0+unknown"


def needed() -> bool:
    """Whether MXNet 1.9.1, or its ONNX converter, does not work by itself here."""
    if _version(numpy.__version__) >= (1, 24) or sys.version_info >= (3, 12):
        return True
    try:
        return _version(metadata.version("onnx")) >= (1, 18)
    except metadata.PackageNotFoundError:
        return False


def helps() -> bool:
    """Whether the MXNet that is imported here was imported with this module's help."""
    return isinstance(getattr(sys.modules.get("mxnet"), "__loader__", None), _Loader)


def _version(text: str) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", text)[:2]
    return int(major), int(minor)


def _financial(name: str) -> Callable[..., Any]:
    def removed(*_: Any, **__: Any) -> Any:
        raise RuntimeError(
            f"numpy.{name} was removed in numpy 1.20 (NEP 32); use the package numpy_financial"
        )

    removed.__name__ = name
    return removed


def _msort(a: Any) -> Any:
    return numpy.sort(a, axis=0)


def _alltrue(a: Any, *args: Any, **kwargs: Any) -> Any:
    return numpy.all(numpy.asarray(a), *args, **kwargs)  # of `mx.np` arrays too a numpy.bool_


def _in1d(ar1: Any, ar2: Any, assume_unique: bool = False, invert: bool = False) -> Any:
    ar1 = numpy.asarray(ar1).ravel()
    return numpy.isin(ar1, ar2, assume_unique=assume_unique, invert=invert)


# Every name that MXNet 1.9.1 reads from numpy and a newer numpy lacks: the release that removed it,
# and what MXNet is given. `bool` and `int` were Python's own types; numpy 2 has another `bool`.
# https://numpy.org/doc/stable/release/1.24.0-notes.html, 2.0.0-notes.html (NEP 52)
REMOVED: Mapping[str, tuple[str, Any]] = {
    "bool": ("1.24", bool),
    "int": ("1.24", int),
    "NaN": ("2.0", float("nan")),
    "NAN": ("2.0", float("nan")),
    "Inf": ("2.0", float("inf")),
    "PINF": ("2.0", float("inf")),
    "NINF": ("2.0", -float("inf")),
    "PZERO": ("2.0", 0.0),
    "NZERO": ("2.0", -0.0),
    "float_": ("2.0", numpy.float64),
    "compat": ("2.0", types.SimpleNamespace(basestring=str)),
    "alltrue": ("2.0", _alltrue),
    "sometrue": ("2.0", numpy.any),
    "product": ("2.0", numpy.prod),
    "cumproduct": ("2.0", numpy.cumprod),
    "round_": ("2.0", numpy.around),
    "msort": ("2.0", _msort),
    "row_stack": ("2.5", numpy.vstack),
    "in1d": ("2.5", _in1d),
    "trapz": ("2.5", getattr(numpy, "trapezoid", None)),
    "mirr": ("1.20", _financial("mirr")),
    "npv": ("1.20", _financial("npv")),
    "pmt": ("1.20", _financial("pmt")),
    "ppmt": ("1.20", _financial("ppmt")),
    "pv": ("1.20", _financial("pv")),
    "rate": ("1.20", _financial("rate")),
}
# Python's own types under numpy's name: what they meant to MXNet, also where numpy reuses the name.
_ALWAYS = ("bool", "int")


# What makes arrays of Python's numbers. Integers beyond the bounds of the dtype wrapped before
# numpy 2 (NEP 50), and an OverflowError makes MXNet say that `nd.array([300], dtype="uint8")` is no
# array: -1 for "ignore" in uint8, and sums of pixels, are written so.
WRAPPING = ("array", "asarray", "full") if _version(numpy.__version__) >= (2, 0) else ()


def _wrapping(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, for which an integer beyond the bounds of an integer dtype wraps."""

    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        try:
            return make(*args, **kwargs)
        except OverflowError:
            dtype = kwargs.pop("dtype", None)
            if dtype is None or numpy.dtype(dtype).kind not in "iu":
                raise
            return make(*args, **kwargs).astype(dtype)

    return made


def numpy_view() -> types.ModuleType:
    """numpy with the names of `REMOVED`; the rest but `WRAPPING` is the very same objects."""
    view = types.ModuleType("numpy", numpy.__doc__)
    vars(view).update(vars(numpy))
    for name in WRAPPING:
        setattr(view, name, _wrapping(vars(numpy)[name]))
    for name, (_, value) in REMOVED.items():
        if name in _ALWAYS or name not in vars(view):
            setattr(view, name, value)
    return view


def install(force: bool = False) -> None:
    """Let `import mxnet` work here; called by importing this module, where it is `needed`.

    A second call, or one after MXNet was imported, changes nothing. `force` is for trying it where
    MXNet needs no help.
    """
    if not (force or needed()) or "mxnet" in sys.modules:
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds MXNet's modules as Python does, and has them loaded with an import of their own."""

    def __init__(self) -> None:
        self._builtins: dict[str, Any] | None = None
        self._version = ""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "mxnet":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or type(spec.loader) is not importlib.machinery.SourceFileLoader:
            return spec
        if self._builtins is None:
            self._version = _refuse_unknown(Path(spec.loader.path).parent)
            self._builtins = {**vars(builtins), "__import__": _Import(numpy_view())}
        spec.loader = _Loader(fullname, spec.loader.path, self._builtins, self._version)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    """Executes a module with builtins of its own, which every function in it keeps."""

    def __init__(self, fullname: str, path: str, own: dict[str, Any], version: str) -> None:
        super().__init__(fullname, path)
        self._own, self._version = own, version

    def get_code(self, fullname: str) -> types.CodeType | None:
        if fullname not in _MENDED:
            return super().get_code(fullname)
        source = self.get_data(self.path)
        for old, new in _MENDED[fullname]:
            if old not in source and self._version == "1.9.1":
                raise ImportError(f"{self.path} is not MXNet 1.9.1's: {old.decode()} is not in it")
            source = source.replace(old, new)
        return self.source_to_code(source, self.path)

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)["__builtins__"] = self._own
        if module.__name__ in _WRITES_ATTRIBUTES and _version(numpy.__version__) >= (2, 0):
            vars(module)["str"] = _OldString
        super().exec_module(module)
        _REPLACED.get(module.__name__, lambda _: None)(module)


class _Import:
    """`__import__` as MXNet's modules see it."""

    def __init__(self, view: types.ModuleType) -> None:
        self._view = view

    def __call__(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if level == 0:
            if name == "numpy" or (name.startswith("numpy.") and not fromlist):
                if name != "numpy":
                    importlib.import_module(name)
                return self._view
            if name == "numpy.core.numeric" and tuple(fromlist) == ("normalize_axis_tuple",):
                return _axis_tools()
            if name == "numpy.compat" and tuple(fromlist) == ("basestring",):
                return self._view.compat
            if name == "onnx" and importlib.util.find_spec("onnx.mapping") is None:
                return _OnnxView(
                    builtins.__import__(name, globals, locals, _without_mapping(fromlist))
                )
            if name.partition(".")[0] == "distutils":
                _require_distutils()
            if name.partition(".")[0] == "multiprocessing" and not fromlist and NO_FORK:
                importlib.import_module(name)
                return _Forking("multiprocessing")
        return builtins.__import__(name, globals, locals, fromlist, level)


class _Forking(types.ModuleType):
    """multiprocessing that forks by default, as MXNet's DataLoader is written for.

    A main module without `if __name__ == "__main__"`, and datasets that cannot be pickled, work
    so. Whoever set the start method "spawn" gets it.
    """

    def __getattr__(self, name: str) -> Any:
        module: Any = importlib.import_module("multiprocessing")
        started = name in ("Pool", "Process", "get_context")
        if started and module.get_start_method(allow_none=True) != "spawn":
            return getattr(module.get_context("fork"), name)
        return getattr(module, name)


def _without_mapping(fromlist: Any) -> tuple[str, ...]:
    return tuple(name for name in fromlist or () if name != "mapping")


class _OnnxView(types.ModuleType):
    """onnx with the `mapping` between its types and numpy's that it had until 1.17."""

    def __init__(self, onnx: types.ModuleType) -> None:
        super().__init__("onnx")
        self._onnx = onnx

    def __getattr__(self, name: str) -> Any:
        return getattr(self._onnx, name)

    @property
    def mapping(self) -> types.SimpleNamespace:
        helper = importlib.import_module("onnx.helper")
        kinds = self._onnx.TensorProto.DataType
        same = [
            "FLOAT",
            "UINT8",
            "INT8",
            "UINT16",
            "INT16",
            "INT32",
            "INT64",
            "STRING",
            "BOOL",
            "FLOAT16",
            "DOUBLE",
            "UINT32",
            "UINT64",
            "COMPLEX64",
            "COMPLEX128",
        ]
        to_numpy = {kinds.Value(n): helper.tensor_dtype_to_np_dtype(kinds.Value(n)) for n in same}
        to_onnx = {dtype: kind for kind, dtype in to_numpy.items()}
        return types.SimpleNamespace(
            TENSOR_TYPE_TO_NP_TYPE=to_numpy, NP_TYPE_TO_TENSOR_TYPE=to_onnx
        )


def _axis_tools() -> types.ModuleType:
    """Where `normalize_axis_tuple` is: it was numpy.core's, which warns since numpy 2."""
    new = _version(numpy.__version__) >= (2, 0)
    return importlib.import_module("numpy.lib.array_utils" if new else "numpy.core.numeric")


def _require_distutils() -> None:
    """setuptools brings the distutils that Python 3.12 no longer has."""
    if sys.version_info < (3, 12) or "distutils" in sys.modules:
        return
    try:
        importlib.import_module("setuptools")
        importlib.import_module("distutils")
    except ImportError as error:
        raise ImportError(
            "MXNet needs distutils, which Python 3.12 removed: pip install setuptools"
        ) from error


# Source that numpy 2 reads otherwise. numpy 2.3 has no `tostring`. 0.0 + numpy.float32(x) was a
# float64 before NEP 50 and is a float32 since: metrics would add up losses, and count, in float32.
_MENDED: Mapping[str, tuple[tuple[bytes, bytes], ...]] = {
    "mxnet.recordio": ((b".tostring()", b".tobytes()"),),
    "mxnet.metric": (
        (b"sum_metric = 0.0\n", b"sum_metric = numpy.float64(0.0)\n"),
        (b"sum_metric = 0.\n", b"sum_metric = numpy.float64(0.0)\n"),
        (b"        loss = 0.\n", b"        loss = numpy.float64(0.0)\n"),
        (b"num -= ndarray.sum(ignore).asscalar()", b"num -= float(ndarray.sum(ignore).asscalar())"),
    ),
}


def _as_array(array: Any, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
    """What `numpy.asarray(NDArray)` is.

    Without it numpy walks down the array as a sequence of arrays without an end, which it cut off
    at 32 dimensions before numpy 2 and refuses since: `numpy.all(a == b)` of two NDArrays worked.
    """
    values = array.asnumpy()
    return values if dtype is None else values.astype(dtype, copy=False)


def _array_of(module: Any) -> None:
    module.NDArray.__array__ = _as_array


def _plain_tuples(module: Any) -> None:
    """numpy 1.25 made named tuples of what `linalg.svd` and others return: they take no list."""
    convert = module._as_mx_np_array

    def converted(object: Any, ctx: Any = None) -> Any:
        return convert(tuple(object) if isinstance(object, tuple) else object, ctx)

    module._as_mx_np_array = converted


def _numbers_of_arrays(module: Any) -> None:
    """numpy 2.5 makes no number of an array of one element, as `quantize_model` hands to C."""
    original = module.c_array

    @functools.wraps(original)
    def c_array(ctype: Any, values: Any) -> Any:
        try:
            return original(ctype, values)
        except TypeError:
            plain = [v.item() if isinstance(v, numpy.ndarray) else v for v in values]
            return original(ctype, plain)

    module.c_array = c_array


# What is set in a module once it is executed, before another imports it.
_REPLACED: Mapping[str, Callable[[Any], None]] = {
    "mxnet.base": _numbers_of_arrays,
    "mxnet.ndarray.ndarray": _array_of,
    "mxnet.numpy.multiarray": _plain_tuples,
}

# Modules that write operator attributes as text for MXNet's C library with `str(value)`. numpy 2
# writes its scalars inside a tuple as `np.int64(3)`, which the library cannot read.
_WRITES_ATTRIBUTES = frozenset(
    {"mxnet._ctypes.ndarray", "mxnet._ctypes.symbol", "mxnet.symbol.symbol", "mxnet.io.io"}
)


class _OldStringType(type):
    def __call__(cls, value: Any = "", *more: Any) -> str:
        if isinstance(value, (tuple, list)) and any(isinstance(v, numpy.generic) for v in value):
            with numpy.printoptions(legacy="1.25"):  # type: ignore[arg-type, unused-ignore]
                return str(value, *more)
        return str(value, *more)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, str)


class _OldString(metaclass=_OldStringType):
    """`str`, by which a tuple of numpy's numbers reads as it did before numpy 2."""


def _refuse_unknown(folder: Path) -> str:
    """MXNet's version. Raises ImportError for a Python, numpy or MXNet that has not been tried."""
    text = (folder / "libinfo.py").read_text(encoding="utf-8")
    match = re.search(r"^__version__ = ['\"]([^'\"]+)", text, re.MULTILINE)
    mxnet = match.group(1) if match else "unknown"
    here = sys.version_info[:2]
    for what, is_known, known in (
        (f"MXNet {mxnet}", mxnet in MXNETS, " or ".join(MXNETS)),
        (f"Python {here[0]}.{here[1]}", PYTHONS[0] <= here <= PYTHONS[1], _range(PYTHONS)),
        (
            f"numpy {numpy.__version__}",
            NUMPYS[0] <= _version(numpy.__version__) <= NUMPYS[1],
            _range(NUMPYS),
        ),
    ):
        if not is_known:
            raise ImportError(f"mxnet_compat does not know {what}; it was tried with {known}")
    return mxnet


def _range(bounds: tuple[tuple[int, int], tuple[int, int]]) -> str:
    return " to ".join(f"{major}.{minor}" for major, minor in bounds)


install()
