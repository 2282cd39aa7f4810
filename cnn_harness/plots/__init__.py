"""Curves, grids of images and confusion matrices, each saved as a PNG to be looked at."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnn_harness.plots import fonts
from cnn_harness.plots.fonts import font_families
from gluon_cnn_parity.atomic import replacing_file
from gluon_cnn_parity.cli import one_line, printable
from gluon_cnn_parity.terminal import loss_text

__all__ = ["save_confusion", "save_curves", "save_errors", "save_grid", "save_rows"]

TRAIN, TEST, RATE = "#4477aa", "#cc6644", "#228833"  # told apart by colour-blind readers too
PLAIN, RIGHT, WRONG = "#444444", "#117733", "#cc2222"
_PARTS = (("train", TRAIN), ("test", TEST))


def shaped(text: str) -> str:
    """The text as it is drawn: what is not UTF-8 escaped, letters as their script has them."""
    return fonts.shaped(printable(text))


@contextmanager
def _figure(
    path: Path,
    width: float,
    height: float,
    texts: Sequence[str],
    layout: Literal["constrained"] | None = None,
) -> Iterator[Any]:
    """A figure of so many inches to draw `texts` on, saved at `path` at the end.

    Without a `layout` it is drawn once, where matplotlib's "constrained" draws all to measure it.
    """
    from matplotlib import rc_context  # here, since importing it takes a third of a second
    from matplotlib.figure import Figure

    # Classes have the names of folders, and $ in one is no formula.
    with rc_context(
        {"text.parse_math": False, "font.family": font_families([*map(printable, texts)])}
    ):
        figure = Figure(figsize=(width, height), dpi=120, layout=layout)
        yield figure
        with replacing_file(path) as part, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # it has been said
            figure.savefig(part)


def save_curves(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Loss, accuracy and learning rate against the epoch, side by side.

    A dotted line marks the epoch of the best test accuracy. Rows of older versions have no rate.
    """
    title = shaped(_fitting(title, 11.5, 12))
    with _figure(path, 11.5, 3.6, [title]) as figure:
        figure.suptitle(title)
        epochs = [row["epoch"] for row in rows]
        marker = "o" if len(rows) <= 30 else None
        best = max(rows, key=lambda row: row["test_acc"])["epoch"]
        space = {"left": 0.06, "right": 0.985, "top": 0.83, "bottom": 0.14, "wspace": 0.26}
        panels = figure.subplots(1, 3, width_ratios=(1, 1, 0.6), gridspec_kw=space)
        for axes, quantity in zip(panels, ("loss", "accuracy", "learning rate"), strict=True):
            drawn = {"loss": _PARTS, "accuracy": _PARTS, "learning rate": (("", RATE),)}[quantity]
            for part, colour in drawn:
                name = {"loss": f"{part}_loss", "accuracy": f"{part}_acc"}.get(quantity, "lr")
                values = [row.get(name, math.nan) for row in rows]
                last = f"{part} ({loss_text(values[-1])})" if part else None
                axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, label=last)
            label = f"best ({best})" if quantity == "accuracy" else None
            axes.axvline(best, color="#888888", linestyle=":", label=label)
            axes.set_xlabel("epoch")
            axes.set_title(quantity, loc="left", fontsize=10)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.grid(alpha=0.25)
            if quantity != "learning rate":
                axes.legend(frameon=False)
            else:  # in few characters, however low it is: the panel beside it is near
                axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)


def save_grid(
    path: Path,
    images: np.ndarray,
    true: Sequence[str],
    predicted: Sequence[str] | None = None,
    *,
    notes: Sequence[str] | None = None,
    files: Sequence[str] | None = None,
    columns: int = 10,
) -> None:
    """A grid of images (uint8, (n, H, W, C)) under their labels, each with its note, and under
    the names of their files, if there are.

    With `predicted`, a right answer stands in grey and a wrong one in red as `predicted ≠ true`.
    """
    lines = []
    for i, name in enumerate(true):
        text, colour = shaped(name), PLAIN  # one by one: joined, names would change places
        if predicted is not None and predicted[i] != name:
            text, colour = f"{shaped(predicted[i])} ≠ {text}", WRONG
        lines.append([(text + (f" {notes[i]}" if notes is not None else ""), colour)])
        if files is not None:
            lines[-1].insert(0, (shaped(_fitting(one_line(files[i]), 1.35, 7)), PLAIN))
    widest = max(map(len, true))
    _draw_grid(
        path, images, lines, columns=columns,
        cell=1.0 if widest <= 3 and files is None else 1.35,
        title="" if predicted is None else "grey: right; red: predicted ≠ true",
    )  # fmt: skip


def save_errors(
    path: Path,
    images: np.ndarray,
    said: Sequence[tuple[str, float]],
    true: Sequence[str],
    files: Sequence[str],
    title: str,
) -> None:
    """Images under their files' names, what a net says of each, with its probability, and what each
    is in truth."""
    lines = [
        [
            (shaped(_fitting(one_line(file), 1.75, 7)), PLAIN),
            (f"said: {shaped(_short(name, 13))} ({share:.0%})", WRONG),
            (f"true: {shaped(_short(right, 18))}", RIGHT),
        ]
        for file, (name, share), right in zip(files, said, true, strict=True)
    ]
    _draw_grid(path, images, lines, cell=1.75, columns=5, title=title)


