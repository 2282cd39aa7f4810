"""The envelope of inherited error: how far rounding alone may carry a value, measured.

The referee is run again, several times, with random noise at every leaf, in proportion to the scale
of what the leaf rounds. No limit is out of thin air: a value is judged against the largest move
seen, times the factor in `compare.ENVELOPE_FACTOR`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from parity_tests.compare import UNIT, tolerance
from parity_tests.leaves import Leaf
from parity_tests.local import mode_of
from parity_tests.losses import loss_run, loss_scales
from parity_tests.referee import Subject, attempt
from parity_tests.runs import NET, Arrays, Call, Key, input_name, output_name
from parity_tests.scales import Scales, scales_of
from parity_tests.torch_side import Edit, run_leaf

__all__ = ["DRAWS", "Envelope", "backward_envelope", "forward_envelope"]

DRAWS = 4

# The largest move of each value, in absolute numbers.
Envelope = dict[Key, float]


def call_scales(leaf: Leaf, call: Call, *, train: bool, upstream: Arrays | None) -> Scales:
    """The scales of one call of a torch leaf inside the referee's run."""
    run = run_leaf(leaf, call.inputs, "float64", train=train, upstream=upstream)
    return scales_of(leaf, call.inputs, run, train=train, upstream=upstream)


def sigma(scales: Scales, quantity: str, train: bool) -> np.ndarray:
    """The size of the noise that stands for a leaf's own rounding in float32.

    A quarter of the larger of the two sides' bounds: a bound is then four standard deviations.
    """
    mode = mode_of(quantity, train)
    factor = max(
        tolerance(scales.family, mode, side, "float32").factor(scales.length)
        for side in ("gluon", "torch")
    )
    return factor / 4 * UNIT["float32"] * scales.sizes[quantity]


def _adder(sizes: dict[Key, np.ndarray], name: Callable[[int], str], draw: int) -> Edit:
    """An edit of a run that adds one draw of noise wherever a size is known."""
    generator = np.random.default_rng(draw)

    def add(path: str, call: int, index: int, value: torch.Tensor) -> torch.Tensor:
        size = sizes.get((path, call, name(index)))
        return value if size is None else value + _noise(size, draw, generator)

    return add


def _noise(size: np.ndarray, draw: int, generator: np.random.Generator) -> torch.Tensor:
    """Normal noise: each value's own in even draws, one per channel in odd ones.

    A wrongly rounded mean moves a whole channel, and what moves together does not average out.
    """
    shape = size.shape
    if draw % 2 and len(shape) > 1:
        shape = (1, shape[1]) + (1,) * (len(shape) - 2)
    return torch.from_numpy(size * generator.standard_normal(shape))


def forward_envelope(subject: Subject, *, train: bool) -> Envelope:
    """How far float32's rounding may carry each leaf's outputs, and buffers in training.

    Noise goes into every leaf's output; a buffer's own rounding is added. Raises DidNotRun.
    """
    if ("forward", train) not in subject.kept:
        subject.kept["forward", train] = _forward(subject, train)
    return subject.kept["forward", train]


def _forward(subject: Subject, train: bool) -> Envelope:
    clean = subject.run("torch", "float64", train=train)
    sizes: dict[Key, np.ndarray] = {}
    own: dict[Key, float] = {}
    for leaf in subject.torch_leaves():
        for index, call in enumerate(clean.calls[leaf.path]):
            scales = attempt("torch", call_scales, leaf, call, train=train, upstream=None)
            for name in scales.sizes:
                if name.startswith("output"):
                    sizes[leaf.path, index, name] = sigma(scales, name, train)
                elif name in leaf.tensors:
                    own[leaf.path, 0, name] = float(sigma(scales, name, train).max())
    envelope: Envelope = {}
    for draw in range(DRAWS):
        moved = subject.referee_run(train=train, edit=_adder(sizes, output_name, draw))
        _widen(envelope, moved.named_outputs(), clean.named_outputs())
        _widen(envelope, moved.named_buffers(), clean.named_buffers())
    return {key: move + own.get(key, 0.0) for key, move in envelope.items()}


def _widen(envelope: Envelope, moved: dict[Key, np.ndarray], clean: dict[Key, np.ndarray]) -> None:
    for key, value in moved.items():
        move = float(np.abs(value - clean[key]).max()) if value.size else 0.0
        envelope[key] = max(envelope.get(key, 0.0), move)


def backward_envelope(subject: Subject) -> Envelope:
    """How far float32's rounding may carry each gradient of a training step, forward given.

    As `forward_envelope`, with the noise in the gradients that leaves send back. To a parameter's
    gradient its own rounding is added. Raises DidNotRun.
    """
    clean = subject.run("torch", "float64", train=True, backward=True)
    sizes: dict[Key, np.ndarray] = {}
    own: dict[Key, float] = {}
    for leaf in subject.torch_leaves():
        for index, call in enumerate(clean.calls[leaf.path]):
            if not call.upstream or any(g is None for g in call.upstream):
                continue
            upstream = tuple(g for g in call.upstream if g is not None)
            scales = attempt("torch", call_scales, leaf, call, train=True, upstream=upstream)
            for name in scales.sizes:
                if name.startswith("input"):
                    sizes[leaf.path, index, name] = sigma(scales, name, train=True)
                elif name.endswith("gradient"):
                    key = (leaf.path, 0, name)
                    most = float(sigma(scales, name, train=True).max())
                    own[key] = own.get(key, 0.0) + most
    labels = subject.objective.labels
    if labels is not None:  # the gradient of the loss is rounded before any leaf sees it
        run = loss_run(subject.objective, "torch", clean.outputs[0], "float64")
        size = loss_scales(clean.outputs[0], labels, run)["loss gradient"]
        factor = tolerance("loss", "train", "gluon", "float32").factor(size.shape[-1])
        sizes[NET, 0, input_name(0)] = factor / 4 * UNIT["float32"] * size
    envelope: Envelope = {}
    for draw in range(DRAWS):
        add = _adder(sizes, input_name, draw)
        moved = subject.referee_run(train=True, backward=True, edit_gradient=add)
        _widen(envelope, moved.named_gradients(), clean.named_gradients())
    return {key: move + own.get(key, 0.0) for key, move in envelope.items()}
