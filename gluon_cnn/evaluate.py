"""Accuracy, per class too, and confusion matrix of a run or an export: `gluon_cnn.evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np

from cnn_data import Batches, DataError, Dataset
from cnn_harness.cli import print_json, run
from cnn_harness.epochs import Evaluation
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.plots import save_confusion
from cnn_harness.run_description import (
    absolute_dataset,
    find_dataset,
    load_for_net,
    other_content,
)
from gluon_cnn.engine import Loaded, add_flag, for_command
from gluon_cnn.exporting.exported import open_saved, saved_parser
from gluon_cnn.fast.fused import fused
from gluon_cnn.models import ModelError
from gluon_cnn.training.assembly import EVALUATION_BATCH, TOP, Objective, class_ranks
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.loop import evaluate
from gluon_cnn.training.losses import loss_for
from gluon_cnn.training.saved import SavedRun

__all__ = ["confusion", "evaluate_run", "main"]


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts[true, predicted], int64 (classes, classes), of two label arrays (N,)."""
    pairs = true.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def evaluate_run(
    saved: SavedRun, dataset: Dataset, devices: list[Any], engine: Loaded | None = None
) -> dict[str, Any]:
    """Loss, accuracy, accuracy per class and confusion matrix on the data set's test images.

    `engine` computes the outputs (default: MXNet, on the devices). Raises: CommandError where the
    data do not fit the net.
    """
    _check_fits(saved, dataset)
    batches = Batches(dataset.test, EVALUATION_BATCH, saved.pixels)
    if engine is None:
        objective = Objective(saved.net, fused(saved.net, saved.input_shape), ranks=True)
        objective.hybridize(static_alloc=True, static_shape=True)
        result = evaluate(objective, batches, devices)
    else:
        result = _evaluate_by(engine, saved.net, batches)
    counts = confusion(dataset.test.labels, result.predicted, len(saved.class_names))
    totals = counts.sum(axis=1)
    return {
        "run": str(saved.path),
        "model": saved.model,
        "engine": "mxnet" if engine is None else engine.name,
        "dataset": dataset.name,
        "images": int(totals.sum()),
        "loss": result.loss,
        "accuracy": result.accuracy,
        "top5_accuracy": result.top5,
        "accuracy_per_class": {
            name: (counts[i, i] / totals[i] if totals[i] else None)
            for i, name in enumerate(saved.class_names)
        },
        "confusion": counts,
    }


def _evaluate_by(engine: Loaded, net: Any, batches: Batches) -> Evaluation:
    """`gluon_cnn.training.loop.evaluate` of outputs that an engine computes."""
    loss_of, winner = loss_for(net), np.argmin if net.smallest_wins else np.argmax
    losses, hits, among_top, predicted = 0.0, 0, 0.0, []
    for x, y in batches.epoch(0):
        outputs = engine(x)
        values, labels = mx.nd.array(outputs), mx.nd.array(y)
        losses += float(loss_of(values, labels).sum().asscalar())
        ranks = class_ranks(mx.nd, values, labels, net.smallest_wins)
        among_top += float((ranks < TOP).sum().asscalar())
        predicted.append(winner(outputs, axis=1).astype(np.int64))
        hits += int((predicted[-1] == y).sum())
    count = sum(map(len, predicted))
    return Evaluation(losses / count, hits / count, among_top / count, np.concatenate(predicted))


def _check_fits(saved: SavedRun, dataset: Dataset) -> None:
    height, width, channels = dataset.shape
    if (channels, height, width) != saved.input_shape:
        raise CommandError(
            f"{dataset.name} has images (C, H, W) of {(channels, height, width)}, "
            f"the net takes {saved.input_shape}"
        )
    if len(dataset.class_names) > len(saved.class_names):
        raise CommandError(
            f"{dataset.name} has {len(dataset.class_names)} classes, more than the net's "
            f"{len(saved.class_names)} outputs: evaluate on the classes it was trained on"
        )
    if dataset.class_names != saved.class_names[: len(dataset.class_names)]:
        raise CommandError(
            f"{dataset.name} has the classes {', '.join(dataset.class_names[:5])}…, the net "
            f"{', '.join(saved.class_names[:5])}…: their numbers do not mean the same"
        )


def _load(saved: SavedRun, args: argparse.Namespace) -> Dataset:
    """The data set that `--dataset` names, or the run's own, which must hold the same images."""
    if saved.dataset is None and args.dataset is None:
        raise UsageError(f"{args.run} was trained on nothing: name a data set with --dataset")
    if args.dataset is None:
        name = find_dataset(saved.dataset or "", None, saved.content)
    else:
        name = absolute_dataset(args.dataset)
    own = saved.dataset is not None and name == absolute_dataset(saved.dataset)
    dataset = load_for_net(
        name,
        args.data_dir or (saved.data_dir if own else None),
        saved.image_size,
        saved.fit,
        side=saved.input_shape[1],
        skip_damaged=args.skip_damaged or (own and saved.skip_damaged),
    )
    if other_content(saved.content, dataset.content):
        if args.dataset is None:
            raise CommandError(
                f"{name} holds other images than {args.run} was trained on: with --dataset {name} "
                "it is evaluated on them all the same"
            )
        if own:
            print(f"{name} has changed since {args.run} was trained on it", file=sys.stderr)
    return dataset


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return run(lambda: _main(argv), errors=(DataError, ModelError))


def _main(argv: Sequence[str] | None) -> int:
    parser = saved_parser(
        "python -m gluon_cnn.evaluate",
        "Evaluate a run's best parameters on test images; writes confusion.png.",
    )
    parser.add_argument("--dataset", default=None, help="unset: the run's own")
    parser.add_argument("--data-dir", default=None, metavar="DIR", help="unset: the run's own")
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out image files that cannot be read"
    )
    add_flag(parser)
    args = parser.parse_args(argv)
    devices = find_devices(args.ctx)
    saved = open_saved(args.run, devices)
    dataset = _load(saved, args)
    engine = for_command(saved, args.engine, devices, EVALUATION_BATCH)
    result = evaluate_run(saved, dataset, devices, engine)
    picture = saved.path / "confusion.png"
    title = f"{saved.model} on {dataset.name}: {result['accuracy']:.4f} of {result['images']}"
    save_confusion(picture, result["confusion"], saved.class_names, title)
    if args.json:
        print_json({**result, "picture": picture})
        return 0
    print(
        f"accuracy {result['accuracy']:.4f} on {result['images']} images, "
        f"loss {result['loss']:.4f}, engine {result['engine']}"
    )
    widest = max(map(len, saved.class_names))
    for class_name, accuracy in result["accuracy_per_class"].items():
        print(
            f"  {class_name:<{widest}}  " + ("no images" if accuracy is None else f"{accuracy:.4f}")
        )
    print(f"confusion matrix in {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