def save_rows(path: Path, rows: Sequence[tuple[str, np.ndarray]], title: str) -> None:
    """Pictures (floats of 0 to 1, (H, W) or (H, W, 3)) of one width, each under its own text."""
    width, line, margin = 10.0, 0.3, 0.12  # inches
    heights = [line + width * picture.shape[0] / picture.shape[1] for _, picture in rows]
    title = shaped(_fitting(title, width, 11))
    with _figure(path, width + 2 * margin, line + sum(heights) + margin, [title]) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(0, line - 0.08, title, fontsize=11)
        top = line
        for (text, picture), height in zip(rows, heights, strict=True):
            axes.text(0, top + line - 0.08, shaped(text), fontsize=9, color=PLAIN)
            # Larger than it is drawn, then averaged: frames one pixel wide stay equally wide.
            times = math.ceil(2400 / picture.shape[1])
            large = picture.repeat(times, axis=0).repeat(times, axis=1)
            axes.imshow(large, cmap="gray", vmin=0, vmax=1, interpolation="antialiased",
                        extent=(0, width, top + height, top + line))  # fmt: skip
            top += height
        axes.set(xlim=(-margin, width + margin), ylim=(top + margin, 0))


def _draw_grid(
    path: Path,
    images: np.ndarray,
    lines: Sequence[Sequence[tuple[str, str]]],
    *,
    cell: float,
    columns: int,
    title: str = "",
) -> None:
    """Images in cells of so many inches, each under its lines of text, (text, colour)."""
    line, gap = 0.2, 0.06  # inches
    head = 0.3 if title else 0.0
    above = 0.06 + line * max(map(len, lines))
    across, down = cell, cell + above
    columns = min(columns, max(len(images), 3))
    rows = math.ceil(len(images) / columns)
    texts = [text for each in lines for text, _ in each]
    size = 9 if max(map(len, texts), default=0) <= 9 * cell else 7
    with _figure(path, across * columns, head + down * rows, [*texts, title]) as figure:
        # One pair of axes in inches: drawing one for each image takes ten times as long.
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(0.08, 0.21, shaped(title), fontsize=10)
        for i, image in enumerate(images):
            left, top = i % columns * across, head + i // columns * down
            height, width = image.shape[:2]
            inch = (cell - gap) / max(height, width)
            middle = left + cell / 2
            sides = (middle - width * inch / 2, middle + width * inch / 2)
            foot = top + above + height * inch
            axes.imshow(
                image.squeeze(), cmap="gray", vmin=0, vmax=255, extent=(*sides, foot, top + above)
            )
            for n, (text, colour) in enumerate(lines[i]):
                y = top + above - 0.05 - line * (len(lines[i]) - 1 - n)
                axes.text(middle, y, text, fontsize=size, color=colour, ha="center")
        axes.set(xlim=(0, across * columns), ylim=(head + down * rows, 0))


def save_confusion(path: Path, counts: np.ndarray, names: Sequence[str], title: str) -> None:
    """The confusion matrix `counts[true, predicted]`: right answers in blue, mistakes in red.

    Each is shaded by its share of the true class; mistakes up to the largest share of them, so
    that they are seen where there are few. Where there are none there is no scale of them either.
    """
    n = len(names)
    side = min(max(4.5, 0.52 * n + 1.6), 24.0)
    names = [shaped(_short(name, 40)) for name in names]
    title = shaped(_fitting(title, side, 11))
    with _figure(path, side + 0.6, side, [*names, title], "constrained") as figure:
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        diagonal = np.eye(n, dtype=bool)
        mistakes = np.where(diagonal, np.nan, shares)
        most = float(np.max(shares, where=~diagonal, initial=0))
        axes.imshow(np.where(diagonal, shares, np.nan), cmap="Blues", vmin=0, vmax=1.2)
        shown = axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=most * 1.2 or 1)
        if most:
            label = "mistakes: share of the true class"
            bar = figure.colorbar(shown, ax=axes, shrink=0.8, label=label)
            bar.ax.set_ylim(0, most)  # no share is larger, and no cell as dark as the map's end
            bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.3g}")
        step = math.ceil(n / 60)  # names and ticks that would overlap are left out
        turned = max(map(len, names)) > 3 or n > 30
        axes.set_xticks(range(0, n, step), names[::step], rotation=45 if turned else 0,
                        ha="right" if turned else "center")  # fmt: skip
        axes.set_yticks(range(0, n, step), names[::step])
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        figure.suptitle(title, fontsize=11)  # over all: names may push the axes aside
        if n <= 30:  # beyond that numbers would overlap
            size = 9 if counts.max() < 1000 else 7
            for i, j in np.argwhere(counts):
                dark = shares[i, j] > (0.6 if i == j else 0.7 * most)
                axes.text(
                    j, i, counts[i, j], ha="center", va="center", fontsize=size,
                    color="white" if dark else "#222222", weight="normal" if i == j else "bold",
                    family=fonts.OWN,  # others may have nothing bold, which matplotlib warns of
                )  # fmt: skip


def _fitting(text: str, inches: float, size: float) -> str:
    """A line as it fits into so many inches, in letters of so many points: cut in its middle.

    A path begins with what is common to many, and ends with what tells it from others.
    """
    most = int(inches * 72 / (0.62 * size))  # a letter is some 0.62 times as wide as it is high
    if len(text) <= most:
        return text
    return text[: most // 2 - 1] + "…" + text[len(text) - (most - most // 2) :]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
