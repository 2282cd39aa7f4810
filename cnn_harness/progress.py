"""How far a run has come: what a checkpoint holds beside parameters and slots."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError, UsageError
from gluon_cnn_parity.atomic import writing


@dataclass(frozen=True)
class Partial:
    """The part of an epoch that is done: its updates, and sums over their images.

    Sums are of float32 values in float64, one after the other, so that it does not matter to a
    single bit where an epoch was interrupted.
    """

    epoch: int  # counts from 1
    steps: int = 0
    images: int = 0
    loss_sum: float = 0.0
    hit_sum: float = 0.0
    seconds: float = 0.0

    def after(self, steps: int, images: int, loss: float, hits: float) -> Partial:
        """This with more steps done, of so many images, and their summed loss and hits."""
        return dataclasses.replace(
            self,
            steps=self.steps + steps,
            images=self.images + images,
            loss_sum=self.loss_sum + loss,
            hit_sum=self.hit_sum + hits,
        )


@dataclass(frozen=True)
class Progress:
    """The rows of the whole epochs, and the epoch that was interrupted, if one was."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    partial: Partial | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)  # what it was computed with

    def where(self) -> str:
        """`the start`, `the end of epoch 3`, or `step 12 of epoch 4`."""
        if self.partial is not None:
            return f"step {self.partial.steps} of epoch {self.partial.epoch}"
        return f"the end of epoch {len(self.rows)}" if self.rows else "the start"


def progress_of(progress: Progress) -> dict[str, Any]:
    """A progress as JSON, for another process of the same job."""
    return dataclasses.asdict(progress)


def progress_from(values: Mapping[str, Any]) -> Progress:
    """The progress that `progress_of` has written."""
    partial = values["partial"]
    return Progress(values["rows"], None if partial is None else Partial(**partial))


def save_arrays(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write parameters or slots by name, as safetensors. Raises: OSError."""
    with writing(path):
        save_file(arrays, path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `save_arrays` has written. Raises: CommandError in one line where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())
        raise CommandError(f"{path} cannot be loaded: {reason}") from error


def require_fitting(
    path: Path,
    held: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    model: str,
) -> None:
    """Raise CommandError naming the first array of a run's file that its net does not take so.

    The net is made of what `config.json` says, which somebody may have edited.
    """
    for name in [*expected, *(name for name in held if name not in expected)]:
        has, takes = (str(each.get(name, "none")) for each in (held, expected))
        if has != takes:
            raise CommandError(
                f"{path} does not fit the run's config.json: of {name} it has {has}, {model} as "
                f"described there takes {takes}; put back the config.json that the run wrote"
            )


def step_seed(seed: int, epoch: int, step: int) -> int:
    """The seed of what one update draws (dropout's masks), 0 to 2**31 - 1.

    MXNet's generators cannot be read back, so they are seeded anew before each update. They seed a
    thousand generators of their own with consecutive numbers: neighbouring steps must not have
    neighbouring seeds, or the second would draw most of what the first one drew.

    >>> step_seed(0, 1, 0), step_seed(0, 1, 1)
    (1942027521, 231311400)
    """
    return int(np.random.SeedSequence([seed, epoch, 2, step]).generate_state(1)[0]) >> 1


def state_of(config: TrainConfig, progress: Progress, steps_per_epoch: int) -> dict[str, Any]:
    """What a checkpoint says of the run, as JSON.

    The random state is a function of (seed, epoch, step): see `data.Batches` and `step_seed`.
    """
    partial = progress.partial
    epoch = partial.epoch if partial is not None else len(progress.rows) + 1
    step = partial.steps if partial is not None else 0
    return {
        "config": config.to_dict(),
        "epoch": epoch,
        "step": step,
        "schedule": {
            "name": config.schedule,
            "update": (epoch - 1) * steps_per_epoch + step,
            "updates": config.epochs * steps_per_epoch,
        },
        "random": {"seed": config.seed, "epoch": epoch, "step": step},
        "rows": progress.rows,
        "partial": None if partial is None else dataclasses.asdict(partial),
    }


def read_progress(
    state: object, config: TrainConfig, steps_per_epoch: int, origin: Path
) -> Progress:
    """What `state_of` wrote, held against the run that is to continue; `origin` is its folder.

    Raises: UsageError naming each field that differs, but `epochs`; CommandError where it is none.
    """
    if not isinstance(state, dict):
        raise CommandError(f"{origin} holds no state of a run")
    saved = TrainConfig.from_dict(state.get("config"), origin)
    if differing := saved.differences(config.to_dict(), "checkpoint"):
        raise UsageError(f"--resume from {origin} cannot change the run: {'; '.join(differing)}")
    rows, partial = state.get("rows"), state.get("partial")
    if not isinstance(rows, list) or not all(_is_row(r, n) for n, r in enumerate(rows, 1)):
        raise CommandError(f"{origin}: its rows are not one an epoch")
    done = Progress(
        rows, None if partial is None else _partial(partial, origin), state.get("versions") or {}
    )
    begun = done.partial
    if begun is not None and not (
        begun.epoch == len(rows) + 1 and 0 <= begun.steps <= steps_per_epoch
    ):
        raise CommandError(
            f"{origin} was left at {done.where()}, expected epoch {len(rows) + 1} and at most "
            f"{steps_per_epoch} steps"
        )
    return done


def _is_row(row: object, epoch: int) -> bool:
    return isinstance(row, dict) and row.get("epoch") == epoch and _is_number(row.get("test_acc"))


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _partial(values: object, origin: Path) -> Partial:
    fields = {f.name: type(f.default) for f in dataclasses.fields(Partial)}
    fields["epoch"] = int
    if (
        not isinstance(values, Mapping)
        or set(values) != set(fields)
        or not all(_is_number(v) and (fields[n] is float or type(v) is int)
                   for n, v in values.items())
    ):  # fmt: skip
        raise CommandError(f"{origin}: its interrupted epoch is not valid")
    return Partial(**values)
