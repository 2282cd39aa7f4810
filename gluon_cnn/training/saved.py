"""A run opened again: its net with the best parameters, and how its pixels are prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mxnet as mx
from mxnet.gluon import HybridBlock

from cnn_data import Pixels, pixels
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError
from cnn_harness.run_description import read_run, require_model
from gluon_cnn.models import MODELS, ModelError, get_model
from gluon_cnn.training.checkpoint import load_parameters


@dataclass(frozen=True)
class SavedRun:
    """What `evaluate`, `predict` and `export` need of a net, whatever kept it."""

    path: Path
    model: str
    net: HybridBlock  # with .model_name and .smallest_wins
    input_shape: tuple[int, int, int]  # C, H, W
    class_names: tuple[str, ...]
    normalise: str  # of data.NORMALISATIONS, with the statistics it was given
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: Pixels  # what the three come to
    fit: str
    dataset: str | None  # None: it was trained on nothing
    image_size: int | None  # that the data set was asked for; None: its own
    data_dir: str | None
    skip_damaged: bool = False  # image files that cannot be read are left out
    content: str | None = None  # a hash of the images it was trained on, where it is known


def open_run(path: str | Path, devices: list[mx.Context]) -> SavedRun:
    """Load the best parameters of the run in a folder.

    Raises: CommandError naming the file that is missing or damaged.
    """
    folder = Path(path)
    run = read_run(folder)
    if run["framework"] != "gluon":
        raise CommandError(
            f"{folder} is a run of {run['framework']}, expected one of gluon_cnn.train"
        )
    config: TrainConfig = run["config"]
    channels, height, width = run["input_shape"]
    best = folder / "best.params"
    if not best.exists():
        raise CommandError(f"{best} is missing: has the run finished an epoch?")
    require_model(folder, config, MODELS)
    try:
        net = get_model(config.model, len(run["class_names"]), channels, height)
    except ModelError as error:
        raise CommandError(f"{folder / 'config.json'}: {error}") from error
    load_parameters(net, best, devices)
    mean, std = tuple(run["mean"]), tuple(run["std"])
    return SavedRun(
        path=folder,
        model=config.model,
        net=net,
        input_shape=(channels, height, width),
        class_names=tuple(run["class_names"]),
        normalise=config.normalise,
        mean=mean,
        std=std,
        pixels=pixels(config.normalise, mean, std),
        fit=config.fit,
        dataset=config.dataset,
        image_size=config.image_size,
        data_dir=run["data_dir"],
        skip_damaged=run["skip_damaged"],
        content=run["images"]["content_sha256"],
    )
