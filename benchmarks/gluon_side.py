"""MXNet's side, tuned or not: the steps and loops of `gluon_cnn` itself."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gluon_cnn  # first: it settles the threads before MXNet loads

# isort: split
import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

from gluon_cnn_parity import is_installed
from benchmarks.cases import BESIDE, CROWDED, RECIPE, ROUNDS, Case, Turn, repeated, side_by_side
from benchmarks.numpy_side import EVERY, engine_alone, made_up, mnist, random_batch
from cnn_data import Dataset, load_dataset
from cnn_harness.config import TrainConfig
from cnn_harness.epochs import epoch_rates
from cnn_harness.jobs.stop import Stop
from cnn_harness.monitor import Monitor
from cnn_harness.progress import Partial
from gluon_cnn import engine
from gluon_cnn.exporting.runners import mxnet_runner
from gluon_cnn.fast.step import training_step as fast_step
from gluon_cnn.models import get_model
from gluon_cnn.runtime.measure import training_step
from gluon_cnn.training.assembly import Training, prepare
from gluon_cnn.training.loop import evaluate, train_epoch, train_step
from gluon_cnn.training.recipes import OWN


def begin(case: Case) -> Turn:
    """A case of this side, ready for its turns; each says under which settings it was measured."""
    parts = {"train": _train, "infer": _infer, "accuracy": _accuracy, "epoch": _epoch,
             "waiting": _waiting, "command": _command}  # fmt: skip
    settings = {s.name: s.value for s in gluon_cnn.runtime.settings.settled()}
    turn = parts[case.part](case)
    return lambda number: {**turn(number), "settings": settings}


def _train(case: Case) -> Turn:
    net = get_model(case.model)
    x, y = random_batch(net.input_shape, case.batch)
    makers = {"untuned": _documented_step, "own_loop": _own_step, "ours": training_step}
    make = makers[case.side]
    return repeated(case, make(net, x, y))


def _documented_step(net: gluon.HybridBlock, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """A step as MXNet's documentation writes it, which counts hits as the other sides do."""
    net.initialize(mx.init.Xavier())
    net.hybridize()
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-5})

    def step() -> None:
        images, labels = mx.nd.array(x), mx.nd.array(y)
        with autograd.record():
            outputs = net(images)
            loss = loss_of(outputs, labels)
        loss.backward()
        (outputs.argmax(axis=1) == labels).sum()
        trainer.step(len(x))
        mx.nd.waitall()

    return step


def _own_step(net: gluon.HybridBlock, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """The same loop through `gluon_cnn.fast.step`, as docs/speed.md writes it."""
    net.initialize(mx.init.Xavier())
    net.hybridize()
    trainer = gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-5})
    update = fast_step(net, trainer, gluon.loss.SoftmaxCrossEntropyLoss())

    def step() -> None:
        _, outputs = update(x, y)
        (outputs.argmax(axis=1) == mx.nd.array(y)).sum()
        mx.nd.waitall()

    return step


def _infer(case: Case) -> Turn:
    if case.side == "auto":
        return _auto(case)
    net = get_model(case.model)
    net.initialize(mx.init.Xavier())
    x, _ = random_batch(net.input_shape, case.batch)
    if case.side == "ours":
        fast = mxnet_runner(net, net.input_shape)
        return repeated(case, lambda: fast(x))
    net.hybridize(static_alloc=True, static_shape=True)
    return repeated(case, lambda: net(mx.nd.array(x)).asnumpy())


