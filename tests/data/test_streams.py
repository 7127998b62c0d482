"""Streams: rows go on where they stopped, every token is read once an epoch, and the place is kept with the state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from duihua.data.streams import ContiguousBatches
from duihua.errors import DataError


def epoch_of(batches: ContiguousBatches) -> tuple[torch.Tensor, torch.Tensor]:
    """All inputs and targets of one epoch, (rows, row_tokens)."""
    parts = [batches.next()[0] for _ in range(batches.steps_an_epoch)]
    return torch.cat([p["token_ids"] for p in parts], dim=1), torch.cat([p["targets"] for p in parts], dim=1)


def test_rows_are_contiguous_and_targets_are_one_place_on() -> None:
    ids = np.arange(103)
    batches = ContiguousBatches(ids, rows=4, length=7, seed=0)
    assert batches.row_tokens == 25
    assert batches.steps_an_epoch == 4  # 7 + 7 + 7 + 4
    for _ in range(3):
        inputs, targets = epoch_of(batches)
        assert torch.equal(
            (inputs + 1) % 103, targets
        )  # the stream is 0, 1, 2, ..., and its end is followed by its beginning
        assert torch.equal((inputs[:, :-1] + 1) % 103, inputs[:, 1:])
        assert len(inputs.unique()) == 100  # no token twice; three are left over


def test_epochs_begin_elsewhere_and_depend_on_the_seed() -> None:
    def starts(seed: int) -> list[int]:
        batches = ContiguousBatches(np.arange(103), rows=4, length=7, seed=seed)
        return [int(epoch_of(batches)[0][0, 0]) for _ in range(4)]

    assert len(set(starts(0))) > 1
    assert starts(0) == starts(0)
    assert starts(0) != starts(1)


def test_the_state_goes_with_the_place_and_ends_with_the_epoch() -> None:
    batches = ContiguousBatches(np.arange(40), rows=2, length=8, seed=0)
    assert set(batches.next()[0]) == {"token_ids", "targets"}
    batches.carry({"0.0": torch.ones(2, 3, requires_grad=True) * 2})
    kept = batches.state_dict()
    following = batches.next()[0]
    assert torch.equal(following["state.0.0"], torch.full((2, 3), 2.0))
    assert not following["state.0.0"].requires_grad
    batches.next()
    assert set(batches.next()[0]) == {"token_ids", "targets"}  # the second epoch has begun
    other = ContiguousBatches(np.arange(40), rows=2, length=8, seed=0)
    other.load_state_dict(kept)
    again = other.next()[0]
    assert all(torch.equal(again[name], following[name]) for name in following)


def test_too_little_text_is_an_error() -> None:
    with pytest.raises(DataError, match="5 tokens are too few for 4 rows"):
        ContiguousBatches(np.arange(5), rows=4, length=2, seed=0)
