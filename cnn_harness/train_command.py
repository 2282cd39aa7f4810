"""The `train` command of either framework: flags in, a run folder out."""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cnn_data
from gluon_cnn_parity import did_you_mean
from cnn_data import Dataset
from cnn_harness.cli import print_json
from cnn_harness.config import TrainConfig
from cnn_harness.epochs import require_epochs
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.jobs.peers import Peers, require_same_data
from cnn_harness.jobs.stop import Interrupted, Stop
from cnn_harness.monitor import RunMonitor
from cnn_harness.progress import Progress, progress_from, progress_of
from cnn_harness.runfolder import RunFolder, default_name
from cnn_harness.schedule import DEPEND_ON_EPOCHS
from cnn_harness.sealed import read_json
from cnn_harness.train_flags import likely, recipe_names, train_parser
from cnn_harness.versions import difference

__all__ = ["Framework", "describe_run", "load_data", "read_run", "train_command"]

RUN_FORMAT = 1


@dataclass(frozen=True)
class Framework:
    """What the shared command needs to know of a package that trains."""

    name: str  # "gluon" or "torch"
    environment: Callable[[], dict[str, Any]]  # versions and threads, which decide a run's bits
    models: Mapping[str, Any]  # name -> entry with .input_shape (C, H, W)
    documents: Mapping[str, TrainConfig]
    defaults: Mapping[str, TrainConfig]
    prepare: Callable[..., Any]  # prepare(config, dataset, ctx, peers): checks all; writes nothing
    resume: Callable[[Any, RunFolder, str], Progress | None]  # resume(prepared, folder, which)
    fit: Callable[..., list[dict[str, Any]]]  # fit(prepared, folder, start=…, monitor=…, stop=…)
    switches: Callable[[str, bool, bool], list[str]]  # switches(ctx, tf32, autotune): what to say
    join: Callable[[str], Peers]  # join(ctx): the processes of this job
    follow: Callable[[Any, Progress, Stop], None]  # follow(prepared, start, stop): fit, not leading


def train_command(framework: Framework, argv: Sequence[str] | None, prog: str) -> int:
    """Run `python -m PACKAGE.train`; returns the exit code, raises the errors `cli.run` knows."""
    parser = train_parser(framework, prog, likely(framework, argv))
    given = vars(parser.parse_args(argv))
    options = {
        name: given.pop(name)
        for name in (
            "recipe", "data_dir", "out", "ctx", "tf32", "autotune", "resume", "tensorboard", "json",
        )
    }  # fmt: skip
    remarks = framework.switches(options["ctx"], options["tf32"], options["autotune"])
    with Stop() as stop:
        peers = framework.join(options["ctx"])
        for remark in remarks if peers.rank == 0 else ():
            print(remark, file=sys.stderr)
        if peers.rank:
            _follow(framework, options, peers, stop)
            return 0
        folder, rows = _train(framework, given, options, prog, stop, peers)
    best = max(rows, key=lambda row: row["test_acc"])
    result = {
        "run": str(folder.path),
        "epochs": len(rows),
        "final": rows[-1],
        "best": {"epoch": best["epoch"], "test_acc": best["test_acc"]},
        "train_seconds": round(sum(row["seconds"] for row in rows), 3),
        "images_per_second": statistics.median(row["images_per_second"] for row in rows),
    }
    if options["json"]:
        print_json(result)
    else:
        print(
            f"best test accuracy {best['test_acc']:.4f} in epoch {best['epoch']}, "
            f"{result['train_seconds']:.1f} s of training at {result['images_per_second']:,.0f} "
            f"images/s; the run is in {folder.path}"
        )
    return 0


