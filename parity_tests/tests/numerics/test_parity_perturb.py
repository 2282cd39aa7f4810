"""What every measured bound stands on: perturbed numbers, and the largest move."""

from __future__ import annotations

import numpy as np
import pytest

from parity_tests.numerics.perturb import (
    LargestMoves,
    elementwise_moves,
    largest_move,
    perturbed,
    pieces,
)


def test_noise_is_relative_and_keeps_the_dtype() -> None:
    values = np.array([1.0, -2.0, 0.0], np.float32)
    moved = perturbed(values, 0.25, lambda shape: np.ones(shape))
    assert moved.dtype == np.float32
    assert moved.tolist() == [1.25, -2.5, 0.0]
    assert values.tolist() == [1.0, -2.0, 0.0]
    assert perturbed(np.array(2.0), 0.5, lambda shape: 1.0).tolist() == 3.0


def test_the_largest_move_is_absolute_and_in_any_piece() -> None:
    clean = np.zeros((1 << 20) + 3)
    moved = clean.copy()
    moved[0], moved[-1] = 0.5, -2.0
    assert [part.size for part in pieces(clean)] == [1 << 20, 3]
    assert largest_move(moved, clean) == 2.0
    assert largest_move(np.array([np.nan, 1.0]), np.zeros(2)) == 1.0
    assert largest_move(np.zeros(0), np.zeros(0)) == 0.0


def test_the_largest_of_several_runs_counts() -> None:
    moves = LargestMoves({"x": np.zeros(2), "y": np.ones(1)})
    moves.widen([("x", np.array([1.0, -3.0])), ("y", np.array([1.5]))])
    moves.widen([("x", np.array([2.0, 0.0])), ("y", np.array([1.0]))])
    assert moves.moves == {"x": 3.0, "y": 0.5}
    with pytest.raises(ValueError, match="gave no y"):
        moves.widen([("x", np.ones(2))])


def test_each_value_has_a_largest_move_of_its_own() -> None:
    runs = [{"x": np.array([1.0, 0.0])}, {"x": np.array([0.5, -4.0])}]
    assert elementwise_moves({"x": np.zeros(2)}, runs)["x"].tolist() == [1.0, 4.0]
