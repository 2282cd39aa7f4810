"""MXNet's `.params` files in numpy alone: what `nd.save` writes and `nd.load` reads.

A file is little-endian: u64 0x112, u64 0, u64 count, the arrays, u64 count, the names (u64 length
and UTF-8 bytes). Each array starts with a u32 that tells its layout:

| first u32            | layout                                                              |
|----------------------|---------------------------------------------------------------------|
| 0xF993FAC9           | V2 (MXNet 1.0 to 1.9): i32 storage type, i32 ndim, i64 dims          |
| 0xF993FACA           | V3: the same, under numpy shape semantics (`npx.set_np`)             |
| 0xF993FAC8           | V1: i32 ndim, i64 dims                                              |
| at most 32           | the oldest: the word is ndim itself, then u32 dims                   |

and goes on with i32 device type, i32 device id, i32 dtype and the data in C order. In V2, ndim 0
marks an array that was never given values, which is refused; in V3 it is a scalar, and a dim of 0
is an empty array in both. V1 and the oldest are read as MXNet 1.9.1 reads them.

Sparse V2 arrays (`row_sparse`, `csr`) are read as the dense array that they stand for, up to
`SPARSE_LIMIT` bytes a file: a few stored rows can stand for any amount of memory. Only dense
arrays are written. bfloat16, which numpy lacks, keeps its 16 bits in the dtype `BFLOAT16`, the one
MXNet's own numpy side uses.

Reading checks every length against the file's size before it allocates, and runs no code. What
MXNet accepts in silence and we refuse: trailing bytes, duplicate names, a reserved word other than
0, an unknown device type, a bool that is neither 0 nor 1.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO

import numpy as np

from gluon_cnn_parity.atomic import replacing_file
from mxnet_files.errors import SymbolError
from mxnet_files.reading.sparse_cells import csr_cells, row_sparse_cells

__all__ = [
    "BFLOAT16",
    "SPARSE_LIMIT",
    "ParamsFileError",
    "bfloat16_to_float32",
    "parse_params",
    "read_params",
    "strip_prefixes",
    "write_params",
]

BFLOAT16 = np.dtype([("bfloat16", "<u2")])
SPARSE_LIMIT = 2**30  # bytes that all sparse arrays of one file may take once dense

FILE_MAGIC = 0x112
V1_MAGIC, V2_MAGIC, V3_MAGIC = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
MAX_NDIM = 32  # numpy's limit, and the largest ndim that MXNet hands to Python
MIN_ARRAY_BYTES = 16  # a word, the device, the dtype: no layout takes fewer
DENSE, ROW_SPARSE, CSR = 0, 1, 2
DEVICE_TYPES = {1, 2, 3, 5}  # cpu, gpu, cpu_pinned, cpu_shared
DTYPES: dict[int, np.dtype] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f8"),
    2: np.dtype("<f2"),
    3: np.dtype("u1"),
    4: np.dtype("<i4"),
    5: np.dtype("i1"),
    6: np.dtype("<i8"),
    7: np.dtype("?"),
    12: BFLOAT16,
}
FLAGS = {dtype: flag for flag, dtype in DTYPES.items()}


class ParamsFileError(ValueError):
    """A `.params` file, or arrays meant for one, that MXNet's format cannot hold; one line."""


def read_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a `.params` file by name, in the file's order.

    Time and memory are bounded by the file's size (and `SPARSE_LIMIT`), whatever it says.

    Args:
        path: a file that `save_parameters`, `export`, `save_checkpoint` or `nd.save` wrote.

    Returns:
        The arrays. Names are kept verbatim, `arg:` and `aux:` included; a file without names
        (`nd.save` of a list) gives "0", "1", ….

    Raises:
        ParamsFileError: a damaged or hostile file.
        OSError: the file cannot be opened.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_params(f"{folder}/x.params", {"arg:weight": np.ones((2, 3), np.float32)})
        ...     arrays = read_params(f"{folder}/x.params")
        >>> arrays["arg:weight"].shape, arrays["arg:weight"].dtype
        ((2, 3), dtype('float32'))
    """
    # A pipe or a device has no size to check lengths against, and opening one may block.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ParamsFileError(f"{path}: expected a regular file")
    with open(path, "rb") as stream:
        return _read_file(_Reader(stream, os.fstat(stream.fileno()).st_size, str(path)))


def parse_params(data: bytes, source: str = "bytes") -> dict[str, np.ndarray]:
    """As `read_params`, for a file's content; `source` is the name that errors begin with."""
    return _read_file(_Reader(io.BytesIO(data), len(data), source))


