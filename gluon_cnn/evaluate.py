"""Accuracy, per class too, and confusion matrix of a run or an export: `gluon_cnn.evaluate`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np

from cnn_data import FOLDER, Batches, DataError, Dataset
from cnn_harness.cli import as_command, json_text, print_json
from cnn_harness.epochs import Evaluation
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.initial import some
from cnn_harness.plots import save_confusion, save_errors
from cnn_harness.run_description import (
    absolute_dataset,
    find_dataset,
    load_for_net,
    other_content,
)
from cnn_harness.runfolder import default_name
from gluon_cnn.engine import Loaded, add_flag, for_command
from gluon_cnn.exporting.exported import open_saved, saved_parser
from gluon_cnn.fast.fused import fused
from gluon_cnn.models import ModelError
from gluon_cnn.predict import probabilities
from gluon_cnn.summary import align
from gluon_cnn.training.assembly import EVALUATION_BATCH, TOP, Objective, class_ranks
from gluon_cnn.training.devices import find_devices
from gluon_cnn.training.loop import evaluate
from gluon_cnn.training.losses import loss_for
from gluon_cnn.training.saved import SavedRun
from gluon_cnn_parity.atomic import write_text
from gluon_cnn_parity.terminal import loss_text

MOST_MISTAKES = 20  # in errors.png


def scores(
    true: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Precision, recall and F1 of each class, by scikit-learn, from two label arrays (N,).

    None stands where there is nothing to divide by: a class never predicted, or without images.

    >>> scores(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), ["cat", "dog"])["cat"]
    {'images': 4, 'precision': 1.0, 'recall': 0.75, 'f1': 0.8571428571428571}
    """
    from sklearn.metrics import precision_recall_fscore_support  # takes as long as MXNet to import

    columns = precision_recall_fscore_support(
        true, predicted, labels=range(len(names)), zero_division=np.nan
    )
    return {
        name: {
            "images": int(images),
            **{key: None if np.isnan(value) else float(value)
               for key, value in zip(("precision", "recall", "f1"), shares, strict=True)},
        }
        for name, *shares, images in zip(names, *columns, strict=True)
    }  # fmt: skip


