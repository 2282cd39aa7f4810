"""What a run of a leaf or of a net brings back, as numpy arrays; the same for both frameworks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gluon_cnn_parity.factories import place_of, reason_of
from parity_tests.backends.leaves import Leaf, ParityError
from parity_tests.backends.spill import Spill
from parity_tests.reporting.verdicts import Side

__all__ = [
    "NET",
    "Arrays",
    "Call",
    "Edit",
    "LeafRun",
    "Loss",
    "NetRun",
    "Noise",
    "Objective",
    "allot",
    "arrays",
    "is_float",
    "named",
    "paths_of",
    "place",
    "place_of",
    "reason_of",
    "rounded",
]

Arrays = tuple[np.ndarray, ...]


NET = "(net)"  # the path under which the net as a whole is reported; no module has it

# (path, index of the call, quantity)
Key = tuple[str, int, str]
Outputs = Mapping[Key, np.ndarray]

# What a run takes at a place: (leaf path, index of the call, index of the value); None: nothing
Edit = Callable[[str, int, int], np.ndarray | None]

# A leaf run alone: "output", "input gradient", "weight gradient", "running_mean", …
LeafRun = dict[str, np.ndarray]


def named(
    outputs: Arrays,
    input_gradients: Sequence[np.ndarray | None] = (),
    gradients: Mapping[str, np.ndarray] | None = None,
    buffers: Mapping[str, np.ndarray] | None = None,
) -> LeafRun:
    """A leaf's results under the names that reports use; a missing gradient has no entry."""
    found = {output_name(i): y for i, y in enumerate(outputs)}
    for i, gradient in enumerate(input_gradients):
        if gradient is not None:
            found[input_name(i)] = gradient
    found.update({f"{role} gradient": g for role, g in (gradients or {}).items()})
    return {**found, **(buffers or {})}


def output_name(index: int) -> str:
    """What reports call an output: "output", "output 2", …"""
    return f"output {index + 1}" if index else "output"


def input_name(index: int) -> str:
    """What reports call the gradient of an input: "input gradient", "input 2 gradient", …"""
    return f"input {index + 1} gradient" if index else "input gradient"


@dataclass
class Call:
    """One call of a leaf inside a run of its whole net.

    `upstream` are the gradients of the outputs, `input_gradients` this call's own part of the
    gradients of the inputs.
    """

    inputs: Arrays
    outputs: Arrays = ()
    upstream: tuple[np.ndarray | None, ...] = ()
    input_gradients: tuple[np.ndarray | None, ...] = ()


@dataclass
class NetRun:
    """A whole net's run: every leaf's calls by path, then what the net as a whole gave."""

    calls: dict[str, list[Call]]
    outputs: Arrays
    gradients: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    buffers: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    loss: np.ndarray | None = None
    output_gradient: np.ndarray | None = None

    def move(self, spill: Spill) -> None:
        """Keep the arrays of all calls, and the gradients of parameters, on the disk."""
        moved: dict[int, np.ndarray] = {}  # an input is mostly the output of another call

        def away(array: np.ndarray) -> np.ndarray:
            if id(array) not in moved:
                moved[id(array)] = spill(array)
            return moved[id(array)]

        for call in (call for calls in self.calls.values() for call in calls):
            call.inputs, call.outputs = (
                tuple(map(away, call.inputs)),
                tuple(map(away, call.outputs)),
            )
            call.upstream = tuple(None if g is None else away(g) for g in call.upstream)
            call.input_gradients = tuple(
                None if g is None else away(g) for g in call.input_gradients
            )
        self.gradients = {key: away(gradient) for key, gradient in self.gradients.items()}

    def named_outputs(self) -> dict[Key, np.ndarray]:
        """Every leaf's outputs in every call, then the net's own under the path NET."""
        found = {
            (path, index, output_name(i)): y
            for path, calls in self.calls.items()
            for index, call in enumerate(calls)
            for i, y in enumerate(call.outputs)
        }
        found.update({(NET, 0, output_name(i)): y for i, y in enumerate(self.outputs)})
        return found

    def named_gradients(self) -> dict[Key, np.ndarray]:
        """Every leaf's input gradients in every call, then every parameter's gradient."""
        found = {
            (path, index, input_name(i)): g
            for path, calls in self.calls.items()
            for index, call in enumerate(calls)
            for i, g in enumerate(call.input_gradients)
            if g is not None
        }
        if self.output_gradient is not None:
            found[NET, 0, "output gradient"] = self.output_gradient
        found.update(
            {(path, 0, f"{role} gradient"): g for (path, role), g in self.gradients.items()}
        )
        return found

    def named_buffers(self) -> dict[Key, np.ndarray]:
        """Every buffer after the run."""
        return {(path, 0, role): value for (path, role), value in self.buffers.items()}


# A loss of a framework's own arrays (output, labels), one value a sample: (N,)
Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Objective:
    """What is differentiated: the outputs against given gradients, or a loss of (output, labels).

    `losses` has one for each side that is run; each is summed over the samples. What they round is
    `measured` where no formula is known for them.
    """

    upstream: Arrays = ()
    labels: np.ndarray | None = None
    losses: Mapping[Side, Loss] = field(default_factory=dict)
    measured: bool = False


@dataclass(frozen=True)
class Noise:
    """The size of rounding in a net, each relative to the root mean square of the values it hits:
    of leaf outputs and input gradients by path, and of the logits' gradient."""

    outputs: dict[str, float]
    input_gradients: dict[str, float]
    logit_gradient: float


def is_float(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Floats through float32, then in `dtype`: both dtypes then start from the very same numbers.

    Integers stay as they are.
    """
    return array.astype(np.float32).astype(dtype) if is_float(array) else array


def place(paths: Sequence[str], call: int) -> tuple[str, int]:
    """Where a module's n-th call belongs: its path, and the index of the call under that path.

    A module registered under several paths gives each a call of its own, in order; the first path
    takes what is left over.
    """
    if call < len(paths):
        return paths[call], 0
    return paths[0], 1 + call - len(paths)


def paths_of(leaves: Sequence[Leaf]) -> dict[int, list[str]]:
    """The paths of each module, by its identity, in the order of registration."""
    paths: dict[int, list[str]] = {}
    for leaf in leaves:
        paths.setdefault(id(leaf.block), []).append(leaf.path)
    return paths


def allot(leaves: Sequence[Leaf], calls: Mapping[int, Sequence[Call]]) -> dict[str, list[Call]]:
    """Calls by leaf path, from calls by the identity of the module."""
    allotted: dict[str, list[Call]] = {leaf.path: [] for leaf in leaves}
    for block, paths in paths_of(leaves).items():
        for index, call in enumerate(calls.get(block, ())):
            allotted[place(paths, index)[0]].append(call)
    return allotted


def arrays(inputs: object) -> Arrays:
    """The user's inputs, one or a tuple of arrays of either framework or numpy, as numpy."""
    several = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    return tuple(_array(value) for value in several)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "asnumpy"):
        return value.asnumpy()
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    raise ParityError(
        f"the inputs hold a {type(value).__name__}, expected numpy arrays, NDArrays or tensors"
    )
