"""Class and probability of image files: `python -m gluon_cnn.predict RUN IMAGE…`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mxnet as mx
import numpy as np

from cnn_data import ArraySplit, Batches, DataError, read_image
from cnn_harness.cli import positive, print_json, run
from gluon_cnn.engine import Loaded, add_flag, for_command
from gluon_cnn.exporting.exported import open_saved, saved_parser
from gluon_cnn.exporting.runners import Runner
from gluon_cnn.fast.fused import fused
from gluon_cnn.models import ModelError
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.saved import SavedRun

__all__ = ["main", "predict", "probabilities"]


BATCH = 64  # images at a time


def probabilities(saved: SavedRun, images: np.ndarray, engine: Loaded | None = None) -> np.ndarray:
    """Softmax of the net's outputs, float64 (n, classes), for uint8 images (n, H, W, C).

    `engine` computes the outputs (default: MXNet, where the net is). LeNet-5's outputs are
    penalties: the smallest wins, so their negatives take the softmax.
    """
    run: Runner = engine or _on_its_device(saved)
    split = ArraySplit(images, np.zeros(len(images), np.int32))
    outputs = [run(x).astype(np.float64) for x, _ in Batches(split, BATCH, saved.pixels).epoch(0)]
    scores = np.concatenate(outputs) * (-1.0 if saved.net.smallest_wins else 1.0)
    scores -= scores.max(axis=1, keepdims=True)
    exps = np.exp(scores)
    return exps / exps.sum(axis=1, keepdims=True)


def _on_its_device(saved: SavedRun) -> Runner:
    device = next(iter(saved.net.collect_params().values())).list_ctx()[0]
    run = fused(saved.net, saved.input_shape)
    return lambda x: run(mx.nd.array(x, ctx=device)).asnumpy()


def predict(
    saved: SavedRun,
    paths: Sequence[str | Path],
    *,
    invert: bool = False,
    engine: Loaded | None = None,
) -> np.ndarray:
    """Probabilities, float64 (n, classes), for image files of any size, grey or colour.

    `invert` exchanges black and white: digits are white on black in MNIST, black on white on
    paper. Raises: DataError naming the file that cannot be read.
    """
    channels, size, _ = saved.input_shape
    images = np.stack([read_image(path, size, channels, saved.fit) for path in paths])
    return probabilities(saved, 255 - images if invert else images, engine)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(lambda: _main(argv), errors=(DataError, ModelError))


def _main(argv: Sequence[str] | None) -> int:
    parser = saved_parser(
        "python -m gluon_cnn.predict",
        "Name the class of image files (PNG, JPEG; grey or colour; any size).",
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files")
    parser.add_argument(
        "--top", type=positive, default=3, help="how many classes to name per image"
    )
    parser.add_argument(
        "--invert", action="store_true", help="exchange black and white (a digit on white paper)"
    )
    add_flag(parser)
    args = parser.parse_args(argv)
    devices = find_devices(args.ctx)
    saved = open_saved(args.run, devices)
    engine = for_command(saved, args.engine, devices, min(BATCH, len(args.images)))
    shares = predict(saved, args.images, invert=args.invert, engine=engine)
    top = np.argsort(-shares, axis=1, kind="stable")[:, : args.top]
    answers = [
        {
            "image": image,
            "class": saved.class_names[best[0]],
            "probability": float(share[best[0]]),
            "top": [{"class": saved.class_names[i], "probability": float(share[i])} for i in best],
        }
        for image, share, best in zip(args.images, shares, top, strict=True)
    ]
    if args.json:
        name = "mxnet" if engine is None else engine.name
        print_json({"run": args.run, "engine": name, "predictions": answers})
        return 0
    for answer in answers:
        ranked = ", ".join(f"{t['class']} {t['probability']:.4f}" for t in answer["top"])
        print(f"{answer['image']}: {ranked}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
