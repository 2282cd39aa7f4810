"""MXNet's interleaved attention, and its loss over alignments, in code that TorchScript reads.

Sequences are (T, N, heads·parts·D): for each head its queries, keys and values (or keys and
values) side by side. Attention maps are (N·heads, queries, keys).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["attend", "attend_self", "ctc_loss", "div_sqrt_dim", "scores", "scores_self"]


def _part(x: Tensor, heads: int, parts: int, which: int) -> Tensor:
    """One of the interleaved parts as (N·heads, T, D)."""
    t, n = x.size(0), x.size(1)
    split = x.reshape([t, n, heads, parts, -1]).select(3, which)
    return split.permute(1, 2, 0, 3).reshape([n * heads, t, -1])


def _joined(out: Tensor, heads: int) -> Tensor:
    """(N·heads, T, D) -> (T, N, heads·D)."""
    n, t = out.size(0) // heads, out.size(1)
    return out.reshape([n, heads, t, -1]).permute(2, 0, 1, 3).reshape([t, n, -1])


def div_sqrt_dim(x: Tensor) -> Tensor:
    """x over the root of its last axis's size."""
    return x / math.sqrt(float(x.size(-1)))


def scores_self(x: Tensor, heads: int) -> Tensor:
    """Queries by keys, over the root of D, of self attention."""
    return torch.matmul(div_sqrt_dim(_part(x, heads, 3, 0)), _part(x, heads, 3, 1).transpose(1, 2))


def attend_self(x: Tensor, attention: Tensor, heads: int) -> Tensor:
    """Attention by values, of self attention: (T, N, heads·D)."""
    return _joined(torch.matmul(attention, _part(x, heads, 3, 2)), heads)


def scores(queries: Tensor, x: Tensor, heads: int) -> Tensor:
    """Queries by the keys of another sequence."""
    keys = _part(x, heads, 2, 0).transpose(1, 2)
    return torch.matmul(div_sqrt_dim(_part(queries, heads, 1, 0)), keys)


def attend(x: Tensor, attention: Tensor, heads: int) -> Tensor:
    """Attention by the values of another sequence."""
    return _joined(torch.matmul(attention, _part(x, heads, 2, 1)), heads)


def ctc_loss(
    x: Tensor, label: Tensor, lengths: Tensor | None, sizes: Tensor | None, blank_first: bool
) -> Tensor:
    """−log p of labels (N, L) under activations (T, N, C), summed over alignments: (N,).

    Without `sizes` a label ends at its first 0 (blank first) or −1 (blank last).
    """
    blank = 0 if blank_first else x.size(2) - 1
    target = label.to(torch.int64)
    if sizes is None:
        padding = 0 if blank_first else -1
        sizes = (torch.cumsum((target == padding).to(torch.int64), 1) == 0).sum(1)
    if lengths is None:
        lengths = torch.full_like(target[:, 0], x.size(0))
    return F.ctc_loss(
        torch.log_softmax(x, 2),
        target.clamp(min=0),
        lengths.to(torch.int64),
        sizes.to(torch.int64),
        blank,
        "none",
    )
