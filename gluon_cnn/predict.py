"""Class and probability of image files: `python -m gluon_cnn.predict RUN IMAGE…`."""

from __future__ import annotations

import argparse
import csv
import glob
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from cnn_data import ArraySplit, Batches, DataError, read_image
from cnn_harness.cli import Parser, as_command, json_text, positive, print_json
from cnn_harness.errors import CommandError
from cnn_harness.plots import save_grid
from gluon_cnn.engine import Loaded, add_flag, for_command
from gluon_cnn.exporting.exported import open_saved, saved_parser
from gluon_cnn.exporting.runners import Runner
from gluon_cnn.fast.fused import fused
from gluon_cnn.models import ModelError
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.saved import SavedRun
from gluon_cnn_parity.atomic import unfit, write_text
from gluon_cnn_parity.cli import one_line, printable

BATCH = 64  # images at a time
MOST_DRAWN = 100  # images in a grid
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
)


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
    paper. Raises: DataError naming every file that cannot be read.
    """
    _, shares = predict_readable(saved, paths, invert=invert, engine=engine)
    return shares


def predict_readable(
    saved: SavedRun,
    paths: Sequence[str | Path],
    *,
    invert: bool = False,
    engine: Loaded | None = None,
    skip_damaged: bool = False,
) -> tuple[list[str | Path], np.ndarray]:
    """The files that can be read, with `skip_damaged`, and their probabilities, as `predict`."""
    channels, size, _ = saved.input_shape
    readable: list[str | Path] = []
    damaged: list[str] = []
    parts = [np.zeros((0, len(saved.class_names)))]
    for start in range(0, len(paths), BATCH):  # not all in memory at once
        images = []
        for path in paths[start : start + BATCH]:
            try:
                images.append(read_image(path, size, channels, saved.fit))
                readable.append(path)
            except DataError as error:
                damaged.append(str(error))
        if images and (skip_damaged or not damaged):
            batch = np.stack(images)
            parts.append(probabilities(saved, 255 - batch if invert else batch, engine))
    if damaged and not (skip_damaged and readable):
        some = f"{len(damaged)} of {len(paths)} images cannot be read: " if damaged[1:] else ""
        raise DataError(some + "; ".join(damaged))
    for reason in damaged:
        print(one_line(f"left out: {reason}"), file=sys.stderr)
    return readable, np.concatenate(parts)


def find_images(words: Sequence[str]) -> list[str]:
    """Image files by name, in folders and below them, and by patterns (`'photos/**/*.jpg'`).

    Each once, whatever names it. Raises: CommandError where a folder holds none, or a pattern fits
    none.
    """
    found: list[str] = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            found += (inside := _below(path))
            if not inside:
                raise CommandError(f"{word} holds no image ({', '.join(sorted(SUFFIXES))})")
        elif not path.exists() and glob.has_magic(word):
            fitting = sorted(n for n in glob.glob(word, recursive=True) if not Path(n).is_dir())
            if not fitting:
                raise CommandError(f"{word!r} fits no file; check the pattern, and the folder")
            found += fitting
        else:
            found.append(word)
    once: dict[str, str] = {}
    for name in found:
        once.setdefault(os.path.abspath(name), name)
    return list(once.values())


def _below(folder: Path) -> list[str]:
    """The images in a folder and below it, without what is hidden."""
    found = []
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and not path.is_dir():
            found.append(str(path))
    return sorted(found)


def _parser() -> Parser:
    parser = saved_parser(
        "python -m gluon_cnn.predict",
        "Name the class of image files (PNG, JPEG and others; grey or colour; any size).",
    )
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, folders of them, or patterns"
    )
    parser.add_argument(
        "--top", type=positive, default=3, help="how many classes to name per image"
    )
    parser.add_argument(
        "--invert", action="store_true", help="exchange black and white (a digit on white paper)"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=_ending(".csv", ".json"),
        help="write the answers there instead of printing them: NAME.csv or NAME.json",
    )  # fmt: skip
    parser.add_argument(
        "--grid", metavar="FILE", type=_ending(".png"),
        help=f"draw the images, {MOST_DRAWN} at most, under their answers: NAME.png",
    )  # fmt: skip
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out image files that cannot be read"
    )
    add_flag(parser)
    return parser


def _ending(*endings: str) -> Callable[[str], Path]:
    """argparse type: a file whose name ends so."""

    def check(text: str) -> Path:
        if Path(text).suffix.lower() not in endings:
            raise argparse.ArgumentTypeError(
                f"got {text!r}, expected a name that ends in {' or '.join(endings)}"
            )
        return Path(text)

    return check


@as_command(DataError, ModelError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parser().parse_args(argv)
    places = {f: p for f, p in (("--out", args.out), ("--grid", args.grid)) if p is not None}
    for flag, place in places.items():
        if why := unfit(place, file=True):
            raise CommandError(f"{flag} {place} {why}")
    devices = find_devices(args.ctx)
    saved = open_saved(args.run, devices)
    paths = find_images(args.images)
    for flag, place in places.items():
        if why := _needed(place, saved.path, paths):
            raise CommandError(f"{flag} {place} {why}: name another place")
    engine = for_command(saved, args.engine, devices, min(BATCH, len(paths)))
    readable, shares = predict_readable(
        saved, paths, invert=args.invert, engine=engine, skip_damaged=args.skip_damaged
    )
    top = np.argsort(-shares, axis=1, kind="stable")[:, : args.top]
    answers = [
        {
            "image": image,
            "class": saved.class_names[best[0]],
            "probability": float(share[best[0]]),
            "top": [{"class": saved.class_names[i], "probability": float(share[i])} for i in best],
        }
        for image, share, best in zip(readable, shares, top, strict=True)
    ]
    name = "mxnet" if engine is None else engine.way
    result = {"run": args.run, "engine": name, "predictions": answers}
    if args.out is not None:
        as_csv = args.out.suffix.lower() == ".csv"
        write_text(args.out, _csv(answers) if as_csv else json_text(result) + "\n")
    if args.grid is not None:
        _draw(args.grid, saved, answers[:MOST_DRAWN])
    if args.json:
        print_json(result)
        return 0
    for answer in answers if args.out is None else ():
        ranked = ", ".join(f"{t['class']} {t['probability']:.4f}" for t in answer["top"])
        print(one_line(f"{answer['image']}: {ranked}"))
    if args.out is not None:
        print(f"{len(answers)} answers in {args.out}")
    if args.grid is not None:
        print(f"{min(len(answers), MOST_DRAWN)} images with their answers in {args.grid}")
    return 0


def _needed(place: Path, run: Path, images: Sequence[str]) -> str | None:
    """What would be lost if a file that is there were replaced; None where it is no input."""
    if not place.exists():
        return None
    place = place.resolve()
    if any(os.path.realpath(image) == str(place) for image in images):
        return "is one of the images"
    return "is a file of the run" if place.is_relative_to(run.resolve()) else None


def _csv(answers: Sequence[Mapping[str, Any]]) -> str:
    """A row an image: the file, then each of the best classes and its probability."""
    ranks = range(1, len(answers[0]["top"]) + 1)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", *(f"{name}_{n}" if n > 1 else name for n in ranks
                                for name in ("class", "probability"))])  # fmt: skip
    for answer in answers:
        best = ((printable(each["class"]), each["probability"]) for each in answer["top"])
        writer.writerow([printable(answer["image"]), *(value for pair in best for value in pair)])
    return text.getvalue()


def _draw(path: Path, saved: SavedRun, answers: Sequence[Mapping[str, Any]]) -> None:
    channels, size, _ = saved.input_shape
    images = [read_image(answer["image"], size, channels, saved.fit) for answer in answers]
    said = [answer["class"] for answer in answers]
    sure = [f"({answer['probability']:.0%})" for answer in answers]
    files = [Path(answer["image"]).name for answer in answers]
    save_grid(path, np.stack(images), said, notes=sure, files=files)


if __name__ == "__main__":
    sys.exit(main())
