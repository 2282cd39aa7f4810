"""What the commands that both frameworks share need to know of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_harness.config import RunOptions, TrainConfig
from cnn_harness.initial import Pretrained
from cnn_harness.jobs.peers import Peers
from cnn_harness.jobs.stop import Stop
from cnn_harness.progress import Progress


@dataclass(frozen=True)
class Framework:
    """A package that trains."""

    name: str  # "gluon" or "torch"
    environment: Callable[[], dict[str, Any]]  # versions and threads, which decide a run's bits
    models: Mapping[str, Any]  # name -> entry with .input_shape (C, H, W)
    recipes: Mapping[str, TrainConfig]  # those that `--recipe` names
    defaults: Mapping[str, TrainConfig]
    # prepare(config, dataset, ctx, peers, pretrained=…): checks all; writes nothing
    prepare: Callable[..., Any]
    read_weights: Callable[[str], Pretrained]  # read_weights(source): what --init-from names
    load: Callable[[Any, Path, dict[str, Any]], None]  # load(prepared, path, state): a checkpoint
    fit: Callable[..., list[dict[str, Any]]]  # fit(prepared, folder, start=…, monitor=…, stop=…)
    switches: Callable[[str, bool, bool], list[str]]  # switches(ctx, tf32, autotune): what to say
    join: Callable[[Any], Peers]  # join(options): the processes of this job
    follow: Callable[[Any, Progress, Stop], None]  # follow(prepared, start, stop): fit, not leading
    # A subclass where it has flags of its own
    options: RunOptions = field(default_factory=RunOptions)
