"""Several devices in one process, on the CPU: equal copies, whole checkpoints, the right engine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mxnet as mx
import numpy as np
from PIL import Image

from cnn_data import load_dataset
from gluon_cnn import train
from gluon_cnn.models import get_model
from gluon_cnn.runtime.settings import cpu_devices
from gluon_cnn.training import assembly, loop, parallel
from gluon_cnn.training.recipes import DEFAULTS
from gluon_cnn.training.staging import to_devices


def _prepared(model: str, ctx: str, **changes) -> assembly.Training:
    config = DEFAULTS[model].replace(epochs=1, batch_size=150, **changes)
    return assembly.prepare(config, load_dataset("mnist5k"), ctx)


def test_devices_stay_equal_through_uneven_batches() -> None:
    training = _prepared("lenet", "cpu:0,1,2")
    for count in (150, 151, 2, 1, 7):  # the last but two leave devices without images
        x = np.random.default_rng(count).standard_normal((count, 1, 28, 28)).astype(np.float32)
        y = np.arange(count, dtype=np.float32) % 10
        xs, ys = (to_devices(array, training.devices) for array in (x, y))
        loop.train_step(training.objective, training.trainer, [(xs, ys)], count)
    for parameter in training.net.collect_params().values():
        first, *others = (value.asnumpy() for value in parameter.list_data())
        assert all(np.array_equal(first, other) for other in others), parameter.name


class _Noting(mx.kv.KVStoreBase):
    """A store of one worker that notes what it is asked for."""

    type = "dist_sync"

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    @staticmethod
    def is_capable(capability: str) -> bool:
        return False

    def broadcast(self, key, value, out, priority=0) -> None:
        self._asked.append("broadcast")

    def pushpull(self, key, value, out=None, priority=0) -> None:
        self._asked.append("pushpull")


def test_parameters_have_arrived_before_any_gradient_leaves(monkeypatch) -> None:
    # A late pull of a parameter fetched the sum of the first gradients: a layer of zeros.
    asked: list[str] = []
    net = get_model("lenet")
    net.initialize()
    waitall = mx.nd.waitall

    def noted() -> None:
        asked.append("waitall")
        waitall()

    monkeypatch.setattr(mx.nd, "waitall", noted)
    trainer = parallel.combining_trainer(
        net.collect_params(), "sgd", {"learning_rate": 0.1}, [mx.cpu()], _Noting(asked)
    )
    assert asked == ["broadcast"] * 10 + ["waitall"]
    for parameter in net.collect_params().values():
        parameter.data()._fresh_grad = True
    trainer.step(1)
    assert asked[11:] == ["pushpull"] * 10


def test_running_statistics_become_the_mean_of_the_devices() -> None:
    training = _prepared("mnist_bn_cnn", "cpu:0,1")
    x = np.random.default_rng(0).standard_normal((32, 1, 28, 28)).astype(np.float32)
    x[16:] += 3
    xs, ys = (to_devices(a, training.devices) for a in (x, np.zeros(32, np.float32)))
    loop.train_step(training.objective, training.trainer, [(xs, ys)], 32)
    means = [p for n, p in training.net.collect_params().items() if n.endswith("running_mean")]
    before = [[value.asnumpy() for value in parameter.list_data()] for parameter in means]
    assert not np.allclose(*before[0])  # each has seen its own half
    parallel.agree_on_statistics(training.net)
    for parameter, (a, b) in zip(means, before, strict=True):
        for value in parameter.list_data():
            np.testing.assert_array_equal(value.asnumpy(), (a + b) / np.float32(2))


EPOCH = """
import sys
from dataclasses import replace
sys.orig_argv = ["python", "-m", "gluon_cnn.train", "--ctx", "cpu:0,1"]  # an engine with threads
from gluon_cnn.training import assembly, loop, parallel
import mxnet as mx
import numpy as np
from cnn_data import ArraySplit, load_dataset
from gluon_cnn.training.recipes import DEFAULTS
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial
from cnn_harness.jobs.stop import Stop

whole = load_dataset("mnist5k")
few = np.arange(200)
split = ArraySplit(whole.train.images(few), whole.train.labels[few])
config = DEFAULTS["mnist_bn_cnn"].replace(batch_size=200)
training = assembly.prepare(config, replace(whole, train=split), "cpu:0,1")

def read():
    return [v.asnumpy() for _, p in parallel.statistics(training.net) for v in p.list_data()]

def agree(net):
    early = read()
    mx.nd.waitall()
    assert len(early) == 16 and all(map(np.array_equal, early, read()))
    print("settled")

