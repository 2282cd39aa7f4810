"""Scales that several operators share.

A sum Σ aᵢ that is computed in floating point is off by a few u·Σ|aᵢ|, whatever cancels in it. So
the scale of a linear operator is the operator itself with every number replaced by its absolute
value, and that of its gradients is the gradient of that. An operator that has no formula is
measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np

from parity_tests.numerics.chance import FIRST_LOCAL_DRAWS
from parity_tests.numerics.compare import UNIT
from parity_tests.numerics.operators.cases import ScaleCase, Scales
from parity_tests.numerics.operators.record import Tolerance, constant
from parity_tests.numerics.perturb import elementwise_moves, perturbed

# Far above float32's roundoff, through which inputs pass. Where a value jumps by j (at the bound of
# a clip), s is 2j/step: 64 u·s must not be less than j, which a rounding can move a result by.
_STEP = 2.0**-18

# For operators whose scale is measured
MEASURED = {
    ("*", "*", "*"): Tolerance(
        constant(64.0),
        "the operation is not known, so its scale is measured by perturbing its input and "
        "parameters at random: that sees √n of a sum of n terms, and other rounding not at all",
    )
}


def exact(case: ScaleCase) -> Scales:
    return Scales(case.kind, {name: np.zeros_like(v) for name, v in case.run.items()})


def linear(case: ScaleCase) -> Scales:
    # A faulty leaf may give a negative size of what it should only add up
    sizes = {name: np.abs(size) for name, size in case.rerun(np.abs, False).items()}
    return Scales(case.kind, sizes)


def off_one_by_one(values: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """How far sums over these axes are off, which stay as 1, added in float32 one by one in order.

    A random walk's √n is not enough where values repeat (a constant border, a pooled gradient): a
    sum of equal terms is rounded the same way each time, and n equal ones are off by up to n/2 u.
    """
    kept = [axis for axis in range(values.ndim) if axis not in axes]
    rows = values.transpose(*kept, *axes).reshape(*(values.shape[a] for a in kept), -1)
    sums = np.add.accumulate(rows.astype(np.float32), axis=-1)[..., -1]
    off: np.ndarray = np.abs(sums - rows.sum(axis=-1))
    return off.reshape([1 if a in axes else n for a, n in enumerate(values.shape)])


def _of_products(case: ScaleCase, count: float) -> Scales:
    """An operator whose results are sums of so many products in all.

    Matrix products and convolutions add the products one by one in each accumulator of their inner
    loop. Of products of both signs the parts of the sum stay small, and so do their errors. Of
    products of one sign (attention, images that are all positive) each addition is off by up to
    half a unit of what the sum has become: √n u of the result (75 u were seen for n = 4,608 with
    AVX2, which has half of AVX-512's accumulators and half their width).
    """
    scales = linear(case)
    for name, size in scales.sizes.items():
        length = max(1.0, count / max(1, size.size))
        scales.length = max(scales.length, math.ceil(length))
        if name in case.run:
            scales.drift[name] = math.sqrt(length) * UNIT["float32"] * np.abs(case.run[name])
    scales.both = True
    return scales


def matrix_product(case: ScaleCase) -> Scales:
    """Products (…, M, K) · (…, K, N), where either may lack the leading axes."""
    sizes = [array.size for array in (*case.inputs[:2], case.y)]
    batches = min(math.prod(array.shape[:-2]) for array in case.inputs[:2])
    return _of_products(case, math.sqrt(math.prod(sizes) / max(1, batches)))


def with_bias(axis: int, case: ScaleCase) -> Scales:
    """Sums of products with weights, and a bias for each place on an axis of the output."""
    weight = case.parameter("weight")
    terms = 1.0 if weight is None else weight.size / case.y.shape[axis]
    scales = _of_products(case, terms * case.y.size)
    size = scales.sizes.get("bias gradient")
    if case.upstream is not None and size is not None and size.size == case.upstream[0].shape[axis]:
        g = case.upstream[0]
        others = [a for a in range(g.ndim) if a != axis % g.ndim]
        scales.drift["bias gradient"] = off_one_by_one(g, others).reshape(size.shape)
    return scales


def elementwise(
    case: ScaleCase, output: np.ndarray, gradient: np.ndarray, length: int = 1
) -> Scales:
    return Scales(case.kind, {"output": output, "input gradient": gradient}, length)


def measured(case: ScaleCase) -> Scales:
    """How far every result moves, per unit of relative noise in all that is rounded: inputs,
    parameters, upstream, and both ways between the operations inside, which cancel elsewhere.

    Each of several draws perturbs every number by a normal variate times 2⁻¹⁸; s is twice the
    largest move seen, plus the value itself. The first draws come in pairs of opposite signs and
    sizes of their own: every number is moved both ways, and a jump on either side of it is seen.
    """
    noisy = np.random.default_rng(0)

    def rerun(draw: int) -> Mapping[str, np.ndarray]:
        pair = draw // 2 if draw < FIRST_LOCAL_DRAWS else draw
        signs = np.random.default_rng((1, pair))
        sign = 1.0 - 2.0 * (draw % 2)

        def noise(shape: tuple[int, ...]) -> np.ndarray:
            size = np.abs(noisy.standard_normal(shape))
            return np.where(signs.random(shape) < 0.5, sign * size, -sign * size)

        return case.rerun(lambda array: perturbed(array, _STEP, noise), False, inside=True)

    moves = elementwise_moves(case.run, map(rerun, range(case.draws)))
    sizes = {name: np.abs(case.run[name]) + 2 * most / _STEP for name, most in moves.items()}
    return Scales(case.kind, sizes, draws=case.draws)


def stepwise(case: ScaleCase) -> Scales:
    """What every rounding inside does to every result, added up; of smooth functions of each value.

    As `measured`, and one array at a time: a bound, where draws are an estimate.
    """
    arrays: list[np.ndarray] = []

    def note(array: np.ndarray) -> np.ndarray:
        arrays.append(array)
        return array

    case.rerun(note, False, inside=True)

    def rerun(at: int) -> Mapping[str, np.ndarray]:
        numbers = count()
        return case.rerun(
            lambda array: array * (1 + _STEP) if next(numbers) == at else array, False, inside=True
        )

    sizes = {name: np.abs(values) for name, values in case.run.items()}
    for at in range(len(arrays)):
        for name, most in elementwise_moves(case.run, [rerun(at)]).items():
            sizes[name] += most / _STEP
    return Scales(case.kind, sizes)
