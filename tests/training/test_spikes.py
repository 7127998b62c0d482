"""Which steps are not taken, and that what was not taken leaves no trace."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duihua.errors import ConfigError, TrainingError
from duihua.training.config import OptimizerConfig, ScheduleConfig, TrainerConfig
from duihua.training.spikes import FEWEST, Spikes
from duihua.training.trainer import LossParts, Trainer


def test_a_norm_of_many_times_the_median_is_a_spike_and_the_median_does_not_follow_it() -> None:
    spikes = Spikes(5.0)
    for _ in range(FEWEST):
        assert spikes.why_not(1.0, 2.0, 1.0) == ""
    assert spikes.why_not(1.0, 10.0, 1.0) == ""  # five times the median and not more
    assert spikes.why_not(1.0, 10.1, 1.0) == "gradient norm 10.1, more than 5 times the usual 2"
    assert spikes.why_not(1.0, 100.0, 1.0)
    assert spikes.why_not(1.0, 2.0, 1.0) == ""


def test_the_first_norms_are_not_judged_and_the_rule_is_off_by_default() -> None:
    assert not any(Spikes(2.0).why_not(1.0, norm, 1.0) for norm in (1.0, 1000.0))
    off = Spikes(TrainerConfig().spike_factor)
    assert not any(off.why_not(1.0, norm, 1.0) for norm in [1.0] * FEWEST + [1e9])


def test_what_is_no_number_and_what_is_all_masked_is_never_taken() -> None:
    for factor in (0.0, 5.0):
        spikes = Spikes(factor)
        assert spikes.why_not(math.nan, 1.0, 1.0) == "loss nan, gradient norm 1.0"
        assert spikes.why_not(1.0, math.inf, 1.0) == "loss 1.0, gradient norm inf"
        assert "every target is masked" in spikes.why_not(0.0, 0.0, 0.0)
        assert spikes.state() == []


def test_a_lasting_change_is_accepted_in_the_end() -> None:
    spikes = Spikes(5.0)
    found = [bool(spikes.why_not(1.0, norm, 1.0)) for norm in [1.0] * 40 + [50.0] * 60]
    assert found[40] and not found[-1]


def test_the_last_norms_survive_a_checkpoint() -> None:
    spikes, resumed = Spikes(5.0), Spikes(5.0)
    for _ in range(FEWEST):
        spikes.why_not(1.0, 2.0, 1.0)
    resumed.load_state(json.loads(json.dumps(spikes.state())))
    assert resumed.why_not(1.0, 11.0, 1.0)


@pytest.mark.parametrize("factor", [-1.0, 0.5, 1.0, math.inf])
def test_a_factor_that_makes_no_sense_is_refused(factor: float) -> None:
    with pytest.raises(ConfigError, match="must be 0 or above 1"):
        TrainerConfig(spike_factor=factor)


# -- in the loop ------------------------------------------------------------------------------------------------------------


class Batches:
    """A row of numbers and its weight; batch 30 is a thousand times as large, 33 has no target, 36 is no number."""

    def __init__(self) -> None:
        self.number = 0

    def next(self) -> list[dict[str, Tensor]]:
        self.number += 1
        x = torch.sin(torch.arange(6.0) * self.number).view(2, 3) * (1000 if self.number == 30 else 1)
        x = torch.full_like(x, math.nan) if self.number == 36 else x
        return [{"x": x, "weights": torch.full((2,), float(self.number != 33))}]

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def loss(network: nn.Module, batch: dict[str, Tensor]) -> LossParts:
    errors = (network(batch["x"])[:, 0] - 1) ** 2
    return LossParts((errors * batch["weights"]).sum(), float(batch["weights"].sum()), {"seen": (1.0, 1.0)})


def trainer(folder: Path, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(
        nn.Linear(3, 1),
        loss,
        Batches(),
        steps=40,
        optimizer=OptimizerConfig(kind="sgd", learning_rate=0.01, momentum=0.0),
        schedule=ScheduleConfig(kind="constant", warmup_steps=0),
        config=TrainerConfig(log_every=1, checkpoint_seconds=1e9, **changes),
        directory=folder,
        label="test",
    )


def test_spikes_nan_and_masked_batches_are_skipped_counted_and_in_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = trainer(tmp_path, spike_factor=8.0)
    result = made.run()
    assert result.skipped_steps == 3
    said = capsys.readouterr().out
    assert "test: step 30 skipped: gradient norm" in said
    assert "test: step 33 skipped: there was nothing to learn from" in said
    assert "test: step 36 skipped: loss nan" in said
    lines = {line["step"]: line for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())}
    assert lines[40]["skipped_steps"] == 3
    assert "loss" not in lines[36]
    assert all(math.isfinite(value) for line in lines.values() for value in line.values())
    assert all(bool(weight.isfinite().all()) for weight in made.network.parameters())


def test_without_the_rule_the_spike_is_taken(tmp_path: Path) -> None:
    """The control: the batch that is skipped above does move the weights."""
    kept, taken = trainer(tmp_path / "a", spike_factor=8.0), trainer(tmp_path / "b")
    kept.run()
    assert taken.run().skipped_steps == 2
    assert any(
        not torch.equal(a, b) for a, b in zip(kept.network.parameters(), taken.network.parameters(), strict=True)
    )


def test_a_run_stops_with_advice_after_the_stated_number(tmp_path: Path) -> None:
    made = trainer(tmp_path, most_skipped_steps=4)
    made.loss = lambda network, batch: LossParts(loss(network, batch).sum * 0, 0.0)
    with pytest.raises(TrainingError, match="4 steps in a row could not be taken") as caught:
        made.run()
    assert "check the data" in caught.value.remedy
