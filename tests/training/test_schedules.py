"""Schedules against their closed forms."""

from __future__ import annotations

import math

import pytest

from duihua.training.config import ScheduleConfig
from duihua.training.schedules import rate_factor


def test_wsd_warms_up_stays_and_falls_linearly() -> None:
    config = ScheduleConfig(kind="wsd", warmup_steps=4, decay_fraction=0.5)
    factors = [rate_factor(step, 20, config) for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:11] == [1.0] * 7
    assert factors[10:] == pytest.approx([1 - i / 10 for i in range(10)])
    assert rate_factor(15, 20, ScheduleConfig(kind="wsd", warmup_steps=4, decay_fraction=0.2)) != factors[15]


def test_cosine_linear_and_constant_follow_their_formulas() -> None:
    for step in range(2, 12):
        progress = (step - 2) / 10
        cosine = rate_factor(step, 12, ScheduleConfig(kind="cosine", warmup_steps=2, final_fraction=0.1))
        assert cosine == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
        linear = rate_factor(step, 12, ScheduleConfig(kind="linear", warmup_steps=2))
        assert linear == pytest.approx(1 - progress)
        assert rate_factor(step, 12, ScheduleConfig(kind="constant", warmup_steps=2)) == 1.0


def test_the_first_step_moves_and_no_step_is_negative() -> None:
    for kind in ("wsd", "cosine", "linear", "constant"):
        config = ScheduleConfig(kind=kind, warmup_steps=3)  # type: ignore[arg-type]
        factors = [rate_factor(step, 5, config) for step in range(5)]
        assert factors[0] > 0
        assert min(factors) >= 0
        assert max(factors) <= 1
