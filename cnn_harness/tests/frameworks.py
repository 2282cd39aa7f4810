"""A framework that trains nothing, for what knows none."""

from __future__ import annotations

from typing import Any

from cnn_harness.config import TrainConfig
from cnn_harness.framework import Framework
from cnn_harness.jobs.peers import Peers


def _nothing(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("no run is started here")


NOTHING_TRAINS = Framework(
    name="none",
    environment=dict,
    models={"lenet": None},
    recipes={},
    defaults={"lenet": TrainConfig()},
    prepare=_nothing,
    read_weights=_nothing,
    load=_nothing,
    fit=_nothing,
    switches=_nothing,
    join=lambda options: Peers(),
    follow=_nothing,
)
