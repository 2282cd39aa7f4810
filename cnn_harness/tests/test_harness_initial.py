import math

import numpy as np
import pytest

from cnn_harness.initial import INITIALISERS, generator, initial_arrays

SHAPES = {
    "features.0.weight": (64, 32, 5, 5),
    "features.0.bias": (64,),
    "features.1.gamma": (64,),
    "features.1.beta": (64,),
    "classifier.1.weight": (300, 200),
}


def test_xavier_fills_its_bounds() -> None:
    arrays = initial_arrays(SHAPES, "xavier", seed=0)
    bound = math.sqrt(6 / (32 * 25 + 64 * 25))
    weight = arrays["features.0.weight"]
    assert np.abs(weight).max() <= bound
    assert np.abs(weight).max() > 0.99 * bound
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not arrays["features.0.bias"].any()


def test_he_has_the_variance_of_its_paper() -> None:
    weight = initial_arrays(SHAPES, "he", seed=0)["features.0.weight"]
    assert weight.std() == pytest.approx(math.sqrt(2 / (32 * 25)), rel=0.02)


def test_lecun98_draws_biases_too() -> None:
    bias = initial_arrays(SHAPES, "lecun98", seed=0)["features.0.bias"]
    assert 0 < np.abs(bias).max() <= 2.4 / (32 * 25)


def test_lecun98_on_lenet5s_own_layers() -> None:
    shapes = {"s2.weight": (6,), "s2.bias": (6,), "c3.weight": (60, 5, 5), "c3.bias": (16,)}
    arrays = initial_arrays(shapes, "lecun98", seed=0)
    assert (arrays["s2.weight"] == 0.25).all()
    assert np.abs(arrays["s2.bias"]).max() <= 2.4 / 4
    # 1,500 weights over 16 maps: 93.75 inputs a unit on average
    assert 0.9 < np.abs(arrays["c3.weight"]).max() / (2.4 / 93.75) <= 1


@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_norms_start_as_the_identity(initialiser: str) -> None:
    arrays = initial_arrays(SHAPES, initialiser, seed=3)
    assert (arrays["features.1.gamma"] == 1).all()
    assert (arrays["features.1.beta"] == 0).all()
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_a_parameter_depends_on_seed_and_path_alone() -> None:
    whole = initial_arrays(SHAPES, "xavier", seed=7)
    alone = initial_arrays({"classifier.1.weight": (300, 200)}, "xavier", seed=7)
    np.testing.assert_array_equal(whole["classifier.1.weight"], alone["classifier.1.weight"])
    other = initial_arrays(SHAPES, "xavier", seed=8)
    assert not np.array_equal(whole["classifier.1.weight"], other["classifier.1.weight"])


def test_equal_shapes_on_other_paths_differ() -> None:
    arrays = initial_arrays({"a.weight": (8, 8), "b.weight": (8, 8)}, "xavier", seed=0)
    assert not np.array_equal(arrays["a.weight"], arrays["b.weight"])


def test_unknown_initialiser_lists_the_known() -> None:
    with pytest.raises(ValueError, match="xavier, he, gluon, lecun98"):
        initial_arrays(SHAPES, "orthogonal", seed=0)


@pytest.mark.parametrize(
    ("initialiser", "weight", "bias"),
    [
        ("xavier", [0.15079441666603088, -0.12167919427156448], [0, 0]),
        ("he", [0.17888949811458588, 0.11219953745603561], [0, 0]),
        ("gluon", [0.048179540783166885, -0.03887708857655525], [0, 0]),
        ("lecun98", [0.022024933248758316, -0.017772383987903595],
         [0.00415493780747056, 0.012957087717950344]),
    ],
)  # fmt: skip
def test_first_values_stay_to_the_bit(
    initialiser: str, weight: list[float], bias: list[float]
) -> None:
    shapes = {"features.0.weight": (2, 3, 5, 5), "features.0.bias": (2,)}
    arrays = initial_arrays(shapes, initialiser, seed=3)
    assert arrays["features.0.weight"].ravel()[:2].tolist() == weight
    assert arrays["features.0.bias"].tolist() == bias


def test_a_stream_is_one_of_path_seed_and_step() -> None:
    assert generator("drop", 2, 1).random(2).tolist() == [0.24241453662504975, 0.07257740496553289]
    assert generator("drop", 2).random() != generator("drop", 2, 1).random()
