"""Inputs and labels as command lines describe them: shapes to draw, or `.npy` and `.npz` files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gluon_cnn_parity import did_you_mean
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Arrays

__all__ = ["read_batches"]

_SHAPE = re.compile(r"([1-9]\d{0,5}(?:,[1-9]\d{0,5})*)(?::(\w+))?(?:<([1-9]\d{0,8}))?")
_DTYPES = (
    "float16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool",
)  # fmt: skip
MOST_VALUES = 2**31


def read_batches(
    inputs: Sequence[str], labels: str | None, count: int = 1, seed: int = 0
) -> list[tuple[Arrays, np.ndarray | None]]:
    """`count` batches of inputs, each with its labels, if there are any.

    Each text is a shape to draw, `4,3,32,32` (normal values), `4,20:int64<1000` (whole numbers
    below 1000), or a file: `x.npy`, `data.npz` (all its arrays), `data.npz:images` (one). A shape
    is that of one batch; the rows of files are cut into `count` batches of equal size, and what is
    left over stays out.

    Raises:
        ParityError: a text of another form, a file that cannot be read, too few rows.
    """
    draw = np.random.default_rng(seed)
    columns = [column for text in inputs for column in _columns(text, "--input", count, draw)]
    known: Sequence[np.ndarray | None] = [None] * count
    if labels is not None:
        read = _columns(labels, "--labels", count, draw)
        if len(read) > 1:
            raise ParityError(f"--labels {labels} holds {len(read)} arrays, name one: FILE.npz:y")
        known = read[0]
    firsts = (*(column[0] for column in columns), known[0])
    rows = [first.shape[:1] for first in firsts if first is not None]
    if len(set(rows)) > 1:
        sizes = ", ".join(str(shape[0] if shape else "none") for shape in rows)
        raise ParityError(f"inputs and labels have {sizes} rows a batch, expected one number")
    return [(tuple(c[i] for c in columns), known[i]) for i in range(count)]


def _columns(
    text: str, option: str, count: int, draw: np.random.Generator
) -> list[list[np.ndarray]]:
    """The arrays that a text names, each as its batches."""
    shape = _SHAPE.fullmatch(text)
    if shape:
        return [[_drawn(text, option, shape, draw) for _ in range(count)]]
    if not re.search(r"\.np[yz](:|$)", text):
        raise ParityError(
            f"{option} is {text!r}, expected a shape such as 1,3,32,32 or 4,20:int64<1000, or a "
            "file x.npy, x.npz or x.npz:name"
        )
    return [_cut(array, text, option, count) for array in _read(text, option)]


def _drawn(text: str, option: str, match: re.Match[str], draw: np.random.Generator) -> np.ndarray:
    shape = tuple(int(size) for size in match[1].split(","))
    dtype = match[2] or "float32"
    if dtype not in _DTYPES:
        raise ParityError(
            f"{option} {text} asks for {dtype!r}, expected one of {', '.join(_DTYPES)}"
            f"{did_you_mean(dtype, _DTYPES)}"
        )
    if np.prod([float(size) for size in shape]) > MOST_VALUES:
        raise ParityError(f"{option} {text} has more than {MOST_VALUES:,} values")
    if dtype == "bool":
        return draw.random(shape) < 0.5
    if dtype.startswith("float"):
        return draw.standard_normal(shape).astype(dtype)
    if match[3] is None:
        raise ParityError(f"{option} {text} needs a limit, such as {match[1]}:{dtype}<10")
    most = np.iinfo(dtype).max
    if int(match[3]) - 1 > most:
        raise ParityError(f"{option} {text}: {dtype} holds at most {most}")
    return draw.integers(0, int(match[3]), shape).astype(dtype)


def _cut(array: np.ndarray, text: str, option: str, count: int) -> list[np.ndarray]:
    if not array.ndim:
        raise ParityError(f"{option} {text} holds a single number, expected an array (N, …)")
    size = len(array) // count
    if not size:
        raise ParityError(f"{option} {text} has {len(array)} rows, too few for {count} batches")
    return [array[i * size : (i + 1) * size] for i in range(count)]


def _read(text: str, option: str) -> list[np.ndarray]:
    path, _, name = text.partition(".npz:")
    path = f"{path}.npz" if name else text
    if not Path(path).is_file():
        raise ParityError(f"{option}: {path} is no file")
    try:
        loaded = np.load(path, allow_pickle=False)
        named = {"": loaded} if isinstance(loaded, np.ndarray) else {k: loaded[k] for k in loaded}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ParityError(f"{option}: {path} cannot be read: {reason}") from None
    if name and name not in named:
        raise ParityError(
            f"{option}: {path} has no {name!r}, only {', '.join(named)}{did_you_mean(name, named)}"
        )
    chosen = [named[name]] if name else list(named.values())
    for array in chosen:
        if array.dtype.name not in _DTYPES:
            raise ParityError(
                f"{option}: {path} holds {array.dtype}, expected one of {', '.join(_DTYPES)}"
            )
    if not chosen:
        raise ParityError(f"{option}: {path} holds no arrays")
    return chosen
