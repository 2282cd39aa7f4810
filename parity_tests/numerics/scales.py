"""The size s of what an operation rounds, in float64: the unit in which its error is measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import replace

import numpy as np

from parity_tests.backends.base import backend
from parity_tests.backends.journal import JOURNAL
from parity_tests.backends.leaves import Leaf
from parity_tests.backends.runs import Arrays, LeafRun, input_name, is_float, rounded
from parity_tests.numerics.chance import FIRST_LOCAL_DRAWS
from parity_tests.numerics.operators.cases import Change, ScaleCase, Scales
from parity_tests.numerics.operators.executed import written_norm
from parity_tests.numerics.operators.formulas import measured, stepwise
from parity_tests.numerics.operators.table import operator_of, tolerance
from parity_tests.numerics.perturb import holds_integers
from parity_tests.pairing.segments import SegmentPair
from parity_tests.reporting.verdicts import Side


def scales_of(
    leaf: Leaf,
    inputs: Arrays,
    run: LeafRun,
    *,
    train: bool,
    upstream: Arrays | None = None,
    draws: int = FIRST_LOCAL_DRAWS,
) -> Scales:
    """The scales of a torch leaf that gave `run`, in float64, on `inputs` (and `upstream`).

    Where both sides compute one function in two ways, either side's rounding counts: that of the
    operations inside each, and what the record of an operator says that one side is alone. `draws`
    is how many runs with noise measure what no formula gives.
    """
    given = as_given(leaf, inputs)
    seen = {input_name(i): x.shape for i, x in enumerate(given)}
    own = {name: values.shape for name, values in run.items() if name in seen}
    case = _case(Side.TORCH, leaf, given, _shaped(run, seen), train, upstream, draws)
    scale = operator_of(leaf.family).scale
    held = _held(leaf)
    if held is not None:
        return _of_held(case, *held, scale)
    scales = scale(case)
    scales.sizes, scales.drift = _shaped(scales.sizes, own), _shaped(scales.drift, own)
    segment = _segment(leaf)
    if segment is None or scale not in (measured, stepwise, written_norm):
        return scales
    if segment.record is not None and segment.record[0] != leaf.family:
        kind, hyper = segment.record
        known = operator_of(kind).scale(replace(case, kind=kind, hyper=hyper))
        allowed, needed = (
            tolerance(of, "train" if train else "inference", "gluon", "float32").factor(length)
            for of, length in ((scales.family, scales.length), (kind, known.length))
        )
        _widen(scales, known.sizes, needed / allowed)
        scales.drift |= _shaped(known.drift, own)
    gluon = segment.gluon
    if gluon is not None and gluon.block.program.composite:
        ours = _gluon_run(gluon, inputs, train, upstream)
        if ours is not None:
            theirs = _case(Side.GLUON, gluon, inputs, ours, train, upstream, draws)
            _widen(scales, scale(theirs).sizes)
    return scales


def as_given(leaf: Leaf, inputs: Arrays) -> Arrays:
    """A leaf's inputs in the shapes in which its operation sees them."""
    segment = _segment(leaf)
    return inputs if segment is None else segment.as_given(inputs)


def _held(leaf: Leaf) -> tuple[str, np.ndarray] | None:
    """What the operation of a segment computes with in the place of an input: a parameter.

    Its role and its values, as the operation sees them.
    """
    segment = _segment(leaf)
    operations = [] if segment is None else segment.sides[Side.TORCH].normalised
    if segment is None or len(operations) != 1 or "input" not in operations[0].parameters:
        return None
    (op,) = operations
    role = segment.sides[Side.TORCH].parameters[op.parameters["input"].name]
    values = rounded(leaf.tensors[role].read(), "float64")
    return role, values.reshape(op.shape) if values.size == math.prod(op.shape) else values


def _of_held(
    case: ScaleCase, role: str, values: np.ndarray, scale: Callable[[ScaleCase], Scales]
) -> Scales:
    """The scales where a parameter has the place of the first input: formulas ask for an input."""
    count = len(case.inputs)
    names = {input_name(i): input_name(i + 1) for i in range(count)}
    names[f"{role} gradient"] = input_name(0)
    back = {new: old for old, new in names.items()}
    shapes = {name: x.shape for name, x in case.run.items()}

    def renamed(run: Mapping[str, np.ndarray]) -> LeafRun:
        new = {names.get(name, name): x for name, x in run.items()}
        return _shaped(new, {input_name(0): values.shape})

    def rerun(change: Change, upstream_only: bool, *, inside: bool = False) -> LeafRun:
        return renamed(case.rerun(change, upstream_only, inside=inside))

    inputs = (values, *case.inputs)
    scales = scale(replace(case, inputs=inputs, run=renamed(case.run), rerun=rerun))
    for of in (scales.sizes, scales.drift):
        named = {back.get(name, name): x for name, x in of.items()}
        of.clear()
        of.update(_shaped(named, shapes))
    return scales


def _segment(leaf: Leaf) -> SegmentPair | None:
    program = getattr(leaf.block, "program", None)
    return None if program is None else program.layout.pair


def _shaped(
    arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The arrays, those that have a shape here in it."""
    return {
        name: x.reshape(shapes[name]) if name in shapes and x.size == math.prod(shapes[name]) else x
        for name, x in arrays.items()
    }


def _gluon_run(leaf: Leaf, inputs: Arrays, train: bool, upstream: Arrays | None) -> LeafRun | None:
    """What MXNet gives; None where it does not run, which the local comparison says."""
    if any(place.path == leaf.path for place in JOURNAL.crashed):
        return None
    try:
        return backend(Side.GLUON).run_leaf(leaf, inputs, "float64", train=train, upstream=upstream)
    except Exception:  # a user's operator may raise anything
        return None


def _widen(scales: Scales, sizes: Mapping[str, np.ndarray], factor: float = 1.0) -> None:
    """Take the larger of two scales of each result."""
    for name, size in scales.sizes.items():
        if name in sizes and sizes[name].size == size.size:
            other = sizes[name].reshape(size.shape)
            scales.sizes[name] = np.maximum(size, max(1.0, factor) * other)


def _case(
    side: Side,
    leaf: Leaf,
    inputs: Arrays,
    run: LeafRun,
    train: bool,
    upstream: Arrays | None,
    draws: int,
) -> ScaleCase:
    inputs = tuple(rounded(x, "float64") for x in inputs)
    program = getattr(leaf.block, "program", None)
    places = set() if program is None else {i for i in program.places if holds_integers(inputs[i])}

    def parameter(role: str) -> np.ndarray | None:
        tensor = leaf.tensors.get(role)
        return None if tensor is None else rounded(tensor.read(), "float64")

    def rerun(change: Change, upstream_only: bool, *, inside: bool = False) -> LeafRun:
        return backend(side).run_leaf(
            leaf,
            inputs if upstream_only else _changed(inputs, change, places),
            "float64",
            train=train,
            upstream=None if upstream is None else _changed(upstream, change),
            change=None if upstream_only else change,
            inside=inside,
        )

    return ScaleCase(leaf.family, leaf.hyper, inputs, run, train, upstream, parameter, rerun, draws)


def _changed(arrays: Arrays, change: Change, places: Container[int] = ()) -> Arrays:
    """All but whole numbers, and indices that floats hold."""
    return tuple(change(a) if is_float(a) and i not in places else a for i, a in enumerate(arrays))