def _auto(case: Case) -> Turn:
    """`--engine auto`, and beside it, where memory holds them, the engines as documented. The first
    to be opened, and to be called, is another one in each turn; `again` is the engine that `auto`
    took a second time: how far two of a kind are apart."""
    assert case.export is not None
    load = partial(engine.load, case.export, batch=case.batch)
    if (case.model, case.batch) in CROWDED:
        run = load()
        x, _ = random_batch(run.input_shape, case.batch)
        alone = repeated(case, lambda: run(x))
        return lambda number: {**alone(number), "engine": run.way}

    def turn(number: int) -> dict[str, Any]:
        peers = {name: partial(engine_alone, case, name) for name in BESIDE if is_installed(name)}
        begin: dict[str, Callable[[], Any]] = {"auto": load, **peers}
        first = number % len(begin)
        runs = {name: begin[name]() for name in [*begin][first:] + [*begin][:first]}
        auto = runs["auto"]
        if auto.name in peers:
            runs["again"] = peers[auto.name]()
        x, _ = random_batch(auto.input_shape, case.batch)
        programs = {name: partial(run, x) for name, run in runs.items()}
        times = side_by_side(programs, case.seconds / ROUNDS)
        seconds = {name: statistics.median(found) for name, found in times.items()}
        speeds = {name: {"images_per_second": case.batch / s} for name, s in seconds.items()}
        return {**speeds.pop("auto"), "seconds": seconds["auto"], "engine": auto.way,
                "beside": speeds}  # fmt: skip

    return turn


def _accuracy(case: Case) -> Turn:
    dataset = mnist(case)
    return lambda turn: {"curve": _curve(OWN[RECIPE].replace(seed=turn), dataset)}


def _curve(config: TrainConfig, dataset: Dataset) -> list[list[float]]:
    """Seconds of training and test accuracy so far, every `EVERY` batches; testing is not timed."""
    training = prepare(config, dataset, "cpu")
    spent, curve = 0.0, []
    for epoch in range(1, config.epochs + 1):
        rates = epoch_rates(config, epoch, len(training.train))
        start = time.perf_counter()
        for number, (rate, (x, y)) in enumerate(
            zip(rates, training.train.epoch(epoch), strict=True), 1
        ):
            training.trainer.set_learning_rate(rate)
            xs, ys = training.staging(x), training.staging(y)
            train_step(training.objective, training.trainer, [(xs, ys)], len(x))
            if number % EVERY == 0 or number == len(rates):
                mx.nd.waitall()
                spent += time.perf_counter() - start
                result = evaluate(training.evaluation, training.test, training.devices)
                curve.append([spent, result.accuracy])
                start = time.perf_counter()
    return curve


def _epoch(case: Case) -> Turn:
    config = TrainConfig(batch_size=case.batch, epochs=2)
    training = prepare(config, made_up(case.images), "cpu")
    train_epoch(training, Partial(1), Monitor(), Stop())

    def turn(_: int) -> dict[str, Any]:
        start = time.perf_counter()
        train_epoch(training, Partial(2), Monitor(), Stop())
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "images_per_second": case.images / seconds}

    return turn


def _waiting(case: Case) -> Turn:
    size = get_model(case.model).input_shape[1]

    def turn(number: int) -> dict[str, Any]:
        """The share of an epoch without a batch to train on: of the first and of the second. The
        data set is opened anew, in the first turn by a process that has never seen it."""
        config = TrainConfig(
            model=case.model, batch_size=case.batch, epochs=2, augment="crop-flip", seed=number
        )
        training = prepare(config, load_dataset(f"folder:{case.data_dir}", image_size=size), "cpu")
        return {"waited": [_waited(training, epoch) for epoch in (1, 2)]}

    return turn


def _waited(training: Training, epoch: int) -> float:
    began, waited = time.perf_counter(), 0.0
    batches = training.train.epoch(epoch)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        x, y = batch
        xs, ys = training.staging(x), training.staging(y)
        train_step(training.objective, training.trainer, [(xs, ys)], len(x))
    mx.nd.waitall()
    return waited / (time.perf_counter() - began)


def _command(case: Case) -> Turn:
    return lambda _: _whole_run(case)


def _whole_run(case: Case) -> dict[str, Any]:
    """`python -m gluon_cnn.train` on MNIST, whole: its time and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "gluon_cnn.train", "--dataset", "mnist", "--json",
             "--data-dir", str(case.data_dir), "--epochs", str(case.epochs),
             "--out", str(Path(folder) / "run")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        start = time.perf_counter()
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"gluon_cnn.train ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "peak_mb": usage.ru_maxrss / 1024,
        "test_acc": json.loads(text)["best"]["test_acc"],
    }
