"""`--ctx` text to MXNet contexts."""

from __future__ import annotations

import re

import mxnet as mx

from harness.errors import UsageError

__all__ = ["contexts"]


def contexts(text: str) -> list[mx.Context]:
    """`auto` (a GPU if there is one), `cpu`, `gpu`, `gpu:1`, `gpu:0,1` or `cpu:0,1`.

    Raises: UsageError for anything else, and for a GPU that is not there.
    """
    available = mx.context.num_gpus()
    if text == "auto":
        return [mx.gpu()] if available else [mx.cpu()]
    match = re.fullmatch(r"(cpu|gpu)(?::(\d{1,4}(?:,\d{1,4})*))?", text)
    if match is None:
        raise UsageError(f"--ctx is {text!r}, expected auto, cpu, gpu, or devices such as gpu:0,1")
    numbers = [int(number) for number in (match[2] or "0").split(",")]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--ctx is {text!r}: a device is named twice")
    if match[1] == "cpu":
        return [mx.cpu(number) for number in numbers]
    missing = [str(number) for number in numbers if number >= available]
    if missing:
        raise UsageError(
            f"--ctx is {text!r}, but MXNet {mx.__version__} sees {available} GPUs here: use "
            "--ctx cpu, or install the GPU build with pip install -e '.[gpu]'"
        )
    return [mx.gpu(number) for number in numbers]
