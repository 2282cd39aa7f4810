"""The small plain pair that the gate is tested with: every operation of the nets, on 12×12."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from mxnet.gluon import nn as gluon_nn
from torch import nn

from parity_tests.backends.base import SIDES
from parity_tests.gate.record.subjects import STEPS, Subject, drawn
from parity_tests.gate.record.user_pairs import cross_entropy
from torch_ref.models.layers import MXBatchNorm2d


def plain_subject() -> Subject:
    """Every operation of the project's nets once or twice, on two images of 12×12."""

    def value(side: str, key: tuple[str, str], kind: str, shape: tuple[int, ...]) -> np.ndarray:
        generator = drawn("plain", *key)
        if key[1] == "running_var" or (kind == "batchnorm" and key[1] == "weight"):
            return generator.uniform(0.5, 1.5, shape).astype(np.float32)
        return (0.4 * generator.standard_normal(shape)).astype(np.float32)

    generator = drawn("plain", "inputs")

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.standard_normal((count, 2, 12, 12)).astype(np.float32)
        return x, generator.randint(0, 10, count).astype(np.int32)

    inputs, labels = images(2)
    return Subject(
        "plain",
        {"gluon": _plain_gluon, "torch": _plain_torch},
        (inputs,),
        labels,
        value,
        {side: partial(cross_entropy, side) for side in SIDES},
        batches=tuple(images(4) for _ in range(STEPS)),
    )


def _plain_gluon() -> Any:
    net = gluon_nn.HybridSequential(prefix="plain_")
    net.add(
        gluon_nn.Conv2D(4, 3, in_channels=2),
        gluon_nn.BatchNorm(in_channels=4),
        gluon_nn.Activation("relu"),
        gluon_nn.MaxPool2D(2),
        gluon_nn.Conv2D(6, 2, in_channels=4),
        gluon_nn.Activation("sigmoid"),
        gluon_nn.AvgPool2D(2),
        gluon_nn.Flatten(),
        gluon_nn.Dense(16, in_units=24),
        gluon_nn.Activation("tanh"),
        gluon_nn.Dropout(0.5),
        gluon_nn.Dense(10, in_units=16),
    )
    net.initialize()
    return net


def _plain_torch() -> Any:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), MXBatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 2),
        nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 16), nn.Tanh(), nn.Dropout(0.5),
        nn.Linear(16, 10),
    )  # fmt: skip
