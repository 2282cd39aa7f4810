"""Readers of MXNet's operators of multi-head attention, in which projections lie side by side.

Each head has its query, key and value one after the other
(https://github.com/apache/mxnet/blob/1.9.1/src/operator/contrib/transformer.cc).
"""

from __future__ import annotations

import math

from parity_tests.backends.gluon.tracing.array_readers import swapped
from parity_tests.backends.gluon.tracing.reading import Reader, attribute
from parity_tests.pairing.graph import Operand
from parity_tests.pairing.vocabulary import Arguments, Emit, emit_regrouped, real


def _heads(emit: Emit, x: Operand, heads: int, parts: int, number: int) -> Operand:
    """One of the projections in x (L, N, H · parts · D), as (N · H, L, D)."""
    length, batch, width = x.shape
    size = width // heads // parts
    x = emit("reshape", [("input", x)], (length, batch, heads, parts * size))
    along = {"axis": 3, "begin": number * size, "step": 1}
    apart = (length, batch, heads, size)
    x = emit("slice", [("input", x)], apart, **along)
    return emit_regrouped(emit, x, apart, (1, 2, 0, 3), (batch * heads, length, size))


def scores(parts: int) -> Reader:
    """Queries by keys: of one array of three projections, or of one and one of two."""

    def read(args: Arguments, emit: Emit) -> Operand:
        heads = int(attribute(args, "heads", 1))
        first, *other = args.arrays.values()
        q = _heads(emit, first, heads, parts, 0)
        k = _heads(emit, other[0], heads, 2, 0) if other else _heads(emit, first, heads, parts, 1)
        q = emit("div", [("input", q)], q.shape, scalar=real(math.sqrt(q.shape[-1])))
        return emit("matmul", [("input", q), ("other", swapped(emit, k))], args.shape)

    return read


def values(parts: int) -> Reader:
    """Values, the last of the projections, by what attention gives them as weights."""

    def read(args: Arguments, emit: Emit) -> Operand:
        heads = int(attribute(args, "heads", 1))
        x, weights = args.arrays.values()
        v = _heads(emit, x, heads, parts, parts - 1)
        shape = (*weights.shape[:2], v.shape[-1])
        out = emit("matmul", [("input", weights), ("other", v)], shape)
        length, batch, _ = args.shape
        apart = (batch, heads, length, v.shape[-1])
        return emit_regrouped(emit, out, apart, (2, 0, 1, 3), args.shape)

    return read


READERS: dict[str, Reader] = {
    "_contrib_interleaved_matmul_selfatt_qk": scores(3),
    "_contrib_interleaved_matmul_selfatt_valatt": values(3),
    "_contrib_interleaved_matmul_encdec_qk": scores(1),
    "_contrib_interleaved_matmul_encdec_valatt": values(2),
}
