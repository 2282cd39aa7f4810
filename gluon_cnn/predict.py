"""Class and probability of image files: `python -m gluon_cnn.predict RUN IMAGE…`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import mxnet as mx
import numpy as np

from cnn_data import ArraySplit, Batches, DataError, read_image
from cnn_harness.cli import positive, print_json, run
from gluon_cnn.exporting.exported import open_saved, saved_parser
from gluon_cnn.fast.fused import fused
from gluon_cnn.models import ModelError
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.saved import SavedRun

__all__ = ["main", "predict", "probabilities"]


def probabilities(saved: SavedRun, images: np.ndarray) -> np.ndarray:
    """Softmax of the net's outputs, float64 (n, classes), for uint8 images (n, H, W, C).

    LeNet-5's outputs are penalties: the smallest wins, so their negatives take the softmax.
    """
    device = next(iter(saved.net.collect_params().values())).list_ctx()[0]
    run = fused(saved.net, saved.input_shape)
    split = ArraySplit(images, np.zeros(len(images), np.int32))
    outputs = [
        run(mx.nd.array(x, ctx=device)).asnumpy().astype(np.float64)
        for x, _ in Batches(split, 64, saved.pixels).epoch(0)
    ]
    scores = np.concatenate(outputs) * (-1.0 if saved.net.smallest_wins else 1.0)
    scores -= scores.max(axis=1, keepdims=True)
    exps = np.exp(scores)
    return exps / exps.sum(axis=1, keepdims=True)


def predict(saved: SavedRun, paths: Sequence[str | Path], *, invert: bool = False) -> np.ndarray:
    """Probabilities, float64 (n, classes), for image files of any size, grey or colour.

    `invert` exchanges black and white: digits are white on black in MNIST, black on white on
    paper. Raises: DataError naming the file that cannot be read.
    """
    channels, size, _ = saved.input_shape
    images = np.stack([read_image(path, size, channels, saved.fit) for path in paths])
    return probabilities(saved, 255 - images if invert else images)


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
    args = parser.parse_args(argv)
    saved = open_saved(args.run, find_devices(args.ctx))
    shares = predict(saved, args.images, invert=args.invert)
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
        print_json({"run": args.run, "predictions": answers})
        return 0
    for answer in answers:
        ranked = ", ".join(f"{t['class']} {t['probability']:.4f}" for t in answer["top"])
        print(f"{answer['image']}: {ranked}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
