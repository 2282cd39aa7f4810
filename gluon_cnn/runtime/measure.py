"""Times training steps of a model under the settings in force: `gluon_cnn.runtime --tune`.

`python -m gluon_cnn.runtime.measure MODEL BATCH SECONDS` prints one JSON object.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import mxnet as mx
import numpy as np

from cnn_harness.cli import print_json
from gluon_cnn.models import ClassicCNN, get_model
from gluon_cnn.training.assembly import Objective
from gluon_cnn.training.loop import train_step
from gluon_cnn.training.parallel import combining_trainer
from gluon_cnn.training.staging import Staging

LEAST = 3  # steps that are timed, however long they take


def training_step(net: ClassicCNN, x: np.ndarray, y: np.ndarray) -> Callable[[], None]:
    """One update on images x (N, C, H, W) and labels y (N,) of a new net, as `train` makes it.

    It has ended when the call returns.
    """
    net.initialize(mx.init.Xavier())
    objective = Objective(net)
    objective.hybridize(static_alloc=True, static_shape=True)
    trainer = combining_trainer(net.collect_params(), "adam", {"learning_rate": 1e-5}, [mx.cpu()])
    staging = Staging([mx.cpu()])

    def step() -> None:
        train_step(objective, trainer, [(staging(x), staging(y))], len(x))
        mx.nd.waitall()

    return step


def step_seconds(model: str, batch: int, seconds: float) -> list[float]:
    """How long each training step on `batch` random images took, for `seconds` after a first."""
    net = get_model(model)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *net.input_shape), dtype=np.float32)
    y = rng.integers(0, net.classes, batch)
    step = training_step(net, x, y)
    times: list[float] = []
    began = 0.0
    while len(times) <= LEAST or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
        began = began or time.perf_counter()
    return times[1:]


def main(argv: Sequence[str] | None = None) -> int:
    """The process; returns 0."""
    model, batch, seconds = sys.argv[1:] if argv is None else argv
    times = step_seconds(model, int(batch), float(seconds))
    print_json({"seconds": statistics.median(times), "steps": len(times)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
