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
from parity_tests.backends.gluon.numpy_mode import run_once
from parity_tests.backends.journal import JOURNAL, Place
from parity_tests.backends.leaves import ParityError
from parity_tests.backends.runs import Arrays, place_of, reason_of
from parity_tests.cases.factories import load_net
from parity_tests.cases.models import MODELS
from parity_tests.cases.thin import gluon_model, torch_model
from parity_tests.cases.weight_files import import_symbol, load_params, load_torch_weights
from parity_tests.levels.weights import copy_weights, pairing_map
from parity_tests.pairing.align import pair_leaves


@dataclass(frozen=True)
class Case:
    """Two nets, and what to run them on.

    Inputs (N, C, H, W), or a tuple of several, and for a loss labels (N,).
    """

    name: str
    gluon_net: Any
    torch_net: nn.Module
    inputs: Any
    labels: np.ndarray | None = None
    more: Sequence[tuple[Any, np.ndarray | None]] = ()  # batches after the first


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
    gluon: str,
    theirs: str,
    batches: Sequence[tuple[Arrays, np.ndarray | None]],
    *,
    params: str = "",
    weights: str = "",
) -> Case:
    """A user's own pair: two `package.module:factory`, with arguments or without.

    The Gluon side may be a `*-symbol.json` file too, with its parameters in `params`; for a factory
    that is a file of `save_parameters` or `export`. `weights` is a state dict for the torch net. A
    Gluon net that is not initialised yet is, and both are run once on the first inputs.

    Raises ParityError for a factory that cannot be found or does not give a net of its framework,
    for weights that do not fit, and for a net that does not run.
    """
    inputs, labels = batches[0]
    if gluon.endswith(".json"):
        if not params:
            raise ParityError(f"--gluon {gluon} is a symbol: name its --gluon-params too")
        gluon_net = import_symbol(gluon, params)
    else:
        gluon_net = load_own_net(gluon, "gluon")
        if params:
            load_params(gluon_net, params)
    torch_net = load_own_net(theirs, "torch")
    if weights:
        load_torch_weights(torch_net, weights)
    if any(p._data is None for p in gluon_net.collect_params().values()):
        gluon_net.initialize(mx.init.Xavier())
    mode = torch_net.training
    kind = _float_of(gluon_net)
    for side, run in (
        ("gluon", lambda: run_once(gluon_net, inputs, kind)),
        ("torch", lambda: torch_net.eval()(*(_tensor(x, torch_net) for x in inputs))),
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
            shapes = " and ".join(f"{','.join(map(str, x.shape))} ({x.dtype})" for x in inputs)
            reason = f"{reason_of(error)}{place_of(error)}"
            raise ParityError(
                f"the {side} net does not run on --input {shapes}: {reason}"
            ) from error
    torch_net.train(mode)
    return Case(f"{gluon} beside {theirs}", gluon_net, torch_net, inputs, labels, batches[1:])


def _float_of(net: Any) -> str:
    """The dtype in which a Gluon net takes floats: that of its parameters."""
    kinds = [np.dtype(p.dtype).name for p in net.collect_params().values()]
    return next((kind for kind in kinds if kind.startswith("float")), "float32")


def _tensor(x: np.ndarray, net: nn.Module) -> torch.Tensor:
    """An array as the net takes it: floats in the dtype of its parameters."""
    tensor = torch.from_numpy(np.ascontiguousarray(x))
    kinds = [p.dtype for p in net.parameters() if p.is_floating_point()]
    return tensor.to(kinds[0] if kinds else torch.float32) if x.dtype.kind == "f" else tensor


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
