"""The losses that train the models, each one value per sample, (N,)."""

from __future__ import annotations

import math
from typing import Any

import mxnet as mx
from mxnet.gluon import loss as gluon_loss

from cnn_harness.errors import UsageError
from gluon_cnn.models import ClassicCNN

__all__ = ["CrossEntropy", "RBFLoss", "cross_entropy", "loss_for"]


class RBFLoss(gluon_loss.Loss):
    """LeNet-5's discriminative loss: LeCun et al. 1998, equation 9, per sample.

        E = y_D + log(exp(−j) + Σᵢ exp(−yᵢ))

    y (N, classes) are the RBF units' distances, D (N,) the right classes. The first term pulls
    the right unit's distance down; the second pushes the others up, and less and less once they
    are well beyond j: the constant keeps it from pushing what is far enough already. The paper
    asks for a positive j and names no value; 10 is a quarter of the least distance between two of
    the drawn digits. Raises ValueError for a j that is not positive.
    """

    def __init__(self, j: float = 10.0) -> None:
        if not (math.isfinite(j) and j > 0):
            raise ValueError(f"j is {j!r}, expected a positive number")
        super().__init__(weight=None, batch_axis=0)
        self.j = j

    def hybrid_forward(self, F: Any, pred: Any, label: Any) -> Any:
        right = F.pick(pred, label, axis=1)  # (N,)
        # Distances reach the hundreds and exp(−100) is 0 in float32, so the smallest exponent is
        # taken out of the sum; no gradient flows through it, since it cancels.
        least = F.BlockGrad(F.minimum(F.min(pred, axis=1), self.j))  # (N,)
        nearness = F.exp(F.broadcast_sub(least.expand_dims(1), pred))  # (N, classes)
        total = F.sum(nearness, axis=1) + F.exp(least - self.j)
        return (right - least) + F.log(total)


class CrossEntropy(gluon_loss.SoftmaxCrossEntropyLoss):
    """Softmax cross-entropy of logits (N, classes) and labels (N,): (N,). Gluon's, to the bit.

    Gluon's takes a mean over the one value that is left of each sample. `soft` labels are shares
    of the classes, (N, classes). Of a label the share `smoothing` is spread over all classes
    (Szegedy et al. 2015, section 7).
    """

    def __init__(self, smoothing: float = 0.0, soft: bool = False) -> None:
        super().__init__(sparse_label=not soft)
        self.smoothing = smoothing

    def hybrid_forward(self, F: Any, pred: Any, label: Any) -> Any:
        scores = F.log_softmax(pred, axis=1)
        if self._sparse_label:
            loss = -F.pick(scores, label, axis=1)
        else:
            loss = -F.sum(scores * label, axis=1)
        if not self.smoothing:
            return loss
        return (1 - self.smoothing) * loss - self.smoothing * F.mean(scores, axis=1)


def cross_entropy(
    logits: mx.nd.NDArray, labels: mx.nd.NDArray, smoothing: float = 0.0
) -> mx.nd.NDArray:
    """−log softmax(logits)[label] for logits (N, classes) and labels (N,), or shares (N, classes):
    (N,). Of a label the share `smoothing` is spread over all classes."""
    return CrossEntropy(smoothing, labels.ndim == 2)(logits, labels)


def loss_for(net: ClassicCNN, smoothing: float = 0.0, soft: bool = False) -> gluon_loss.Loss:
    """The loss a net is trained with: `RBFLoss` where the smallest output wins, else softmax
    cross-entropy on logits.

    Raises: UsageError where a net that learns by `RBFLoss` is to learn from anything but labels.
    """
    if not net.smallest_wins:
        return CrossEntropy(smoothing, soft)
    if smoothing or soft:
        raise UsageError(
            f"{net.model_name} learns from one label an image (LeCun et al. 1998, equation 9): "
            "leave out --label-smoothing and --mixup"
        )
    return RBFLoss()
