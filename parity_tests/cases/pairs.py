"""Pairs of nets that compute the same: this project's twins, random ones, and the user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import torch
from torch import nn

from cnn_harness.initial import generator
from parity_tests.backends.base import leaves_of, side_of
from parity_tests.backends.journal import JOURNAL, Place
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import place_of, reason_of
from parity_tests.cases.factories import load_net
from parity_tests.cases.models import MODELS
from parity_tests.cases.thin import gluon_model, torch_model
from parity_tests.levels.weights import copy_weights, pairing_map
from parity_tests.pairing.align import pair_leaves

__all__ = ["Case", "load_own_net", "project_case", "random_values", "set_equal_values", "user_case"]


@dataclass(frozen=True)
class Case:
    """Two nets, and what to run them on: inputs (N, C, H, W) and, for a loss, labels (N,)."""

    name: str
    gluon_net: Any
    torch_net: nn.Module
    inputs: np.ndarray
    labels: np.ndarray | None = None


def project_case(
    name: str, *, full: bool = False, batch: int = 2, seed: int = 0, **options: Any
) -> Case:
    """One of this project's models in both frameworks, at toy or full size, with equal weights.

    Toys are those of `parity_tests.cases.models`. Weights move by `torch_ref.transfer`. BatchNorm's
    statistics and the biases are not trivial.
    """
    from torch_ref.transfer import to_torch

    toy = MODELS[name]
    size, divisor = (None, 1) if full else (toy.input_size, toy.divisor)
    gluon_net = gluon_model(name, size, divisor, **options)
    torch_net = torch_model(name, size, divisor, **options)
    gluon_net.initialize()
    parameters = gluon_net._collect_params_with_prefix()
    fixed = [n for n, p in parameters.items() if n.endswith("bitmaps")]
    values = random_values({n: p.shape for n, p in parameters.items() if n not in fixed}, seed)
    for path, value in values.items():
        parameters[path].set_data(mx.nd.array(value))
    values |= {n: parameters[n].data().asnumpy() for n in fixed}
    state = torch_net.state_dict()
    moved = to_torch(values, like={n: t.numpy() for n, t in state.items()})
    with torch.no_grad():
        for path, value in moved.items():
            state[path].copy_(torch.from_numpy(value))
    draw = np.random.default_rng(seed)
    inputs = draw.standard_normal((batch, *gluon_net.input_shape)).astype(np.float32)
    labels = draw.integers(0, gluon_net.classes, batch).astype(np.int32)
    return Case(name, gluon_net, torch_net, inputs, labels)


def random_values(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    """Values by parameter path that keep activations near 1, none of them trivial."""
    return {path: _value(path, shape, seed) for path, shape in shapes.items()}


def set_equal_values(gluon_net: Any, torch_net: nn.Module, seed: int = 0) -> None:
    """Random values for a Gluon net, and the same for a torch net that was written like it."""
    gluon_net.initialize()
    parameters = gluon_net._collect_params_with_prefix()
    values = random_values({name: p.shape for name, p in parameters.items()}, seed)
    for name, value in values.items():
        parameters[name].set_data(mx.nd.array(value))
    leaves = leaves_of(gluon_net)
    copy_weights(leaves, torch_net, pairing_map(pair_leaves(leaves, leaves_of(torch_net))))


def _value(path: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    draw = generator(path, seed)
    role = path.rpartition(".")[2]
    if role == "running_var" or (len(shape) == 1 and role in ("gamma", "weight")):
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        return draw.normal(0, 0.1, shape).astype(np.float32)
    # LeNet-5's packed C3 has a plane for each connection: 60 planes for 16 maps
    fan_in = math.prod(shape[1:]) * (60 / 16 if len(shape) == 3 else 1)
    return draw.normal(0, math.sqrt(2 / fan_in), shape).astype(np.float32)


def user_case(
    gluon: str, theirs: str, shape: Sequence[int], name: str = "", *, seed: int = 0
) -> Case:
    """A user's own pair: two `package.module:factory`, each called without arguments.

    A Gluon net that is not initialised yet is, and is run once on the input. Raises ParityError for
    a factory that cannot be found or does not give a net of its framework.
    """
    inputs = np.random.default_rng(seed).standard_normal(tuple(shape)).astype(np.float32)
    gluon_net, torch_net = load_own_net(gluon, "gluon"), load_own_net(theirs, "torch")
    if any(p._data is None for p in gluon_net.collect_params().values()):
        gluon_net.initialize(mx.init.Xavier())
    mode = torch_net.training
    for side, run in (
        ("gluon", lambda: gluon_net(mx.nd.array(inputs))),
        ("torch", lambda: torch_net.eval()(torch.from_numpy(inputs))),
    ):
        place = Place(side, "first run")
        if place in JOURNAL.crashed:
            continue  # the levels will say so
        try:
            with (
                torch.random.fork_rng(devices=[]),
                torch.no_grad(),
                mx.autograd.pause(),
                JOURNAL.running(place),
            ):
                run()
                mx.nd.waitall()
        except Exception as error:  # a user's net may raise anything
            reason = f"{reason_of(error)}{place_of(error)}"
            raise ParityError(
                f"the {side} net does not run on --input {','.join(map(str, shape))}: {reason}"
            ) from error
    torch_net.train(mode)
    return Case(name or f"{gluon} beside {theirs}", gluon_net, torch_net, inputs)


def load_own_net(spec: str, side: str) -> Any:
    """A user's net of one framework. Raises ParityError for a factory that gives none."""
    net = load_net(spec, f"--{side}", Path.cwd())
    try:
        kind = f"a {side_of(net)} net"
    except ParityError:
        kind = f"an object of type {type(net).__name__}"
    if kind != f"a {side} net":
        raise ParityError(f"--{side} {spec} gives {kind}, expected a {side} net")
    return net
