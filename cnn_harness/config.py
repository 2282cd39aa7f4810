"""One frozen configuration a run; the flags of both `train` commands are made from its fields."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cnn_data import AUGMENTATIONS, FOLDER, NORMALISATIONS, DataError, augmentation
from cnn_harness.cli import above_zero, finite_float, natural, positive
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.initial import INITIALISERS
from cnn_harness.schedule import SCHEDULES
from gluon_cnn_parity.cli import spellings

OPTIMIZERS = ("sgd", "adam")
FITS = ("resize", "pad")
DATA, OPTIMISATION, REGULARISATION = "model and data", "optimisation", "regularisation"
FINE_TUNING, RUN = "fine-tuning", "run"
GROUPS = (DATA, OPTIMISATION, REGULARISATION, FINE_TUNING, RUN)  # in the order of `--help`
LARGEST_IMAGE = 4096  # pixels a side


# Fields that came later: an older run's `config.json` has none, and trained with their defaults
LATER = frozenset(
    {
        "grad_accum_steps",
        "clip_grad",
        "mixup",
        "label_smoothing",
        "ema",
        "patience",
        "init_from",
        "init_lr_scale",
        "freeze",
    }
)
RESUMABLE = ("epochs", "patience")  # what a run that is continued may have otherwise


def augmentations(text: str) -> str:
    """argparse type: names of `AUGMENTATIONS`, joined by commas."""
    try:
        return augmentation(text)
    except DataError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def flag(default: Any, help: str, group: str = RUN, **options: Any) -> Any:
    """A field that is also a flag of that group of `--help`; `options` go to argparse."""
    return field(default=default, metadata={"help": help, "group": group, **options})


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes, and nothing else.

    Two runs with equal configurations, thread counts and package versions end with bit-equal
    parameters; where a run is written, and on which device, is not part of it.
    """

    model: str = flag("lenet", "which network", DATA, metavar="NAME")
    dataset: str = flag(
        "mnist5k", "mnist5k, mnist, fashion_mnist, cifar10, imagenette, folder:PATH", DATA,
        metavar="NAME",
    )  # fmt: skip
    epochs: int = flag(20, "passes over the training images", OPTIMISATION, type=positive)
    batch_size: int = flag(64, "images per update", OPTIMISATION, type=positive)
    grad_accum_steps: int = flag(
        1, "parts in which a batch is computed one after the other, for less memory", OPTIMISATION,
        type=positive,
    )  # fmt: skip
    clip_grad: float = flag(
        0.0, "largest norm of the gradient, over all parameters together; 0: any", OPTIMISATION,
        type=finite_float,
    )  # fmt: skip
    optimizer: str = flag("adam", "update rule", OPTIMISATION, choices=OPTIMIZERS)
    lr: float = flag(
        0.002, "learning rate (its highest value, under a schedule)", OPTIMISATION,
        type=above_zero,
    )  # fmt: skip
    momentum: float = flag(0.0, "momentum of sgd", OPTIMISATION, type=finite_float)
    nesterov: bool = flag(
        False, "Nesterov momentum for sgd", OPTIMISATION, action=argparse.BooleanOptionalAction
    )
    wd: float = flag(
        0.0, "weight decay, on every parameter as Gluon does", OPTIMISATION, type=finite_float
    )
    schedule: str = flag("cosine", "how the learning rate falls", OPTIMISATION, choices=SCHEDULES)
    warmup_epochs: int = flag(
        0, "epochs over which the learning rate climbs", OPTIMISATION, type=natural
    )
    step_epochs: int = flag(
        10, "epochs between two steps of the step schedule", OPTIMISATION, type=positive
    )
    step_factor: float = flag(
        0.1, "factor of each step of the step schedule", OPTIMISATION, type=finite_float
    )
    initialiser: str = flag("xavier", "how weights start", OPTIMISATION, choices=INITIALISERS)
    normalise: str = flag("standard", "what pixels become", DATA, choices=NORMALISATIONS)
    augment: str = flag(
        "none", f"how training images vary: {', '.join(AUGMENTATIONS)}, or several with commas",
        REGULARISATION, type=augmentations, metavar="NAME",
    )  # fmt: skip
    mixup: float = flag(
        0.0, "mix the images of a batch in pairs: alpha of the Beta distribution of their shares; "
        "0: do not", REGULARISATION, type=finite_float,
    )  # fmt: skip
    label_smoothing: float = flag(
        0.0, "share of a label that is spread over all classes, in training", REGULARISATION,
        type=finite_float,
    )  # fmt: skip
    ema: float = flag(
        0.0, "evaluate and keep a moving average of the weights with this decay, such as 0.999; "
        "0: the weights themselves", REGULARISATION, type=finite_float,
    )  # fmt: skip
    patience: int = flag(
        0, "epochs without a better test accuracy after which training ends; 0: go on",
        REGULARISATION, type=natural,
    )  # fmt: skip
    image_size: int | None = flag(
        None, "side of the square images, pixels; unset: the dataset's own", DATA, type=positive
    )
    fit: str = flag("resize", "how images reach --image-size", DATA, choices=FITS)
    init_from: str = flag(
        "", "begin with the weights of a run, an export, or a .params, .safetensors or .pt file, "
        "as far as names and shapes fit", FINE_TUNING, metavar="RUN|FILE",
    )  # fmt: skip
    init_lr_scale: float = flag(
        1.0, "factor of the learning rate of what --init-from loaded", FINE_TUNING,
        type=finite_float,
    )  # fmt: skip
    freeze: str = flag(
        "", "leave these parameters as they are: paths such as features, or patterns, with commas",
        FINE_TUNING, metavar="PATTERN",
    )  # fmt: skip
    seed: int = flag(0, "seed of weights, order, augmentation and dropout", RUN, type=natural)

    def __post_init__(self) -> None:
        """Refuse values that no run could use, however the configuration was made.

        Raises: UsageError, naming the field.
        """
        for name in ("epochs", "batch_size", "step_epochs", "grad_accum_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.init_lr_scale == 1 or bool(self.init_from), "init_lr_scale",
                 self.init_lr_scale, "1 without --init-from")  # fmt: skip
        for name in ("clip_grad", "mixup", "patience", "init_lr_scale"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("label_smoothing", "ema"):
            value = getattr(self, name)
            _require(0 <= value < 1, name, value, "0 to below 1")
        parts = self.grad_accum_steps
        _require(parts <= self.batch_size, "grad_accum_steps", parts,
                 f"at most the {self.batch_size} images of a batch")  # fmt: skip
        try:
            augmentation(self.augment)
        except DataError as error:
            raise UsageError(
                f"augment is {self.augment}, expected one of {', '.join(AUGMENTATIONS)}, or "
                "several with commas"
            ) from error
        _require(self.image_size is None or 1 <= self.image_size <= LARGEST_IMAGE, "image_size",
                 self.image_size, f"1 to {LARGEST_IMAGE} pixels")  # fmt: skip
        for f in fields(self):
            value, known = getattr(self, f.name), f.metadata.get("choices")
            if isinstance(value, int):
                _require(value < 2**31, f.name, value, "at most 2147483647")
            elif isinstance(value, float):
                _require(math.isfinite(value), f.name, value, "a finite number")
            _require(known is None or value in known, f.name, value,
                     "one of " + ", ".join(known or ()))  # fmt: skip
        _require(self.lr > 0, "lr", self.lr, "more than 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1")
        _require(self.wd >= 0, "wd", self.wd, "0 or more")
        _require(0 <= self.warmup_epochs <= self.epochs, "warmup_epochs", self.warmup_epochs,
                 f"0 to the run's {self.epochs} epochs")  # fmt: skip
        if self.optimizer == "adam":
            _require(not self.momentum and not self.nesterov, "momentum", self.momentum,
                     "0 with adam, which has its own")  # fmt: skip
        _require(not self.nesterov or self.momentum > 0, "nesterov", self.nesterov,
                 "a momentum above 0 beside it")  # fmt: skip

    def replace(self, **changes: Any) -> TrainConfig:
        """A copy with the given fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def differences(self, asked: Mapping[str, Any], whose: str) -> list[str]:
        """What says something else than this, `whose` configuration it is, but `RESUMABLE` and
        where a folder of images lies."""
        return [
            f"{name} is {value!r}, the {whose} has {getattr(self, name)!r}"
            for name, value in asked.items()
            if name not in RESUMABLE
            and value != getattr(self, name)
            and not (name == "dataset" and value.startswith(FOLDER) and self.is_of_folder)
        ]

    @property
    def is_of_folder(self) -> bool:
        """Whether the images are a folder's, which is known by its content, not by its place."""
        return self.dataset.startswith(FOLDER)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: object, origin: str | Path) -> TrainConfig:
        """The configuration in a parsed `config.json`; `origin` names the file in errors.

        Raises: CommandError for anything but an object with exactly these fields and types; those
        of `LATER` may be missing.
        """
        if not isinstance(values, dict):
            raise CommandError(f"{origin}: the configuration is not a JSON object")
        known = {f.name: f for f in fields(cls)}
        wrong = sorted((set(known) ^ set(values)) - (LATER - set(values)))
        if wrong:
            raise CommandError(
                f"{origin}: configuration fields missing or unknown: {', '.join(map(str, wrong))}"
            )
        for name, value in values.items():
            like = known[name].default
            if name == "image_size":
                fits = value is None or type(value) is int
            elif isinstance(like, float):
                fits = type(value) in (int, float)
            else:
                fits = type(value) is type(like)
            if not fits:
                kind = "a whole number" if name == "image_size" else _KINDS[type(like)]
                raise CommandError(f"{origin}: {name} is {json.dumps(value)}, expected {kind}")
        try:
            return cls(**values)
        except UsageError as error:  # nobody has typed it
            raise CommandError(f"{origin}: {error}") from error


