"""The envelope of inherited error: how far rounding alone may carry a value, measured.

The referee is run again, several times, with random noise at every leaf, in proportion to the scale
of what the leaf rounds. No limit is out of thin air: a value is judged against the largest move
seen, times the factor in `compare.ENVELOPE_FACTOR`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from parity_tests.backends.base import referee
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.losses import loss_scales
from parity_tests.backends.runs import (
    NET,
    Arrays,
    Call,
    Edit,
    Key,
    LeafRun,
    NetRun,
    input_name,
    named,
    output_name,
    rounded,
)
from parity_tests.backends.spill import release
from parity_tests.levels.local import Truth, mode_of, truth_of
from parity_tests.levels.referee import Subject, attempt
from parity_tests.numerics.compare import UNIT
from parity_tests.numerics.operators.cases import Scales
from parity_tests.numerics.operators.table import operator_of, tolerance
from parity_tests.numerics.perturb import LargestMoves, largest
from parity_tests.numerics.scales import scales_of
from parity_tests.reporting.progress import show
from parity_tests.reporting.verdicts import Level, Side

DRAWS = 4
_NEAR = 2.0**-15


@dataclass(frozen=True)
class Envelope:
    """The largest move of each value under float32's rounding, in absolute numbers.

    `float64` is the part of it that float64's rounding may take: 2⁻²⁹, or more where a leaf has a
    wider bound in float64. `own` is more than that for values that are passed to nobody. `draws`
    is how many runs with noise it is the largest of. `near` are moves under noise of a thirty
    thousandth of the size, times that: where a value is bounded (a batch norm over two values),
    float32's noise moves it less far than in proportion.
    """

    moves: dict[Key, float]
    float64: float
    own: dict[Key, float]
    draws: int
    near: dict[Key, float] = field(default_factory=dict)

    def limit(self, key: Key, dtype: str) -> float:
        """0 where nothing has been rounded yet."""
        move = self.moves.get(key, 0.0)
        if dtype != "float64":
            return move
        return max(move, self.near.get(key, 0.0)) * max(self.float64, self.own.get(key, 0.0))


class _Sizes:
    """The noise that each value gets, and the float64 part of the widest bound among them."""

    def __init__(self) -> None:
        self.noise: dict[Key, np.ndarray] = {}
        self.known: set[tuple[str, int]] = set()  # the calls whose outputs are noted
        self.own: dict[Key, float] = {}
        self.own_float64: dict[Key, float] = {}
        self.float64 = UNIT["float64"] / UNIT["float32"]

    def add(self, key: Key, scales: Scales, train: bool, *, own: bool) -> None:
        """Note a quantity's noise: on its way, or `own`, rounded last and passed to nobody."""
        quantity = key[2]
        size = sigma(scales, quantity, train)
        if own:
            self.own[key] = self.own.get(key, 0.0) + float(size.max())
        if size.any():
            if not own:
                self.noise[key] = size.astype(np.float32)
            mode = mode_of(quantity, train)
            single, double = (
                tolerance(scales.family, mode, "gluon", dtype).factor(scales.length) * UNIT[dtype]
                for dtype in ("float32", "float64")
            )
            if own:
                self.own_float64[key] = max(self.own_float64.get(key, 0.0), double / single)
            else:
                self.float64 = max(self.float64, double / single)

    def add_forward(self, leaf: Leaf, index: int, scales: Scales, train: bool) -> None:
        """Note what a leaf gives in one of its calls."""
        self.known.add((leaf.path, index))
        for name in scales.sizes:
            if name.startswith("output"):
                self.add((leaf.path, index, name), scales, train, own=False)
            elif name in leaf.tensors:
                self.add((leaf.path, 0, name), scales, train, own=True)

    def envelope(self, moves: dict[Key, float], draws: int, known: Envelope | None) -> Envelope:
        """That of some draws, and of what is known from others."""
        whole = {key: move + self.own.get(key, 0.0) for key, move in moves.items()}
        if known is not None:
            whole = {key: max(move, known.moves[key]) for key, move in whole.items()}
        return Envelope(whole, self.float64, self.own_float64, draws)