def write_params(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray] | Sequence[np.ndarray],
    *,
    np_shape: bool = False,
) -> None:
    """Write `arrays` as `nd.save` would, byte for byte.

    Args:
        path: is replaced at once or not at all.
        arrays: by name; a sequence gives a file without names.
        np_shape: write V3, which holds scalars and empty arrays too, but loads only under numpy
            shape semantics (`npx.set_np`).

    Raises:
        ParamsFileError: a dtype, shape or name that the format cannot hold.
    """
    names = list(arrays) if isinstance(arrays, Mapping) else []
    values = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
    encoded = [_encode_name(name, path) for name in names]
    labels = [f"{path}: array {name!r}" for name in names or range(len(values))]
    checked = [_writable(*pair, np_shape) for pair in zip(values, labels, strict=True)]
    magic = V3_MAGIC if np_shape else V2_MAGIC
    with replacing_file(path) as part, part.open("wb") as stream:
        stream.write(struct.pack("<QQQ", FILE_MAGIC, 0, len(checked)))
        for array in checked:
            stream.write(struct.pack(f"<Iii{array.ndim}q", magic, DENSE, array.ndim, *array.shape))
            stream.write(struct.pack("<iii", 1, 0, FLAGS[array.dtype]))  # cpu(0)
            stream.write(array.tobytes())
        stream.write(struct.pack("<Q", len(encoded)))
        for name in encoded:
            stream.write(struct.pack("<Q", len(name)) + name)


def bfloat16_to_float32(array: np.ndarray) -> np.ndarray:
    """The exact float32 values of a `BFLOAT16` array: its bits are a float32's upper half."""
    return (array["bfloat16"].astype(np.uint32) << 16).view(np.float32)


def _encode_name(name: str, path: str | os.PathLike[str]) -> bytes:
    try:
        return name.encode("utf-8")
    except (AttributeError, UnicodeEncodeError):
        raise ParamsFileError(f"{path}: name {name!r} is not text that UTF-8 can hold") from None


def _writable(value: np.ndarray, what: str, np_shape: bool) -> np.ndarray:
    """`value` as little-endian C-order data, or the reason why the format cannot hold it."""
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in FLAGS:
        known = ", ".join("bfloat16" if d == BFLOAT16 else d.name for d in FLAGS)
        raise ParamsFileError(f"{what} is {array.dtype}; MXNet files hold {known}: cast it first")
    if not np_shape and 0 in (array.ndim, array.size):
        raise ParamsFileError(
            f"{what} has shape {array.shape}; a scalar or an empty array needs np_shape=True,"
            " and then loads only under MXNet's numpy shape semantics"
        )
    # ascontiguousarray alone would turn a scalar into shape (1,)
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


class _Reader:
    """Checked reads: a length is compared with what the file still holds before it is used."""

    def __init__(self, stream: BinaryIO, size: int, source: str) -> None:
        self.stream, self.source, self.left = stream, source, size
        self.sparse_left = SPARSE_LIMIT

    def error(self, reason: str) -> ParamsFileError:
        return ParamsFileError(f"{self.source}: {reason}")

    def need(self, count: int, what: str) -> None:
        if count > self.left:
            raise self.error(
                f"{what} needs {count} bytes and {self.left} are left: the file is cut or damaged"
            )

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        data = self.stream.read(count)
        if len(data) != count:
            raise self.error(f"the file shrank while {what} was read")
        self.left -= count
        return data

    def numbers(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout), what))

    def values(self, dtype: np.dtype, shape: tuple[int, ...], what: str) -> np.ndarray:
        """The next array of data; memory is taken only once the file is known to hold it."""
        size = math.prod(shape) * dtype.itemsize
        self.need(size, f"{what} of shape {shape}")
        # numpy multiplies the dims that are not 0 even in an empty array
        if math.prod(d for d in shape if d) * dtype.itemsize >= 2**63:
            raise self.error(f"{what} has the impossible shape {shape}")
        data = np.empty(size, np.uint8)
        if self.stream.readinto(data.data) != size:  # type: ignore[attr-defined]
            raise self.error(f"the file shrank while {what} was read")
        self.left -= size
        if dtype == np.bool_ and size and data.max() > 1:
            raise self.error(f"{what} is bool and holds the byte {data.max()}: expected 0 or 1")
        return data.view(dtype).reshape(shape)


def _read_file(reader: _Reader) -> dict[str, np.ndarray]:
    magic, reserved, count = reader.numbers("QQQ", "the file header")
    if magic & 0xFF in b"{[":  # JSON
        raise reader.error(
            "this is no .params file, but JSON: are it and the *-symbol.json exchanged?"
        )
    if magic != FILE_MAGIC or reserved:
        raise reader.error("this is no .params file: expected it to start with 0x112 and 0")
    if count > reader.left // MIN_ARRAY_BYTES:
        raise reader.error(f"{count} arrays cannot fit in the {reader.left} bytes that follow")
    arrays = [_read_array(reader, f"array {i}") for i in range(count)]
    names = _read_names(reader, count)
    if reader.left:
        raise reader.error(f"{reader.left} bytes follow the last name: expected the file to end")
    return dict(zip(names, arrays, strict=True))


