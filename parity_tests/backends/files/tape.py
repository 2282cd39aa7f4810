"""What both recording scripts and both tracers share: the tape of what a net executes.

`gluon-parity record` prints this file in front of a script, for Python 3.6 and what is installed
there: it imports numpy and the standard library alone, and is written for Python 3.6.
"""

import argparse
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import numpy as np

FORMAT = 2  # of manifest.json, as every sealed folder of this distribution has it
RECORDER = 1  # of what a recorded folder holds
# Of the arrays of these the first gives its shape and dtype alone, or all but the first do
OF_SHAPE = {
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor",
    "_full_like", "_np_zeros_like", "_np_ones_like", "_npi_zeros_like", "_npi_ones_like",
    "_npi_full_like", "shape_array", "_contrib_arange_like", "_npx_arange_like",
}  # fmt: skip
LIKE = {
    "expand_as", "view_as", "reshape_as", "type_as", "broadcast_like", "slice_like",
    "reshape_like", "_npx_broadcast_like", "_npx_reshape_like",
}  # fmt: skip
# What gives other numbers in each run
DRAWN = re.compile("(?i)rand|(^|_)normal(_|$)|uniform|bernoulli|multinomial|sample|dropout|empty")
THIS_FILE = (lambda: 0).__code__.co_filename


class RecordError(Exception):
    """What cannot be recorded: one line with what came, what was expected, what to do."""


def _frames(skipped: int) -> List[Any]:
    """The frames of this thread, the innermost first, without those of so many callees."""
    frame: Any = sys._getframe(1 + skipped)
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


