"""The learning rate as a pure function of the step, so that resuming needs no hidden state."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "step", "linear", "cosine")
DEPEND_ON_EPOCHS = ("linear", "cosine")  # the others are the same however long a run is


def learning_rate(
    base: float,
    schedule: str,
    step: int,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    step_every: int = 0,
    step_factor: float = 0.1,
) -> float:
    """The learning rate of update number `step` (counted from 0) of `total_steps`.

    - `constant`: `base`
    - `step`: `base · step_factor ** (step // step_every)`
    - `linear`: from `base` at the first update to 0 just after the last
    - `cosine`: half a cosine over the same range (Loshchilov and Hutter 2016, equation 5)

    During the first `warmup_steps` updates the rate climbs linearly to what the schedule says
    (Goyal et al. 2017, section 2.2); the first update uses `1 / (warmup_steps + 1)` of it.

    >>> [round(learning_rate(1.0, "linear", t, 4), 2) for t in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}, expected one of {', '.join(SCHEDULES)}")
    if not 0 <= step < max(total_steps, 1):
        raise ValueError(f"step is {step}, expected 0 to {total_steps - 1}")
    if schedule == "step" and step_every < 1:
        raise ValueError(f"step_every is {step_every}, expected at least 1 update")
    done = step / max(total_steps, 1)
    rate = base
    if schedule == "step":
        rate = base * step_factor ** (step // step_every)
    elif schedule == "linear":
        rate = base * (1.0 - done)
    elif schedule == "cosine":
        rate = base * 0.5 * (1.0 + math.cos(math.pi * done))
    if step < warmup_steps:
        rate *= (step + 1) / (warmup_steps + 1)
    return rate
