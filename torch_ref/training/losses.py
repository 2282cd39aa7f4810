"""The losses, one value a sample: (N, classes) and labels (N,) -> (N,).

A step sums them and divides the gradient by the batch size, as Gluon's `Trainer.step(N)` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from cnn_harness.errors import UsageError
from torch_ref.models.base import ClassicCNN

__all__ = ["RBFLoss", "cross_entropy", "loss_for"]


class RBFLoss(nn.Module):
    """LeCun et al. 1998, equation 9, for outputs of which the smallest wins:

        y_label + log(exp(−j) + Σᵢ exp(−yᵢ))

    The first term pulls the right class's distance down, the second pushes the others up, but
    hardly one that is beyond j already. The paper asks for a positive j and gives no value. Raises
    ValueError for a j that is not positive.
    """

    def __init__(self, j: float = 10.0) -> None:
        super().__init__()
        if not (math.isfinite(j) and j > 0):
            raise ValueError(f"j is {j!r}, expected a positive number")
        self.j = j

    def forward(self, distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        right = distances.gather(1, labels.long()[:, None])[:, 0]  # (N,)
        bound = distances.new_full((len(distances), 1), self.j)
        return right + torch.logsumexp(-torch.cat([distances, bound], dim=1), dim=1)

    def extra_repr(self) -> str:
        return f"j={self.j}"


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0
) -> torch.Tensor:
    """Softmax cross-entropy per sample; labels of any integer dtype, or shares (N, classes).

    The share `smoothing` of a label is spread over all classes.
    """
    target = labels if labels.dim() == 2 else labels.long()
    return F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)


def loss_for(
    net: ClassicCNN, smoothing: float = 0.0, soft: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss that trains `net`: `RBFLoss` where the smallest output wins, else cross-entropy.

    Raises: UsageError where a net with `RBFLoss` is to learn from anything but labels.
    """
    if not net.smallest_wins:
        return partial(cross_entropy, smoothing=smoothing) if smoothing else cross_entropy
    if smoothing or soft:
        raise UsageError(
            f"{net.model_name} learns from one label an image (LeCun et al. 1998, equation 9): "
            "leave out --label-smoothing and --mixup"
        )
    return RBFLoss()