def _read_names(reader: _Reader, arrays: int) -> list[str]:
    (count,) = reader.numbers("Q", "the number of names")
    if count == 0:
        return [str(i) for i in range(arrays)]
    if count != arrays:
        raise reader.error(f"{count} names for {arrays} arrays: expected as many, or none")
    names: dict[str, None] = {}
    for i in range(count):
        (length,) = reader.numbers("Q", f"the length of name {i}")
        raw = reader.take(length, f"name {i}")
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise reader.error(f"name {i} is not UTF-8: {raw[:40]!r}") from None
        if name in names:
            raise reader.error(f"two arrays are named {name[:80]!r}")
        names[name] = None
    return list(names)


def _read_array(reader: _Reader, what: str) -> np.ndarray:
    (word,) = reader.numbers("I", f"the header of {what}")
    if word not in (V2_MAGIC, V3_MAGIC):
        shape = _read_shape(reader, what) if word == V1_MAGIC else _old_shape(reader, word, what)
        return reader.values(_read_dtype(reader, what), shape, what)
    (storage,) = reader.numbers("i", f"the storage type of {what}")
    if storage in (ROW_SPARSE, CSR) and word == V2_MAGIC:
        return _read_sparse(reader, storage, what)
    if storage != DENSE:
        raise reader.error(f"{what} has storage type {storage}: expected 0, or in V2 also 1 or 2")
    shape = _read_shape(reader, what)
    if not shape and word == V2_MAGIC:
        raise reader.error(f"{what} was never given values (ndim 0): initialise it, then save")
    return reader.values(_read_dtype(reader, what), shape, what)


def _read_shape(reader: _Reader, what: str) -> tuple[int, ...]:
    (ndim,) = reader.numbers("i", f"the shape of {what}")
    if not 0 <= ndim <= MAX_NDIM:
        raise reader.error(f"{what} has {ndim} dimensions: expected 0 to {MAX_NDIM}")
    shape = reader.numbers(f"{ndim}q", f"the shape of {what}")
    if any(d < 0 for d in shape):
        raise reader.error(f"{what} has the impossible shape {shape}")
    return shape


def _old_shape(reader: _Reader, ndim: int, what: str) -> tuple[int, ...]:
    if ndim > MAX_NDIM:
        raise reader.error(
            f"{what} starts with {ndim:#x}: expected a layout's magic number, or 0 to {MAX_NDIM}"
        )
    return reader.numbers(f"{ndim}I", f"the shape of {what}")


def _read_dtype(reader: _Reader, what: str) -> np.dtype:
    device, device_id, flag = reader.numbers("iii", f"the device and dtype of {what}")
    if device not in DEVICE_TYPES or device_id < 0:
        raise reader.error(f"{what} is on the unknown device {device}({device_id})")
    return _dtype(reader, flag, what)


def _dtype(reader: _Reader, flag: int, what: str) -> np.dtype:
    if flag not in DTYPES:
        raise reader.error(f"{what} has the unknown dtype {flag}: expected one of {list(DTYPES)}")
    return DTYPES[flag]


def _read_sparse(reader: _Reader, storage: int, what: str) -> np.ndarray:
    """A `row_sparse` or `csr` array as the dense array that it stands for.

    After the storage type: the shape of the stored values, the shape, device and dtype; for each
    index array its dtype and shape; then the values and the index arrays. `row_sparse` has the
    numbers of the stored rows; `csr` the row pointers, then the columns.
    """
    stored = _read_shape(reader, what)
    shape = _read_shape(reader, what)
    dtype = _read_dtype(reader, what)
    parts = []
    for _ in range(1 if storage == ROW_SPARSE else 2):
        (flag,) = reader.numbers("i", f"the index dtype of {what}")
        index_dtype = _dtype(reader, flag, f"the index of {what}")
        if index_dtype.kind != "i":
            raise reader.error(f"{what} has an index of dtype {index_dtype}: expected integers")
        parts.append((index_dtype, _read_shape(reader, f"the index of {what}")))
    values = reader.values(dtype, stored, what)
    indices = [reader.values(d, s, f"the index of {what}").astype(np.int64) for d, s in parts]
    reader.sparse_left -= math.prod(shape) * dtype.itemsize
    if reader.sparse_left < 0 or math.prod(d for d in shape if d) * dtype.itemsize >= 2**63:
        raise reader.error(f"{what} is sparse, of shape {shape}: dense it passes {SPARSE_LIMIT} B")
    place = row_sparse_cells if storage == ROW_SPARSE else csr_cells
    cells = place(shape, stored, *indices)
    if cells is None:
        raise reader.error(f"{what} is sparse, and its index does not fit the shape {shape}")
    dense = np.zeros(shape, dtype)
    dense[cells] = values
    return dense


def strip_prefixes(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Arrays by bare name, and the names that were written as `aux:`."""
    values: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        name = key[4:] if key[:4] in ("arg:", "aux:") else key
        if name in values:
            raise SymbolError(f"{name} is in the parameters twice, as {key} and another key")
        values[name] = array
    return values, {key[4:] for key in arrays if key.startswith("aux:")}
