"""What a snapshot is taken of: nets of one or of both frameworks, their inputs and their steps.

Every number comes from numpy's legacy generator, whose stream is frozen (NEP 19), so that two
environments start from the same bits whatever numpy they have.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from parity_tests.cases.models import MODELS
from parity_tests.cases.thin import gluon_model, torch_model
from parity_tests.numerics.update_rules import Rule

# (path, role) by the suite's names, which are the same on both sides of a pair
Tensors = dict[tuple[str, str], np.ndarray]

STEPS = 3

_MOMENTUM = Rule("sgd", momentum=0.9, wd=5e-4)
_RULE_OF = {"lenet": Rule("adam", wd=1e-4), "cifar_cnn": Rule("nag", momentum=0.9, wd=1e-4)}
RATE = {"sgd": 0.01, "nag": 0.01, "adam": 0.001}
_FULL_RATE = 1e-5  # two photographs' worth of noise blow AlexNet's weights up at 1e-4

# Every update rule alone, as the first of all subjects
RULES = (
    Rule("sgd"), Rule("sgd", wd=0.01), Rule("sgd", momentum=0.9),
    Rule("sgd", momentum=0.9, wd=0.01), Rule("sgd", momentum=0.9, clip=0.5),
    Rule("nag", momentum=0.9, wd=0.01), Rule("adam"),
    Rule("adam", wd=0.01), Rule("adam", beta1=0.8, beta2=0.99, epsilon=1e-4, clip=0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """One net in one or both frameworks, and what it is run on.

    `make[side]()` gives the net; `values(side, key, kind, shape)` what a parameter of a leaf holds
    (None: what it holds already); `loss[side](net)` gives a loss of (output, labels), one value a
    sample.
    """

    name: str
    make: Mapping[str, Callable[[], Any]]
    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    values: Callable[[str, tuple[str, str], str, tuple[int, ...]], np.ndarray | None]
    loss: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    rule: Rule = _MOMENTUM
    rate: float = RATE[_MOMENTUM.name]
    batches: tuple[tuple[np.ndarray, np.ndarray], ...] = ()


def drawn(*seed: object) -> np.random.RandomState:
    """A generator for one purpose, by its name."""
    return np.random.RandomState(zlib.crc32("/".join(map(str, seed)).encode()))


def project_subject(name: str, *, full: bool = False, seed: int = 0) -> Subject:
    """One of this project's models, thin and small, or whole and at 224×224."""
    toy = MODELS[name]
    size = 224 if full else toy.input_size
    divisor = 1 if full else toy.divisor
    shape = (3, 224, 224) if full else toy.input_shape
    batch = 1 if full else 2
    rule = _RULE_OF.get(name, _MOMENTUM)
    generator = drawn(name, "inputs", seed)

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.standard_normal((count, *shape)).astype(np.float32)
        return x, generator.randint(0, 10, count).astype(np.int32)

    inputs, labels = images(batch)
    batches = tuple(images(2 if full else 4) for _ in range(STEPS))
    return Subject(
        f"{name}-224" if full else name,
        {
            "gluon": lambda: _gluon_net(name, size, divisor),
            "torch": lambda: torch_model(name, size, divisor),
        },
        (inputs,),
        labels,
        lambda side, key, kind, wanted: _value(name, key, kind, wanted, seed),
        {"gluon": _gluon_loss, "torch": _torch_loss},
        rule,
        _FULL_RATE if full else RATE[rule.name],
        batches,
    )


def _gluon_net(name: str, size: int | None, divisor: int) -> Any:
    net = gluon_model(name, size, divisor)
    net.initialize()
    return net


def _gluon_loss(net: Any) -> Any:
    from gluon_cnn.training.losses import loss_for

    return loss_for(net)


def _torch_loss(net: Any) -> Any:
    from torch_ref.training.losses import loss_for

    return loss_for(net)


def _value(
    model: str, key: tuple[str, str], kind: str, shape: tuple[int, ...], seed: int
) -> np.ndarray | None:
    """Values that keep activations near 1, none of them trivial."""
    path, role = key
    if role == "bitmaps":  # drawn by hand, not trained
        return None
    generator = drawn(model, path, role, seed)
    if role == "running_var" or (kind == "batchnorm" and role == "weight"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        return (0.1 * generator.standard_normal(shape)).astype(np.float32)
    # LeNet-5's packed C3 has a plane for each connection: 60 planes for 16 maps
    fan_in = math.prod(shape[1:]) * (60 / 16 if len(shape) == 3 else 1)
    return (math.sqrt(2 / fan_in) * generator.standard_normal(shape)).astype(np.float32)


def fixed_upstream(outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Gradients of a net's outputs, for nets without labels: normal, and always the same."""
    return tuple(drawn("upstream", i).standard_normal(y.shape) for i, y in enumerate(outputs))
