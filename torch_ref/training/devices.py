"""`--ctx` text to a torch device."""

from __future__ import annotations

import re

import torch

from cnn_harness.errors import UsageError

__all__ = ["find_device", "switches"]


def find_device(text: str) -> torch.device:
    """`auto` (a GPU if there is one), `cpu`, `gpu` or `gpu:1`; the mirror runs on one device.

    Raises: UsageError for anything else, and for a GPU that is not there.
    """
    available = torch.cuda.device_count()
    if text == "auto":
        return torch.device("cuda:0" if available else "cpu")
    match = re.fullmatch(r"(cpu|gpu)(?::(\d{1,4}))?", text)
    if match is None:
        raise UsageError(f"--ctx is {text!r}, expected auto, cpu, gpu, or one device such as gpu:1")
    if match[1] == "cpu":
        return torch.device("cpu")
    number = int(match[2] or "0")
    if number >= available:
        raise UsageError(
            f"--ctx is {text!r}, but torch {torch.__version__} sees {available} GPUs here: "
            "use --ctx cpu"
        )
    return torch.device("cuda", number)


def switches(ctx: str, tf32: bool, autotune: bool) -> list[str]:
    """Set how a GPU rounds and chooses its algorithms; returns what to say of it, here nothing."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = autotune
    torch.backends.cudnn.deterministic = not autotune
    return []
