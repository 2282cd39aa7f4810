"""`--ctx` text to MXNet contexts."""

from __future__ import annotations

import re

import mxnet as mx

from cnn_harness.errors import UsageError
from gluon_cnn.runtime import settings as runtime

__all__ = ["find_devices", "switches", "why_cpu"]


def find_devices(text: str) -> list[mx.Context]:
    """`auto` (the first GPU that MXNet runs on, if there is one), `cpu`, `gpu`, `gpu:1`, `gpu:0,1`
    or `cpu:0,1`.

    Raises: UsageError for anything else, and for a GPU that is not there or cannot be used, saying
    why.
    """
    available = mx.context.num_gpus()
    if text == "auto":
        return [_first_usable(available)]
    match = re.fullmatch(r"(cpu|gpu)(?::(\d{1,4}(?:,\d{1,4})*))?", text)
    if match is None:
        raise UsageError(f"--ctx is {text!r}, expected auto, cpu, gpu, or devices such as gpu:0,1")
    numbers = [int(number) for number in (match[2] or "0").split(",")]
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"--ctx is {text!r}: a device is named twice")
    if match[1] == "cpu":
        return [mx.cpu(number) for number in numbers]
    for number in numbers:
        refusal = _refusal(number, available)
        if refusal:
            raise UsageError(f"--ctx is {text!r}: {refusal}; use --ctx cpu")
    return [mx.gpu(number) for number in numbers]


def why_cpu() -> str:
    """What keeps `--ctx auto` from a GPU, where the GPU wheel is installed; empty otherwise."""
    cuda = runtime.cuda()
    if cuda is None or cuda.usable:
        return ""
    return cuda.problem or cuda.refusal(0)


def switches(ctx: str, tf32: bool, autotune: bool) -> list[str]:
    """What to say of `--ctx auto`, and of `--tf32` and `--autotune`, which the runtime has settled:
    CUDA's libraries read them while they load.
    """
    remarks = []
    if ctx == "auto" and (why := why_cpu()):
        remarks.append(f"--ctx auto: computing on the CPU, since {why}")
    if runtime.cuda() is not None:
        late = runtime.switched_off()
        for flag, asked in (("--tf32", tf32), ("--autotune", autotune)):
            if asked and flag in late:
                remarks.append(f"{flag} comes too late: it is read before MXNet is imported")
    return remarks


def _first_usable(available: int) -> mx.Context:
    for number in range(available):
        if not _refusal(number, available):
            return mx.gpu(number)
    return mx.cpu()


def _refusal(number: int, available: int) -> str:
    """Why GPU `number` cannot be used; empty where it can."""
    cuda = runtime.cuda()
    if cuda is None:
        return (
            f"MXNet {mx.__version__} is the build for the CPU here: install the one for GPUs with "
            "pip install -e '.[gpu]'"
        )
    if cuda.refusal(number):
        return cuda.refusal(number)
    return "" if number < available else f"MXNet sees {available} GPUs"
