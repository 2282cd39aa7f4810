"""The mirror of `gluon_cnn.train`: same flags, batches, first weights, files and metrics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gluon_cnn_parity import require

if __name__ == "__main__":
    require("torch", extras="torch", program="python -m torch_ref.train")

from cnn_data import DataError
from cnn_harness.cli import as_command, natural
from cnn_harness.config import RunOptions, flag
from cnn_harness.framework import Framework
from cnn_harness.jobs.vitals import STALL
from cnn_harness.train_command import train_command
from torch_ref.models import MODELS, ModelError
from torch_ref.training import checkpoint, loop, workers
from torch_ref.training.assembly import prepare
from torch_ref.training.devices import switches
from torch_ref.training.pretrained import read_weights
from torch_ref.training.recipes import DEFAULTS, DOCUMENTS, OWN

__all__ = ["FRAMEWORK", "main"]


@dataclass(frozen=True)
class Options(RunOptions):
    """Gluon's workers have a launcher of ours, whose flag this is (`gluon_cnn.launch`)."""

    stall_timeout: int = flag(
        int(STALL), "end a job of torchrun when a process is stopped, or none computes, for so "
        "long; 0: never", type=natural, metavar="SECONDS",
    )  # fmt: skip


FRAMEWORK = Framework(
    name="torch",
    environment=checkpoint.environment,
    models=MODELS,
    recipes={**DOCUMENTS, **OWN},
    defaults=DEFAULTS,
    prepare=prepare,
    read_weights=read_weights,
    load=loop.load,
    fit=loop.fit,
    switches=switches,
    join=lambda options: workers.join(options.stall_timeout),
    follow=loop.follow,
    options=Options(),
)


@as_command(DataError, ModelError)
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return train_command(FRAMEWORK, argv, "python -m torch_ref.train")


if __name__ == "__main__":
    sys.exit(main())
