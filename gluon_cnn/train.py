"""Train a classic CNN with Gluon's Trainer/autograd loop (doc-2): `python -m gluon_cnn.train`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cnn_data import DataError
from cnn_harness.cli import run
from cnn_harness.framework import Framework
from cnn_harness.train_command import train_command
from gluon_cnn.models import MODELS, ModelError
from gluon_cnn.training import checkpoint, loop, workers
from gluon_cnn.training.assembly import prepare
from gluon_cnn.training.devices import find_devices, switches
from gluon_cnn.training.pretrained import read_weights
from gluon_cnn.training.recipes import DEFAULTS, DOCUMENTS, OWN

__all__ = ["FRAMEWORK", "main"]

FRAMEWORK = Framework(
    name="gluon",
    environment=checkpoint.environment,
    models=MODELS,
    recipes={**DOCUMENTS, **OWN},
    defaults=DEFAULTS,
    prepare=prepare,
    read_weights=read_weights,
    load=loop.load,
    fit=loop.fit,
    switches=switches,
    join=lambda options: workers.join(len(find_devices(options.ctx)) > 1),
    follow=loop.follow,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    code = run(
        lambda: train_command(FRAMEWORK, argv, "python -m gluon_cnn.train"),
        errors=(DataError, ModelError),
    )
    return workers.leave(code)


if __name__ == "__main__":
    sys.exit(main())