@dataclass(frozen=True)
class RunOptions:
    """What a run does beyond its configuration: where it computes, reads, writes and goes on.

    Its fields are flags of `train`, as those of `TrainConfig` are.
    """

    config: str | None = flag(
        None, "JSON or YAML file with values of these flags, such as a run's config.json; flags "
        "on the command line win", metavar="FILE",
    )  # fmt: skip
    recipe: str | None = flag(
        None, "another recipe than the model's, such as a document's: see below", metavar="NAME"
    )
    data_dir: str | None = flag(
        None, "folder with the dataset's original files, or one prepared by cnn_data.prepare",
        DATA, metavar="DIR",
    )  # fmt: skip
    skip_damaged: bool = flag(
        False, "leave out image files that cannot be read, by name, instead of refusing the folder",
        DATA, action="store_true",
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
    amp: bool = flag(
        False, "mixed precision: refused, since float16 could not be tried on a GPU that MXNet "
        "runs on", action="store_true",
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


def _require(good: bool, name: str, value: object, expected: str) -> None:
    if not good:
        raise UsageError(f"{name} is {value}, expected {expected}")


def add_flags(parser: argparse.ArgumentParser, *defaults: Any) -> None:
    """Add a flag for every field of dataclasses of `flag`s, in groups, `--help` showing `defaults`.

    Unset flags are absent from the namespace: what was given must be told from what was not, so
    that it can change a recipe, or be held against the run to resume.
    """
    groups = {title: parser.add_argument_group(title) for title in GROUPS}
    for f, default in ((f, getattr(each, f.name)) for each in defaults for f in fields(each)):
        options = dict(f.metadata)
        text, group = options.pop("help"), groups[options.pop("group")]
        if default is not None and default is not False and default != "":
            text += f" (default: {default})"
        if "type" in options:
            options.setdefault(
                "metavar", "F" if options["type"] in (finite_float, above_zero) else "N"
            )
        name = "--" + f.name.replace("_", "-")
        group.add_argument(*spellings(name), default=argparse.SUPPRESS, help=text,
                           dest=f.name, **options)  # fmt: skip
