"""What a graph from a file is given: the inputs that it takes, chosen on a command line."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from mxnet_files.errors import SymbolError, UsageError

__all__ = ["choose_shapes", "chosen_inputs", "example_inputs", "input_shape"]

IMAGE = (1, 3, 224, 224)


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`data=1,3,224,224` or `1,3,224,224`."""
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        shape = (0,)
    if not all(0 < size < 2**31 for size in shape):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected positive sizes as 1,3,224,224")
    return name, shape


def required_inputs(module: fx.GraphModule) -> list[str]:
    """MXNet's names of the inputs that are no labels, in the order of forward."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    return [module.meta["mxnet_inputs"][node.target] for node in placeholders if not node.args]


def choose_shapes(
    module: fx.GraphModule, given: Sequence[tuple[str, tuple[int, ...]]]
) -> dict[str, tuple[int, ...]]:
    """A shape for every required input, by MXNet's name."""
    names = required_inputs(module)
    if not given and len(names) == 1:
        return {names[0]: IMAGE}
    if len(names) == 1 and len(given) == 1 and not given[0][0]:
        return {names[0]: given[0][1]}
    shapes = dict(given)
    if set(shapes) != set(names) or len(shapes) != len(given):
        wanted = " ".join(f"--input {name}=…" for name in names)
        raise UsageError(f"the graph's inputs are {', '.join(names)}; say {wanted}")
    return {name: shapes[name] for name in names}


def example_inputs(shapes: Sequence[Sequence[int]], seed: int = 0) -> tuple[Tensor, ...]:
    """Random float32 inputs of the given shapes."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(tuple(shape), generator=generator) for shape in shapes)


def chosen_inputs(
    module: fx.GraphModule, options: argparse.Namespace
) -> tuple[dict[str, np.ndarray], str]:
    """Inputs by MXNet's names in the order of the graph, and where they come from."""
    if options.data is None:
        shapes = choose_shapes(module, options.input_shape or [])
        drawn = example_inputs(list(shapes.values()))
        return {name: x.numpy() for name, x in zip(shapes, drawn, strict=True)}, "random"
    if options.input_shape:
        raise UsageError("--data and --input both say the inputs, expected one of them")
    names = required_inputs(module)
    try:
        with np.load(options.data, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("one array without a name")
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SymbolError(f"{options.data}: expected arrays by name, *.npz ({error})") from None
    if set(arrays) != set(names):
        raise UsageError(f"{options.data} holds {sorted(arrays)}, the graph's inputs are {names}")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.size == 0 or array.ndim == 0:
            raise UsageError(f"{name} is {array.dtype} of shape {array.shape}, expected numbers")
    return {name: arrays[name].astype(np.float32) for name in names}, options.data.name
