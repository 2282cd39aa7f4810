"""The `train` command of either framework: flags in, a run folder out."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gluon_cnn_parity import did_you_mean, program
from cnn_data import FOLDER
from cnn_harness.cli import print_json
from cnn_harness.config import RESUMABLE, RunOptions, TrainConfig
from cnn_harness.epochs import require_epochs
from cnn_harness.errors import UsageError
from cnn_harness.framework import Framework
from cnn_harness.initial import Pretrained
from cnn_harness.jobs.peers import Peers, require_same_data
from cnn_harness.jobs.stop import Interrupted, Stop
from cnn_harness.monitor import RunMonitor
from cnn_harness.progress import Progress, progress_from, progress_of, read_progress
from cnn_harness.run_description import (
    absolute_dataset,
    describe_run,
    difference,
    find_dataset,
    load_data,
    read_run,
    require_model,
    require_same_images,
    settings_of,
)
from cnn_harness.runfolder import RunFolder, default_name
from cnn_harness.schedule import DEPEND_ON_EPOCHS
from cnn_harness.train_flags import read_flags, recipe_names

EXPLODED = 1000.0  # a mean loss that no net has whose weights are of any use


def train_command(framework: Framework, argv: Sequence[str] | None, prog: str) -> int:
    """Run `python -m PACKAGE.train`; returns the exit code, raises the errors `cli.run` knows."""
    changes, options = read_flags(framework, argv, prog)
    remarks = framework.switches(options.ctx, options.tf32, options.autotune)
    with Stop() as stop:
        peers = framework.join(options)
        for remark in remarks if peers.rank == 0 else ():
            print(remark, file=sys.stderr)
        if peers.rank:
            _follow(framework, options, peers, stop)
            return 0
        folder, rows, doubt = _train(framework, changes, options, prog, stop, peers)
    best = max(rows, key=lambda row: row["test_acc"])
    result = {
        "run": str(folder.path),
        "epochs": len(rows),
        "final": rows[-1],
        "best": {"epoch": best["epoch"], "test_acc": best["test_acc"]},
        "train_seconds": round(sum(row["seconds"] for row in rows), 3),
        "images_per_second": statistics.median(row["images_per_second"] for row in rows),
    }
    if doubt is not None:
        print(f"warning: {doubt}", file=sys.stderr)
        result["warning"] = doubt
    if options.json:
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
    changes: Mapping[str, Any],
    options: RunOptions,
    prog: str,
    stop: Stop,
    peers: Peers,
) -> tuple[RunFolder, list[dict[str, Any]], str | None]:
    """Train as the only process of the job, or as the one that leads it.

    Returns the run's folder, its rows, and what to say where it has learned nothing.
    """
    folder, run, taken = None, None, {}
    if options.resume:
        config, folder, run = _resumed(framework, changes, options)
    else:
        if changes.get("init_from") and not options.recipe and "model" not in changes:
            taken = settings_of(changes["init_from"])
        config = _configured(framework, {**taken, **changes}, options.recipe)
    if folder is None:  # before the data are read
        RunFolder.require_free(options.out)
    data_dir, skip, pretrained = options.data_dir, options.skip_damaged, None
    if run is not None:  # the checkpoint has the weights; their names say what learns at which rate
        data_dir = run["data_dir"] if data_dir is None else data_dir
        skip, pretrained = skip or run["skip_damaged"], run["pretrained"]
    elif config.init_from:
        pretrained = framework.read_weights(config.init_from)
    peers.share(
        {
            "config": config.to_dict(), "data_dir": data_dir, "skip_damaged": skip,
            "pretrained": None if pretrained is None else pretrained.to_dict(),
        }
    )  # fmt: skip
    input_shape = framework.models[config.model].input_shape
    dataset = load_data(config, data_dir, input_shape, skip_damaged=skip)
    require_same_data(peers, dataset)
    description = describe_run(framework, config, dataset, data_dir, skip_damaged=skip)
    if run is not None:
        require_same_images(run, description)
    prepared = framework.prepare(config, dataset, options.ctx, peers, pretrained=pretrained)
    if pretrained is not None:
        description["pretrained"] = {**pretrained.to_dict(), "shapes": {}}
    for remark in _remarks(config, run, taken, pretrained):
        print(remark, file=sys.stderr)
    if folder is None:
        folder = RunFolder.new(options.out, default_name(config.model, config.dataset))
    folder.program = program(prog)
    title = f"{config.model} on {dataset.name}, {framework.name}"
    with folder:
        start = None
        if options.resume:
            if run is not None:
                start = resume(framework, prepared, folder, options.resume)
            for line in _notes(start, folder, config, run, description):
                if not options.json:
                    print(line)
        if start is not None:
            require_epochs(config, start)
            if options.resume == "previous":
                folder.take_previous()
        folder.write_config(description)
        peers.share(None if start is None else progress_of(start))
        try:
            with RunMonitor(folder, title, tensorboard=options.tensorboard) as monitor:
                stop.hold()
                rows = framework.fit(prepared, folder, start=start, monitor=monitor, stop=stop)
            return folder, rows, learned_nothing(rows, dataset.test.labels, config.lr)
        except Interrupted as stopped:
            raise Interrupted(
                stopped.signal, f"{stopped.where}; {folder.continuing()}"
            ) from stopped


def learned_nothing(rows: Sequence[Mapping[str, Any]], labels: np.ndarray, lr: float) -> str | None:
    """What to say of a run that ends no better than always naming the commonest test class."""
    chance = float(np.bincount(labels).max() / len(labels))
    accuracy, worst = rows[-1]["test_acc"], max(rows, key=lambda row: row["train_loss"])
    if accuracy > chance or chance == 1:
        return None
    why = "try another --lr, or more epochs"
    if worst["train_loss"] > EXPLODED:
        why = (
            f"the training loss was {worst['train_loss']:.2g} in epoch {worst['epoch']}: the "
            f"weights have exploded; try an --lr well below {lr:g}"
        )
    return (
        f"the net has learned nothing: its test accuracy is {accuracy:.4f}, always naming one "
        f"class gives {chance:.4f}; {why}"
    )


def resume(
    framework: Framework, prepared: Any, folder: RunFolder, which: str = "last"
) -> Progress | None:
    """Put a run where the checkpoint `last` or `previous` left it; None if there is none.

    Raises: UsageError where the checkpoint is another configuration's, CommandError where it is
    damaged; the run is then not changed.
    """
    saved = folder.saved(which)
    if saved is None:
        return None
    path, state = saved
    progress = read_progress(state, prepared.config, len(prepared.train), path)
    framework.load(prepared, path, state)
    return progress


def _follow(framework: Framework, options: RunOptions, peers: Peers, stop: Stop) -> None:
    """Train what the leader trains, on a part of its batches; writes and prints nothing."""
    plan = peers.share(None)
    config = TrainConfig.from_dict(plan["config"], "what process 0 sent")
    data_dir = options.data_dir or plan["data_dir"]
    input_shape = framework.models[config.model].input_shape
    dataset = load_data(config, data_dir, input_shape, skip_damaged=plan["skip_damaged"])
    require_same_data(peers, dataset)
    told = plan["pretrained"]
    pretrained = None if told is None else Pretrained.from_dict(told, "what process 0 sent")
    prepared = framework.prepare(config, dataset, options.ctx, peers, pretrained=pretrained)
    start = peers.share(None)
    framework.follow(prepared, Progress() if start is None else progress_from(start), stop)


def _notes(
    start: Progress | None,
    folder: RunFolder,
    config: TrainConfig,
    run: Mapping[str, Any] | None,
    description: Mapping[str, Any],
) -> Iterator[str]:
    """What to say of a resumed run before it goes on."""
    if start is None or run is None:
        yield "nothing was saved yet: starting from the beginning"
        return
    yield f"continuing from {start.where()}, in {folder.path}"
    if (other := difference(start.versions, description["versions"])) is not None:
        yield f"the checkpoint was {other}"
    before: TrainConfig = run["config"]
    if config.epochs != before.epochs and config.schedule in DEPEND_ON_EPOCHS:
        yield (
            f"the {config.schedule} schedule is that of {config.epochs} epochs from here on; what "
            f"is done followed that of {before.epochs}"
        )


def _remarks(
    config: TrainConfig,
    run: Mapping[str, Any] | None,
    taken: Mapping[str, Any],
    pretrained: Pretrained | None,
) -> Iterator[str]:
    """What to say of the weights that a run begins with."""
    if taken:
        yield f"the model is {config.model}, that of {config.init_from}"
    if pretrained is not None:
        yield from pretrained.remarks
    elif config.freeze and run is None:
        yield f"--freeze {config.freeze}: nothing is loaded, so it stays as it was drawn"


def _configured(
    framework: Framework, changes: Mapping[str, Any], recipe: str | None
) -> TrainConfig:
    if recipe is not None and recipe not in framework.recipes:
        raise UsageError(
            f"--recipe is {recipe!r}, expected one of {recipe_names(framework.recipes)}"
            f"{did_you_mean(recipe, framework.recipes)}"
        )
    model = changes.get("model")
    if model is not None and model not in framework.defaults:
        raise UsageError(
            f"--model is {model!r}, expected one of {', '.join(framework.defaults)}"
            f"{did_you_mean(model, framework.defaults)}"
        )
    start = framework.recipes[recipe] if recipe else framework.defaults[model or "lenet"]
    config = start.replace(**changes)
    return config.replace(dataset=absolute_dataset(config.dataset))


def _resumed(
    framework: Framework, changes: Mapping[str, Any], options: RunOptions
) -> tuple[TrainConfig, RunFolder | None, dict[str, Any] | None]:
    """The configuration, folder and `config.json` of the run to continue; None if there is none.

    Raises: UsageError naming every flag that says something else than the run does, but those of
    `RESUMABLE` and where a folder of images lies now.
    """
    asked_for = _configured(framework, changes, options.recipe)
    named = options.recipe or not {"model", "dataset"}.isdisjoint(changes)
    name = default_name(asked_for.model, asked_for.dataset) if named else None
    folder = RunFolder.existing(options.out, name)
    if folder is None:
        return asked_for, None, None
    run = read_run(folder.path)
    if run["framework"] != framework.name:
        raise UsageError(f"{folder.path} is a run of {run['framework']}, not of {framework.name}")
    config: TrainConfig = run["config"]
    require_model(folder.path, config, framework.models)
    asked = asked_for.to_dict() if options.recipe else changes
    if "dataset" in asked:
        asked = {**asked, "dataset": asked_for.dataset}
    if config.is_of_folder and asked.get("dataset", FOLDER).startswith(FOLDER):
        content = run["images"]["content_sha256"]
        place = find_dataset(config.dataset, asked.get("dataset"), content)
        config = config.replace(dataset=place)
    if differing := config.differences(asked, "run"):
        raise UsageError(f"--resume of {folder.path} cannot change it: {'; '.join(differing)}")
    extended = {name: changes[name] for name in RESUMABLE if name in changes}
    return config.replace(**extended), folder, run
