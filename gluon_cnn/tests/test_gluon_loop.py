"""The loop and the thread that prepares its batches: the same bits, and nothing left behind."""

import threading

import numpy as np
import pytest

from cnn_data import ArraySplit, DataError, Dataset
from cnn_harness.config import TrainConfig
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial
from gluon_cnn.training.assembly import prepare
from gluon_cnn.training.loop import train_epoch

CONFIG = TrainConfig(epochs=2, batch_size=32, augment="shift")
IMAGES = 150  # four whole batches and a short one


class Faulty(ArraySplit):
    """Fails with `error` once it was asked for `after` batches."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, error: BaseException) -> None:
        super().__init__(images, labels)
        self.error, self.after = error, 2

    def images(self, indices: np.ndarray) -> np.ndarray:
        self.after -= 1
        if self.after < 0:
            raise self.error
        return super().images(indices)


def _dataset(error: BaseException | None = None) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, IMAGES)
    split = ArraySplit(images, labels)
    train = split if error is None else Faulty(images, labels, error)
    names = tuple(map(str, range(10)))
    return Dataset("noise", names, (28, 28, 1), (0.5,), (0.3,), train, split)


def _preparing() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_preparing_ahead_changes_no_bit() -> None:
    ends = []
    for prefetch in (True, False):
        training = prepare(CONFIG, _dataset(), "cpu")
        training.train.prefetch = prefetch
        metrics = [train_epoch(training, Partial(epoch), Monitor(), Stop()) for epoch in (1, 2)]
        parameters = training.net._collect_params_with_prefix()
        ends.append((metrics, {n: p.data().asnumpy().tobytes() for n, p in parameters.items()}))
    assert ends[0] == ends[1]
    assert not _preparing()


@pytest.mark.parametrize("error", [DataError("x.png: damaged image"), KeyboardInterrupt()])
def test_what_fails_in_the_thread_fails_here_and_leaves_no_thread(error: BaseException) -> None:
    training = prepare(CONFIG, _dataset(error), "cpu")
    with pytest.raises(type(error), match=str(error) or None):
        train_epoch(training, Partial(1), Monitor(), Stop())
    assert not _preparing()


def test_an_interrupted_loop_leaves_no_thread() -> None:
    class Interrupting(Monitor):
        def progress(self, images: int, loss: float, accuracy: float) -> None:
            raise KeyboardInterrupt

    training = prepare(CONFIG, _dataset(), "cpu")
    with pytest.raises(KeyboardInterrupt):
        train_epoch(training, Partial(1), Interrupting(), Stop())
    assert not _preparing()