parallel.agree_on_statistics = agree
loop.train_epoch(training, Partial(1), Monitor(), Stop())
"""


def test_running_statistics_are_those_after_the_last_update() -> None:
    # An engine with threads does not see a static graph write them.
    done = subprocess.run(
        [sys.executable, "-c", EPOCH], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "settled\n"), done.stderr


def test_what_is_saved_is_the_net_to_the_last_bit(tmp_path: Path) -> None:
    # MXNet's own save_parameters writes the mean over devices, rounded twice
    training = _prepared("lenet", "cpu:0,1,2")
    mx.nd.save(str(tmp_path / "ours.params"), parallel.one_copy(training.net))
    training.net.save_parameters(str(tmp_path / "mxnet.params"))
    ours, theirs = (mx.nd.load(str(tmp_path / f"{n}.params")) for n in ("ours", "mxnet"))
    live = training.net._collect_params_with_prefix()
    assert set(ours) == set(theirs) == set(live)
    differing = 0
    for name, parameter in live.items():
        value = parameter.list_data()[0].asnumpy()
        np.testing.assert_array_equal(ours[name].asnumpy(), value)
        differing += int((theirs[name].asnumpy() != value).sum())
    assert differing > 1000


def test_a_run_on_three_devices_resumes_exactly(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    noise = np.random.default_rng(0).integers(0, 255, (2, 13, 32, 32, 3), np.uint8)
    for label, images in enumerate(noise):
        (photographs / str(label)).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(photographs / str(label) / f"{number}.png")
    argv = ["--model", "mnist_bn_cnn", "--dataset", f"folder:{photographs}", "--image-size", "28",
            "--batch-size", "5", "--ctx", "cpu:0,1,2", "--schedule", "constant"]  # fmt: skip
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train.main([*argv, "--epochs", "2", "--out", str(whole)]) == 0
    assert train.main([*argv, "--epochs", "1", "--out", str(parts)]) == 0
    resume = ["--resume", "--ctx", "cpu:0,1,2", "--epochs", "2", *argv[:4]]
    assert train.main([*resume, "--out", str(parts)]) == 0
    assert (whole / "last/net.params").read_bytes() == (parts / "last/net.params").read_bytes()


def test_the_command_line_tells_the_runtime_how_many_devices_there_are() -> None:
    run = ["python", "-m", "gluon_cnn.train", "--epochs", "1"]
    assert cpu_devices(run) == 1
    assert cpu_devices([*run, "--ctx", "cpu:0,1,2"]) == 3
    assert cpu_devices([*run, "--ctx=cpu:0,1"]) == 2
    assert cpu_devices([*run, "--ctx", "gpu:0,1"]) == 1  # the GPU wheel has the engine anyway
    assert cpu_devices([*run, "--ctx"]) == 1
    assert cpu_devices(["python", "other.py", "--ctx", "cpu:0,1"]) == 1
    assert cpu_devices(["python", "-m"]) == 1


def _environment_of(*flags: str, given: dict[str, str] | None = None) -> dict[str, str]:
    """The environment that MXNet sees in a process started as the train command is."""
    code = (
        "import json, os, sys; sys.orig_argv = ['python', '-m', 'gluon_cnn.train', "
        f"*{list(flags)!r}]; import gluon_cnn; print(json.dumps(dict(os.environ)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **(given or {})},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_several_devices_get_the_engine_with_threads_and_one_device_does_not() -> None:
    assert _environment_of()["MXNET_ENGINE_TYPE"] == "NaiveEngine"
    assert "MXNET_ENGINE_TYPE" not in _environment_of("--ctx", "cpu:0,1")


def test_a_child_forgets_what_its_parent_chose_and_keeps_what_the_user_set() -> None:
    marked = {"MXNET_ENGINE_TYPE": "NaiveEngine", "OMP_NUM_THREADS": "7",
              "GLUON_CNN_SETTLED": '{"MXNET_ENGINE_TYPE": "NaiveEngine"}'}  # fmt: skip
    seen = _environment_of("--ctx", "cpu:0,1", given=marked)
    assert "MXNET_ENGINE_TYPE" not in seen
    assert seen["OMP_NUM_THREADS"] == "7"
    damaged = _environment_of(given={"GLUON_CNN_SETTLED": "{", "MXNET_ENGINE_TYPE": "NaiveEngine"})
    assert damaged["MXNET_ENGINE_TYPE"] == "NaiveEngine"
