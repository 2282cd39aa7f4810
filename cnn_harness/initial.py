"""Initial weights drawn in numpy, one generator per parameter, so that both frameworks start equal.

MXNet's and PyTorch's generators are unrelated, and MXNet's GPU and CPU streams differ too. A
parameter's first value here depends on the seed and on its own path alone: not on the order of
construction, the framework, the device or the thread count.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np

__all__ = ["INITIALISERS", "generator", "initial_arrays"]

INITIALISERS = ("xavier", "he", "gluon", "lecun98")


def initial_arrays(
    shapes: Mapping[str, tuple[int, ...]], initialiser: str, seed: int
) -> dict[str, np.ndarray]:
    """First values, float32, for the trainable parameters of a net, by structural path.

    - `xavier`: weights U(±√(6 / (fan_in + fan_out))), biases 0 (Glorot and Bengio 2010, equation
      16; MXNet's `init.Xavier()`, PyTorch's `xavier_uniform_`)
    - `he`: weights N(0, 2 / fan_in), biases 0 (He et al. 2015, equation 10)
    - `gluon`: weights U(±0.07), biases 0 (Gluon's plain `initialize()`)
    - `lecun98`: weights and biases U(±2.4 / fan_in) (LeCun et al. 1998, appendix A); one-weight
      subsampling units count their four inputs and start at the mean, 1/4

    `gamma` starts at 1 and `beta` at 0 under every initialiser. `shapes` maps Gluon's structural
    names to shapes; fans count the receptive field, as both frameworks do.
    """
    if initialiser not in INITIALISERS:
        raise ValueError(
            f"initialiser is {initialiser!r}, expected one of {', '.join(INITIALISERS)}"
        )
    return {path: _first(path, shape, shapes, initialiser, seed) for path, shape in shapes.items()}


def generator(path: str, *seed: int) -> np.random.Generator:
    """The stream of random numbers of one tensor: of its path, a seed, and a step if there is one.

    Its numbers do not depend on what else is drawn, nor on when.

    >>> generator("features.0.weight", 0).random(2)
    array([0.09436705, 0.3191733 ])
    """
    # crc32 is stable between Python runs, which hash() is not
    return np.random.default_rng([*seed, zlib.crc32(path.encode())])


def _first(
    path: str,
    shape: tuple[int, ...],
    shapes: Mapping[str, tuple[int, ...]],
    initialiser: str,
    seed: int,
) -> np.ndarray:
    role = path.rpartition(".")[2]
    if role == "gamma":
        return np.ones(shape, np.float32)
    if role == "beta" or (role == "bias" and initialiser != "lecun98"):
        return np.zeros(shape, np.float32)
    draw = generator(path, seed)
    stem = path.rpartition(".")[0]
    fan_in, fan_out = _fans(shapes[stem + ".weight"], shapes.get(stem + ".bias", (1,)))
    if initialiser == "he":
        return draw.normal(0.0, math.sqrt(2.0 / fan_in), shape).astype(np.float32)
    if initialiser == "lecun98" and role == "weight" and len(shape) == 1:
        return np.full(shape, 0.25, np.float32)
    bound = {
        "xavier": math.sqrt(6.0 / (fan_in + fan_out)),
        "gluon": 0.07,
        "lecun98": 2.4 / fan_in,
    }[initialiser]
    return draw.uniform(-bound, bound, shape).astype(np.float32)


def _fans(weight: tuple[int, ...], bias: tuple[int, ...]) -> tuple[float, float]:
    if len(weight) == 1:  # a subsampling unit: 2×2 inputs share one weight
        return 4, 1
    if len(weight) == 3:  # LeNet-5's packed C3: (connected planes, 5, 5), spread over the maps
        mean_fan = math.prod(weight) / bias[0]
        return mean_fan, mean_fan
    field = math.prod(weight[2:])
    return weight[1] * field, weight[0] * field
