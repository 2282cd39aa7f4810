"""Trials of this project's nets on real digits.

Framework specific (mxnet, torch): the plain trial's nets are built of both frameworks' layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mxnet as mx
import numpy as np
from mxnet.gluon import nn as gluon_nn
from torch import nn

from cnn_data import Batches, load_dataset, pixels
from cnn_harness.config import TrainConfig
from cnn_harness.initial import generator, initial_arrays
from cnn_harness.schedule import learning_rate
from gluon_cnn.training.losses import loss_for as gluon_loss_for
from gluon_cnn.training.recipes import DEFAULTS
from parity_tests.backends.base import backend, leaves_of
from parity_tests.backends.losses import cross_entropy
from parity_tests.backends.runs import Objective
from parity_tests.backends.training import Batch
from parity_tests.cases.pairs import project_case
from parity_tests.levels.training.trial import Trial
from parity_tests.levels.weights import copy_weights, pairing_map, project_map
from parity_tests.numerics.update_rules import Rule, parsable_rate
from parity_tests.pairing.align import pair_leaves
from parity_tests.reporting.verdicts import Side
from torch_ref.models.layers import MXBatchNorm2d
from torch_ref.training.losses import loss_for as torch_loss_for

BATCH = {"lenet": 32, "cifar_cnn": 32, "mnist_bn_cnn": 16}  # images a step; the deep toys take 8


def rule_of(config: TrainConfig) -> Rule:
    """The update rule of a recipe."""
    name = "nag" if config.optimizer == "sgd" and config.nesterov else config.optimizer
    return Rule(name, momentum=config.momentum, wd=config.wd)


def project_trial(
    model: str,
    steps: int,
    *,
    batch: int | None = None,
    seed: int = 0,
    recipe: TrainConfig | None = None,
) -> Trial:
    """A model of this project on real digits, by its own recipe unless told: first weights,
    normalisation, augmentation, optimizer, rates. AlexNet and VGG are toys, as in `cases`.

    For nets that take colours the digits become the first channel, beside themselves shifted and
    negated: three equal channels would hide that two are swapped. Dropout drops the same values on
    both sides.
    """
    config = recipe or DEFAULTS[model].replace(seed=seed)
    case = project_case(model, batch=1, seed=seed)
    parameters = case.gluon_net._collect_params_with_prefix()
    shapes = {name: p.shape for name, p in parameters.items() if p.grad_req != "null"}
    values = initial_arrays(shapes, config.initialiser, config.seed)
    for name, parameter in parameters.items():  # running statistics start at 0 and 1
        statistic = np.full(parameter.shape, name.endswith("running_var"), np.float32)
        if not name.endswith("bitmaps"):
            parameter.set_data(mx.nd.array(values.get(name, statistic)))
    way = project_map(case.gluon_net, case.torch_net)
    assert way is not None  # both nets are of one model
    copy_weights(leaves_of(case.gluon_net), case.torch_net, way)
    images = _images(case.gluon_net.input_shape, config, steps, batch or BATCH.get(model, 8))
    rule = rule_of(config)
    shapes_dropped = _dropout_shapes(case.torch_net, images[0][0])
    batches = [
        Batch(
            x,
            y,
            _rate(config, rule, step, steps),
            _masks(shapes_dropped, len(y), config.seed, step),
        )
        for step, (x, y) in enumerate(images)
    ]
    torch_net: Any = case.torch_net
    losses = {Side.GLUON: gluon_loss_for(case.gluon_net), Side.TORCH: torch_loss_for(torch_net)}
    return Trial(model, case.gluon_net, case.torch_net, rule, batches, Objective(losses=losses))


def plain_trial(
    steps: int = 4, rule: Rule | None = None, norm: Callable[[int], nn.Module] = MXBatchNorm2d
) -> Trial:
    """A small pair of plain nets, no models of this project: conv, BatchNorm, ReLU, pool, dense,
    tanh, dense, on digits of 12×12 in batches of 12. `norm` is the torch net's BatchNorm."""
    gluon_net = gluon_nn.HybridSequential(prefix="plain_")
    gluon_net.add(
        gluon_nn.Conv2D(4, 3, in_channels=1),
        gluon_nn.BatchNorm(in_channels=4),
        gluon_nn.Activation("relu"),
        gluon_nn.MaxPool2D(2),
        gluon_nn.Flatten(),
        gluon_nn.Dense(16, in_units=100),
        gluon_nn.Activation("tanh"),
        gluon_nn.Dense(10, in_units=16),
    )
    mx.random.seed(3)
    gluon_net.initialize(mx.init.Xavier())
    torch_net = nn.Sequential(
        nn.Conv2d(1, 4, 3), norm(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(100, 16), nn.Tanh(), nn.Linear(16, 10),
    )  # fmt: skip
    pairing = pair_leaves(leaves_of(gluon_net), leaves_of(torch_net))
    copy_weights(leaves_of(gluon_net), torch_net, pairing_map(pairing))
    dataset = load_dataset("mnist5k", image_size=12)
    digits = Batches(dataset.train, 12, pixels("standard", dataset.mean, dataset.std), shuffle=True)
    batches = [
        Batch(x, y, 0.05 / (1 + n), {})
        for n, (x, y) in zip(range(steps), digits.epoch(1), strict=False)
    ]
    objective = replace(cross_entropy(batches[0].labels), labels=None)
    rule = rule or Rule("sgd", momentum=0.9, wd=0.01)
    return Trial("plain", gluon_net, torch_net, rule, batches, objective)


def _rate(config: TrainConfig, rule: Rule, step: int, steps: int) -> float:
    rate = learning_rate(
        config.lr, config.schedule, step, steps, step_every=max(1, steps // 3),
        warmup_steps=steps // 10 if config.warmup_epochs else 0,
    )  # fmt: skip
    return parsable_rate(rate, rule, step + 1)


def _images(
    shape: tuple[int, int, int], config: TrainConfig, steps: int, batch: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    channels, side, _ = shape
    dataset = load_dataset("mnist5k", image_size=side)
    prepared = pixels(config.normalise, dataset.mean, dataset.std)
    digits = Batches(
        dataset.train, batch, prepared,
        augment=config.augment, shuffle=True, seed=config.seed, prefetch=False,
    )  # fmt: skip
    batches: list[tuple[np.ndarray, np.ndarray]] = []
    epoch = 0
    while len(batches) < steps:
        epoch += 1
        for x, y in digits.epoch(epoch):
            if channels == 3:
                x = np.concatenate([x, np.roll(x, 2, axis=2), -x], axis=1)
            batches.append((np.ascontiguousarray(x), y))
            if len(batches) == steps:
                break
    return batches


def _dropout_shapes(torch_net: Any, images: np.ndarray) -> dict[str, tuple[float, tuple[int, ...]]]:
    """Rate and shape (without the batch) of what each dropout leaf is given."""
    dropped = [leaf for leaf in leaves_of(torch_net) if leaf.kind == "dropout"]
    if not dropped:
        return {}
    run = backend(Side.TORCH).run_net(torch_net, (images[:1],), "float32")
    return {
        leaf.path: (float(leaf.block.p), run.calls[leaf.path][0].inputs[0].shape[1:])
        for leaf in dropped
    }


def _masks(
    shapes: dict[str, tuple[float, tuple[int, ...]]], count: int, seed: int, step: int
) -> dict[str, np.ndarray]:
    return {
        path: generator(path, seed, step).random((count, *shape)) >= rate
        for path, (rate, shape) in shapes.items()
    }