def worst_mistakes(
    saved: SavedRun, dataset: Dataset, predicted: np.ndarray, engine: Loaded | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The wrongly named test images, the surest first, and the probability of what was said."""
    wrong = np.flatnonzero(predicted != dataset.test.labels)
    shares = [np.zeros(0)]
    for start in range(0, len(wrong), EVALUATION_BATCH):
        part = wrong[start : start + EVALUATION_BATCH]
        said = probabilities(saved, dataset.test.images(part), engine)
        shares.append(said[np.arange(len(part)), predicted[part].astype(np.int64)])
    sure = np.concatenate(shares)
    order = np.argsort(-sure, kind="stable")
    return wrong[order], sure[order]


def evaluate_run(
    saved: SavedRun, dataset: Dataset, devices: list[Any], engine: Loaded | None = None
) -> dict[str, Any]:
    """Loss, accuracy, accuracy per class and confusion matrix on the data set's test images.

    `engine` computes the outputs (default: MXNet, on the devices). Raises: CommandError where the
    data do not fit the net.
    """
    from sklearn.metrics import confusion_matrix

    _check_fits(saved, dataset)
    batches = Batches(dataset.test, EVALUATION_BATCH, saved.pixels)
    if engine is None:
        objective = Objective(saved.net, fused(saved.net, saved.input_shape), ranks=True)
        objective.hybridize(static_alloc=True, static_shape=True)
        with warnings.catch_warnings():  # the fused net stands for the net on purpose
            warnings.filterwarnings("ignore", "Parameter .* is not used", UserWarning)
            result = evaluate(objective, batches, devices)
    else:
        result = _evaluate_by(engine, saved.net, batches)
    true, labels = dataset.test.labels, range(len(saved.class_names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a single class, which it counts all right
        confusion = confusion_matrix(true, result.predicted, labels=labels)
    per_class = scores(true, result.predicted, saved.class_names)
    return {
        "run": str(saved.path),
        "model": saved.model,
        "engine": "mxnet" if engine is None else engine.way,
        "dataset": dataset.name,
        "images": len(true),
        "measured": _measured(dataset),
        "loss": result.loss,
        "accuracy": result.accuracy,
        "top5_accuracy": result.top5,
        "accuracy_per_class": {name: each["recall"] for name, each in per_class.items()},
        "per_class": per_class,
        "macro": {
            name: float(np.mean([row[name] or 0.0 for row in per_class.values() if row["images"]]))
            for name in ("precision", "recall", "f1")
        },
        "confusion": confusion,
        "predicted": result.predicted,
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
            f"{dataset.name} has the classes {some(dataset.class_names, 5)}, the net "
            f"{some(saved.class_names, 5)}: their numbers do not mean the same"
        )


def _load(saved: SavedRun, args: argparse.Namespace) -> tuple[Dataset, str]:
    """The data set that `--dataset` names, or the run's own, which must hold the same images.

    With it comes what the names of the files end with that say how the net does on it: nothing for
    the run's own data, wherever they lie now.
    """
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
        folders = name.startswith(FOLDER) and (saved.dataset or "").startswith(FOLDER)
        if folders and not args.other_images:
            raise CommandError(
                f"{name} holds other images than {args.run} was trained on: to evaluate it on them "
                f"all the same, add {'' if args.dataset else f'--dataset {name} '}--other-images"
            )
        if own:
            print(f"{name} has changed since {args.run} was trained on it", file=sys.stderr)
    elif own or None not in (saved.content, dataset.content):
        return dataset, ""
    if dataset.held_out and not own:
        dataset = dataset.undivided()
    ending = default_name("", dataset.name)
    if name.startswith(FOLDER):  # whose name, without the path, another may have too
        ending += f"-{dataset.content or '':.8}"
    return dataset, ending


def _measured(dataset: Dataset) -> str:
    """Which images of a data set were measured."""
    n = len(dataset.test)
    if dataset.held_out:
        return f"the {n} held-out of {len(dataset.train) + n} images"
    return f"all {n} images" if not len(dataset.train) else f"the {n} test images"


@as_command(DataError, ModelError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = saved_parser(
        "python -m gluon_cnn.evaluate",
        "Evaluate a run's best parameters on test images; writes evaluation.json, confusion.png "
        "and errors.png, the worst mistakes; evaluation-NAME.json and so on for another data set.",
    )
    parser.add_argument(
        "--dataset", default=None, help="unset: the run's own; another folder without a test "
        "folder is measured whole",
    )  # fmt: skip
    parser.add_argument(
        "--other-images", action="store_true",
        help="take a folder that holds other images than the run's",
    )  # fmt: skip
    parser.add_argument("--data-dir", default=None, metavar="DIR", help="unset: the run's own")
    parser.add_argument(
        "--skip-damaged", action="store_true", help="leave out image files that cannot be read"
    )
    add_flag(parser)
    args = parser.parse_args(argv)
    devices = find_devices(args.ctx)
    saved = open_saved(args.run, devices)
    dataset, ending = _load(saved, args)
    engine = for_command(saved, args.engine, devices, EVALUATION_BATCH)
    result = evaluate_run(saved, dataset, devices, engine)
    predicted = result.pop("predicted")
    picture = saved.path / f"confusion{ending}.png"
    title = f"{saved.model} on {dataset.name}: {result['accuracy']:.4f} of {result['images']}"
    save_confusion(picture, result["confusion"], saved.class_names, title)
    errors = saved.path / f"errors{ending}.png"
    mistakes = _save_errors(errors, saved, dataset, predicted, engine)
    drawn = errors if mistakes else None
    result = {**result, "picture": picture, "errors": drawn, "mistakes": mistakes}
    write_text(saved.path / f"evaluation{ending}.json", json_text(result))
    if args.json:
        print_json(result)
        return 0
    print(
        f"accuracy {result['accuracy']:.4f} on {result['measured']} of {dataset.name}, "
        f"loss {loss_text(result['loss'])}, engine {result['engine']}"
    )
    print("\n".join(_table(result)))
    print(f"confusion matrix in {picture}" + (f", worst mistakes in {drawn}" if drawn else ""))
    return 0


def _table(result: Mapping[str, Any]) -> list[str]:
    """The scores of each class, in columns."""
    cells = [("class", "images", "precision", "recall", "F1")]
    for name, row in result["per_class"].items():
        shown = ("-" if row[key] is None else f"{row[key]:.4f}"
                 for key in ("precision", "recall", "f1"))  # fmt: skip
        cells.append((name, str(row["images"]), *shown))
    return ["  " + line for line in align(cells, left=1)]


def _save_errors(
    picture: Path, saved: SavedRun, dataset: Dataset, predicted: np.ndarray, engine: Loaded | None
) -> list[dict[str, Any]]:
    """Draw the mistakes and return what is shown; without one, an earlier picture goes."""
    wrong, sure = worst_mistakes(saved, dataset, predicted, engine)
    if not len(wrong):
        picture.unlink(missing_ok=True)
        return []
    shown = wrong[:MOST_MISTAKES]
    names, test = saved.class_names, dataset.test
    mistakes = [
        {"image": test.name(int(i)), "said": names[int(predicted[i])], "probability": float(share),
         "true": names[test.labels[i]]}
        for i, share in zip(shown, sure, strict=False)
    ]  # fmt: skip
    save_errors(
        picture,
        test.images(shown),
        [(each["said"], each["probability"]) for each in mistakes],
        [each["true"] for each in mistakes],
        [Path(each["image"]).name for each in mistakes],
        f"the {len(shown)} surest of {len(wrong)} mistakes, of {len(test)} test images",
    )
    return mistakes


if __name__ == "__main__":
    sys.exit(main())
