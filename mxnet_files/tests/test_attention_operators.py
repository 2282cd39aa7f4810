"""Interleaved attention and CTC, against MXNet."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from mxnet_files.tests.test_symbol_operators import compare, draw

S = mx.sym
x, y, label, lengths, sizes = map(S.var, ("x", "y", "labels", "lengths", "sizes"))
T, N, HEADS, D = 5, 2, 3, 4


DTYPE = "float32"  # the only one of these operators on MXNet's CPU


def test_interleaved_self_attention() -> None:
    arrays = draw({"x": (T, N, HEADS * 3 * D)}, 1)
    qk = S.contrib.interleaved_matmul_selfatt_qk(x, heads=HEADS)
    compare(qk, arrays, DTYPE)
    attended = S.contrib.interleaved_matmul_selfatt_valatt(x, S.softmax(qk), heads=HEADS)
    compare(attended, arrays, DTYPE)
    maps = draw({"x": (T, N, HEADS * 3 * D), "y": (N * HEADS, T, T)}, 2)
    compare(S.contrib.interleaved_matmul_selfatt_valatt(x, y, heads=HEADS), maps, DTYPE)


def test_interleaved_attention_to_another_sequence() -> None:
    arrays = draw({"x": (T, N, HEADS * D), "y": (7, N, HEADS * 2 * D)}, 1)
    compare(S.contrib.interleaved_matmul_encdec_qk(x, y, heads=HEADS), arrays, DTYPE)
    maps = draw({"x": (7, N, HEADS * 2 * D), "y": (N * HEADS, T, 7)}, 2)
    compare(S.contrib.interleaved_matmul_encdec_valatt(x, y, heads=HEADS), maps, DTYPE)


def test_div_sqrt_dim() -> None:
    compare(S.contrib.div_sqrt_dim(x), draw({"x": (2, 3, 7)}, 1))


@pytest.mark.parametrize("blank", ["first", "last"])
@pytest.mark.parametrize("data_lengths", [False, True])
@pytest.mark.parametrize("label_lengths", [False, True])
def test_ctc_loss(blank: str, data_lengths: bool, label_lengths: bool) -> None:
    first = blank == "first"
    rows: np.ndarray = np.array([[2, 1, 2, 1], [1, 1, 3, 3], [3, 2, 2, 1]], dtype=float) - (
        not first
    )
    arrays = {**draw({"x": (9, 3, 5)}, 1), "labels": rows}
    if not label_lengths:
        rows[1, 3:] = rows[2, 2:] = 0 if first else -1
    options = {"blank_label": blank}
    named = {}
    if data_lengths:
        named["data_lengths"] = S.BlockGrad(lengths)
        arrays["lengths"] = np.array([9.0, 8.0, 7.0])
    if label_lengths:
        named["label_lengths"] = S.BlockGrad(sizes)
        arrays["sizes"] = np.array([4.0, 2.0, 1.0])
    node = S.CTCLoss(
        x, S.BlockGrad(label), use_data_lengths=data_lengths, use_label_lengths=label_lengths,
        **named, **options,
    )  # fmt: skip
    compare(node, arrays, "float32")
