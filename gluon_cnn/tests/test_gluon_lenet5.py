"""LeNet-5 of 1998, each of its own layers against a brute-force loop in float64."""

from __future__ import annotations

import itertools
import math

import mxnet as mx
import numpy as np
import pytest

from gluon_cnn.models import get_model
from gluon_cnn.models.digits import BITMAPS
from gluon_cnn.models.lenet5 import (
    C3_TABLE,
    RBFOutput,
    ScaledTanh,
    TableConv2D,
    TrainableSubsampling,
)
from gluon_cnn.training.losses import RBFLoss

# Table I again, column by column this time: the S2 maps that each C3 map sees.
COLUMNS = [
    *("012", "123", "234", "345", "045", "015"),
    *("0123", "1234", "2345", "0345", "0145", "0125"),
    *("0134", "1245", "0235"),
    "012345",
]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(math.prod(shape)).normal(size=shape)


def built(leaf: mx.gluon.HybridBlock, **arrays: np.ndarray) -> mx.gluon.HybridBlock:
    """The leaf in float64, with these parameters."""
    leaf.initialize()
    leaf.cast("float64")
    for name, array in arrays.items():
        getattr(leaf, name).set_data(mx.nd.array(array, dtype="float64"))
    return leaf


def forward_and_gradients(
    leaf: mx.gluon.HybridBlock, x: np.ndarray, head: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The output, and the gradient of sum(output · head) in x; the leaf keeps its own."""
    data = mx.nd.array(x, dtype="float64")
    data.attach_grad()
    with mx.autograd.record():
        output = leaf(data)
    output.backward(mx.nd.array(head, dtype="float64"))
    return output.asnumpy(), data.grad.asnumpy()


def test_table_is_the_papers() -> None:
    assert ["".join(map(str, sources)) for sources in C3_TABLE] == COLUMNS
    assert sum(map(len, C3_TABLE)) == 60

    def around(width: int) -> list[set[int]]:  # adjacent maps, the last beside the first
        return [{(start + step) % 6 for step in range(width)} for start in range(6)]

    sets = [set(sources) for sources in C3_TABLE]
    assert sets[:6] == around(3)
    assert sets[6:12] == around(4)
    assert all(len(apart) == 4 and apart not in around(4) for apart in sets[12:15])
    assert sets[15] == set(range(6))


def brute_force(
    table: list[str], x: np.ndarray, weight: np.ndarray, bias: np.ndarray, head: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """C3 by loops: the output, and sum(output · head)'s gradients in x and in the weight."""
    output = np.empty((len(x), len(table), x.shape[2] - 4, x.shape[3] - 4))
    x_grad, weight_grad = np.zeros_like(x), np.zeros_like(weight)
    plane = 0
    for target, sources in enumerate(table):
        output[:, target] = bias[target]
        for source in map(int, sources):
            for row, column in itertools.product(range(output.shape[2]), range(output.shape[3])):
                window = np.s_[:, source, row : row + 5, column : column + 5]
                slope = head[:, target, row, column]
                output[:, target, row, column] += (x[window] * weight[plane]).sum((1, 2))
                x_grad[window] += slope[:, None, None] * weight[plane]
                weight_grad[plane] += np.tensordot(slope, x[window], 1)
            plane += 1
    assert plane == len(weight)
    return output, x_grad, weight_grad


def test_c3_sees_only_what_the_table_says() -> None:
    x, weight, bias, head = random(2, 6, 7, 8), random(60, 5, 5), random(16), random(2, 16, 3, 4)
    leaf = built(TableConv2D(6, C3_TABLE, 5), weight=weight, bias=bias)
    output, x_grad = forward_and_gradients(leaf, x, head)
    expected = brute_force(COLUMNS, x, weight, bias, head)
    actual = output, x_grad, leaf.weight.grad().asnumpy()
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(leaf.bias.grad().asnumpy(), head.sum((0, 2, 3)), rtol=1e-12)

    wrong = [*COLUMNS[:14], "0345", COLUMNS[15]]  # one source of one map is another
    assert np.abs(output - brute_force(wrong, x, weight, bias, head)[0]).max() > 0.1


@pytest.mark.parametrize(("target", "source"), [(0, 3), (6, 4), (12, 2), (14, 4)])
def test_c3_ignores_a_map_that_it_does_not_see(target: int, source: int) -> None:
    leaf = built(TableConv2D(6, C3_TABLE, 5), weight=random(60, 5, 5), bias=random(16))
    x = random(1, 6, 5, 5)
    before = leaf(mx.nd.array(x, dtype="float64")).asnumpy()[0, :, 0, 0]
    x[0, source] += 1
    after = leaf(mx.nd.array(x, dtype="float64")).asnumpy()[0, :, 0, 0]
    assert before[target] == after[target]
    seen = [str(source) in sources for sources in COLUMNS]
    np.testing.assert_array_equal(before != after, seen)


def test_subsampling_weighs_the_sum_of_four() -> None:
    x, weight, bias, head = random(2, 3, 4, 6), random(3), random(3), random(2, 3, 2, 3)
    leaf = built(TrainableSubsampling(3), weight=weight, bias=bias)
    output, x_grad = forward_and_gradients(leaf, x, head)
    total = x.reshape(2, 3, 2, 2, 3, 2).sum((3, 5))
    expected = total * weight[:, None, None] + bias[:, None, None]
    np.testing.assert_allclose(output, expected, rtol=1e-13, atol=1e-13)
    slope = (head * weight[:, None, None]).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(x_grad, slope, rtol=1e-13)
    np.testing.assert_allclose(leaf.weight.grad().asnumpy(), (head * total).sum((0, 2, 3)))
    np.testing.assert_allclose(leaf.bias.grad().asnumpy(), head.sum((0, 2, 3)))


def test_subsampling_starts_as_the_mean() -> None:
    leaf = TrainableSubsampling(2)
    leaf.initialize(mx.init.Xavier())
    x = mx.nd.arange(16).reshape((1, 2, 2, 4))
    np.testing.assert_array_equal(leaf(x).asnumpy().ravel(), [2.5, 4.5, 10.5, 12.5])


def test_squashing_is_the_papers() -> None:
    x = np.array([-1e3, -1.0, -0.3, 0.0, 0.3, 1.0, 1e3])
    output, slope = forward_and_gradients(ScaledTanh(), x, np.ones(7))
    np.testing.assert_allclose(output, 1.7159 * np.tanh(2 * x / 3), rtol=1e-14)
    np.testing.assert_allclose(output[[1, 5]], [-1, 1], atol=1e-4)  # what the constants are for
    np.testing.assert_allclose(slope, 1.7159 * 2 / 3 * (1 - np.tanh(2 * x / 3) ** 2), atol=1e-14)


def test_output_is_the_squared_distance_from_each_drawing() -> None:
    x, head = random(3, 84), random(3, 10)
    output, x_grad = forward_and_gradients(built(RBFOutput()), x, head)
    offsets = x[:, None] - BITMAPS
    np.testing.assert_allclose(output, (offsets**2).sum(2), rtol=1e-13)
    np.testing.assert_allclose(x_grad, 2 * (offsets * head[..., None]).sum(1), rtol=1e-12)


def test_a_drawing_itself_is_at_distance_0_and_wins() -> None:
    distances = built(RBFOutput())(mx.nd.array(BITMAPS, dtype="float64")).asnumpy()
    np.testing.assert_array_equal(distances.argmin(1), range(10))
    np.testing.assert_array_equal(np.diag(distances), 0)
    assert distances[~np.eye(10, dtype=bool)].min() == 40  # ten pixels, each from −1 to 1


def test_drawings() -> None:
    assert BITMAPS.shape == (10, 84)
    assert set(BITMAPS.ravel()) == {-1, 1}
    pictures = BITMAPS.reshape(10, 12, 7)
    assert (pictures[:, [0, -1]] == -1).all()  # a white margin above and below
    assert (pictures[1] == 1).sum() < (pictures[8] == 1).sum()
    rows = ["".join("#" if pixel > 0 else " " for pixel in row) for row in pictures[7]]
    assert rows[1] == "#######"  # the bar of a 7 is on top
    assert rows[10] == "  ##   "
    with pytest.raises(ValueError, match="read-only"):
        BITMAPS[0, 0] = 0


@pytest.mark.parametrize("initialiser", [mx.init.Uniform(), mx.init.Zero(), mx.init.Xavier()])
def test_bitmaps_are_right_after_any_initialisation(initialiser: mx.init.Initializer) -> None:
    net = get_model("lenet5")
    net.initialize(initialiser)
    np.testing.assert_array_equal(net.classifier[3].bitmaps.data().asnumpy(), BITMAPS)
    net.initialize(initialiser, force_reinit=True)
    net.cast("float64")
    np.testing.assert_array_equal(net.classifier[3].bitmaps.data().asnumpy(), BITMAPS)


def test_training_moves_everything_but_the_bitmaps() -> None:
    net = get_model("lenet5")
    net.initialize(mx.init.Xavier())
    parameters = net._collect_params_with_prefix()
    before = {path: parameter.data().asnumpy() for path, parameter in parameters.items()}
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1e-4, "wd": 0.1})
    x, labels = mx.nd.array(random(4, 1, 32, 32)), mx.nd.array([3, 1, 4, 1])
    losses = []
    for _ in range(5):
        with mx.autograd.record():
            loss = RBFLoss()(net(x), labels)
        loss.backward()
        trainer.step(4)
        losses.append(loss.mean().asscalar())
    assert losses == sorted(losses, reverse=True)
    still = [p for p in parameters if np.array_equal(parameters[p].data().asnumpy(), before[p])]
    assert still == ["classifier.3.bitmaps"]


def test_larger_images_and_more_channels() -> None:
    net = get_model("lenet5", in_channels=3, input_size=40)
    net.initialize()
    assert net(mx.nd.zeros((1, 3, 40, 40))).shape == (1, 10)
