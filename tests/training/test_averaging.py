"""Snapshots: the last few are kept, their mean is the mean, and shared weights are stored once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from duihua.errors import CheckpointError
from duihua.training.averaging import Snapshots, average, put, stored_weights


class Tied(nn.Module):
    """Two names for one matrix, and a counter that is no float."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("steps", torch.tensor([0]))


def filled(value: float, steps: int = 0) -> Tied:
    network = Tied()
    nn.init.constant_(network.first.weight, value)
    network.steps.fill_(steps)
    return network


def test_the_mean_of_the_last_snapshots(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=3)
    for step, value in enumerate([100.0, 1.0, 2.0, 6.0]):
        snapshots.save(step, filled(value, step), best=value == 1.0)
    assert [path.name for path in snapshots.paths()] == [f"step-{step:08d}.safetensors" for step in (1, 2, 3)]
    mean = snapshots.averaged()
    assert torch.equal(mean["first.weight"], torch.full((2, 2), 3.0))
    assert mean["steps"].tolist() == [3]
    assert float(snapshots.best()["first.weight"][0, 0]) == 1.0
    network = filled(0.0)
    put(network, mean)
    assert network.second.weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_the_mean_is_taken_in_double_precision() -> None:
    """Negative control: adding up in single precision loses the small ones."""
    values = [1e8, 1.0, 1.0, 1.0, 1.0, -1e8]
    mean = average([{"w": torch.tensor([value])} for value in values])
    assert float(mean["w"]) == pytest.approx(4 / 6)
    assert float(sum((torch.tensor([value]) for value in values), torch.zeros(1))) / 6 != pytest.approx(4 / 6)


def test_saving_a_step_again_changes_nothing(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, keep=2)
    for value in (5.0, 5.0):
        snapshots.save(7, filled(value))
    assert len(snapshots.paths()) == 1
    assert set(stored_weights(filled(1.0))) == {"first.weight", "steps"}


def test_what_cannot_be_averaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no snapshot"):
        Snapshots(tmp_path / "none", keep=2).averaged()
    with pytest.raises(CheckpointError, match="different networks"):
        average([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])
    (tmp_path / "step-00000001.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Snapshots(tmp_path, keep=2).averaged()
    with pytest.raises(CheckpointError, match="another network"):
        put(filled(0.0), {"strange": torch.zeros(1)})
