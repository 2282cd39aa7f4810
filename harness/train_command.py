"""The `train` command of either framework: flags in, a run folder out."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
from data import Dataset
from harness.cli import Parser, print_json
from harness.config import TrainConfig, flags
from harness.errors import CommandError, UsageError
from harness.monitor import RunMonitor
from harness.runfolder import RunFolder, default_name, read_json

__all__ = ["Framework", "describe_run", "load_data", "read_run", "train_command"]

RUN_FORMAT = 1


@dataclass(frozen=True)
class Framework:
    """What the shared command needs to know of a package that trains."""

    name: str  # "gluon" or "torch"
    packages: tuple[str, ...]  # whose versions decide what a run computes
    models: Mapping[str, Any]  # name -> entry with .input_shape (C, H, W)
    documents: Mapping[str, TrainConfig]
    defaults: Mapping[str, TrainConfig]
    prepare: Callable[[TrainConfig, Dataset, str], Any]  # checks all that can be; writes nothing
    fit: Callable[..., list[dict[str, Any]]]  # fit(prepared, folder, resume=…, monitor=…) -> rows


def train_command(framework: Framework, argv: Sequence[str] | None, prog: str) -> int:
    """Run `python -m PACKAGE.train`; returns the exit code, raises the errors `cli.run` knows."""
    parser = _parser(framework, prog, _likely(framework, argv))
    given = vars(parser.parse_args(argv))
    options = {
        name: given.pop(name)
        for name in ("recipe", "data_dir", "out", "ctx", "resume", "tensorboard", "json")
    }
    if options["resume"]:
        config, folder, data_dir = _resumed(framework, given, options)
    else:
        config, folder, data_dir = _configured(framework, given, options["recipe"]), None, None
    data_dir = options["data_dir"] if options["data_dir"] is not None else data_dir
    dataset = load_data(config, data_dir, framework.models[config.model].input_shape)
    prepared = framework.prepare(config, dataset, options["ctx"])
    resume = folder is not None
    if folder is None:
        if options["resume"]:
            print_line(options, "nothing was saved yet: starting from the beginning")
        folder = RunFolder.new(options["out"], default_name(config.model, config.dataset))
    title = f"{config.model} on {dataset.name}, {framework.name}"
    with folder:
        folder.write_config(describe_run(framework, config, dataset, data_dir))
        with RunMonitor(folder, title, tensorboard=options["tensorboard"]) as monitor:
            rows = framework.fit(prepared, folder, resume=resume, monitor=monitor)
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


def print_line(options: Mapping[str, Any], line: str) -> None:
    if not options["json"]:
        print(line)


def _likely(framework: Framework, argv: Sequence[str] | None) -> TrainConfig:
    """The configuration whose values `--help` shows: that of the model or recipe beside it."""
    first = Parser(add_help=False, exit_on_error=False)
    first.add_argument("--model", nargs="?", default="lenet")
    first.add_argument("--recipe", nargs="?")
    known, _ = first.parse_known_args(argv)
    if known.recipe in framework.documents:
        return framework.documents[known.recipe]
    return framework.defaults.get(known.model, framework.defaults["lenet"])


def _parser(framework: Framework, prog: str, shown: TrainConfig) -> Parser:
    parser = Parser(
        prog=prog,
        description="Train a classic CNN; every run leaves a folder with its configuration, "
        "metrics, best parameters, checkpoint, curves and predictions.",
        epilog=f"Models: {', '.join(framework.models)}. Each has a recipe of its own, and --recipe "
        "is a document's, as written; flags beside it change it. The defaults above are those of "
        f"{shown.model}: give --model or --recipe beside --help for others.",
    )
    parser.add_argument(
        "--recipe", default=None, metavar="NAME",
        help=f"a document's recipe instead of the model's: {', '.join(framework.documents)}",
    )  # fmt: skip
    flags(parser, shown)
    parser.add_argument(
        "--data-dir", default=None, metavar="DIR",
        help="folder with the dataset's original files, or one prepared by data.prepare",
    )  # fmt: skip
    parser.add_argument(
        "--ctx", default="auto", metavar="CTX", help="auto, cpu, gpu, or several: gpu:0,1"
    )
    parser.add_argument(
        "--out", default=None, metavar="DIR",
        help="run folder; unset: the next free of runs/MODEL-DATASET, runs/MODEL-DATASET-2, …",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in --out (or the newest) exactly"
    )
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


def _configured(framework: Framework, given: Mapping[str, Any], recipe: str | None) -> TrainConfig:
    if recipe is not None and recipe not in framework.documents:
        raise UsageError(
            f"--recipe is {recipe!r}, expected one of {', '.join(framework.documents)}"
        )
    model = given.get("model")
    if model is not None and model not in framework.defaults:
        raise UsageError(f"--model is {model!r}, expected one of {', '.join(framework.defaults)}")
    if recipe is not None:
        return framework.documents[recipe].replace(**given)
    return framework.defaults[model or "lenet"].replace(**given)


def _resumed(
    framework: Framework, given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[TrainConfig, RunFolder | None, str | None]:
    """The configuration and folder of the run to continue; None for the folder if there is none.

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
    return config.replace(epochs=given.get("epochs", config.epochs)), folder, run["data_dir"]


def load_data(
    config: TrainConfig, data_dir: str | None, input_shape: tuple[int, int, int]
) -> Dataset:
    """The configured dataset; photographs of any size come at the model's own unless told."""
    size = config.image_size
    if size is None and (config.dataset.startswith("folder:") or config.dataset == "imagenette"):
        size = input_shape[1]
    return data.load_dataset(config.dataset, data_dir, image_size=size, fit=config.fit)


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
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in framework.packages},
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


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