def call_scales(
    leaf: Leaf, call: Call, *, train: bool, upstream: Arrays | None, whole: NetRun | None = None
) -> Scales:
    """The scales of one call of a torch leaf inside the referee's run.

    `whole` is that run, for the gradients of its parameters.
    """
    if operator_of(leaf.family).linear:  # its scale asks for nothing that this call did not give
        given = named(call.outputs, call.input_gradients)
        if whole is not None:
            roles = [role for role in leaf.tensors if (leaf.path, role) in whole.gradients]
            given |= {f"{role} gradient": whole.gradients[leaf.path, role] for role in roles}
        return scales_of(leaf, call.inputs, given, train=train, upstream=upstream)
    return truth_of(leaf, call.inputs, train=train, upstream=upstream)[1]


def forward_truth(
    subject: Subject,
    leaf: Leaf,
    index: int,
    *,
    train: bool,
    ours: LeafRun | None = None,
) -> Truth:
    """`truth_of` one call of a torch leaf inside the referee's run; its noise is noted."""
    call = subject.run(Side.TORCH, "float64", train=train).calls[leaf.path][index]
    truth = truth_of(leaf, call.inputs, train=train, ours=ours)
    _noted(subject, train).add_forward(leaf, index, truth[1], train)
    return truth


def _noted(subject: Subject, train: bool) -> _Sizes:
    sizes: _Sizes = subject.shared.setdefault(("noise", train), _Sizes())
    return sizes


def sigma(scales: Scales, quantity: str, train: bool) -> np.ndarray:
    """The size of the noise that stands for a leaf's own rounding in float32.

    A quarter of the larger of the two sides' bounds: a bound is then four standard deviations.
    """
    mode = mode_of(quantity, train)
    factor = max(
        tolerance(scales.family, mode, side, "float32").factor(scales.length)
        for side in ("gluon", "torch")
    )
    drift = scales.drift.get(quantity, 0.0)
    size: np.ndarray = (factor * UNIT["float32"] * scales.sizes[quantity] + 2 * drift) / 4
    return np.where(np.isfinite(size), size, 0.0)  # noise without a size would drown all behind it


def _addends(
    sizes: dict[Key, np.ndarray], name: Callable[[int], str], draw: int, part: float = 1.0
) -> Edit:
    """One draw of noise for every value whose size is known, `part` of that size."""
    generator = np.random.default_rng(draw)

    def addend(path: str, call: int, index: int) -> np.ndarray | None:
        size = sizes.get((path, call, name(index)))
        if size is None:
            return None
        return np.asarray(_noise(size, draw, generator) * np.float32(part))  # of no axes, too

    return addend


def _noise(size: np.ndarray, draw: int, generator: np.random.Generator) -> np.ndarray:
    """Normal noise: each value's own in even draws, one per channel in odd ones.

    A wrongly rounded mean moves a whole channel, and what moves together does not average out.
    """
    shape = size.shape
    if draw % 2 and len(shape) > 1:
        shape = (1, shape[1]) + (1,) * (len(shape) - 2)
    return size * generator.standard_normal(shape, dtype=np.float32)


def forward_envelope(subject: Subject, *, train: bool, draws: int = DRAWS) -> Envelope:
    """How far float32's rounding may carry each leaf's outputs, and buffers in training.

    Noise goes into every leaf's output; a buffer's own rounding is added. Raises DidNotRun.
    """
    train = train and subject.has_modes
    return _measured(subject, ("forward", train), draws, partial(_forward, subject, train))


def _measured(
    subject: Subject,
    key: tuple[str, bool],
    draws: int,
    measure: Callable[[int, int, Envelope | None], Envelope],
) -> Envelope:
    """The shared envelope of at least so many draws; `measure` adds those that lack."""
    known: Envelope | None = subject.shared.get(key)
    if known is None or known.draws < draws:
        known = measure(known.draws if known else 0, draws, known)
        subject.shared[key] = known
    return known


