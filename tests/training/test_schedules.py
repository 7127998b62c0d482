"""Schedules against their closed forms."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from duihua.errors import ConfigError
from duihua.training.config import ScheduleConfig
from duihua.training.schedules import Plateau, rate_factor


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
    for kind in ("wsd", "cosine", "linear", "constant", "step", "noam", "plateau"):
        config = ScheduleConfig(kind=kind, warmup_steps=3)  # type: ignore[arg-type]
        factors = [rate_factor(step, 5, config) for step in range(5)]
        assert factors[0] > 0
        assert min(factors) >= 0
        assert max(factors) <= 1


def torch_rates(make: Callable[[torch.optim.Optimizer], Any], steps: int) -> list[float]:
    """The rates that a scheduler of torch gives to an optimizer of rate 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def ours(steps: int, **fields: Any) -> list[float]:
    config = ScheduleConfig(**({"warmup_steps": 0} | fields))
    return [rate_factor(step, steps, config) for step in range(steps)]


def test_step_cosine_and_linear_equal_those_of_torch() -> None:
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, step_size=4, gamma=0.5), 15)
    assert ours(15, kind="step", step_size=4, gamma=0.5) == pytest.approx(expected)
    assert ours(15, kind="step", step_size=5, gamma=0.5) != pytest.approx(expected)
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=15, eta_min=0.1), 15)
    assert ours(15, kind="cosine", final_fraction=0.1) == pytest.approx(expected)
    expected = torch_rates(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=15), 15)
    assert ours(15, kind="linear", final_fraction=0.2) == pytest.approx(expected)
    assert ours(15, kind="linear", final_fraction=0.3) != pytest.approx(expected)


def test_step_falls_from_the_end_of_the_warm_up_and_not_under_its_floor() -> None:
    factors = ours(12, kind="step", warmup_steps=2, step_size=3, gamma=0.5, final_fraction=0.2)
    assert factors == [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]


def test_noam_is_the_formula_of_the_paper() -> None:
    width, warmup = 512, 40
    peak = (width * warmup) ** -0.5
    rates = [peak * factor for factor in ours(400, kind="noam", warmup_steps=warmup)]
    paper = [width**-0.5 * min(step**-0.5, step * warmup**-1.5) for step in range(1, 401)]  # equation 3
    assert rates == pytest.approx(paper)
    assert max(range(400), key=rates.__getitem__) == warmup - 1
    assert [peak * factor for factor in ours(400, kind="noam", warmup_steps=41)] != pytest.approx(paper)


LOSSES = [5.0, 4.0, 4.0, 4.1, 3.9999, 4.2, 3.0, 3.1, 3.1, 3.1, 3.1, 3.1, 3.1, 3.1, 3.1, 2.0, 2.0]


@pytest.mark.parametrize(("patience", "floor"), [(0, 0.0), (1, 0.0), (2, 0.0), (2, 0.3)])
def test_plateau_equals_that_of_torch(patience: int, floor: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience, min_lr=floor, eps=0.0)
    config = ScheduleConfig(kind="plateau", gamma=0.5, patience=patience, step_size=2, final_fraction=floor)
    plateau, other = (
        Plateau(config),
        Plateau(ScheduleConfig(kind="plateau", gamma=0.5, patience=patience + 1, step_size=2)),
    )
    expected, found, control = [], [], []
    for loss in LOSSES:
        scheduler.step(loss)
        expected.append(optimizer.param_groups[0]["lr"])
        for weight in (3.0, 5.0):  # two steps a look, whose weighted mean is the loss
            plateau.observe((loss + 8.0 / weight * (1 if weight == 3.0 else -1)) * weight, weight)
            other.observe(loss * weight, weight)
        found.append(plateau.factor)
        control.append(other.factor)
    assert found == pytest.approx(expected)
    assert control != pytest.approx(expected)
    assert expected[-1] < 1.0


def test_plateau_goes_on_from_its_state_and_passes_over_what_is_not_finite() -> None:
    config = ScheduleConfig(kind="plateau", gamma=0.5, patience=1, step_size=3)
    whole, first, second = Plateau(config), Plateau(config), Plateau(config)
    for place, loss in enumerate(LOSSES * 3):
        whole.observe(loss, 1.0)
        (first if place < 10 else second).observe(loss, 1.0)
        if place == 9:
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        second.observe(math.nan, 1.0)
    assert second.state_dict() == whole.state_dict()
    assert whole.factor < 1.0 and first.state_dict() != whole.state_dict()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ScheduleConfig(kind="step", step_size=0)
    with pytest.raises(ConfigError, match=r"in \(0, 1\]"):
        ScheduleConfig(kind="step", gamma=1.5)
