"""Curves, grids of images and confusion matrices, each saved as a PNG to be looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gluon_cnn_parity.atomic import replacing_file

__all__ = ["save_confusion", "save_curves", "save_grid"]

TRAIN, TEST, RATE = "#4477aa", "#cc6644", "#228833"  # told apart by colour-blind readers too
_PARTS = (("train", TRAIN), ("test", TEST))


@contextmanager
def _figure(
    path: Path, width: float, height: float, layout: Literal["constrained"] | None = None
) -> Iterator[Any]:
    """A figure of so many inches to draw on, saved at `path` at the end.

    Without a `layout` it is drawn once, where matplotlib's "constrained" draws all to measure it.
    """
    from matplotlib import rc_context  # here, since importing it takes a third of a second
    from matplotlib.figure import Figure

    # Classes have the names of folders, and $ in one is no formula.
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(width, height), dpi=120, layout=layout)
        yield figure
        with replacing_file(path) as part:
            figure.savefig(part)


def save_curves(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Loss, accuracy and learning rate against the epoch, side by side.

    A dotted line marks the epoch of the best test accuracy. Rows of older versions have no rate.
    """
    with _figure(path, 11.5, 3.6) as figure:
        figure.suptitle(title)
        epochs = [row["epoch"] for row in rows]
        marker = "o" if len(rows) <= 30 else None
        best = max(rows, key=lambda row: row["test_acc"])["epoch"]
        space = {"left": 0.06, "right": 0.985, "top": 0.83, "bottom": 0.14, "wspace": 0.2}
        panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.6), gridspec_kw=space)
        for axes, quantity in zip(panels, ("loss", "accuracy", "learning rate"), strict=True):
            drawn = {"loss": _PARTS, "accuracy": _PARTS, "learning rate": (("", RATE),)}[quantity]
            for part, colour in drawn:
                name = {"loss": f"{part}_loss", "accuracy": f"{part}_acc"}.get(quantity, "lr")
                values = [row.get(name, math.nan) for row in rows]
                last = f"{part} ({values[-1]:.4f})" if part else None
                axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=last)
            label = f"best ({best})" if quantity == "accuracy" else None
            axes.axvline(best, color="#888888", linestyle=":", label=label)
            axes.set_xlabel("epoch")
            axes.set_title(quantity, loc="left", fontsize=10)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.grid(alpha=0.25)
            if quantity != "learning rate":
                axes.legend(frameon=False)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)


def save_grid(
    path: Path,
    images: np.ndarray,
    true: Sequence[str],
    predicted: Sequence[str] | None = None,
    *,
    columns: int = 10,
) -> None:
    """A grid of images (uint8, (n, H, W, C)) under their labels.

    With `predicted`, a right answer stands in grey and a wrong one in red as `predicted ≠ true`.
    """
    widest = max(map(len, true))
    cell, line, gap = (1.0 if widest <= 3 else 1.35), 0.26, 0.06  # inches
    across, down = cell, cell + line
    rows = math.ceil(len(images) / columns)
    with _figure(path, across * columns, down * rows) as figure:
        # One pair of axes in inches: drawing one for each image takes ten times as long.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        for i, image in enumerate(images):
            left, top = i % columns * across, i // columns * down
            height, width = image.shape[:2]
            inch = (cell - gap) / max(height, width)
            middle = left + cell / 2
            sides = (middle - width * inch / 2, middle + width * inch / 2)
            foot = top + line + height * inch
            axes.imshow(
                image.squeeze(), cmap="gray_r", vmin=0, vmax=255, extent=(*sides, foot, top + line)
            )
            text, colour = true[i], "#444444"
            if predicted is not None and predicted[i] != true[i]:
                text, colour = f"{predicted[i]} ≠ {true[i]}", "#cc2222"
            size = 9 if len(text) <= 12 else 7
            axes.text(middle, top + line - 0.05, text, fontsize=size, color=colour, ha="center")
        axes.set(xlim=(0, across * columns), ylim=(down * rows, 0))


def save_confusion(path: Path, counts: np.ndarray, names: Sequence[str], title: str) -> None:
    """The confusion matrix `counts[true, predicted]`, shaded by the share of each true class."""
    n = len(names)
    side = max(4.5, 0.52 * n + 1.6)
    with _figure(path, side + 0.6, side, "constrained") as figure:
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the true class")
        axes.set_xticks(range(n), names, rotation=45 if max(map(len, names)) > 3 else 0, ha="right"
                        if max(map(len, names)) > 3 else "center")  # fmt: skip
        axes.set_yticks(range(n), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title, fontsize=11)
        if n <= 30:  # beyond that numbers would overlap
            size = 9 if counts.max() < 1000 else 7
            for i, j in np.argwhere(counts):
                colour = "white" if shares[i, j] > 0.5 else "#333333"
                axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=size, color=colour)
