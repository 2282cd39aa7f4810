"""What a net has learned and what it sees: `python -m gluon_cnn.inspect RUN IMAGE`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from cnn_data import DataError, read_image
from cnn_harness.cli import as_command, print_json
from cnn_harness.errors import CommandError
from cnn_harness.plots import save_rows
from gluon_cnn.exporting.exported import open_saved, saved_parser
from gluon_cnn.exporting.runners import rebuild
from gluon_cnn.models import ModelError
from gluon_cnn.models.base import leaves
from gluon_cnn.models.lenet5 import TableConv2D
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.saved import SavedRun
from gluon_cnn_parity.atomic import unfit

MOST_MAPS = 32  # of a layer
ACROSS = 16  # maps in a row
FRAME = (0.55, 0.7, 0.95)  # no grey: it is told from every map


def filters(saved: SavedRun) -> tuple[str, np.ndarray]:
    """Path and weights, (out, in, height, width), of the net's first convolution.

    Raises: CommandError where it has none.
    """
    for path, leaf in leaves(saved.net):
        if isinstance(leaf, nn.Conv2D | TableConv2D):
            weight = leaf.weight.data(leaf.weight.list_ctx()[0]).asnumpy()
            return path, weight.reshape(-1, *weight.shape[-3:])
    raise CommandError(f"{saved.model} has no convolution to draw")


def feature_maps(saved: SavedRun, image: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Each operation's path and output (maps, height, width) for an image uint8 (H, W, C), as far
    as outputs are maps."""
    device = next(iter(saved.net.collect_params().values())).list_ctx()[0]
    value = mx.nd.array(saved.pixels.apply(image.transpose(2, 0, 1)[None]), ctx=device)
    maps = []
    for path, leaf in leaves(saved.net):
        value = leaf(value)
        if value.ndim != 4:
            break
        if isinstance(leaf, nn.Conv2D | TableConv2D):
            maps.append((path, value[0].asnumpy()))
    return maps


def mosaic(maps: np.ndarray, across: int = ACROSS) -> np.ndarray:
    """Maps (n, H, W) or (n, H, W, 3) side by side, each stretched to 0 to 1: (rows, columns, 3)."""
    if maps.ndim == 3:
        maps = np.repeat(maps[..., None], 3, axis=3)
    count, height, width = maps.shape[:3]
    rows = math.ceil(count / across)
    gap = max(1, width // 16)
    out = np.ones((rows * (height + gap), across * (width + gap), 3))
    for i, each in enumerate(maps):
        low, high = float(each.min()), float(each.max())
        top, left = i // across * (height + gap), i % across * (width + gap)
        stretched = (each - low) / (high - low) if high > low else np.zeros_like(each)
        out[top : top + height + gap, left : left + width + gap] = FRAME
        out[top : top + height, left : left + width] = stretched
    return out


@as_command(DataError, ModelError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = saved_parser(
        "python -m gluon_cnn.inspect",
        "Draw a run's first filters (filters.png), and what each of its convolutions makes of an "
        "image (features.png).",
    )
    parser.add_argument("image", metavar="IMAGE", help="an image file")
    parser.add_argument("--out", metavar="DIR", help="where to write them; unset: the run's folder")
    args = parser.parse_args(argv)
    place = Path(args.out or args.run)
    if why := unfit(place):
        raise CommandError(f"--out {place} {why}")
    devices = find_devices(args.ctx)[:1]
    saved = open_saved(args.run, devices)
    net = rebuild(saved)  # of an export: its own net is one graph, without layers to look at
    if net is None:
        raise CommandError(f"{saved.path} holds another graph than this version's {saved.model}")
    saved = replace(saved, net=net)
    channels, size, _ = saved.input_shape
    image = read_image(args.image, size, channels, saved.fit)
    path, weights = filters(saved)
    maps = feature_maps(saved, image)
    place.mkdir(parents=True, exist_ok=True)
    files = [place / "filters.png", place / "features.png"]
    save_rows(files[0], [_drawn_filters(path, weights)], f"{saved.model}, first convolution")
    rows = [(f"the image, {size}×{size}", mosaic(_picture(image), across=8))]
    title = f"{saved.model}: what its convolutions put out for {Path(args.image).name}"
    save_rows(files[1], rows + [_drawn_maps(*each) for each in maps], title)
    if args.json:
        shapes = {name: list(each.shape) for name, each in maps}
        print_json({"run": args.run, "image": args.image, "pictures": files, "maps": shapes})
    else:
        print(f"filters in {files[0]}, feature maps in {files[1]}")
    return 0


def _drawn_filters(path: str, weights: np.ndarray) -> tuple[str, np.ndarray]:
    count, channels, height, width = weights.shape
    what = f"{path}: {count} filters of {channels}×{height}×{width}"
    if channels == 3:
        return f"{what}, in colour", mosaic(weights.transpose(0, 2, 3, 1), _across(count))
    flat = weights.reshape(-1, height, width)
    each = "" if channels == 1 else ", a channel each"
    return f"{what}{each}{_cut(len(flat))}", mosaic(flat[:MOST_MAPS], _across(len(flat)))


def _across(count: int) -> int:
    """How many filters stand side by side: few are drawn larger, to fill the line."""
    return min(ACROSS, max(count, ACROSS // 3))


def _drawn_maps(path: str, maps: np.ndarray) -> tuple[str, np.ndarray]:
    count, height, width = maps.shape
    return f"{path}: {count} maps of {height}×{width}{_cut(count)}", mosaic(maps[:MOST_MAPS])


def _cut(count: int) -> str:
    return f", the first {MOST_MAPS}" if count > MOST_MAPS else ""


def _picture(image: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, C) as one map."""
    return (image[..., 0] if image.shape[2] == 1 else image)[None].astype(float)


if __name__ == "__main__":
    sys.exit(main())
