"""The flags of both `train` commands: a field of the configuration each, and where to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cnn_harness.cli import Parser
from cnn_harness.config import TrainConfig, flags

__all__ = ["likely", "recipe_names", "train_parser"]


class Recipes(Protocol):
    """What the flags show of a framework."""

    @property
    def models(self) -> Mapping[str, Any]: ...
    @property
    def documents(self) -> Mapping[str, TrainConfig]: ...
    @property
    def defaults(self) -> Mapping[str, TrainConfig]: ...


def recipe_names(documents: Mapping[str, TrainConfig]) -> str:
    """Each recipe once, its aliases in brackets: `gluon-lenet-mnist (doc-2), …`."""
    names: dict[TrainConfig, list[str]] = {}
    for name, recipe in documents.items():
        names.setdefault(recipe, []).append(name)
    return ", ".join(
        f"{name} ({', '.join(aliases)})" if aliases else name for name, *aliases in names.values()
    )


def likely(framework: Recipes, argv: Sequence[str] | None) -> TrainConfig:
    """The configuration whose values `--help` shows: that of the model or recipe beside it."""
    first = Parser(prog="train", add_help=False, exit_on_error=False)
    first.add_argument("--model", nargs="?", default="lenet")
    first.add_argument("--recipe", nargs="?")
    known, _ = first.parse_known_args(argv)
    if known.recipe in framework.documents:
        return framework.documents[known.recipe]
    return framework.defaults.get(known.model, framework.defaults["lenet"])


def train_parser(framework: Recipes, prog: str, shown: TrainConfig) -> Parser:
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
        help="a document's recipe instead of the model's: "
        f"{recipe_names(framework.documents)}",
    )  # fmt: skip
    flags(parser, shown)
    parser.add_argument(
        "--data-dir", default=None, metavar="DIR",
        help="folder with the dataset's original files, or one prepared by cnn_data.prepare",
    )  # fmt: skip
    parser.add_argument(
        "--ctx", default="auto", metavar="CTX", help="auto, cpu, gpu, or several: gpu:0,1"
    )
    parser.add_argument(
        "--tf32", action="store_true",
        help="let a GPU round float32 to 10 bits of mantissa where that is faster",
    )  # fmt: skip
    parser.add_argument(
        "--autotune", action="store_true",
        help="let a GPU choose algorithms by the clock, so that runs differ in their bits",
    )  # fmt: skip
    parser.add_argument(
        "--out", default=None, metavar="DIR",
        help="run folder; unset: the next free of runs/MODEL-DATASET, runs/MODEL-DATASET-2, …",
    )  # fmt: skip
    parser.add_argument(
        "--resume", nargs="?", const="last", choices=("last", "previous"),
        help="continue the run in --out (or the newest) exactly, from its last checkpoint or the "
        "one before; a larger --epochs extends it",
    )  # fmt: skip
    parser.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser
