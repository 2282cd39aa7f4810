"""Inputs and labels as command lines describe them: shapes to draw, or `.npy` and `.npz` files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gluon_cnn_parity import did_you_mean
from parity_tests.backends.files.tape import FILE, RecordError, asked, read_arrays
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Arrays


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
    try:
        if not FILE.fullmatch(text):
            how = asked(text, option, did_you_mean)
            return [[_drawn(draw, *how) for _ in range(count)]]
        found = read_arrays(text, option, did_you_mean)
    except RecordError as error:
        raise ParityError(str(error)) from None
    return [_cut(array, text, option, count) for array in found]


def _drawn(draw: np.random.Generator, shape: tuple[int, ...], dtype: str, limit: int) -> np.ndarray:
    if dtype == "bool":
        return draw.random(shape) < 0.5
    if dtype.startswith("float"):
        return draw.standard_normal(shape).astype(dtype)
    return draw.integers(0, limit, shape).astype(dtype)


def _cut(array: np.ndarray, text: str, option: str, count: int) -> list[np.ndarray]:
    if not array.ndim:
        raise ParityError(f"{option} {text} holds a single number, expected an array (N, …)")
    size = len(array) // count
    if not size:
        raise ParityError(f"{option} {text} has {len(array)} rows, too few for {count} batches")
    return [array[i * size : (i + 1) * size] for i in range(count)]
