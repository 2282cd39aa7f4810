"""Faults of the data that a net is given: values, layout, order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest import mock

import numpy as np

import gluon_cnn.training.recipes
import torch_ref.training.assembly
import torch_ref.training.recipes
from cnn_data import ArraySplit, Batches, Dataset, Split, load_dataset
from cnn_harness.config import TrainConfig
from parity_tests.faults.base import Detection, Fault, first_detection
from parity_tests.levels.data import data_rows
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level

Batch = tuple[np.ndarray, np.ndarray]
Stream = Iterator[Batch]


def _digits() -> Dataset:
    return load_dataset("mnist5k")


def _coloured() -> Dataset:
    """Digits whose colours differ: themselves, mirrored, and negated."""

    def coloured(split: Split) -> ArraySplit:
        grey = split.images(np.arange(len(split)))
        parts = [grey, grey[:, :, ::-1], 255 - grey]
        return ArraySplit(np.concatenate(parts, axis=-1), split.labels)

    digits = _digits()
    return replace(digits, train=coloured(digits.train), test=coloured(digits.test),
                   mean=digits.mean * 3, std=digits.std * 3)  # fmt: skip


def _checked(ours: TrainConfig, theirs: TrainConfig, dataset: Dataset) -> Detection:
    report = Report("data", (Level.DATA,))
    rows, coverage = data_rows(ours, theirs, dataset)
    # Two recipes that differ are named by their field before any batch is compared: here the
    # batches have to show it.
    report.add([row for row in rows if row.path != "recipe"], coverage)
    return first_detection(report)


def _recipe(**change: object) -> Callable[[], Detection]:
    """Another recipe on torch's side, of which only the batches are seen."""

    def run() -> Detection:
        ours = gluon_cnn.training.recipes.DEFAULTS["lenet"].replace(augment="none")
        theirs = torch_ref.training.recipes.DEFAULTS["lenet"].replace(augment="none")
        return _checked(ours, theirs.replace(**change), _digits())

    return run


def _stream(
    change: Callable[[Stream], Stream], *, colours: bool = False, back: int = 0, same: bool = False
) -> Callable[[], Detection]:
    """A stream on torch's side that is changed, begins `back` batches early, or whose epochs are
    the same."""

    class Faulty(Batches):
        def epoch(self, epoch: int, start: int = 0) -> Stream:
            first = 1 if same and epoch > 1 else epoch
            return change(super().epoch(first, max(0, start - back)))

    def run() -> Detection:
        model = "cifar_cnn" if colours else "lenet"
        dataset = _coloured() if colours else _digits()
        config = gluon_cnn.training.recipes.DEFAULTS[model].replace(augment="none")
        twin = torch_ref.training.recipes.DEFAULTS[model].replace(augment="none")
        with mock.patch.object(torch_ref.training.assembly, "Batches", Faulty):
            return _checked(config, twin, dataset)

    return run


def _images(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stream], Stream]:
    return lambda stream: ((np.ascontiguousarray(change(x)), y) for x, y in stream)


def _labels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Stream], Stream]:
    return lambda stream: ((x, change(y)) for x, y in stream)


def _one_pixel(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[-1, 0, 14, 14] = np.nextafter(x[-1, 0, 14, 14], np.float32(9))
    return x


def _fault(
    name: str, run: Callable[[], Detection], diagnosis: str, imitates: str, source: str,
    path: str = "train epoch 1 batch 1",
) -> Fault:  # fmt: skip
    where = "batches of torch_ref.training.assembly"
    return Fault(name, where, run, Level.DATA, path, diagnosis, imitates, source, group="data")


DATA: tuple[Fault, ...] = (
    _fault("another mean and deviation", _recipe(normalise="half"), "other mean and deviation",
           "(x − 0.5)/0.5 for the data set's own",
           "doc-1 and doc-3 normalise so, doc-2 not at all"),
    _fault("pixels from 0 to 255", _stream(_images(lambda x: x * np.float32(255))),
           "constant factor", "pixels that are not divided by 255",
           "doc-2's script; torchvision's ToTensor divides"),
    _fault("another shuffle", _recipe(seed=1), "another order", "two generators with two seeds",
           "framework samplers draw from unrelated generators"),
    _fault("the same shuffle every epoch", _stream(lambda s: s, same=True), "repeated epoch",
           "an order that is drawn once", "torch's DistributedSampler without set_epoch",
           "train epoch 2 batch 1"),
    _fault("a batch repeated", _stream(lambda s: s, back=1), "repeated batch",
           "an iterator that is asked twice", "a prefetcher that hands out its first buffer twice",
           "train epoch 1 batch 2"),
    _fault("colours reversed", _stream(_images(lambda x: x[:, ::-1]), colours=True),
           "BGR channels", "images read by OpenCV", "cv2.imread's documentation: BGR"),
    _fault("images transposed", _stream(_images(lambda x: x.swapaxes(2, 3))), "transposed",
           "width before height", "EMNIST's files are transposed against MNIST's"),
    _fault("images mirrored", _stream(_images(lambda x: x[..., ::-1])), "mirrored",
           "a flip that is always on", "RandomHorizontalFlip(p=1)"),
    _fault("one pixel off by one ulp", _stream(_images(_one_pixel)), "single value",
           "one number damaged on its way", "a decoder of another version"),
    _fault("pixels through float16", _stream(_images(
        lambda x: x.astype(np.float16).astype(np.float32))), "float16 or TF32 rounding",
           "a pipeline in half precision", "DALI's and AMP's float16 outputs"),
    _fault("labels one image late", _stream(_labels(lambda y: np.roll(y, 1))), "rolled rows",
           "labels and images out of step", "two iterators zipped after one was restarted"),
    _fault("labels counted from one", _stream(_labels(lambda y: y + np.int32(1))),
           "labels off by one", "classes counted from 1", "MATLAB files, as SVHN's, whose 10 is 0"),
    _fault("another batch size", _recipe(batch_size=65), "", "a batch of 65",
           "a flag that reached one side only", "train"),
)  # fmt: skip