class Tape:
    """The operations of one forward pass, in order, as plain records that JSON can hold.

    Each has `kind`, `attributes`, `roles` and `reads` (the arguments that are arrays, and where
    they come from), `shapes` and `dtypes` of its outputs, `path` and `call` of the module it ran
    in, `source`, the line that called it, and whether it is `fixed`: of constants and shapes alone,
    and not drawn at random. A value is
    (origin, key, output): an "operation" and which of its outputs, an "input", a "parameter" by its
    name, or a "constant".

    Args:
        producers: maps arrays, by identity, to the values they hold.
        describe: the shape and dtype of an array.
        libraries: folders whose frames are not the user's code, apart from those in `models`.
    """

    def __init__(
        self,
        producers: Any,
        describe: Callable[[Any], Tuple[Tuple[int, ...], str]],
        libraries: Sequence[str],
        models: Sequence[str] = (),
    ) -> None:
        self.producers = producers
        self.describe = describe
        self.operations: List[Dict[str, Any]] = []
        self.parameters: Dict[str, Tuple[Tuple[int, ...], str]] = {}
        self.aliases: Dict[str, str] = {}
        self.inputs: List[Tuple[int, ...]] = []
        self.constants: Dict[str, Any] = {}
        self.outside: Dict[str, str] = {}  # constants after a value had left, and where it did
        self._libraries = tuple(libraries)
        self._models = tuple(models)
        self._callers = len(_frames(1))  # whoever made this runs the net, and is not of it
        self.left = ""  # where a computed value last went to numpy
        self._held: Dict[str, Any] = {}  # the net's own arrays, by name
        self._stack = [("", 0)]
        self._calls: Dict[str, int] = {}

    @property
    def path(self) -> str:
        """The module that is running."""
        return self._stack[-1][0]

    def add_parameter(self, name: str, array: Any) -> None:
        """Register an array that the net holds; the same array again gives it another name."""
        value = self.producers.get(array)
        if value is not None and value[0] == "parameter":
            self.aliases[name] = value[1]
            return
        self.producers[array] = ("parameter", name, 0)
        self.parameters[name] = self.describe(array)
        self._held[name] = array

    def hold(self, name: str, array: Any) -> None:
        """What the net holds under a name by now, which its own code may have assigned."""
        if name in self._held:
            self._held[name] = array

    def add_input(self, array: Any) -> None:
        self.producers[array] = ("input", len(self.inputs), 0)
        self.inputs.append(self.describe(array)[0])

    def enter(self, path: str) -> None:
        call = self._calls.get(path, 0)
        self._stack.append((path, call))
        self._calls[path] = call + 1

    def leave(self) -> None:
        self._stack.pop()

    @contextmanager
    def inside(self, path: str) -> Iterator[None]:
        """Operations recorded in this context belong to the module at `path`."""
        self.enter(path)
        try:
            yield
        finally:
            self.leave()

    def add(
        self,
        kind: str,
        attributes: Mapping[str, Any],
        operands: Sequence[Tuple[str, Any]],
        outputs: Sequence[Any],
        **more: Any,
    ) -> int:
        """Record an operation that has run; returns its index.

        `operands` are arrays by the role of the argument; `more` goes into the record as it is.
        """
        index = len(self.operations)
        path, call = self._stack[-1]
        described = [self.describe(array) for array in outputs]
        reads = [self.value(array) for _, array in operands]
        record = {
            "kind": kind,
            "attributes": dict(attributes),
            "roles": [role for role, _ in operands],
            "reads": reads,
            "operands": [self.describe(array)[0] for _, array in operands],
            "shapes": [shape for shape, _ in described],
            "dtypes": [dtype for _, dtype in described],
            "path": path,
            "call": call,
            "source": self._source(),
            "fixed": not DRAWN.search(kind) and all(map(self._is_fixed, values_of(kind, reads))),
        }
        record.update(more)
        self.operations.append(record)
        for position, array in enumerate(outputs):
            self.producers[array] = ("operation", index, position)
        return index

    def value(self, array: Any) -> Tuple[str, Any, int]:
        """Where an array comes from; one that nobody produced is a constant of the net."""
        known = self.producers.get(array)
        if known is None:
            shape, dtype = self.describe(array)
            known = ("constant", f"{dtype}{list(shape)} {len(self.constants) + 1}", 0)
            self.constants[known[1]] = array
            if self.left:
                read = self._source() or "in a library"
                self.outside[known[1]] = (
                    f"{self.left}, before an array that no operator made: {read}"
                )
            self.producers[array] = known
        return known

    def _is_fixed(self, value: Tuple[str, Any, int]) -> bool:
        origin, key, _ = value
        return origin == "constant" or (origin == "operation" and self.operations[key]["fixed"])

    def hand_over(self) -> None:
        """A computed value goes to numpy: arrays that come from nowhere now may be made of it."""
        self.left = self._source() or "in a library"

    def _source(self) -> str:
        frames = _frames(1)
        for frame in frames[: len(frames) - self._callers]:
            name = frame.f_code.co_filename
            theirs = name == THIS_FILE or name.startswith(self._libraries) or name[:1] == "<"
            if not theirs or (self._models and name.startswith(self._models)):
                return f"{name}:{frame.f_lineno}"
        return ""

    def graph(self, outputs: Sequence[Any], train: bool) -> Dict[str, Any]:
        """Everything but the arrays, given those that the net returned and the mode it ran in."""
        return {
            "operations": self.operations,
            "inputs": self.inputs,
            "outputs": [self.value(array) for array in outputs],
            "parameters": self.parameters,
            "aliases": self.aliases,
            "train": train,
            "writes": self._writes(),
            "outside": self.outside,
        }

    def _writes(self) -> Dict[str, Tuple[str, Any, int]]:
        """What is in the net's parameters by now, where it is not what was there."""
        now = {name: self.producers.get(array) for name, array in self._held.items()}
        return {name: value for name, value in now.items() if value and value[0] != "parameter"}


def values_of(kind: str, reads: Sequence[Any]) -> Sequence[Any]:
    """Those of the arrays of an operation whose numbers it reads."""
    return reads[:1] if kind in LIKE else reads[kind in OF_SHAPE :]


def flatten(value: Any, leaf: Any) -> Iterator[Any]:
    """The arrays of class `leaf` in nested tuples, lists and dicts, in order."""
    if isinstance(value, leaf):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            for array in flatten(item, leaf):
                yield array
    elif isinstance(value, (tuple, list)):
        for item in value:
            for array in flatten(item, leaf):
                yield array


def spans(key: Any, shape: Sequence[int]) -> Any:
    """First, past and step on each axis of what `x[key]` takes of an array of a shape.

    The key as text where it is made of more than numbers and slices.
    """
    keys = key if isinstance(key, tuple) else (key,)
    if not all(k is Ellipsis or isinstance(k, (int, slice)) for k in keys):
        return repr(key)
    free = len(shape) - sum(k is not Ellipsis for k in keys)
    axes: List[slice] = []
    for k in keys:
        if k is Ellipsis:
            axes += [slice(None)] * free
        else:
            axes.append(k if isinstance(k, slice) else slice(k, k + 1 or None))
    axes += [slice(None)] * (len(shape) - len(axes))
    return [list(one.indices(length)) for one, length in zip(axes, shape)]


