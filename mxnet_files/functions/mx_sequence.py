"""MXNet's operators on padded sequences, in code that TorchScript reads.

`axis` is that of time, 0 or 1; the batch is the other of the two. `lengths` is (batch,), of any
dtype.
"""

import torch
from torch import Tensor

from mxnet_files.functions import mx_dtype

__all__ = ["sequence_last", "sequence_mask", "sequence_reverse"]


def _places(x: Tensor, lengths: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Times and lengths, shaped to broadcast over x."""
    whole = lengths.to(torch.int64).unsqueeze(axis)  # (1, N) or (N, 1)
    times = torch.arange(x.size(axis), device=x.device).unsqueeze(1 - axis)
    rest = [1] * (x.dim() - 2)
    return times.reshape(list(times.shape) + rest), whole.reshape(list(whole.shape) + rest)


def sequence_mask(x: Tensor, lengths: Tensor, value: float, axis: int) -> Tensor:
    """x with `value` from each sequence's end on."""
    times, whole = _places(x, lengths, axis)
    return torch.where(times < whole, x, mx_dtype.number(value, x))  # of integers as MXNet casts it


def sequence_last(x: Tensor, lengths: Tensor | None, axis: int) -> Tensor:
    """The last step of each sequence, of all steps without lengths; time's axis goes."""
    if lengths is None:
        return x.select(axis, x.size(axis) - 1)
    _, whole = _places(x, lengths, axis)
    size = list(x.shape)
    size[axis] = 1
    last = (whole - 1).clamp(min=0).expand(size)
    return x.gather(axis, last).squeeze(axis)


def sequence_reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence backwards, what pads it left in its place; time is axis 0."""
    if lengths is None:
        return x.flip([0])
    times, whole = _places(x, lengths, 0)
    source = torch.where(times < whole, whole - 1 - times, times)
    return x.gather(0, source.expand(x.shape))
