"""What explains a batch that one framework sees and the other does not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cnn_data import Batches
from parity_tests.levels.diagnosis.hypotheses import Explanation, close, explained, only_explanation

Batch = tuple[np.ndarray, np.ndarray]


def explain_images(
    ours: np.ndarray, theirs: np.ndarray, batches: Batches, epoch: int, number: int
) -> str:
    """What makes torch's images (N, C, H, W) of Gluon's, or where in Gluon's stream they are."""
    if ours.shape != theirs.shape:
        return ""
    name = explained(ours, theirs, role="image")
    if name:
        return name
    return only_explanation(_explanations(ours, theirs, batches, epoch, number))


def _explanations(
    ours: np.ndarray, theirs: np.ndarray, batches: Batches, epoch: int, number: int
) -> Iterator[Explanation]:
    places = {"repeated batch": (epoch, number - 1), "skipped batch": (epoch, number + 1),
              "repeated epoch": (epoch - 1, number)}  # fmt: skip
    elsewhere = False
    for name, (other, place) in places.items():
        if other < 0 or not 0 <= place < len(batches):
            continue
        if np.array_equal(_images(batches, other, place), theirs):
            yield Explanation(name, f"they are Gluon's batch {place + 1} of epoch {other}")
            elsewhere = True
    if elsewhere:
        return
    known = {x.tobytes() for images, _ in batches.epoch(epoch) for x in images}
    if all(np.ascontiguousarray(x).tobytes() in known for x in theirs):
        yield Explanation("another order", "each of them is in Gluon's epoch, in another place")
        return
    yield from _affine(ours.astype(np.float64), theirs.astype(np.float64))


def _images(batches: Batches, epoch: int, number: int) -> np.ndarray:
    return next(iter(batches.epoch(epoch, start=number)))[0]


def _affine(ours: np.ndarray, theirs: np.ndarray) -> Iterator[Explanation]:
    """One scale and one offset a channel: pixels that were normalised otherwise."""
    scales = []
    for channel in range(ours.shape[1]):
        a, b = ours[:, channel], theirs[:, channel]
        spread = a - a.mean()
        square = float((spread * spread).sum())
        if not square:
            return
        scale = float((spread * b).sum()) / square
        offset = float(b.mean() - scale * a.mean())
        if not scale or not close(scale * a + offset, b, 2.0**-20):
            return
        scales.append(f"{scale:.4g}·x {offset:+.4g}")
    yield Explanation("other mean and deviation", f"torch's are {', '.join(scales)} of Gluon's x")


def explain_labels(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Labels that are counted from another number, or out of step with their images."""
    if ours.shape != theirs.shape:
        return ""
    explanations = []
    for shift in (1, -1):
        if np.array_equal(ours + shift, theirs):
            explanations.append(Explanation("labels off by one", f"torch's are Gluon's {shift:+d}"))
        if np.array_equal(np.roll(ours, shift), theirs):
            explanations.append(
                Explanation("rolled rows", f"torch's are Gluon's, {shift:+d} images on")
            )
    return only_explanation(iter(explanations))
