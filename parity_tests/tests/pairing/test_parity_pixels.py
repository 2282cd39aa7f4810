"""What a net does to pixels first: mean and deviation as numbers, arrays or a layer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet import gluon
from mxnet.gluon.data.vision import transforms
from torch import nn

from parity_tests import check_parity
from parity_tests.reporting.report import Report
from parity_tests.reporting.verdicts import Level
from parity_tests.tests.pairing.nets import GluonNet, TorchNet

PIXELS = np.random.default_rng(0).uniform(0, 1, (2, 3, 6, 6)).astype(np.float32)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Numbers = float | Sequence[float]
Forward = Callable[..., Any]


def ours(first: Forward | gluon.Block) -> gluon.Block:
    net = GluonNet(
        lambda s, F, x: s.c(s.first(x) if isinstance(first, gluon.Block) else first(F, x)),
        c=gluon.nn.Conv2D(2, 3, in_channels=3),
        **({"first": first} if isinstance(first, gluon.Block) else {}),
    )
    mx.random.seed(0)
    net.initialize(mx.init.Xavier())
    return net


def theirs(first: Forward, mean: Numbers = 0.0, std: Numbers = 1.0) -> nn.Module:
    net = TorchNet(lambda s, x: s.c(first(s, x)), c=nn.Conv2d(3, 2, 3))
    for name, numbers in (("mean", mean), ("std", std)):
        held = torch.tensor(numbers).broadcast_to(3).clone().reshape(1, 3, 1, 1)
        net.register_buffer(name, held)
    return net


def of_buffers(s: Any, x: torch.Tensor) -> torch.Tensor:
    moved: torch.Tensor = (x - s.mean) / s.std
    return moved


def of_numbers(s: Any, x: torch.Tensor) -> torch.Tensor:
    return (x - 0.45) / 0.225


def compared(first: Any, other: nn.Module, x: np.ndarray = PIXELS) -> Report:
    return check_parity(ours(first), other, x, transfer=True)


class Held(gluon.HybridBlock):
    """A mean and a deviation as constants."""

    def __init__(self, mean: Numbers, std: Numbers) -> None:
        super().__init__()
        with self.name_scope():
            for name, numbers in (("mean", mean), ("std", std)):
                array = np.broadcast_to(np.asarray(numbers, np.float32), 3).reshape(1, 3, 1, 1)
                setattr(self, name, self.params.get_constant(name, array))

    def hybrid_forward(self, F: Any, x: Any, mean: Any, std: Any) -> Any:
        return F.broadcast_div(F.broadcast_sub(x, mean), std)


EQUAL: dict[str, tuple[Any, nn.Module]] = {
    "of numbers that float32 holds": (lambda F, x: (x - 0.5) / 0.25, theirs(of_buffers, 0.5, 0.25)),
    "of others": (lambda F, x: (x - 0.45) / 0.225, theirs(of_buffers, 0.45, 0.225)),
    "of bytes": (
        lambda F, x: (x / 255 - 0.45) / 0.225,
        theirs(lambda s, x: of_buffers(s, x / 255), 0.45, 0.225),
    ),
    "in another order": (lambda F, x: x / 0.225 - 2.0, theirs(of_buffers, 0.45, 0.225)),
    "constants": (Held(MEAN, STD), theirs(of_buffers, MEAN, STD)),
    "constants of a number": (Held(0.45, 0.225), theirs(of_numbers)),
    "a layer": (transforms.Normalize(MEAN, STD), theirs(of_buffers, MEAN, STD)),
    "a layer of a number": (transforms.Normalize(0.45, 0.225), theirs(of_buffers, 0.45, 0.225)),
    "a layer, and numbers": (transforms.Normalize(0.45, 0.225), theirs(of_numbers)),
}


@pytest.mark.parametrize("name", EQUAL)
def test_pixels_may_be_normalised_by_numbers_or_arrays(name: str) -> None:
    report = compared(*EQUAL[name])
    assert report.ok, str(report)


OTHER: dict[str, tuple[Any, nn.Module]] = {
    "another number": (lambda F, x: (x - 0.45) / 0.225, theirs(of_buffers, 0.4501, 0.225)),
    "another array": (Held(MEAN, STD), theirs(of_buffers, MEAN, STD[::-1])),
    "a layer of others": (transforms.Normalize(MEAN, STD), theirs(of_buffers, MEAN[::-1], STD)),
    "a layer of another": (transforms.Normalize(0.45, 0.225), theirs(of_buffers, 0.45, 0.2251)),
    "a layer, and others": (transforms.Normalize(0.4501, 0.225), theirs(of_numbers)),
    "the other way round": (
        lambda F, x: (x - 0.5) / 0.25,
        theirs(lambda s, x: x / s.std - s.mean, 0.5, 0.25),
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_another_mean_or_deviation_diverges_before_the_first_layer(name: str) -> None:
    report = compared(*OTHER[name])
    first = report.failures[0]
    assert first.path != "c" or first.level == Level.STRUCTURE, str(report)


def test_images_become_tensors() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
    other = theirs(lambda s, x: x.permute(0, 3, 1, 2).float() / 255)
    report = compared(transforms.ToTensor(), other, images)
    assert report.ok, str(report)
    other = theirs(lambda s, x: x.permute(0, 3, 2, 1).float() / 255)
    report = compared(transforms.ToTensor(), other, images)
    assert report.failures[0].level == Level.STRUCTURE, str(report)
