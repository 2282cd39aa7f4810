import math

import pytest

from cnn_harness.schedule import SCHEDULES, learning_rate


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_starts_at_base_and_never_exceeds_it(schedule: str) -> None:
    rates = [learning_rate(0.1, schedule, t, 50, step_every=10) for t in range(50)]
    assert rates[0] == 0.1
    assert max(rates) == 0.1
    assert min(rates) > 0


def test_linear_ends_one_step_above_zero() -> None:
    assert learning_rate(1.0, "linear", 9, 10) == pytest.approx(0.1)


def test_cosine_is_half_way_in_the_middle() -> None:
    assert learning_rate(1.0, "cosine", 50, 100) == pytest.approx(0.5)
    assert learning_rate(1.0, "cosine", 25, 100) == pytest.approx(0.5 + math.sqrt(0.5) / 2)


def test_step_falls_at_the_right_update() -> None:
    rates = [learning_rate(1.0, "step", t, 30, step_every=10, step_factor=0.5) for t in range(30)]
    assert rates == [1.0] * 10 + [0.5] * 10 + [0.25] * 10


def test_warm_up_climbs_linearly_and_ends_on_time() -> None:
    rates = [learning_rate(1.0, "constant", t, 10, warmup_steps=4) for t in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize(
    ("schedule", "step", "options"),
    [("exponential", 0, {}), ("constant", 10, {}), ("constant", -1, {}), ("step", 0, {})],
)
def test_refuses_what_it_cannot_mean(schedule: str, step: int, options: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        learning_rate(1.0, schedule, step, 10, **options)
