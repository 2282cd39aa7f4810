"""Writes what a torch net executed as Python that needs nothing but torch."""

from __future__ import annotations

from parity_tests.backends.leaves import ParityError
from parity_tests.backends.torch.tracing.replay import ReplayCall
from parity_tests.backends.tracing import pass_on
from parity_tests.pairing.graph import Operation

HEAD = """\
import os

import numpy as np
import torch


def array(name):
    values = torch.from_numpy(arrays[name])
    return values.to(dtype) if values.is_floating_point() else values


"""


def call(operation: Operation, arrays: list[str]) -> str | None:
    """An operation on these expressions. Raises ParityError for one that cannot be written so."""
    replay = operation.replay
    if replay is pass_on:
        return None
    if not isinstance(replay, ReplayCall):
        raise ParityError(f"{operation.kind} cannot be written as a script of its own")
    try:
        return replay.written(arrays)
    except ValueError as error:
        raise ParityError(f"{operation.kind}: {error}") from error
