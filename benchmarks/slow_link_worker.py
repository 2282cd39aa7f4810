"""One worker of `benchmarks.slow_link`: times exchanges of a model's gradients."""

from __future__ import annotations

import json
import statistics
import sys
import time

import gluon_cnn  # noqa: F401  (settles MXNet's threads before it loads)

# isort: split
import mxnet as mx

from gluon_cnn.models import get_model


def gradient_shapes(model: str) -> list[tuple[int, ...]]:
    """The shapes of a model's gradients in the order in which a Trainer counts them."""
    parameters = sorted(get_model(model, 10).collect_params().items())
    return [parameter.shape for _, parameter in parameters if parameter.grad_req != "null"]


def main(model: str, rounds: int) -> None:
    store = mx.kv.create("dist_sync")
    gradients = [mx.nd.ones(shape) for shape in gradient_shapes(model)]
    for key, gradient in enumerate(gradients):
        store.broadcast(key, gradient, out=gradient)
    seconds = []
    for number in range(rounds + 1):  # the first fills buffers
        store._barrier()
        began = time.perf_counter()
        for key, gradient in enumerate(gradients):
            store.pushpull(key, gradient, priority=-key)
        mx.nd.waitall()
        if number:
            seconds.append(time.perf_counter() - began)
    sizes = [4 * int(gradient.size) for gradient in gradients]
    print(json.dumps({"seconds": statistics.median(seconds), "sizes": sizes}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