def _train(
    framework: Framework,
    given: Mapping[str, Any],
    options: Mapping[str, Any],
    prog: str,
    stop: Stop,
    peers: Peers,
) -> tuple[RunFolder, list[dict[str, Any]]]:
    """Train as the only process of the job, or as the one that leads it."""
    folder, run = None, None
    if options["resume"]:
        config, folder, run = _resumed(framework, given, options)
    else:
        config = _configured(framework, given, options["recipe"])
    data_dir = options["data_dir"]
    if data_dir is None and run is not None:
        data_dir = run["data_dir"]
    peers.share({"config": config.to_dict(), "data_dir": data_dir})
    dataset = load_data(config, data_dir, framework.models[config.model].input_shape)
    require_same_data(peers, dataset)
    description = describe_run(framework, config, dataset, data_dir)
    if run is not None:
        _require_same_data(run, description)
    prepared = framework.prepare(config, dataset, options["ctx"], peers)
    if folder is None:
        folder = RunFolder.new(options["out"], default_name(config.model, config.dataset))
    folder.program = prog
    title = f"{config.model} on {dataset.name}, {framework.name}"
    with folder:
        start = framework.resume(prepared, folder, options["resume"]) if run is not None else None
        if options["resume"]:
            for line in _notes(start, config, run, description):
                print_line(options, line)
        if start is not None:
            require_epochs(config, start)
            if options["resume"] == "previous":
                folder.take_previous()
        folder.write_config(description)
        peers.share(None if start is None else progress_of(start))
        try:
            with RunMonitor(folder, title, tensorboard=options["tensorboard"]) as monitor:
                stop.hold()
                return folder, framework.fit(
                    prepared, folder, start=start, monitor=monitor, stop=stop
                )
        except Interrupted as stopped:
            raise Interrupted(
                stopped.signal, f"{stopped.where}; {folder.continuing()}"
            ) from stopped


def _follow(framework: Framework, options: Mapping[str, Any], peers: Peers, stop: Stop) -> None:
    """Train what the leader trains, on a part of its batches; writes and prints nothing."""
    plan = peers.share(None)
    config = TrainConfig.from_dict(plan["config"], "what process 0 sent")
    data_dir = options["data_dir"] or plan["data_dir"]
    dataset = load_data(config, data_dir, framework.models[config.model].input_shape)
    require_same_data(peers, dataset)
    prepared = framework.prepare(config, dataset, options["ctx"], peers)
    start = peers.share(None)
    framework.follow(prepared, Progress() if start is None else progress_from(start), stop)


def _notes(
    start: Progress | None,
    config: TrainConfig,
    run: Mapping[str, Any] | None,
    description: Mapping[str, Any],
) -> Iterator[str]:
    """What to say of a resumed run before it goes on."""
    if start is None or run is None:
        yield "nothing was saved yet: starting from the beginning"
        return
    yield f"continuing from {start.where()}"
    if (other := difference(start.versions, description["versions"])) is not None:
        yield f"the checkpoint was {other}"
    before: TrainConfig = run["config"]
    if config.epochs != before.epochs and config.schedule in DEPEND_ON_EPOCHS:
        yield (
            f"the {config.schedule} schedule is that of {config.epochs} epochs from here on; what "
            f"is done followed that of {before.epochs}"
        )


