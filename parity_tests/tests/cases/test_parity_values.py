"""The random values of pairs: the same bits for ever, so that figures and snapshots stay."""

from parity_tests.cases.pairs import random_values
from parity_tests.levels.training.trials import _masks


def test_values_stay_to_the_bit() -> None:
    shapes = {"a.weight": (2, 3), "a.bias": (4,), "a.running_var": (4,)}
    first = {path: array.ravel()[:2].tolist() for path, array in random_values(shapes, 5).items()}
    assert first == {
        "a.weight": [-0.1286230981349945, -0.9240196943283081],
        "a.bias": [0.00393986189737916, -0.025210069492459297],
        "a.running_var": [0.9151363372802734, 0.5753013491630554],
    }


def test_masks_stay_to_the_bit() -> None:
    mask = _masks({"drop": (0.5, (6,))}, 2, 1, 4)["drop"]
    assert mask.astype(int).tolist() == [[0, 0, 1, 0, 1, 1], [1, 0, 1, 0, 0, 0]]
