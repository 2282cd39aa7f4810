"""The flags of both `train` commands: a field of the configuration each, and where to run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gluon_cnn_parity import nearest
from cnn_harness.cli import Parser
from cnn_harness.config import RunOptions, TrainConfig, add_flags
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.framework import Framework
from cnn_harness.sealed import read_json

LARGEST_YAML = 2**20  # bytes


def recipe_names(recipes: Mapping[str, TrainConfig]) -> str:
    """Each recipe once, its aliases in brackets: `gluon-lenet-mnist (doc-2), …`."""
    names: dict[TrainConfig, list[str]] = {}
    for name, recipe in recipes.items():
        names.setdefault(recipe, []).append(name)
    return ", ".join(
        f"{name} ({', '.join(aliases)})" if aliases else name for name, *aliases in names.values()
    )


def likely(framework: Framework, argv: Sequence[str]) -> TrainConfig:
    """The configuration whose values `--help` shows: that of the model or recipe beside it."""
    first = Parser(prog="train", add_help=False, exit_on_error=False)
    first.add_argument("--model", nargs="?", default="lenet")
    first.add_argument("--recipe", nargs="?")
    try:
        known, _ = first.parse_known_args(argv)
    except argparse.ArgumentError:  # which the parser of all flags says, and ends with
        return framework.defaults["lenet"]
    if known.recipe in framework.recipes:
        return framework.recipes[known.recipe]
    return framework.defaults.get(known.model, framework.defaults["lenet"])


def read_flags(
    framework: Framework, argv: Sequence[str] | None, prog: str
) -> tuple[dict[str, Any], RunOptions]:
    """The fields of the configuration that a command line gives, and its options.

    Raises: UsageError naming the `--config` file and what is wrong with it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    shown = likely(framework, words)
    parser = Parser(
        prog=prog,
        usage="%(prog)s [FLAG ...]",
        description="Train a classic CNN; every run leaves a folder with its configuration, "
        "metrics, best parameters, checkpoint, curves and predictions.",
        epilog=f"Models: {', '.join(framework.models)}. Each has a recipe of its own, and --recipe "
        "is another, most of them a document's as written; flags beside it change it. Recipes: "
        f"{recipe_names(framework.recipes)}. The defaults above are those of "
        f"{shown.model}: give --model or --recipe beside --help for others.",
    )
    add_flags(parser, shown, framework.options)
    changes = vars(parser.parse_args(words))
    if "config" in changes:
        path = Path(changes["config"])
        parser.origin = f"{path}: "
        changes = vars(parser.parse_args(config_words(path, parser.flags()))) | changes
    if changes.get("amp"):
        raise UsageError(
            "--amp: mixed precision is not offered: float16 could not be tried on a GPU that "
            "MXNet's wheel runs on; train in float32, on a GPU with --tf32 if need be"
        )
    names = [each.name for each in fields(framework.options) if each.name in changes]
    given = {name: changes.pop(name) for name in names}
    return changes, dataclasses.replace(framework.options, **given)


def config_words(path: Path, flags: Collection[str]) -> list[str]:
    """A configuration file as the words of a command line, for the parser to check.

    The file is an object, in JSON or YAML, whose keys are flags without their dashes; a run's own
    `config.json` is one, of which its configuration and how its data are read are taken. A list is
    joined by commas, true is a flag without a value, and null leaves a flag unset.

    Raises: UsageError naming the file, and the key that is no flag.
    """
    values = _read_config(path)
    if isinstance(values.get("config"), dict):
        run, values = values, values["config"]
        for name in ("data_dir", "skip_damaged"):
            values = {name: run.get(name), **values}
    known = {
        flag.removeprefix("--").replace("-", "_"): flag for flag in flags
        if flag not in ("-h", "--help", "--version", "--config")
    }  # fmt: skip
    if unknown := [str(key) for key in values if str(key).replace("-", "_") not in known]:
        found = list(filter(None, (nearest(key.replace("-", "_"), known) for key in unknown)))
        raise UsageError(
            f"{path}: {', '.join(map(repr, unknown))}: no such flag of train"
            + (f"; did you mean {', '.join(found)}?" if found else "")
        )
    words = []
    for key, value in values.items():
        name = "--" + str(key).replace("_", "-")
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float | None) for item in items):
            raise UsageError(f"{path}: {key} is {_short(value)}, expected one value or a list")
        if value is False and f"--no-{name[2:]}" in flags:
            words.append(f"--no-{name[2:]}")
        elif value is True:
            words.append(name)
        elif value is not None and value is not False and value != "":
            words.append(f"{name}={','.join(map(str, items))}")
    return words


def _read_config(path: Path) -> dict[Any, Any]:
    try:
        path.stat()
        values = read_json(path) if path.suffix == ".json" else _read_yaml(path)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except CommandError as error:
        raise UsageError(str(error)) from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: {_short(values)}, expected an object of flags and their values")
    return values


def _read_yaml(path: Path) -> Any:
    import yaml  # here, since most runs have no such file

    if not path.is_file():  # a pipe would block, a device may never end
        raise UsageError(f"--config {path} is not a regular file")
    if path.stat().st_size > LARGEST_YAML:
        raise UsageError(f"--config {path} has {path.stat().st_size} bytes, too large to be one")
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is neither JSON nor YAML: {error}") from error


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