def _require_same_data(run: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError naming the field in which the data are not those that the run began with."""
    for field in ("input_shape", "class_names", "images", "mean", "std"):
        if run.get(field) != now[field]:
            was, here = (_shown(field, values.get(field)) for values in (run, now))
            raise UsageError(
                f"--resume cannot change the data: {field} is {here}, the run has {was}"
            )


def _shown(field: str, value: Any) -> str:
    if field == "class_names" and isinstance(value, list):
        return f"{len(value)} classes ({', '.join(value[:3])}, …)"
    return json.dumps(value)


def print_line(options: Mapping[str, Any], line: str) -> None:
    if not options["json"]:
        print(line)


def _configured(framework: Framework, given: Mapping[str, Any], recipe: str | None) -> TrainConfig:
    if recipe is not None and recipe not in framework.documents:
        raise UsageError(
            f"--recipe is {recipe!r}, expected one of {recipe_names(framework.documents)}"
            f"{did_you_mean(recipe, framework.documents)}"
        )
    model = given.get("model")
    if model is not None and model not in framework.defaults:
        raise UsageError(
            f"--model is {model!r}, expected one of {', '.join(framework.defaults)}"
            f"{did_you_mean(model, framework.defaults)}"
        )
    if recipe is not None:
        return framework.documents[recipe].replace(**given)
    return framework.defaults[model or "lenet"].replace(**given)


def _resumed(
    framework: Framework, given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[TrainConfig, RunFolder | None, dict[str, Any] | None]:
    """The configuration, folder and `config.json` of the run to continue; None if there is none.

    Raises: UsageError naming every flag that says something else than the run does, but --epochs.
    """
    fresh = _configured(framework, given, options["recipe"])
    folder = RunFolder.existing(options["out"], default_name(fresh.model, fresh.dataset))
    if folder is None:
        return fresh, None, None
    run = read_run(folder.path)
    if run["framework"] != framework.name:
        raise UsageError(f"{folder.path} is a run of {run['framework']}, not of {framework.name}")
    config: TrainConfig = run["config"]
    asked = fresh.to_dict() if options["recipe"] else given
    differing = [
        f"{name} is {asked[name]!r}, the run has {getattr(config, name)!r}"
        for name in asked
        if name != "epochs" and asked[name] != getattr(config, name)
    ]
    if differing:
        raise UsageError(f"--resume of {folder.path} cannot change it: {'; '.join(differing)}")
    return config.replace(epochs=given.get("epochs", config.epochs)), folder, run


def load_data(
    config: TrainConfig, data_dir: str | None, input_shape: tuple[int, int, int]
) -> Dataset:
    """The configured dataset; photographs of any size come at the model's own unless told."""
    size = config.image_size
    if size is None and (config.dataset.startswith("folder:") or config.dataset == "imagenette"):
        size = input_shape[1]
    return cnn_data.load_dataset(config.dataset, data_dir, image_size=size, fit=config.fit)


def describe_run(
    framework: Framework, config: TrainConfig, dataset: Dataset, data_dir: str | None
) -> dict[str, Any]:
    """What `config.json` holds: all that evaluating, predicting and resuming need."""
    height, width, channels = dataset.shape
    return {
        "format": RUN_FORMAT,
        "framework": framework.name,
        "config": config.to_dict(),
        "data_dir": None if data_dir is None else str(Path(data_dir).absolute()),
        "input_shape": [channels, height, width],
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "images": {
            "train": len(dataset.train),
            "test": len(dataset.test),
            "labels_sha256": _labels_sum(dataset),
        },
        "versions": framework.environment(),
    }


def _labels_sum(dataset: Dataset) -> str:
    """A sum that changes when images are added, removed or moved to another class."""
    total = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        total.update(np.ascontiguousarray(split.labels, "<i4").tobytes())
    return total.hexdigest()


def read_run(path: Path) -> dict[str, Any]:
    """`config.json` of a run, checked, with `config` as a `TrainConfig`.

    Raises: CommandError naming the file and what is wrong with it.
    """
    origin = path / "config.json"
    run = read_json(origin)
    if not isinstance(run, dict) or run.get("format") != RUN_FORMAT:
        raise CommandError(f"{origin} is not the configuration of a run (format {RUN_FORMAT})")
    shape, names = run.get("input_shape"), run.get("class_names")
    good = (
        run.get("framework") in ("gluon", "torch")
        and isinstance(run.get("data_dir"), str | None)
        and isinstance(shape, list)
        and len(shape) == 3
        and all(type(n) is int and 0 < n <= 4096 for n in shape)
        and isinstance(names, list)
        and 0 < len(names) <= 100_000
        and all(isinstance(name, str) for name in names)
        and all(_is_pixels(run.get(name), shape[0]) for name in ("mean", "std"))
    )
    if not good:
        raise CommandError(
            f"{origin}: framework, data_dir, input_shape, class_names, mean or std is not valid"
        )
    return {**run, "config": TrainConfig.from_dict(run.get("config"), origin)}


def _is_pixels(values: object, channels: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == channels
        and all(type(v) in (int, float) and abs(v) < 1e6 for v in values)
    )
