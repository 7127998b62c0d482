"""Label smoothing (Szegedy et al. 2016, section 7): the target is (1 - e) one-hot + e / v."""

from __future__ import annotations

import math

import pytest
import torch

from duihua.nn.losses import cross_entropy_sum


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, 7, 12, generator=generator, requires_grad=True)
    head = torch.randn(33, 12, generator=generator, requires_grad=True)
    targets = torch.randint(33, (4, 7), generator=generator)
    weights = torch.rand(4, 7, generator=generator)
    weights[1, 3:] = 0.0
    return hidden, head, targets, weights


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("chunk_rows", [3, 1000])
def test_sum_and_gradients_are_torchs(smoothing: float, chunk_rows: int) -> None:
    hidden, head, targets, weights = case()
    total, losses = cross_entropy_sum(hidden, head, targets, weights, chunk_rows, smoothing=smoothing)
    found = torch.autograd.grad(total, (hidden, head))
    logits = (hidden @ head.t()).flatten(0, 1)
    each = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none", label_smoothing=smoothing)
    expected = (each * weights.flatten()).sum()
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-5)
    for ours, theirs in zip(found, torch.autograd.grad(expected, (hidden, head)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    plain = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none").view(4, 7)
    torch.testing.assert_close(losses, plain.detach() * (weights != 0), atol=1e-5, rtol=1e-5)
    if smoothing:
        control, _ = cross_entropy_sum(hidden, head, targets, weights, chunk_rows)
        assert abs(float(control.detach() - expected.detach())) > 0.1


def test_soft_capped_logits_are_smoothed_as_they_are_capped() -> None:
    hidden, head, targets, weights = case(1)
    total, _ = cross_entropy_sum(hidden, head, targets, weights, soft_cap=2.0, smoothing=0.2)
    gradient = torch.autograd.grad(total, hidden)[0]
    logits = (torch.tanh(hidden @ head.t() / 2.0) * 2.0).flatten(0, 1)
    each = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="none", label_smoothing=0.2)
    expected = (each * weights.flatten()).sum()
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, hidden)[0], atol=1e-5, rtol=1e-4)


def test_a_hand_case_of_two_tokens() -> None:
    hidden, head = torch.tensor([[1.0]]), torch.tensor([[math.log(3.0)], [0.0]])  # probabilities 3/4 and 1/4
    total, losses = cross_entropy_sum(hidden, head, torch.tensor([0]), torch.ones(1), smoothing=0.2)
    assert float(total) == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25), abs=1e-6)
    assert float(losses) == pytest.approx(-math.log(0.75), abs=1e-6)
