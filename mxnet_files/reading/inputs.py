"""What a graph from a file is given: the inputs that it takes, chosen on a command line."""

from __future__ import annotations

import argparse
import io
import math
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, fx

from mxnet_files.budget import Budget
from mxnet_files.errors import SymbolError, UsageError
from mxnet_files.running import refusals

INPUT, INPUT_HELP = (
    "[NAME=]N,C,H,W[:DTYPE]",
    "shape of an input, once for each; one input without it is 1,3,224,224. The dtype is what the"
    " file declares, float32 where it declares none; :uint8, :int32 and the like say another",
)
IMAGE = (1, 3, 224, 224)
# From, and up to but not: bytes are images, and the others most often places in a table
RANGES = {
    torch.uint8: (0, 256),
    torch.int8: (-128, 128),
    torch.int32: (0, 10),
    torch.int64: (0, 10),
    torch.bool: (0, 2),
}


def name_of(dtype: torch.dtype | None) -> str:
    """`uint8` of `torch.uint8`."""
    return str(dtype).removeprefix("torch.")


DTYPES = {name_of(dtype): dtype for dtype in (torch.float32, *RANGES)}


@dataclass(frozen=True)
class Asked:
    """An input as a command line names it; without a dtype it is the one of the file."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None = None


def asked_input(text: str) -> Asked:
    """`data=1,3,224,224`, `1,3,224,224` or `data=1,3,224,224:uint8`."""
    name, _, said = text.rpartition("=")
    sizes, colon, kind = said.partition(":")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = (0,)
    if not all(0 < size < 2**31 for size in shape):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected positive sizes as 1,3,224,224")
    if colon and kind not in DTYPES:
        known = ", ".join(DTYPES)
        raise argparse.ArgumentTypeError(f"got the dtype {kind!r}, expected one of {known}")
    return Asked(name, shape, DTYPES.get(kind))


def random_inputs(
    module: fx.GraphModule, given: Sequence[Asked], budget: Budget | None = None
) -> dict[str, np.ndarray]:
    """An array for every required input, by MXNet's name: the same ones in every run.

    Raises SymbolError where they alone take more than the budget, before they take any.
    """
    names = required_inputs(module)
    if not given and len(names) == 1:
        given = [Asked(names[0], IMAGE)]
    generator = torch.Generator().manual_seed(0)
    wanted = by_name(names, given)
    require_affordable([(one, dtype_of(module, one)) for one in wanted], budget or Budget())
    return {one.name: draw(one.shape, dtype_of(module, one), generator).numpy() for one in wanted}


def require_affordable(
    wanted: Sequence[tuple[Asked, torch.dtype]], budget: Budget, flag: str = "--input"
) -> None:
    """Hold inputs against the budget by their shapes."""
    values = sum(math.prod(one.shape) for one, _ in wanted)
    size = sum(math.prod(one.shape) * dtype.itemsize for one, dtype in wanted)
    for what, total in (("values", values), ("bytes", size)):
        if total > (most := getattr(budget, what)):
            shapes = ", ".join(f"{one.name} {one.shape}" for one, _ in wanted)
            raise SymbolError(
                f"{flag} {shapes}: the inputs alone take {total:.3g} {what} and the budget is "
                f"{most:.3g}: ask for a smaller shape, or raise it with --budget {what}={total}"
            )


def draw(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Normally distributed, or integers of a plain range."""
    if dtype not in RANGES:
        return torch.randn(shape, generator=generator)
    low, high = RANGES[dtype]
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def required_inputs(module: fx.GraphModule) -> list[str]:
    """MXNet's names of the inputs that are no labels, in the order of forward."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    return [module.meta["mxnet_inputs"][node.target] for node in placeholders if not node.args]


def by_name(names: Sequence[str], given: Sequence[Asked]) -> list[Asked]:
    """What is asked for each of the names, in their order."""
    if len(names) == 1 and len(given) == 1 and not given[0].name:
        return [Asked(names[0], given[0].shape, given[0].dtype)]
    found = {one.name: one for one in given}
    if set(found) != set(names) or len(found) != len(given):
        wanted = " ".join(f"--input {name}=…" for name in names)
        raise UsageError(f"the graph's inputs are {', '.join(names)}; say {wanted}")
    return [found[name] for name in names]


def dtype_of(module: fx.GraphModule, asked: Asked) -> torch.dtype:
    """The file's, or the one that is asked for where the file declares none."""
    declared: torch.dtype | None = module.meta["mxnet_dtypes"].get(asked.name)
    if declared is not None and asked.dtype not in (None, declared):
        found, wanted = name_of(asked.dtype), name_of(declared)
        raise UsageError(f"--input {asked.name} is {found}, the file declares {wanted}")
    return declared or asked.dtype or torch.float32


