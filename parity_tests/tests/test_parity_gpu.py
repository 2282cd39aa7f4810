"""Parity of Gluon on a GPU with torch on the CPU, by the bounds that hold between CPUs.

Run with `-m gpu`. Every test skips, saying why, where MXNet cannot use a GPU.
"""

from __future__ import annotations

from typing import ClassVar

import mxnet as mx
import numpy as np
import pytest

from cnn_data import load_dataset
from cnn_harness.config import TrainConfig
from gluon_cnn.runtime import settings as runtime
from gluon_cnn.training.assembly import Training, prepare
from gluon_cnn.training.loop import evaluate, train_step
from parity_tests.levels.multi_device.data_parallel import SplitTrainee
from parity_tests.levels.training.free_running import free_rows
from parity_tests.levels.training.resynchronised import resynchronised_rows
from parity_tests.levels.training.trial import Trial
from parity_tests.levels.training.trials import project_trial
from parity_tests.reporting.verdicts import Side

pytestmark = pytest.mark.gpu


def why_not(count: int = 1) -> str:
    """Why `count` GPUs cannot be used here; empty where they can."""
    found = runtime.cuda()
    if found is None:
        return "MXNet is the build for the CPU: pip install -e '.[gpu]'"
    return next((why for number in range(count) if (why := found.refusal(number))), "")


@pytest.fixture(autouse=True)
def gpu() -> None:
    if why := why_not():
        pytest.skip(f"no GPU: {why}")


class OnGpu(SplitTrainee):
    devices: ClassVar = [mx.gpu(0)]


class OnTwoGpus(SplitTrainee):
    devices: ClassVar = [mx.gpu(0), mx.gpu(1)]


def on(trainee: type[SplitTrainee], model: str, steps: int) -> Trial:
    trial = project_trial(model, steps, batch=8)
    trial.make[Side.GLUON] = trainee
    return trial


# Dropout masks are transplanted on the CPU; BatchNorm has a test of its own.
MODELS = ["lenet", "lenet_sigmoid", "cifar_cnn", "vgg11"]


@pytest.mark.parametrize("model", MODELS)
def test_float32_on_the_gpu_keeps_the_bounds_of_the_cpu(model: str) -> None:
    rows = resynchronised_rows(on(OnGpu, model, 2), 2)
    failed = [row.message for row in rows if row.status == "diverged"]
    assert rows
    assert not failed


@pytest.mark.parametrize("model", MODELS)
def test_float64_on_the_gpu_stays_together_with_torch(model: str) -> None:
    rows = free_rows(on(OnGpu, model, 10), 10)
    failed = [row.message for row in rows if row.status == "diverged"]
    assert rows
    assert not failed


def test_two_gpus_compute_what_one_cpu_does() -> None:
    if why := why_not(2):
        pytest.skip(f"no second GPU: {why}")
    rows = free_rows(on(OnTwoGpus, "lenet", 10), 10)
    assert rows
    assert not [row.message for row in rows if row.status == "diverged"]


def _digits(model: str, ctx: str) -> Training:
    config = TrainConfig(model=model, epochs=1, batch_size=128)
    return prepare(config, load_dataset("mnist5k"), ctx)


def test_cudnns_batch_norm_stores_the_unbiased_variance() -> None:
    """MXNet on the CPU stores the biased one: a run that moves between them shifts by n/(n − 1)."""
    x = np.random.default_rng(0).standard_normal((8, 1, 28, 28)).astype(np.float32)
    variances = []
    for ctx in ("cpu", "gpu"):
        training = _digits("mnist_bn_cnn", ctx)
        ((where,),) = (training.devices,)
        xs = [mx.nd.array(x, ctx=where)]
        train_step(training.objective, training.trainer, [(xs, [mx.nd.zeros(8, ctx=where)])], 8)
        name = "features.1.running_var"
        variances.append(training.net._collect_params_with_prefix()[name].data(where).asnumpy())
    count = 8 * 28 * 28
    fresh = 0.9  # of the 1 that it starts with, under momentum 0.9
    np.testing.assert_allclose(
        (variances[1] - fresh) / (variances[0] - fresh), count / (count - 1), rtol=1e-5
    )


def test_the_same_seed_gives_the_same_bits_on_a_gpu() -> None:
    results = []
    for _ in range(2):
        training = _digits("lenet", "gpu")
        for x, y in list(training.train.epoch(1))[:10]:
            arrays = ([mx.nd.array(a, ctx=mx.gpu(0), dtype="float32")] for a in (x, y))
            xs, ys = arrays
            train_step(training.objective, training.trainer, [(xs, ys)], len(x))
        results.append(evaluate(training.evaluation, training.test, training.devices))
    assert results[0].loss == results[1].loss
    np.testing.assert_array_equal(results[0].predicted, results[1].predicted)
