"""Level data, and that it sees streams that differ."""

from collections.abc import Iterator

import numpy as np
import pytest

import gluon_cnn.training.assembly
import gluon_cnn.training.recipes
import torch_ref.training.assembly
import torch_ref.training.recipes
from cnn_data import Batches, Dataset, load_dataset
from cnn_harness.config import TrainConfig
from parity_tests.cases.models import MODELS
from parity_tests.levels.data import check_data, data_rows
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("mnist5k")


@pytest.mark.parametrize("model", ["lenet", "lenet5", "cifar_cnn"])
def test_both_commands_see_the_same_batches(model: str) -> None:
    report = check_data(model)
    assert report.ok, str(report)
    assert report.coverage.percent() == {"batches": 100.0}


def test_the_recipes_were_written_twice_and_agree() -> None:
    assert gluon_cnn.training.recipes.DOCUMENTS == torch_ref.training.recipes.DOCUMENTS
    assert gluon_cnn.training.recipes.OWN == torch_ref.training.recipes.OWN
    assert gluon_cnn.training.recipes.DEFAULTS == torch_ref.training.recipes.DEFAULTS
    assert set(gluon_cnn.training.recipes.DEFAULTS) == set(MODELS)


def _first_failure(theirs: TrainConfig, digits: Dataset) -> tuple[str, str]:
    ours = gluon_cnn.training.recipes.DEFAULTS["lenet"]
    report = Report("lenet", (Level.DATA,))
    report.add(*data_rows(ours, theirs, digits))
    # The recipe's own rows would name the field; here the batches have to show it too
    failed = [row for row in report.failures if row.path != "recipe"]
    assert not report.ok
    return failed[0].path, failed[0].quantity


@pytest.mark.parametrize(
    ("change", "path", "quantity"),
    [
        ({"normalise": "half"}, "train epoch 1 batch 1", "images"),
        ({"augment": "none"}, "train epoch 1 batch 1", "images"),
        ({"seed": 1}, "train epoch 1 batch 1", "images"),
        ({"batch_size": 65}, "train", "batches an epoch"),
    ],
)
def test_another_recipe_is_seen(change: dict, path: str, quantity: str, digits: Dataset) -> None:
    theirs = torch_ref.training.recipes.DEFAULTS["lenet"].replace(**change)
    assert _first_failure(theirs, digits) == (path, quantity)


@pytest.mark.parametrize("fault", ["repeated", "transposed", "one pixel", "label"])
def test_a_faulty_stream_is_seen(
    fault: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(Batches):
        def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            if fault == "repeated" and start:
                start -= 1
            for x, y in super().epoch(epoch, start):
                if fault == "transposed":
                    x = x.swapaxes(2, 3)
                elif fault == "one pixel":
                    x[-1, 0, 14, 14] = np.nextafter(x[-1, 0, 14, 14], np.float32(9))
                elif fault == "label":
                    y = np.roll(y, 1)
                yield x, y

    monkeypatch.setattr(torch_ref.training.assembly, "Batches", Faulty)
    number = 2 if fault == "repeated" else 1
    quantity = "labels" if fault == "label" else "images"
    found = _first_failure(torch_ref.training.recipes.DEFAULTS["lenet"], digits)
    assert found == (f"train epoch 1 batch {number}", quantity)


@pytest.mark.parametrize("model", ["lenet", "lenet5", "mnist_bn_cnn"])
def test_training_starts_from_bit_equal_weights(model: str) -> None:
    from parity_tests.numerics.compare import bits_equal
    from torch_ref.transfer import to_gluon

    config = gluon_cnn.training.recipes.DEFAULTS[model]
    dataset = load_dataset("mnist5k", image_size=config.image_size, fit=config.fit)
    ours = gluon_cnn.training.assembly.prepare(
        config, dataset, "cpu"
    ).net._collect_params_with_prefix()
    theirs = torch_ref.training.assembly.prepare(
        torch_ref.training.recipes.DEFAULTS[model], dataset, "cpu"
    ).net
    named = to_gluon({n: t.numpy() for n, t in theirs.state_dict().items()})
    assert set(named) == set(ours)
    for name, array in named.items():
        bits_equal(ours[name].data().asnumpy(), array).require(name)