def written_key(key: Any, leaf: Any) -> Any:
    """The key of `x[key]` as JSON, where arrays or lists are in it; None of any other key.

    An array of class `leaf` is its place among those of the key.
    """
    written: List[Any] = []
    arrays = several = 0
    for k in key if isinstance(key, tuple) else (key,):
        if isinstance(k, leaf):
            kind = "mask" if np.dtype(k.dtype).kind == "b" else "array"
            written.append({kind: arrays})
            arrays += 1
        elif isinstance(k, (list, tuple, range, np.ndarray)):
            values = np.asarray(k)
            if values.dtype.kind not in "iub":
                return None
            written.append({"values": values.tolist()})
            several += 1
        elif isinstance(k, slice):
            ends = (k.start, k.stop, k.step)
            written.append({"slice": [None if end is None else int(end) for end in ends]})
        else:
            written.append("..." if k is Ellipsis else None if k is None else int(k))
    return written if arrays or several else None


class Archive:
    """An `.npz` file that is written array by array."""

    def __init__(self, path: str) -> None:
        self._zip = zipfile.ZipFile(path, "w", allowZip64=True)

    def add(self, name: str, array: Any) -> None:
        with self._zip.open(name + ".npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *error: Any) -> None:
        self._zip.close()


@contextmanager
def writing(folder: str) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """A folder beside `folder` for the block's files, and its state, which becomes `folder`.

    It appears whole, with a sha256 of every file, or not at all. Raises RecordError for one that
    is there already.
    """
    folder = os.path.abspath(folder)
    if os.path.lexists(folder):
        raise RecordError(f"--out {folder} is there already; name a new folder")
    parent = os.path.dirname(folder)
    if not os.path.isdir(parent):
        raise RecordError(f"--out {folder}: the folder {parent} is missing; make it first")
    part = tempfile.mkdtemp(prefix="." + os.path.basename(folder) + ".", dir=parent)
    state: Dict[str, Any] = {}
    try:
        yield part, state
        sums = {}
        for name in sorted(os.listdir(part)):
            digest = hashlib.sha256()
            with open(os.path.join(part, name), "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
            sums[name] = digest.hexdigest()
        body = {"format": FORMAT, "sha256": sums, "state": state}
        own = hashlib.sha256(json.dumps(body, indent=2, allow_nan=False).encode()).hexdigest()
        sealed: Dict[str, Any] = {"own_sha256": own}
        sealed.update(body)
        with open(os.path.join(part, "manifest.json"), "w") as manifest:
            manifest.write(json.dumps(sealed, indent=2, allow_nan=False) + "\n")
            manifest.flush()
            os.fsync(manifest.fileno())
        os.chmod(part, 0o755)
        os.rename(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_json(folder: str, name: str, value: Any) -> None:
    with open(os.path.join(folder, name), "w") as file:
        json.dump(value, file, allow_nan=False)


SHAPE = re.compile(r"([1-9]\d{0,5}(?:,[1-9]\d{0,5})*)(?::(\w+))?(?:<([1-9]\d{0,8}))?")
FILE = re.compile(r".*\.np[yz](:.*)?")
DTYPES = "float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool"
MOST_VALUES = 2**31

Hint = Callable[[str, Sequence[str]], str]


def no_hint(name: str, names: Sequence[str]) -> str:
    return ""


def asked(text: str, option: str, hint: Hint = no_hint) -> Tuple[Tuple[int, ...], str, int]:
    """The shape, dtype and limit of whole numbers that `4,20:int64<1000` asks to draw."""
    match = SHAPE.fullmatch(text)
    if match is None:
        raise RecordError(
            f"{option} is {text!r}, expected a shape such as 1,3,32,32 or 4,20:int64<1000, or a "
            "file x.npy, x.npz or x.npz:name"
        )
    shape = tuple(int(size) for size in match.group(1).split(","))
    dtype, limit = match.group(2) or "float32", int(match.group(3) or 0)
    if dtype not in DTYPES:
        names = ", ".join(DTYPES)
        raise RecordError(
            f"{option} {text} asks for {dtype!r}, expected one of {names}{hint(dtype, DTYPES)}"
        )
    if np.prod([float(size) for size in shape]) > MOST_VALUES:
        raise RecordError(f"{option} {text} has more than {MOST_VALUES:,} values")
    if "int" in dtype:
        if not limit:
            raise RecordError(f"{option} {text} needs a limit, such as {match.group(1)}:{dtype}<10")
        if limit - 1 > np.iinfo(dtype).max:
            raise RecordError(f"{option} {text}: {dtype} holds at most {np.iinfo(dtype).max}")
    return shape, dtype, limit


def read_arrays(text: str, option: str, hint: Hint = no_hint) -> List[Any]:
    """The arrays of `x.npy` or `x.npz`, or that of `x.npz:name`."""
    path, _, name = text.partition(".npz:")
    path = f"{path}.npz" if name else text
    if not os.path.isfile(path):
        raise RecordError(f"{option}: {path} is no file")
    try:
        loaded = np.load(path, allow_pickle=False)
        whole = isinstance(loaded, np.ndarray)
        held = {"": loaded} if whole else {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RecordError(f"{option}: {path} cannot be read: {reason}") from None
    if name and name not in held:
        names = ", ".join(held)
        raise RecordError(f"{option}: {path} has no {name!r}, only {names}{hint(name, list(held))}")
    chosen = [held[name]] if name else list(held.values())
    for array in chosen:
        if array.dtype.name not in DTYPES:
            raise RecordError(
                f"{option}: {path} holds {array.dtype}, expected one of {', '.join(DTYPES)}"
            )
    if not chosen:
        raise RecordError(f"{option}: {path} holds no arrays")
    return chosen


def read_inputs(path: str, texts: Sequence[str], seed: int) -> List[Any]:
    """The arrays of an .npz file in order, or those that the texts ask for."""
    if path:
        return read_arrays(path, "--inputs")
    draw = np.random.RandomState(seed)
    found: List[Any] = []
    for text in texts:
        if FILE.fullmatch(text):
            found += read_arrays(text, "--input")
        else:
            found.append(_drawn(draw, *asked(text, "--input")))
    return found


def _drawn(draw: Any, shape: Tuple[int, ...], dtype: str, limit: int) -> Any:
    if dtype == "bool":
        return draw.random_sample(shape) < 0.5
    if dtype.startswith("float"):
        return draw.standard_normal(shape).astype(dtype)
    return draw.randint(0, limit, shape).astype(dtype)


def head_gradients(outputs: Sequence[Any]) -> List[Any]:
    """What a step sends back into each of the net's outputs: normal numbers, always the same.

    Zeros into whole numbers. As float32, and such as the output's own dtype has.
    """
    draw = np.random.RandomState(7)
    found: List[Any] = []
    for y in outputs:
        is_float = np.dtype(y.dtype).kind == "f"
        drawn = draw.standard_normal(y.shape) * is_float
        found.append(np.asarray(drawn.astype(y.dtype if is_float else np.float32), np.float32))
    return found


def describe_factory(spec: str) -> Any:
    """What `package.module:factory` gives, called without arguments."""
    module, colon, factory = spec.partition(":")
    if not (module and colon and factory):
        raise RecordError(f"the net is {spec!r}, expected package.module:factory")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), factory)
        is_net = hasattr(made, "forward") and not isinstance(made, type)
        return made() if callable(made) and not is_net else made
    except Exception as error:  # a user's module may raise anything
        raise RecordError(f"{spec} gives no net: {type(error).__name__}: {error}") from error


def main(record: Callable[..., Dict[str, Any]], extend: Callable[[Any], None]) -> int:
    """The command of a recording script: 0 and a folder, or 2 and one line."""
    parser = argparse.ArgumentParser(description="Record what a net computes, into a folder.")
    parser.add_argument("net", nargs="?", metavar="PKG:FACTORY", help="your net")
    parser.add_argument("--input", action="append", default=[], metavar="SHAPE|FILE",
                        help="N,C,H,W to draw, N,T:int64<1000 for whole numbers, or x.npy, x.npz, "
                        "x.npz:name; once for each input")  # fmt: skip
    parser.add_argument("--inputs", default="", metavar="FILE.npz", help="the inputs, in order")
    parser.add_argument("--seed", type=int, default=0, help="of random inputs")
    parser.add_argument("--out", required=True, metavar="DIR", help="the new folder")
    extend(parser)
    args = parser.parse_args()
    try:
        if bool(args.input) == bool(args.inputs):
            raise RecordError("name --input SHAPE|FILE or --inputs FILE.npz, one of the two")
        inputs = read_inputs(args.inputs, args.input, args.seed)
        with writing(args.out) as (part, state):
            with Archive(os.path.join(part, "inputs.npz")) as archive:
                for i, x in enumerate(inputs):
                    archive.add(str(i), x)
            state.update(record(args, inputs, part), recorder=RECORDER, net=args.net or "")
            state["versions"].update(python=platform.python_version(), numpy=np.__version__)
            state["machine"] = platform.platform()
    except RecordError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 2
    print(f"recorded in {args.out}: compare it with `gluon-parity check`")
    return 0
