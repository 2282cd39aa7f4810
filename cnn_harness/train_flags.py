"""The flags of both `train` commands: a field of the configuration each, and where to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cnn_harness.cli import Parser
from cnn_harness.config import TrainConfig, add_flags, flag
from cnn_harness.framework import Framework

__all__ = ["RunOptions", "likely", "read_flags", "recipe_names"]


@dataclass(frozen=True)
class RunOptions:
    """What a run does beyond its configuration: where it computes, reads, writes and goes on.

    Its fields are flags of `train`, as those of `TrainConfig` are.
    """

    recipe: str | None = flag(
        None, "a document's recipe instead of the model's: see below", metavar="NAME"
    )
    data_dir: str | None = flag(
        None, "folder with the dataset's original files, or one prepared by cnn_data.prepare",
        metavar="DIR",
    )  # fmt: skip
    ctx: str = flag("auto", "auto, cpu, gpu, or several: gpu:0,1", metavar="CTX")
    tf32: bool = flag(
        False, "let a GPU round float32 to 10 bits of mantissa where that is faster",
        action="store_true",
    )  # fmt: skip
    autotune: bool = flag(
        False, "let a GPU choose algorithms by the clock, so that runs differ in their bits",
        action="store_true",
    )  # fmt: skip
    out: str | None = flag(
        None, "run folder; unset: the next free of runs/MODEL-DATASET, runs/MODEL-DATASET-2, …",
        metavar="DIR",
    )  # fmt: skip
    resume: str | None = flag(
        None, "continue the run in --out (or the newest) exactly, from its last checkpoint or the "
        "one before; a larger --epochs extends it",
        nargs="?", const="last", choices=("last", "previous"),
    )  # fmt: skip
    tensorboard: bool = flag(False, "also write TensorBoard events", action="store_true")
    json: bool = flag(False, "print one JSON object at the end", action="store_true")


def recipe_names(documents: Mapping[str, TrainConfig]) -> str:
    """Each recipe once, its aliases in brackets: `gluon-lenet-mnist (doc-2), …`."""
    names: dict[TrainConfig, list[str]] = {}
    for name, recipe in documents.items():
        names.setdefault(recipe, []).append(name)
    return ", ".join(
        f"{name} ({', '.join(aliases)})" if aliases else name for name, *aliases in names.values()
    )


def likely(framework: Framework, argv: Sequence[str] | None) -> TrainConfig:
    """The configuration whose values `--help` shows: that of the model or recipe beside it."""
    first = Parser(prog="train", add_help=False, exit_on_error=False)
    first.add_argument("--model", nargs="?", default="lenet")
    first.add_argument("--recipe", nargs="?")
    known, _ = first.parse_known_args(argv)
    if known.recipe in framework.documents:
        return framework.documents[known.recipe]
    return framework.defaults.get(known.model, framework.defaults["lenet"])


def read_flags(
    framework: Framework, argv: Sequence[str] | None, prog: str
) -> tuple[dict[str, Any], RunOptions]:
    """The fields of the configuration that a command line gives, and its options."""
    shown = likely(framework, argv)
    parser = Parser(
        prog=prog,
        description="Train a classic CNN; every run leaves a folder with its configuration, "
        "metrics, best parameters, checkpoint, curves and predictions.",
        epilog=f"Models: {', '.join(framework.models)}. Each has a recipe of its own, and --recipe "
        "is a document's, as written; flags beside it change it. Recipes: "
        f"{recipe_names(framework.documents)}. The defaults above are those of "
        f"{shown.model}: give --model or --recipe beside --help for others.",
    )
    add_flags(parser, shown)
    add_flags(parser, RunOptions())
    changes = vars(parser.parse_args(argv))
    names = [each.name for each in fields(RunOptions) if each.name in changes]
    return changes, RunOptions(**{name: changes.pop(name) for name in names})