def read_inputs(
    module: fx.GraphModule, path: Path, given: Sequence[Asked], budget: Budget | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an `*.npz` file, in the dtypes that the graph takes.

    What is asked for may say the dtype of an input, and must have the array's shape.
    """
    names = required_inputs(module)
    budget = budget or Budget()
    arrays = read_arrays(path, budget.bytes)
    if set(arrays) != set(names):
        raise UsageError(f"{path} holds {sorted(arrays)}, the graph's inputs are {names}")
    asked = by_name(names, given or [Asked(name, arrays[name].shape) for name in names])
    require_affordable([(one, dtype_of(module, one)) for one in asked], budget, "--data")
    found = {}
    for one in asked:
        array = arrays[one.name]
        if array.dtype.kind not in "fiub" or array.size == 0 or array.ndim == 0:
            raise UsageError(
                f"{one.name} is {array.dtype} of shape {array.shape}, expected numbers"
            )
        if array.shape != one.shape:
            raise UsageError(f"{path} has {one.name} {array.shape}, --input says {one.shape}")
        dtype = dtype_of(module, one)
        kind = name_of(dtype)
        with np.errstate(invalid="ignore"):
            found[one.name] = array.astype(kind)
        if dtype in RANGES and not np.array_equal(found[one.name], array):
            raise UsageError(f"{path}: {one.name} holds {array.dtype} that are no {kind}")
    return found


def read_arrays(
    path: Path, most: int, expected: str = "expected arrays by name, *.npz as np.savez writes it"
) -> dict[str, np.ndarray]:
    """All arrays of an `*.npz` file, which take at most so many bytes.

    What the file says of its sizes is held against that before anything is unpacked. Raises
    `SymbolError` with what was expected; OSError where the file cannot be opened.
    """
    arrays = {}
    with (
        path.open("rb") as stream,
        refusals(f"{path}: {expected}"),
        zipfile.ZipFile(stream) as archive,
    ):
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if size > most:
            raise SymbolError(
                f"{path}: unpacked it takes {size:.3g} bytes and the budget is {most:.3g}: raise "
                f"it with --budget bytes={size} if you trust the file"
            )
        for member in members:
            with archive.open(member) as part:
                content = part.read(member.file_size)  # no more, whatever is packed in it
            arrays[member.filename.removesuffix(".npy")] = parse_array(content)
    return arrays


def parse_array(content: bytes) -> np.ndarray:
    """The array of an `*.npy` file. numpy's own reader takes as much memory as a header states."""
    stream, npy = io.BytesIO(content), np.lib.format
    newer = npy.read_magic(stream) > (1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header of Python 2, or one that is no Python
        read_header = npy.read_array_header_2_0 if newer else npy.read_array_header_1_0
        shape, by_columns, dtype = read_header(stream)
    count, held = math.prod(shape), len(content) - stream.tell()
    if count * dtype.itemsize != held:
        raise ValueError(f"{dtype} of shape {shape} in {held} bytes")
    array = np.frombuffer(content, dtype, count, stream.tell())
    return array.reshape(shape, order="F" if by_columns else "C").copy()