def _forward(
    subject: Subject, train: bool, first: int, draws: int, known: Envelope | None
) -> Envelope:
    clean = subject.run(Side.TORCH, "float64", train=train)
    sizes = _noted(subject, train)
    for leaf in subject.torch_leaves():
        for index in range(len(clean.calls[leaf.path])):
            if (leaf.path, index) not in sizes.known:
                call = clean.calls[leaf.path][index]
                scales = attempt("torch", call_scales, leaf, call, train=train, upstream=None)
                sizes.add_forward(leaf, index, scales, train)

    def moves(draws: Iterable[int], part: float) -> dict[Key, float]:
        widest = LargestMoves(clean.named_outputs() | clean.named_buffers())
        for draw in draws:
            show(Level.FORWARD, f"envelope, draw {draw + 1}")
            noise = _addends(sizes.noise, output_name, draw, part)
            moved = subject.referee_run(train=train, addends=noise, sink=widest.note)
            for key, value in (moved.named_outputs() | moved.named_buffers()).items():
                widest.note(key, value)
        return {key: move / part for key, move in widest.moves.items()}

    envelope = sizes.envelope(moves(range(first, draws), 1.0), draws, known)
    if known is not None:  # the first draws did not decide
        near = moves(range(first if known.near else 0, draws), _NEAR)
        near = {key: max(move, known.near.get(key, 0.0)) for key, move in near.items()}
        envelope = replace(envelope, near=near)
    del subject.shared["noise", train]
    return envelope


def backward_envelope(subject: Subject, *, draws: int = DRAWS) -> Envelope:
    """How far float32's rounding may carry each gradient of a training step, forward given.

    As `forward_envelope`, with the noise in the gradients that leaves send back. To a parameter's
    gradient its own rounding is added. Raises DidNotRun.
    """
    return _measured(subject, ("backward", True), draws, partial(_backward, subject))


def _backward(subject: Subject, first: int, draws: int, known: Envelope | None) -> Envelope:
    clean = subject.run(Side.TORCH, "float64", train=True, backward=True)
    sizes = _Sizes()
    for leaf in subject.torch_leaves():
        for index, call in enumerate(clean.calls[leaf.path]):
            if all(g is None for g in call.upstream):
                continue
            upstream = tuple(  # to an output that nobody reads nothing comes back
                np.zeros(y.shape) if g is None else g
                for g, y in zip(call.upstream, call.outputs, strict=True)
            )
            how = {"train": True, "upstream": upstream, "whole": clean}
            scales = attempt("torch", call_scales, leaf, call, **how)
            for name in scales.sizes:
                if name.startswith("input"):
                    sizes.add((leaf.path, index, name), scales, True, own=False)
                elif name.endswith("gradient"):
                    sizes.add((leaf.path, 0, name), scales, True, own=True)
        release()
    _add_loss(subject, clean, sizes)
    moves: dict[Key, float] = dict.fromkeys(clean.named_gradients(), 0.0)

    def note(key: Key, move: np.ndarray) -> None:
        moves[key] = max(moves.get(key, 0.0), largest(move))

    addends = (_addends(sizes.noise, input_name, draw) for draw in range(first, draws))
    subject.gradient_noise(addends, note)
    output = (NET, 0, "output gradient")
    moves[output] = moves.pop((NET, 0, input_name(0)), moves.get(output, 0.0))
    return sizes.envelope(moves, draws, known)


def _add_loss(subject: Subject, clean: NetRun, sizes: _Sizes) -> None:
    """The gradient of the loss is rounded before any leaf sees it."""
    if subject.objective.labels is None:
        return
    logits = rounded(clean.outputs[0], "float64")
    run = referee().run_loss(subject.objective, logits, "float64")
    size = loss_scales(subject.objective, logits, run)["loss gradient"]
    key = (NET, 0, input_name(0))
    sizes.add(key, Scales("loss", {key[2]: size}, logits.shape[-1]), True, own=False)
