"""State dicts on disk as numpy: `.safetensors`, and `.pt` read with `weights_only=True`.

Neither format runs code when it is read this way. torch is imported for `.pt` alone. bfloat16 is
kept bit for bit in `params_file.BFLOAT16`.

Every size that a file states is held against the file before memory is taken: a tensor has at most
numpy's 32 dimensions, and what all tensors of a `.pt` take beyond the file's own size (a few stored
numbers can be expanded to any shape) is at most `params_file.SPARSE_LIMIT`.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gluon_cnn_parity.atomic import replacing_file
from mxnet_files.reading.params_file import BFLOAT16, MAX_NDIM, SPARSE_LIMIT

SUFFIXES = (".safetensors", ".pt")

# https://github.com/huggingface/safetensors#format
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}


class TensorFileError(ValueError):
    """A file, or arrays meant for one, that is no plain dict of named tensors; one line."""


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` or `.pt` state dict by name; the suffix decides.

    Raises TensorFileError for a damaged or unexpected file, OSError where it cannot be opened.
    """
    read = _read_pt if _suffix(path) == ".pt" else _read_safetensors
    # A pipe would block, and a device may never end.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise TensorFileError(f"{path}: expected a regular file")
    return read(path)


def write_tensors(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` as a `.safetensors` or `.pt` state dict, whole or not at all.

    Raises TensorFileError for a dtype that the formats cannot hold.
    """
    checked = {}
    for name, value in arrays.items():
        array = np.asarray(value)
        dtype = array.dtype.newbyteorder("<")
        if dtype not in CODES:
            raise TensorFileError(f"{path}: {name!r} is {array.dtype}; expected a dtype of numbers")
        checked[name] = np.ascontiguousarray(array, dtype).reshape(array.shape)
    write = _write_pt if _suffix(path) == ".pt" else _write_safetensors
    write(path, checked)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise TensorFileError(f"{path}: expected a file named {' or '.join(SUFFIXES)}")
    return suffix


def _read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, deserialize

    data = Path(path).read_bytes()
    try:
        entries = dict(deserialize(data))
    except SafetensorError as error:
        raise TensorFileError(f"{path}: no sound .safetensors file: {_line(error)}") from None
    arrays = {}
    for name in _order(data, entries):
        entry = entries[name]
        if entry["dtype"] not in DTYPES:
            raise TensorFileError(f"{path}: {name!r} has the unknown dtype {entry['dtype']}")
        _check_shape(path, name, entry["shape"])
        dtype = DTYPES[entry["dtype"]]
        # Through bytes: numpy refuses to view some empty buffers.
        flat = np.frombuffer(bytes(entry["data"]), np.uint8).view(dtype)
        arrays[name] = _check_bool(path, name, flat.reshape(entry["shape"]).copy())
    return arrays


def _check_shape(path: str | os.PathLike[str], name: str, shape: Sequence[int]) -> None:
    """Refuse what numpy cannot hold: too many dimensions, or too large ones beside a 0."""
    if len(shape) > MAX_NDIM:
        raise TensorFileError(
            f"{path}: {name!r} has {len(shape)} dimensions: expected at most {MAX_NDIM}"
        )
    if math.prod(size for size in shape if size) >= 2**59:  # times 16 bytes, the largest item
        raise TensorFileError(f"{path}: {name!r} has the impossible shape {tuple(shape)}")


def _check_bool(path: str | os.PathLike[str], name: str, array: np.ndarray) -> np.ndarray:
    """A bool is the byte 0 or 1; numpy and torch compute nonsense with others."""
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise TensorFileError(f"{path}: {name!r} is bool and holds other bytes than 0 and 1")
    return array


def _order(data: bytes, names: Mapping[str, object]) -> list[str]:
    """The names in the header's order, which the library does not keep."""
    (length,) = struct.unpack("<Q", data[:8])
    return [name for name in json.loads(data[8 : 8 + length]) if name in names]


def _write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    header: dict[str, dict[str, object]] = {}
    start = 0
    # Larger items first, so that every tensor is aligned for its dtype; the header keeps the order.
    data = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    offsets = {}
    for name in data:
        offsets[name] = [start, start := start + arrays[name].nbytes]
    for name, array in arrays.items():
        code = CODES[array.dtype]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": offsets[name]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing_file(path) as part, part.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in data:
            stream.write(arrays[name].tobytes())


def _read_pt(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    import torch

    size = _check_members(path)
    with open(path, "rb") as stream:
        try:
            state = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged or a refused file
            reason = _line(error)
            if "weights_only" in str(error):  # torch's advice is to read it all the same
                reason = "it holds more than tensors, which may run code; save net.state_dict()"
            raise TensorFileError(f"{path}: no plain state dict: {reason}") from None
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise TensorFileError(f"{path}: expected names and tensors alone: save net.state_dict()")
    arrays = {}
    left = size + SPARSE_LIMIT
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise TensorFileError(f"{path}: {name!r} is no dense tensor")
        _check_shape(path, name, tensor.shape)
        left -= tensor.numel() * tensor.itemsize
        if left < 0:
            shape = tuple(tensor.shape)
            raise TensorFileError(
                f"{path}: {name!r} of shape {shape} is far larger than the file of {size} bytes:"
                f" expected at most {SPARSE_LIMIT} bytes more in all; save a copy, not a view"
            )
        tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
        if tensor.dtype == torch.bfloat16:
            arrays[name] = tensor.view(torch.int16).numpy().view("<u2").view(BFLOAT16)
            continue
        try:
            arrays[name] = _check_bool(path, name, tensor.numpy())
        except TypeError:
            raise TensorFileError(
                f"{path}: numpy has no dtype for {name!r} ({tensor.dtype})"
            ) from None
    return arrays


def _check_members(path: str | os.PathLike[str]) -> int:
    """The file's size, which the parts of a zip archive that torch reads must not exceed."""
    size = os.stat(path).st_size
    try:
        with zipfile.ZipFile(path) as archive:
            parts = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return size  # torch before 1.6 wrote no archive, and torch says what is damaged
    if parts > size:
        raise TensorFileError(
            f"{path}: its parts take {parts} bytes and the file has {size}: torch packs nothing"
        )
    return size


def _write_pt(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    import torch

    state = {}
    for name, array in arrays.items():
        if array.dtype == BFLOAT16:
            bits = torch.from_numpy(array.view("<i2").copy())
            state[name] = bits.view(torch.bfloat16)
        else:
            state[name] = torch.from_numpy(array.copy())
    with replacing_file(path) as part, part.open("wb") as stream:
        torch.save(state, stream)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
