"""torch's losses by name, and a user's own as the mean of the batch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch.nn import functional

from parity_tests.backends.runs import Loss


def _softmax_ce(y: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return _each(functional.cross_entropy(y, label.long(), reduction="none"))  # checked before


def _l2(y: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    squares = functional.mse_loss(y, label.to(y.dtype).reshape(y.shape), reduction="none")
    return _each(squares) / 2  # as Gluon's


def _l1(y: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return _each(functional.l1_loss(y, label.to(y.dtype).reshape(y.shape), reduction="none"))


def _sigmoid_bce(y: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    label = label.to(y.dtype).reshape(y.shape)
    return _each(functional.binary_cross_entropy_with_logits(y, label, reduction="none"))


def _each(values: torch.Tensor) -> torch.Tensor:
    """The mean of each sample, (N,)."""
    return values if values.ndim == 1 else values.reshape(values.shape[0], -1).mean(1)


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"softmax_ce": _softmax_ce, "l2": _l2, "l1": _l1, "sigmoid_bce": _sigmoid_bce}
)


def averaged(loss: Loss) -> Loss:
    """A loss of (output, labels) as (N,) equal values: the mean of what it gives, in any shape."""

    def each(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        count = output.shape[0]
        value = _of_classes(loss, output, labels)
        if value.numel() > 1 and value.shape[0] != count:
            shape = tuple(value.shape)
            raise ValueError(f"the loss is {shape}, expected ({count},) or a single number")
        return value.mean().expand(count)

    return each


def _of_classes(loss: Loss, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A loss of these labels, of classes in floats as of classes: Gluon's losses take both."""
    try:
        value: torch.Tensor = loss(output, labels)
    except (RuntimeError, IndexError) as error:
        if not labels.is_floating_point():
            raise
        if not torch.equal(labels, labels.round()):
            words = (
                "the labels are no classes; give whole numbers, or a torch loss that takes these"
            )
            raise ValueError(f"{words} ({error})") from error
        value = loss(output, labels.long())
    return value


def label_tensor(labels: np.ndarray, dtype: str) -> torch.Tensor:
    """Labels as torch's losses take them: classes as int64, numbers in the dtype of the net."""
    kind = dtype if labels.dtype.kind == "f" else "int64"
    return torch.from_numpy(np.ascontiguousarray(labels).astype(kind))
