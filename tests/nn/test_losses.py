"""The chunked cross-entropy against torch's own, value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duihua.nn.losses import cross_entropy_sum


def plain(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    losses = torch.nn.functional.cross_entropy((hidden @ head.T).flatten(0, -2), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum()


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(3, 5, 8, requires_grad=True)
    head = torch.randn(40, 8, requires_grad=True)
    weights = torch.rand(3, 5)
    weights[0, :3] = 0
    return hidden, head, torch.randint(0, 40, (3, 5)), weights


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
def test_value_and_gradients_equal_the_plain_way(case: tuple[Tensor, Tensor, Tensor, Tensor], chunk: int) -> None:
    hidden, head, targets, weights = case
    expected = torch.autograd.grad(plain(hidden, head, targets, weights) * 0.3, (hidden, head))
    total, each = cross_entropy_sum(hidden, head, targets, weights, chunk_rows=chunk)
    found = torch.autograd.grad(total * 0.3, (hidden, head))
    assert total.item() == pytest.approx(plain(hidden, head, targets, weights).item(), abs=1e-4)
    assert float((each * weights).sum()) == pytest.approx(float(total), abs=1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-5


def test_targets_shifted_by_one_are_told_apart(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    hidden, head, targets, weights = case
    total, _ = cross_entropy_sum(hidden, head, targets.roll(1, dims=1), weights)
    assert abs(float(total) - float(plain(hidden, head, targets, weights))) > 0.1


def test_a_target_of_vanishing_probability_has_a_finite_right_loss() -> None:
    hidden = torch.tensor([[1.0]])
    head = torch.tensor([[200.0], [0.0]])
    total, _ = cross_entropy_sum(hidden, head, torch.tensor([1]), torch.ones(1))
    assert float(total) == pytest.approx(200.0, abs=1e-3)


def test_a_frozen_head_receives_no_gradient(case: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    hidden, head, targets, weights = case
    total, _ = cross_entropy_sum(hidden, head.detach(), targets, weights)
    total.backward()
    assert hidden.grad is not None
    assert head.grad is None
